"""Workflows through the Modal executor: configuration, real worker processes, real deployments."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import durable_monty
import durable_monty_modal
from durable_monty import ConfigError, OrchestratorService, Worker, config, init_db
from durable_monty_modal.app import build_app
from support import functions as host
from support.modal_server import ModalServer, serving
from support.workers import DEADLINE_SECONDS, eventually, running

ROOT = Path(__file__).parents[3]
SCRIPTS = Path(sys.executable).parent
KEY = "a key of sixteen characters"
APP = """
from durable_monty_modal.app import build_app

app = build_app(
    "shop",
    modules=["modal_functions"],
    packages=["httpx"],
    allow=["modal_functions.undecorated"],
    secrets=["durable-monty"],
    sizes=[{"timeout": 20}],
    max_containers=7,
)
"""
SHOP = """
executor = "modal"

[executors.modal]
app = "shop"

[executors.gpu]
plugin = "modal"
app = "shop"

[functions]
allow = ["modal_functions.*"]
"""


@pytest.fixture
def server(monkeypatch):
    with serving() as made:
        use(monkeypatch, made)
        yield made


def use(monkeypatch, server):
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)


def configured(tmp_path, text):
    (tmp_path / "durable-monty.toml").write_text(text)
    chosen = config.load(cwd=tmp_path)
    return OrchestratorService(init_db(f"sqlite:///{tmp_path / 'a.db'}", synchronous="NORMAL"), chosen)


def result_of(service, code, functions, inputs=None):
    execution_id = service.start_execution(code, functions, inputs)
    Worker(service).run(until_complete=True)
    return service.get_result(execution_id)


def test_a_workflow_runs_through_an_executor_that_the_configuration_names(server, tmp_path):
    code = """
from asyncio import gather

try:
    await out_of_stock()
except LookupError as error:
    caught = str(error)
[await gather(*[add(i, 1) for i in range(5)]), caught, await fail_until_third()]
"""
    with configured(tmp_path, 'executor = "modal"') as service:
        found = result_of(service, code, [host.add, host.out_of_stock, host.fail_until_third])
    assert found == [[1, 2, 3, 4, 5], "OutOfStock: no more apples", 3]


def test_a_timeout_is_a_timeout_error_in_the_workflow(server, tmp_path):
    """`too_slow` allows itself 0.2 s; Modal's smallest timeout is 1 s."""
    server.deploy(name="run-timeout-1-1b03827a", timeout_seconds=0.3)
    code = "try:\n    await too_slow()\nexcept TimeoutError as error:\n    found = str(error)\nfound"
    with configured(tmp_path, 'executor = "modal"') as service:
        assert "timeout" in result_of(service, code, [host.too_slow])


def test_signed_calls_run_where_the_key_is_and_nowhere_else(server, tmp_path):
    server.deploy("signed", environment={"DURABLE_MONTY_SIGNING_KEY": KEY})
    text = f'executor = "modal"\n[security]\nsigning_key = "{KEY}"\n[executors.modal]\napp = '
    with configured(tmp_path, f'{text}"signed"') as service:
        assert result_of(service, "await add(1, 2)", [host.add]) == 3
    code = "try:\n    await add(1, 2)\nexcept RuntimeError as error:\n    found = str(error)\nfound"
    server.deploy("other", environment={"DURABLE_MONTY_SIGNING_KEY": KEY[::-1]})
    with configured(tmp_path, f'{text}"other"') as service:
        assert result_of(service, code, [host.add]).startswith("refused: ")


def test_cancelling_an_execution_cancels_its_calls_at_modal(server, tmp_path):
    with configured(tmp_path, 'executor = "modal"') as service:
        execution_id = service.start_execution("await sleep(60)", [host.sleep])
        with running(Worker(service, poll_interval=0.05)):
            eventually(lambda: [item for item in server.plane.calls.values() if item.container])
            service.cancel(execution_id)
            assert service.wait(execution_id, DEADLINE_SECONDS)["status"] == "cancelled"
            eventually(lambda: all(item.result is not None for item in server.plane.calls.values()))
    assert server.plane.rpcs["FunctionCallCancel"] == 1


