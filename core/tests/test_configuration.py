"""The configuration: where it is found, what beats what, and errors that name table, key and what to write."""

from __future__ import annotations

import json

import pytest

from durable_monty import config
from durable_monty.errors import ConfigError, PluginError
from durable_monty.plugins import load as load_plugin
from durable_monty.policies import CallPolicy


def write(folder, text, name="durable-monty.toml"):
    file = folder / name
    file.write_text(text)
    return file


def message(folder, text, environ=None):
    write(folder, text)
    with pytest.raises((ConfigError, PluginError)) as raised:
        config.load(cwd=folder, environ=environ or {})
    return str(raised.value)


def test_without_a_file_the_defaults_hold(tmp_path):
    assert config.load(cwd=tmp_path, environ={}) == config.Config()


def test_the_file_is_searched_for_upwards(tmp_path):
    write(tmp_path, "[worker]\nlease_seconds = 3")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert config.load(cwd=inner, environ={}).worker.lease_seconds == 3


def test_a_relative_database_file_is_relative_to_the_configuration(tmp_path):
    write(tmp_path, '[store]\nurl = "sqlite:///data.db"')
    inner = tmp_path / "a"
    inner.mkdir()
    assert config.load(cwd=inner, environ={}).store.url == f"sqlite:///{tmp_path / 'data.db'}"


def test_pyproject_counts_only_where_there_is_no_file_of_ours(tmp_path):
    write(tmp_path, "[tool.durable-monty.worker]\nlease_seconds = 4", "pyproject.toml")
    assert config.load(cwd=tmp_path, environ={}).worker.lease_seconds == 4
    write(tmp_path, "[worker]\npoll_interval_seconds = 2")
    assert config.load(cwd=tmp_path, environ={}).worker.lease_seconds == 15


def test_environment_variables_beat_the_file(tmp_path):
    write(tmp_path, '[store]\nurl = "sqlite:///a.db"\n[executors.local]\nworkers = 2')
    environ = {
        "DURABLE_MONTY_STORE__URL": "sqlite:////b.db",
        "DURABLE_MONTY_EXECUTORS__LOCAL__WORKERS": "7",
        "DURABLE_MONTY_FUNCTIONS": "shop.*, reports.daily",
        "DURABLE_MONTY_SIGNING_KEY": "k" * 16,
    }
    loaded = config.load(cwd=tmp_path, environ=environ)
    assert loaded.store.url == "sqlite:////b.db"
    assert loaded.plugin_of("local") == ("local", {"workers": 7})
    assert loaded.functions.allow == ["shop.*", "reports.daily"]
    assert loaded.signing_key == b"k" * 16


def test_a_file_that_does_not_parse_is_named_with_the_place(tmp_path):
    text = message(tmp_path, "[store\nurl = 1")
    assert str(tmp_path / "durable-monty.toml") in text
    assert "line 1" in text


def test_a_file_that_is_asked_for_and_missing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        config.load("other.toml", cwd=tmp_path, environ={})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[worker]\nlease_second = 3", "[worker] lease_second: unknown key; did you mean 'lease_seconds'?"),
        ("[wroker]\nlease_seconds = 3", "wroker: unknown key; did you mean 'worker'?"),
        ('[worker]\nlease_seconds = "soon"', "[worker] lease_seconds: input should be a valid number"),
        ("[worker]\nlease_seconds = -1", "[worker] lease_seconds: input should be greater than 0, found -1"),
        ("store = 3", "store"),
        ('[function."shop.charge".retry]\nattempts = 0', '[function."shop.charge".retry] attempts'),
        ('executor = "Local!"', "executor"),
    ],
)
def test_a_wrong_key_or_type_is_named_with_its_table(tmp_path, text, words):
    found = message(tmp_path, text)
    assert words in found
    assert "durable-monty.toml" in found


def test_the_error_about_a_secret_does_not_show_it(tmp_path):
    found = message(tmp_path, '[security]\nsigning_key = "hunter2"')
    assert "signing_key" in found
    assert "hunter2" not in found


def test_an_executor_that_is_not_installed_says_what_to_install(tmp_path):
    found = message(tmp_path, 'executor = "nomad"')
    assert "pip install durable-monty-nomad" in found
    assert "installed: " in found


def test_an_executor_with_a_slip_of_the_pen_gets_a_suggestion(tmp_path):
    assert "did you mean 'local'?" in message(tmp_path, 'executor = "lokal"')
    assert "did you mean 'big'?" in message(tmp_path, '[executors.big]\nplugin = "local"\n[routes]\n"a.*" = "bic"')


def test_a_setting_that_the_plug_in_does_not_have_is_named_when_it_is_loaded(tmp_path):
    write(tmp_path, "[executors.local]\nworker = 3")
    plugin, options = config.load(cwd=tmp_path, environ={}).plugin_of("local")
    with pytest.raises(ConfigError, match=r"\[executors.local\] worker: unknown key; did you mean 'workers'"):
        load_plugin("local", plugin, options)


def test_the_operator_beats_the_decorator_and_that_beats_the_routes(tmp_path):
    write(
        tmp_path,
        '[executors.a]\nplugin = "local"\n[executors.b]\nplugin = "local"\n[executors.c]\nplugin = "local"\n'
        '[routes]\n"shop.*" = "a"\n[function."shop.charge"]\nexecutor = "c"\ntimeout_seconds = 5',
    )
    loaded = config.load(cwd=tmp_path, environ={})
    own = CallPolicy(executor="b", timeout_seconds=9)
    assert loaded.complete("shop.charge", own).executor == "c"
    assert loaded.complete("shop.charge", own).timeout_seconds == 5
    assert loaded.complete("shop.other", own).executor == "b"
    assert loaded.complete("shop.other", CallPolicy()).executor == "a"
    assert loaded.complete("elsewhere.f", CallPolicy()).executor == "local"


def test_what_is_shown_hides_secrets(tmp_path):
    write(
        tmp_path,
        '[store]\nurl = "postgresql://me:hunter2@host/db"\n[security]\nsigning_key = "hunter2hunter2hunter2"\n'
        '[executors.local]\napi_key = "hunter2"',
    )
    shown = json.dumps(config.to_display(config.load(cwd=tmp_path, environ={})))
    assert "hunter2" not in shown
    assert "postgresql://me:***@host/db" in shown
