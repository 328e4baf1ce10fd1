"""The pre-flight check: token, server, app, functions, and what a container has."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version

import modal

from durable_monty.errors import ConfigError
from durable_monty.models import Finding
from durable_monty_modal import remote
from durable_monty_modal.connection import Connection, Unreachable
from durable_monty_modal.failures import AWAY, NOT_ADMITTED
from durable_monty_modal.settings import ModalSettings

_CONNECT_SECONDS = 10.0


async def check(connection: Connection, settings: ModalSettings) -> list[Finding]:
    """See `ExecutorSpec.check`."""
    try:
        await connection.greet(_CONNECT_SECONDS)
    except Unreachable as error:
        return [Finding("error", str(error), "look at https://status.modal.com, the network, and MODAL_SERVER_URL")]
    except ConfigError as error:
        return [Finding("error", str(error), "run `modal token new`, or set the variables")]
    except NOT_ADMITTED as error:
        text = f"Modal at {connection.where} does not accept the token: {error}"
        remedy = f"run `modal token new`, or set {settings.token_id_env} and {settings.token_secret_env}"
        return [Finding("error", text, remedy)]
    findings = [Finding("info", f"Modal at {connection.where} accepts the token")]
    try:
        await connection.look_up(settings.function)
    except modal.exception.NotFoundError as error:
        where = f" in environment {settings.environment!r}" if settings.environment else ""
        text = f"the app {settings.app!r}{where} has no function {settings.function!r}: {error}"
        remedy = "run `modal deploy` on the module that builds the app, or correct app, function and environment"
        return [*findings, Finding("error", text, remedy)]
    findings.append(Finding("info", f"the app {settings.app!r} has the function {settings.function!r}"))
    if not settings.check_starts_container:
        return [*findings, Finding("info", "no container was started to look inside (check_starts_container = false)")]
    return findings + await _probed(connection, settings)


async def _probed(connection: Connection, settings: ModalSettings) -> list[Finding]:
    """What a container answers about itself."""
    try:
        token = await connection.spawn(settings.function, remote.make_probe(settings.check_functions).encode())
        reply = await connection.get(token, settings.check_seconds)
        answer = json.loads(reply)
        remote_version, missing, is_signed = answer["version"], answer["missing"], answer["is_signed"]
    except TimeoutError:
        text = f"no container answered within {settings.check_seconds:.0f} s"
        return [Finding("warning", text, "look at the app's logs (`modal app logs`), or raise check_seconds")]
    except asyncio.CancelledError:
        raise
    except AWAY as error:
        return [Finding("error", f"Modal stopped answering: {error}", "look at https://status.modal.com")]
    except Exception as error:  # noqa: BLE001 - whatever the function at the other end is, it may answer anything
        text = f"the function {settings.function!r} does not answer as one of ours: {type(error).__name__}: {error}"
        return [Finding("error", text, "deploy an app of `durable_monty_modal.app.build_app`; see `modal app logs`")]
    own = version("durable-monty-core")
    findings = [Finding("info", f"a container has durable-monty-core {remote_version}")]
    if remote_version != own:
        text = f"a container has durable-monty-core {remote_version}, this machine has {own}"
        findings.append(Finding("warning", text, "deploy the app again from this environment"))
    for path, problem in missing.items():
        remedy = "add its module to `modules` of build_app, what it imports to `packages`, and deploy"
        findings.append(Finding("error", f"a container cannot run {path!r}: {problem}", remedy))
    if is_signed:
        findings.append(Finding("info", "a container checks signatures"))
    return findings