def test_a_call_goes_on_while_its_worker_is_killed_and_is_found_by_its_token(server, tmp_path):
    """The next worker knows nothing but the database."""
    begun, release = tmp_path / "begun", tmp_path / "release"
    with configured(tmp_path, 'executor = "modal"\n[store]\nurl = "sqlite:///a.db"') as service:
        inputs = {"begun": str(begun), "release": str(release)}
        execution_id = service.start_execution("await hold(begun, release)", [host.hold], inputs)
        command = [SCRIPTS / "durable-monty", "worker"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(begun.exists)
            eventually(lambda: service.runtime.store.calls(execution_id)[0].token)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        release.touch()
        Worker(service).run(until_complete=True)
        assert service.get_result(execution_id) == 1
    assert begun.read_text().split() == ["1"], "it ran once"
    assert server.plane.started == 1


# Deploying


def deployed(server, folder):
    (folder / "modal_app.py").write_text(APP)
    environment = {**os.environ, **server.variables, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        [SCRIPTS / "modal", "deploy", "modal_app.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "App deployed" in done.stdout
    return {name: function for (app, name), function in server.plane.published.items() if app == "shop"}


def test_the_real_modal_deploy_takes_the_app_and_its_functions_then_run_calls(monkeypatch, tmp_path):
    """From the five lines to the results, with resources and timeouts as `@function` says."""
    import modal_functions

    code = "[await undecorated(1), await quick(1), await render(7)]"
    functions = [modal_functions.undecorated, modal_functions.quick, modal_functions.render]
    with ModalServer() as server:
        use(monkeypatch, server)
        by_name = deployed(server, tmp_path)
        rendering = "run-cpu-2-0-gpu-A10G-memory-4096-timeout-600-9c8df54a"
        assert {name: function.timeout_secs for name, function in by_name.items()} == {
            "run": 300,
            "run-timeout-2-0455d177": 2,
            "run-timeout-20-a23b2cdd": 20,
            rendering: 600,
        }
        resources = by_name[rendering].resources
        assert (resources.gpu_config.gpu_type, resources.milli_cpu, resources.memory_mb) == ("A10G", 2000, 4096)
        assert {function.autoscaler_settings.max_containers for function in by_name.values()} == {7}
        assert {(item.module_name, item.implementation_name) for item in by_name.values()} == {
            ("durable_monty_modal.remote", "run")
        }
        environment = server.plane.image_environment(by_name["run"].image_id)
        assert "modal_functions.undecorated" in environment["DURABLE_MONTY_FUNCTIONS"]
        with configured(tmp_path, SHOP) as service:
            assert result_of(service, code, functions) == [-1, 2, "frame 7"]
        ran = [call.function.id for call in server.plane.calls.values()]
        assert ran == [server.plane.functions["shop", name].id for name in ("run", "run-timeout-2-0455d177", rendering)]


@pytest.mark.slow
def test_a_function_that_the_app_does_not_allow_is_refused_there(monkeypatch, tmp_path):
    with ModalServer() as server:
        use(monkeypatch, server)
        deployed(server, tmp_path)
        code = "try:\n    await add(1, 2)\nexcept RuntimeError as error:\n    found = str(error)\nfound"
        with configured(tmp_path, SHOP) as service:
            found = result_of(service, code, [host.add])
    assert found.startswith("refused: ")
    assert "DURABLE_MONTY_FUNCTIONS" in found


def test_resources_that_modal_has_no_word_for_are_an_error_before_anything_is_deployed(monkeypatch, tmp_path):
    source = "from durable_monty import function\n\n@function(resources={'wings': 2})\ndef fly() -> None: ...\n"
    (tmp_path / "odd_shop.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"resources of 'odd_shop\.fly' hold 'wings'; Modal takes cloud, cpu"):
        build_app("shop", modules=["odd_shop"])


def test_an_app_that_would_run_nothing_is_an_error():
    with pytest.raises(ConfigError, match="no @function in json"):
        build_app("shop", modules=["json"])


# The how-to


def blocks(language):
    page = (ROOT / "docs" / "howto" / "modal.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_how_to_leads_to_a_finished_execution(monkeypatch, tmp_path):
    """Its files and its commands, in its order; only the account is another one."""
    shop, app, *_ = blocks("python")
    (toml, *_) = blocks("toml")
    (tmp_path / "shop.py").write_text(shop)
    (tmp_path / "modal_app.py").write_text(app)
    (tmp_path / "durable-monty.toml").write_text(toml)
    console = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    with ModalServer() as server:
        use(monkeypatch, server)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        for command in ("modal deploy modal_app.py", "durable-monty executors check", "durable-monty run shop.py"):
            (line,) = [line for line in console if line.startswith(command)]
            program, *arguments = shlex.split(line)
            done = subprocess.run(
                [SCRIPTS / program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines() == console[-len(done.stdout.splitlines()) :], "it prints what the page says"
        names = {name for app, name in server.plane.published if app == "shop"}
        page = (ROOT / "docs" / "howto" / "modal.md").read_text()
        assert names
        assert not [name for name in names if f"`{name}`" not in page]


def test_every_setting_is_on_the_page():
    page = (ROOT / "docs" / "howto" / "modal.md").read_text()
    assert not [name for name in durable_monty_modal.ModalSettings.model_fields if f"`{name}`" not in page]


# Importing


def test_the_executor_for_scripts_is_had_from_the_core():
    assert durable_monty.ModalExecutor is durable_monty_modal.ModalExecutor
    assert durable_monty_modal.ModalExecutor("shop", environment="dev").settings.environment == "dev"


def test_a_worker_that_configures_no_modal_imports_no_modal(tmp_path):
    (tmp_path / "shop.py").write_text(
        "from durable_monty import function, workflow\n\n"
        "@function\ndef price(n: int) -> int:\n    import sys\n    return len([m for m in sys.modules if 'modal' in m])\n\n"
        "@workflow\nasync def order() -> int:\n    return await price(1)\n"
    )
    command = [SCRIPTS / "durable-monty", "run", "shop.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_a_container_needs_neither_modal_nor_pydantic():
    """`-I -S`: no site-packages at all; only the two distributions' own sources are on the path."""
    code = f"""
import sys
sys.path[:0] = [{str(ROOT / "core" / "src")!r}, {str(ROOT / "plugins" / "modal" / "src")!r}]
from durable_monty_modal.remote import make_probe, run
print(run(make_probe(["no_such.thing"])))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert list(answer["missing"]) == ["no_such.thing"]


# The census


@pytest.mark.examples
@pytest.mark.timeout(300)
def test_the_census_gives_the_same_through_modal_as_through_the_local_executor(server, tmp_path):
    example = ROOT / "docs" / "examples" / "census"
    server.deploy("census", environment={"PYTHONPATH": str(example)}, max_containers=2)
    results = {}
    for name in ("local", "modal"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "durable-monty.toml").write_text(f'executor = "{name}"\n')
        if name == "modal":
            (folder / "durable-monty.toml").write_text('executor = "modal"\n[executors.modal]\napp = "census"\n')
        command = [SCRIPTS / "durable-monty", "run", example / "census.py", "--input", "limit=100"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results[name] = json.loads(done.stdout)
    assert results["modal"] == results["local"]
    assert results["modal"]["files"] == 100
    assert server.plane.started == 101, "the list, and each file once"
