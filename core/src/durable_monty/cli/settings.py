"""`executors`, `config` and `db`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from durable_monty.cli.output import (
    UNUSABLE,
    Group,
    config_option,
    fail,
    json_option,
    json_text,
    open_service,
    print_json,
    print_table,
    say,
    set_up_logging,
)

if TYPE_CHECKING:
    from durable_monty.config import Config
    from durable_monty.faults import PluginInfo
    from durable_monty.models import Finding


@click.group(cls=Group)
def executors() -> None:
    """What is installed and configured to run functions."""


@executors.command("list")
@json_option
@config_option
def list_executors(as_json: bool, config_path: str | None) -> None:
    """List configured executors and installed plug-ins; loads none of them."""
    from durable_monty import config, plugins

    chosen = config.load(config_path)
    installed = plugins.available()
    used = {name: chosen.plugin_of(name)[0] for name in chosen.executors}
    used |= {name: name for name in installed if name not in used}
    rows = []
    for name, plugin in sorted(used.items()):
        info = installed.get(plugin)
        rows.append(
            {
                "name": name,
                "plugin": plugin,
                "distribution": info.distribution if info else None,
                "version": info.version if info else None,
                "is_default": name == chosen.executor,
                "problem": _problem(plugin, info),
            }
        )
    if as_json:
        print_json(rows)
        return
    print_table(
        ("executor", "plug-in", "distribution", "version", ""),
        [
            (
                row["name"],
                row["plugin"],
                row["distribution"] or "not installed",
                row["version"],
                _remark(row),
            )
            for row in rows
        ],
    )


@executors.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
@config_option
def check_executors(names: Sequence[str], as_json: bool, config_path: str | None) -> None:
    """Ask executors whether they can work: every configured one, or those named.

    Exits with 2 if one of them cannot.
    """
    from durable_monty import config

    set_up_logging(verbose=False)
    chosen = config.load(config_path)
    named = list(names) or sorted({*chosen.executors, *chosen.executor_names()})
    results = [_checked(chosen, name) for name in named]
    if as_json:
        print_json([item for item, _ in results])
    else:
        for item, findings in results:
            say(f"{item['name']} ({item['plugin']}): {item['status']}")
            for finding in findings:
                remedy = f"; {finding.remedy}" if finding.remedy else ""
                say(f"  {finding.level}: {finding.message}{remedy}")
    if any(item["status"] == "broken" for item, _ in results):
        sys.exit(UNUSABLE)


def _remark(row: dict[str, Any]) -> str:
    return "; ".join([*(["default"] if row["is_default"] else []), *([row["problem"]] if row["problem"] else [])])


def _problem(plugin: str, info: PluginInfo | None) -> str | None:
    """What the metadata alone says to be wrong with a plug-in."""
    if info is None:
        return f"run `pip install durable-monty-{plugin}`"
    return f"also in {', '.join(info.rivals)}: remove one" if info.rivals else None


def _checked(chosen: Config, name: str) -> tuple[dict[str, Any], list[Finding]]:
    from durable_monty import plugins
    from durable_monty.errors import ConfigError, PluginError
    from durable_monty.models import Finding

    plugin, options = chosen.plugin_of(name)
    try:
        findings = plugins.load(name, plugin, options).check()
    except (PluginError, ConfigError) as error:
        findings = [Finding("error", str(error))]
    is_broken = any(finding.level == "error" for finding in findings)
    shown = [{"level": item.level, "message": item.message, "remedy": item.remedy} for item in findings]
    return {"name": name, "plugin": plugin, "status": "broken" if is_broken else "ok", "findings": shown}, findings


@click.group(cls=Group)
def config() -> None:
    """The configuration in force."""


@config.command("show")
@json_option
@config_option
def show_config(as_json: bool, config_path: str | None) -> None:
    """Print every key with its value; secrets are masked."""
    from durable_monty import config

    shown = config.to_display(config.load(config_path))
    if as_json:
        print_json(shown)
    else:
        for line in _toml_lines(shown, ()):
            say(line)


@config.command("check")
@json_option
@config_option
def check_config(as_json: bool, config_path: str | None) -> None:
    """Check the configuration, with the settings of every executor and observer it names.

    Exits with 2 if it cannot be used.
    """
    from pathlib import Path

    from durable_monty import config, observers, plugins

    chosen = config.load(config_path)
    for name in sorted({*chosen.executors, *chosen.executor_names()}):
        plugins.load(name, *chosen.plugin_of(name))
    for name in chosen.observe:
        observers.load(name, *chosen.observer_plugin_of(name))
    file = config_path or config.find(Path.cwd())
    if as_json:
        print_json({"file": str(file) if file else None, "status": "ok"})
    else:
        say(f"ok: {file or 'no configuration file, the defaults hold'}")


@config.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file, installed plug-ins included."""
    from durable_monty import config, observers, plugins

    executors = _settings(plugins.available(), plugins.plugin_class, "an executor")
    print_json(config.json_schema(executors, _settings(observers.available(), observers.observer_class, "an observer")))


def _settings(names: Iterable[str], class_of: Callable[[str], Any], what: str) -> dict[str, Any]:
    """The settings model of each plug-in; one that does not load is named and left out."""
    from durable_monty.errors import PluginError

    found = {}
    for name in names:
        try:
            found[name] = class_of(name).Settings
        except PluginError as error:
            say(f"warning: the schema lacks the settings of {what}: {error}", err=True)
    return found


@click.group(cls=Group)
def db() -> None:
    """The database's schema."""


@db.command("upgrade")
@config_option
def upgrade(config_path: str | None) -> None:
    """Bring the database to the schema of this version."""
    from durable_monty import config
    from durable_monty.store import HEAD, open_store

    chosen = config.load(config_path)
    store = open_store(chosen.store.url, synchronous=chosen.store.synchronous)
    say(f"{store.url}: {HEAD}")


@db.command("reencrypt")
@click.option("--plain", is_flag=True, help="Decrypt everything instead.")
@config_option
def reencrypt(plain: bool, config_path: str | None) -> None:
    """Rewrite what is stored with the current encryption key, and print how many rows.

    Workers may run meanwhile. Killed at any moment, the same command goes on.
    """
    service = open_service(config_path)
    if service.runtime.config.cipher_name is None:
        fail("rewriting what is stored: no encryption is configured; set [security] encryption_key")
    if service.runtime.config.encryption_keys.current is not None and plain:
        fail(
            "decrypting what is stored: [security] encryption_key is set, so that workers encrypt; move the key to "
            "previous_encryption_keys everywhere before"
        )
    click.echo(sum(service.runtime.store.reencrypt(is_plain=plain)))


@db.command("current")
@json_option
@config_option
def current(as_json: bool, config_path: str | None) -> None:
    """Print the database's schema revision; changes nothing."""
    from durable_monty import config
    from durable_monty.store import HEAD, current_revision

    found = current_revision(config.load(config_path).store.url)
    if as_json:
        print_json({"current": found, "newest": HEAD})
    else:
        say(f"{found or 'none'} (newest: {HEAD})")


def _toml_lines(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"[{'.'.join(map(_key, path))}]"] if path and plain else []
    for key, value in plain.items():
        lines.append(f"# {key} is not set" if value is None else f"{_key(key)} = {json_text(value)}")
    if lines:
        lines.append("")
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _toml_lines(value, (*path, key))
    return lines


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json_text(key)
