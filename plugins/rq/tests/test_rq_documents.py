"""The pages about the RQ executor are true: what they show runs on a real server, and no setting is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config
from durable_monty_rq import RQSettings
from support import servers
from support.workers import eventually

ROOT = Path(__file__).parent.parent.parent.parent
PAGE = ROOT / "docs" / "howto" / "rq.md"
EXAMPLE = ROOT / "docs" / "examples" / "rq"
SCRIPTS = Path(sys.executable).parent


def blocks(page, language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)


def run(*command, environment):
    return subprocess.run(
        [SCRIPTS / command[0], *command[1:]],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    ).stdout


def test_every_setting_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE))
    assert set(rows) == set(RQSettings.model_fields)
    for name, field in RQSettings.model_fields.items():
        default = field.default
        if isinstance(default, int | float | str):
            shown = str(int(default)) if isinstance(default, float) else str(default)
            assert rows[name].strip("`") == shown, name


def test_every_configuration_shown_is_one():
    for block in blocks(PAGE, "toml"):
        config = Config.model_validate(tomllib.loads(block))
        for table in config.executors.values():
            RQSettings.model_validate(table.options)


def test_the_script_runs(valkey, start_rq_worker, tmp_path):
    module, script = blocks(PAGE, "python")
    (tmp_path / "doubling.py").write_text(module)
    (tmp_path / "script.py").write_text(script.replace('"my-queue"', f'"my-queue", redis_url="{valkey.url}"'))
    start_rq_worker(valkey.url, "my-queue", "-w", "rq.SimpleWorker", environment={"PYTHONPATH": str(tmp_path)})
    assert run("python", "script.py", environment={"PYTHONPATH": str(tmp_path)}) == "42\n"


@pytest.mark.examples
@pytest.mark.timeout(300)
def test_the_example_runs_step_by_step_and_survives_kills(tmp_path, monkeypatch, start_rq_worker):
    """The commands of its page, with the port of a server of the test's own in place of the usual one."""
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    monkeypatch.chdir(folder)
    commands = [line.strip() for block in blocks(EXAMPLE / "README.md", "sh") for line in block.splitlines()]
    assert [command for command in commands if command] == [
        "redis-server --appendonly yes",
        "PYTHONPATH=. rq worker thumbnails",
        "PYTHONPATH=. rq worker thumbnails",
        "durable-monty executors check rq",
        "durable-monty worker",
        "durable-monty start thumbnails.py --input count=300 --id album",
        "durable-monty show album",
        "durable-monty result album",
    ]
    with servers.valkey(keeps_data=True) as server:
        environment = {"DURABLE_MONTY_EXECUTORS__RQ__REDIS_URL": server.url}
        start = ("durable-monty", "start", "thumbnails.py", "--input", "count=300", "--id")

        def start_worker():
            return subprocess.Popen([SCRIPTS / "durable-monty", "worker"], env={**os.environ, **environment})

        service = OrchestratorService(init_db(f"sqlite:///{folder / 'thumbnails.db'}"), Config())

        rq = [start_rq_worker(server.url, "thumbnails", environment={"PYTHONPATH": str(folder)}) for _ in range(2)]
        checked = run("durable-monty", "executors", "check", "rq", environment=environment)
        assert "rq (rq): ok" in checked
        assert "2 workers listen on the queue 'thumbnails'" in checked
        worker = start_worker()
        try:
            assert run(*start, "album", environment=environment) == "album\n"
            assert service.wait("album", 120)["status"] == "completed"
            (shown,) = blocks(EXAMPLE / "README.md", "console")
            assert json.loads(run("durable-monty", "result", "album", environment=environment)) == json.loads(shown)

            run(*start, "killed", environment=environment)
            eventually(lambda: service.runtime.store.count_calls("killed").get("completed", 0) > 20)
            worker.kill()
            worker.wait()
            rq[0].kill()
            rq[0].wait()
            server.kill()
            server.start()
            worker = start_worker()
            for _ in range(2):
                start_rq_worker(server.url, "thumbnails", environment={"PYTHONPATH": str(folder)})
            assert service.wait("killed", 120)["status"] == "completed"
            result = json.loads(run("durable-monty", "result", "killed", environment=environment))
            assert result["thumbnails"] == 300
        finally:
            worker.kill()
            worker.wait()
            service.close()
