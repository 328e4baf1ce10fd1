"""Plug-ins that are missing, broken, duplicated, wrong or old: who is to blame, where, and what to do about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pluggy
import pytest
from click.testing import CliRunner

from durable_monty import OrchestratorService, PluginError, Worker, hookspecs, init_db, plugins
from durable_monty.cli import main
from durable_monty.config import Config
from durable_monty.hookspecs import ExecutorSpec, hookspec
from durable_monty.loaded import LoadedExecutor
from support import functions as host
from support.workers import DEADLINE_SECONDS, running

FROZEN = (Path(__file__).parent / "kit" / "frozen" / "durable_monty_frozen.py").read_text()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution with one executor plug-in where pip would put it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    made = []

    def _install(name, source, *, distribution=None, module=None):
        module = module or f"{name}_{tmp_path.name.replace('-', '_')}"
        distribution = distribution or f"acme-{name}"
        made.append(module)
        if source is not None:
            (site / f"{module}.py").write_text(source)
        folder = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (folder / "entry_points.txt").write_text(f"[durable_monty.executors]\n{name} = {module}:Executor\n")
        return site / f"{module}.py"

    yield _install
    for module in made:
        sys.modules.pop(module, None)


def problem(plugin, **options):
    with pytest.raises(PluginError) as raised:
        plugins.load("mine", plugin, options)
    return str(raised.value)


def test_listing_names_distribution_and_version_and_imports_nothing(install):
    install("broken", "raise RuntimeError('imported')")
    rows = json.loads(CliRunner().invoke(main, ["executors", "list", "--json"]).stdout)
    row = next(row for row in rows if row["name"] == "broken")
    assert (row["distribution"], row["version"], row["problem"]) == ("acme-broken", "1.2", None)


def test_a_plug_in_that_is_not_installed_is_named_with_what_to_install():
    assert "pip install durable-monty-nonsense" in problem("nonsense")


def test_a_plug_in_that_does_not_import_is_named_with_file_and_line_distribution_and_remedy(install):
    file = install("broken", "\n\nraise RuntimeError('no luck')\n")
    text = problem("broken")
    assert "executor 'mine'" in text
    assert f"{file}:3" in text
    assert "acme-broken 1.2" in text
    assert "RuntimeError: no luck" in text
    assert "pip install --force-reinstall acme-broken" in text


@pytest.mark.parametrize("line", ["raise SystemExit(3)", "assert False, 'no luck'", "def broken(:"])
def test_a_plug_in_that_fails_in_an_odd_way_ends_nothing(install, line):
    file = install("odd", line)
    assert f"{file}:1" in problem("odd")


def test_a_plug_in_whose_requirement_is_missing_says_which_distribution_brings_it(install):
    install("needy", "import no_such_module_of_anybody")
    text = problem("needy")
    assert "no_such_module_of_anybody" in text
    assert "pip install --upgrade acme-needy" in text


def test_a_plug_in_whose_module_is_missing_is_to_be_installed_again(install):
    install("gone", None)
    assert "its own module is missing; install it again with `pip install --force-reinstall acme-gone`" in problem(
        "gone"
    )


def test_two_distributions_with_one_name_are_both_named(install):
    install("twin", FROZEN)
    install("twin", None, distribution="acme-twin-fork", module="other_twin")
    text = problem("twin")
    assert "acme-twin 1.2" in text
    assert "acme-twin-fork 1.2" in text
    assert "pip uninstall" in text
    listed = CliRunner().invoke(main, ["executors", "list"]).stdout
    assert any("acme-twin" in line and "remove one" in line for line in listed.splitlines())


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("def submit(self, calls):", "def submit(self, cals):", "argument 'cals', which it is not given; did you mean 'calls'?"),
        ("def complete(self, jobs", "def complet(self, jobs", "'complet' is marked with @hookimpl and is no hook; did you mean 'complete'?"),
        ("def check(self):", "def check(self, colour):", "argument 'colour', which it is not given; it may take: none"),
        ("interface_version = 1", "interface_version = 7", "written for interface version 7, this core has 1; run `pip install --upgrade durable-monty-core`"),
        ("interface_version = 1", "interface_version = 0", "written for interface version 0"),
        ("interface_version = 1", "interface_version = 'one'", "write `interface_version = 1`"),
        ("    Settings = Settings", "    Settings = None", "`Settings` is None; write a pydantic model there"),
        ("self.settings = settings", "raise OSError('no disk')", "raised OSError: no disk; mend the settings in [executors.mine]"),
        ("    @hookimpl\n    def poll", "    def poll", "it implements no poll; mark the method with @hookimpl"),
    ],
)  # fmt: skip
def test_a_wrong_plug_in_is_named_with_file_distribution_and_remedy(install, right, wrong, said):
    assert FROZEN.count(right) >= 1
    file = install("wrong", FROZEN.replace(right, wrong))
    text = problem("wrong")
    assert said in text
    assert str(file) in text
    assert "'wrong' of acme-wrong 1.2" in text


def test_checking_a_broken_plug_in_is_a_finding_and_the_others_are_checked(install, tmp_path):
    install("broken", "raise RuntimeError('no luck')")
    Path("durable-monty.toml").write_text("[executors.broken]\n[executors.local]\n")
    done = CliRunner().invoke(main, ["executors", "check", "--json"])
    found = {item["name"]: item["status"] for item in json.loads(done.stdout)}
    assert (done.exit_code, found) == (2, {"broken": "broken", "local": "ok"})


def test_the_schema_of_the_configuration_leaves_a_broken_plug_in_out(install):
    install("broken", "raise RuntimeError('no luck')")
    done = CliRunner().invoke(main, ["config", "schema"])
    assert done.exit_code == 0
    assert "local" in json.loads(done.stdout)["properties"]["executors"]["properties"]
    assert "no luck" in done.stderr


def test_a_broken_plug_in_holds_up_no_other_executor(install, tmp_path):
    install("broken", "raise SystemExit(3)")
    table = {"support.functions.identity": {"executor": "broken"}}
    config = Config.model_validate({"function": table})
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), config) as service:
        stuck = service.start_execution("await identity(1)", [host.identity])
        healthy = service.start_execution("await add(1, 2)", [host.add])
        with running(Worker(service)):
            assert service.wait(healthy, DEADLINE_SECONDS)["output"] == 3
        assert len(service.get_pending_calls(stuck)) == 1


class LaterSpec(ExecutorSpec):
    """The hooks of a later core: `submit` has one more argument, and there is one more hook."""

    @hookspec(firstresult=True)
    def submit(self, calls, deadline):
        raise NotImplementedError

    @hookspec(firstresult=True)
    def progress(self, jobs):
        raise NotImplementedError


def test_a_plug_in_written_against_0_2_works(install, lite_service):
    install("frozen", FROZEN)
    executor = plugins.load("mine", "frozen", {"greeting": "still here"})
    assert [finding.message for finding in executor.check()] == ["still here"]
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3


def test_a_plug_in_written_against_0_2_works_with_a_core_that_asks_for_more(install, lite_service, monkeypatch):
    install("frozen", FROZEN)
    monkeypatch.setattr(plugins, "ExecutorSpec", LaterSpec)
    executor = plugins.load("mine", "frozen", {})
    asked = []

    def submit(self, calls):
        asked.append(self._hook.progress(jobs=[]))
        return self._hook.submit(calls=calls, deadline=None)

    monkeypatch.setattr(LoadedExecutor, "submit", submit)
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert asked == [None], "nobody implements the new hook, and that is no error"


def test_a_hook_of_a_later_core_may_be_marked_as_optional(install):
    later = "    @hookimpl(optionalhook=True)\n    def progress(self, jobs):\n        return {}\n"
    install("early", FROZEN + "\n" + later)
    assert plugins.load("mine", "early", {}).check()


def test_the_interface_is_what_0_2_had():
    """Hooks and arguments may be added. One that goes, or changes its meaning, raises INTERFACE_VERSION."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(ExecutorSpec)
    first = {
        "submit": {"calls"},
        "poll": {"jobs", "wait_seconds"},
        "complete": {"jobs"},
        "start": {"context"},
        "stop": {"grace_seconds"},
        "check": set(),
        "cancel": {"jobs", "force"},
        "find": {"jobs"},
        "stats": set(),
    }
    assert hookspecs.INTERFACE_VERSION == 1
    for hook, arguments in first.items():
        assert arguments <= set(getattr(manager.hook, hook).spec.argnames), hook
