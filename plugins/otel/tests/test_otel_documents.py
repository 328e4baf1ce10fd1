"""The page about observers is true: what it shows runs and prints what it says, and no setting or metric is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import load
from durable_monty_otel import OtelSettings
from durable_monty_otel.metrics import Metrics

ROOT = Path(__file__).parent.parent.parent.parent
PAGE = ROOT / "docs" / "howto" / "observe.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("index", [0, 1])
def test_the_scripts_print_what_the_page_says(tmp_path, index):
    (tmp_path / "script.py").write_text(blocks("python")[index])
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == blocks("text")[index]


def test_the_observer_with_settings_is_found_and_configured(tmp_path, monkeypatch, capsys):
    first, entry_points, configuration = blocks("toml")
    assert tomllib.loads(first) == {"observe": ["otel"]}
    named = tomllib.loads(entry_points)["project"]["entry-points"]["durable_monty.observers"]
    info = tmp_path / "acme_alarm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-alarm\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[durable_monty.observers]\nalarm = {named['alarm']}\n")
    (tmp_path / "acme_alarm.py").write_text(blocks("python")[2])
    (tmp_path / "durable-monty.toml").write_text(configuration)
    monkeypatch.syspath_prepend(str(tmp_path))
    with OrchestratorService(init_db("sqlite:///a.db"), load()) as service:
        service.start_execution("1 + 1", [])
        Worker(service).run(until_complete=True)
    assert capsys.readouterr().out.startswith("#orders [<ExecutionStatus.COMPLETED")
    sys.modules.pop("acme_alarm")


@pytest.mark.parametrize("page", [PAGE, ROOT / "docs" / "reference" / "configuration.md"], ids=lambda page: page.stem)
def test_every_setting_is_documented(page):
    text = page.read_text()
    rows = re.findall(r"^\| `(\w+)` \|", text[text.index("`[observers.otel]`") :], re.MULTILINE)
    assert rows == list(OtelSettings.model_fields)


def test_every_metric_is_documented():
    reader = InMemoryMetricReader()
    Metrics(meter := MeterProvider([reader]).get_meter("durable_monty"))
    made = {instrument.name for instrument in meter._instrument_id_instrument.values()}
    assert set(re.findall(r"^\| `(durable_monty\.[\w.]+)` \|", PAGE.read_text(), re.MULTILINE)) == made
