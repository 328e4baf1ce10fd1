"""A secret of the configuration is in no log, error, traceback, `repr` or output."""

from __future__ import annotations

import contextlib
import json
import logging
import traceback

import pytest
from click.testing import CliRunner

from durable_monty import OrchestratorService, Worker, config, init_db, plugins
from durable_monty.cli import main
from hostile.test_terminal import logging_as_before  # noqa: F401  # a fixture
from support import functions as host

SECRET = "hunter2-Zx9" * 3
DEAD = "127.0.0.1:1"

# What is set, in the file or in the environment; and whether a service can be opened with it.
SETTINGS: dict[str, tuple[str, dict[str, str], bool]] = {
    "database password": (f'[store]\nurl = "postgresql://u:{SECRET}@{DEAD}/d"', {}, False),
    "database password with signs": (f'[store]\nurl = "postgresql://u:a%40{SECRET}%2Fb@{DEAD}/d"', {}, False),
    "database password as a parameter": (f'[store]\nurl = "postgresql://{DEAD}/d?user=u&password={SECRET}"', {}, False),
    "key's password as a parameter": (f'[store]\nurl = "postgresql://{DEAD}/d?sslpassword={SECRET}&x=1"', {}, False),
    "database URL that is none": (f'[store]\nurl = "postgresql//u:{SECRET}@{DEAD}/d"', {}, False),
    "database URL with a bad port": (f'[store]\nurl = "postgresql://u:{SECRET}@{DEAD}x/d"', {}, False),
    "database of another kind": (f'[store]\nurl = "mysql://u:{SECRET}@{DEAD}/d"', {}, False),
    "database password of the environment": ("", {"STORE__URL": f"postgresql://u:{SECRET}@{DEAD}/d"}, False),
    "database URL as a list": (f'[store]\nurl = ["postgresql://u:{SECRET}@{DEAD}/d"]', {}, False),
    "signing key": (f'[security]\nsigning_key = "{SECRET}"', {}, True),
    "signing key of the environment": ("", {"SIGNING_KEY": SECRET}, True),
    "short signing key": ("", {"SIGNING_KEY": SECRET[:11]}, False),
    "signing key in a list": (f'[security]\nsigning_key = ["{SECRET}"]', {}, False),
    "signing key as a table": (f'[security]\nsigning_key = "{SECRET}"', {"SECURITY__SIGNING_KEY__X": "1"}, False),
    "database URL as a table": (f'[store]\nurl = "x://u:{SECRET}@h"', {"STORE__URL__X": "1"}, False),
    "misspelt signing key": (f'[security]\nsigning_kee = "{SECRET}"', {}, False),
    "signing key at the top": (f'signing_key = "{SECRET}"', {}, False),
    "Redis URL": (f'executor = "rq"\n[executors.rq]\nredis_url = "redis://u:{SECRET}@{DEAD}/0"', {}, True),
    "Redis URL that is none": (f'executor = "rq"\n[executors.rq]\nredis_url = "http://u:{SECRET}@{DEAD}/0"', {}, True),
    "Redis password": (
        f'executor = "rq"\n[executors.rq]\nredis_url = "redis://{DEAD}"\nredis_password = "{SECRET}"',
        {},
        True,
    ),
    "Redis password in a list": (f'executor = "rq"\n[executors.rq]\nredis_password = ["{SECRET}"]', {}, True),
    "plug-in that is not installed": (
        (
            f'[executors.mine]\nplugin = "nobody"\napi_key = "{SECRET}"\ncredentials = {{a = "{SECRET}"}}\n'
            f'auth_token = ["{SECRET}"]\nendpoint = "https://u:{SECRET}@h/"\nprivate_key = "{SECRET}"'
        ),
        {},
        True,
    ),
    "AWS keys": (
        (
            f'executor = "lambda"\n[executors.lambda]\nfunction_name = "f"\nregion = "eu-west-1"\n'
            f'endpoint_url = "http://{DEAD}"'
        ),
        {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SECRET},
        True,
    ),
    "Modal token": (
        'executor = "modal"',
        {"MODAL_TOKEN_ID": f"ak-{SECRET}", "MODAL_TOKEN_SECRET": SECRET, "MODAL_SERVER_URL": f"http://{DEAD}"},
        True,
    ),
}


def representations(item, depth=2):
    """The `repr` of an object and of what it holds; of the texts that it holds, not: they are not said to be secret."""
    if isinstance(item, str | bytes):
        return
    yield repr(item)
    if depth:
        held = item.values() if isinstance(item, dict) else getattr(item, "__dict__", {}).values()
        for value in held:
            yield from representations(value, depth - 1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    store = init_db(f"sqlite:///{tmp_path_factory.mktemp('secrets') / 'shared.db'}", synchronous="NORMAL")
    yield store
    store.close()


@pytest.fixture
def told(tmp_path, monkeypatch, caplog, shared, logging_as_before):  # noqa: F811
    """Everything that comes out of using a configuration."""

    def use(name):
        text, environment, is_usable = SETTINGS[name]
        (tmp_path / "durable-monty.toml").write_text(text)
        for variable, value in environment.items():
            monkeypatch.setenv(
                variable if "_" in variable and variable[:3] in ("AWS", "MOD") else f"DURABLE_MONTY_{variable}", value
            )
        out = []
        caplog.set_level(logging.DEBUG)
        for arguments in (["config", "show"], ["config", "show", "--json"], ["config", "check"]):
            done = CliRunner().invoke(main, arguments)
            out += [done.output, "".join(traceback.format_exception(done.exception)) if done.exception else ""]
        try:
            chosen = config.load()
            out += [repr(chosen), str(chosen), json.dumps(config.to_display(chosen))]
            for executor in chosen.executors or [chosen.executor]:
                with contextlib.suppress(Exception):
                    loaded = plugins.load(executor, *chosen.plugin_of(executor))
                    out += [
                        repr(loaded),
                        *representations(loaded.implementation),
                        repr(loaded.check() if loaded.plugin != "modal" else ""),
                    ]
                try:
                    plugins.load(executor, *chosen.plugin_of(executor))
                except Exception:
                    out.append(traceback.format_exc())
            # The database of the tests before serves as well; opening one of its own takes longer than all the rest.
            store = shared if chosen.store.url.startswith("sqlite:///durable-monty.db") else init_db(chosen.store.url)
            with contextlib.nullcontext(OrchestratorService(store, chosen)) as service:
                out += [*representations(service.runtime, 2), *representations(service.runtime.store, 1)]
                id_ = service.start_execution("await add(1, 2)", [host.add])
                if chosen.executor == "local":
                    Worker(service, poll_interval=0.05).run(until_complete=True)
                else:
                    service.cancel(id_)
                out.append(repr(service.get_execution(id_)))
                service.runtime.engine.release_all()
                service.runtime.interpreter.close()
            assert is_usable
        except Exception:
            assert not is_usable, traceback.format_exc()
            out.append(traceback.format_exc())
        return "\n".join([*out, caplog.text, *(repr(vars(record)) for record in caplog.records)])

    return use


@pytest.mark.parametrize("name", SETTINGS)
def test_a_secret_never_comes_out(told, name):
    text = told(name)
    assert "configuration" in text or "store" in text, "something was said"
    for part in (SECRET, SECRET[:11]):
        at = text.find(part)
        assert at < 0, text[max(at - 300, 0) : at + 60]
