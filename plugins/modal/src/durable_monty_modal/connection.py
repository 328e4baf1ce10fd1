"""The `modal` client as the executor uses it: one connection, the deployed functions by name, and a few requests."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import modal
from modal.config import config as modal_config

from durable_monty.errors import ConfigError
from durable_monty_modal.failures import AWAY
from durable_monty_modal.settings import MAX_CONCURRENT_REQUESTS, ModalSettings

CONNECT_SECONDS = 2.0
"""How long a worker's main thread waits for a server that does not answer; connecting goes on without it."""

_FRESH_SECONDS = 1.0
"""For so long after an answer the server is taken to be there."""

_SILENT_SECONDS = 5.0
"""For so long after nobody answered the next one does not wait: the batches of one hand-over follow each other."""


class Unreachable(Exception):
    """Modal does not answer."""


class Connection:
    """Everything that is asked of Modal. Its methods run on one event loop."""

    def __init__(self, settings: ModalSettings) -> None:
        self._settings = settings
        self._connecting: asyncio.Task[modal.Client] | None = None
        self._greeting: asyncio.Task[None] | None = None
        self._functions: dict[str, asyncio.Task[modal.Function[Any, Any, Any]]] = {}
        self._is_shared = False
        self._answered_at = -_FRESH_SECONDS
        self._given_up_at = -_SILENT_SECONDS
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)

    @property
    def where(self) -> str:
        """The server's address."""
        return str(modal_config["server_url"])

    async def greet(self, seconds: float) -> None:
        """Make sure that the server answers and lets us in, unless it has just done so.

        Raises:
            Unreachable: It does not answer within `seconds`.
            modal.exception.AuthError: The token is not accepted.
            ConfigError: There is no token.
        """
        if time.monotonic() - self._answered_at < _FRESH_SECONDS:
            return
        if self._greeting is None or self._greeting.done():
            self._greeting = asyncio.create_task(self._greet())
        elif time.monotonic() - self._given_up_at < _SILENT_SECONDS:
            raise Unreachable(f"Modal at {self.where} does not answer")
        try:
            # Shielded: the next one who asks finds the attempt where this one has left it.
            await asyncio.wait_for(asyncio.shield(self._greeting), seconds)
        except TimeoutError as error:
            self._given_up_at = time.monotonic()
            raise Unreachable(f"Modal at {self.where} does not answer") from error
        except AWAY as error:
            raise Unreachable(f"Modal at {self.where} does not answer: {error}") from error

    async def spawn(self, name: str, envelope: bytes) -> str:
        """Start a call by a deployed function; returns Modal's id of it."""
        async with self._slots:
            function = await self._function(name)
            try:
                call = await function.spawn.aio(envelope)
            except modal.exception.NotFoundError:
                # Deployed anew under another id, or stopped.
                self._functions.pop(name, None)
                raise
            except AWAY:
                self._answered_at = -_FRESH_SECONDS
                raise
            self._answered_at = time.monotonic()
            return str(call.object_id)

    async def get(self, token: str, timeout_seconds: float = 0) -> Any:
        """The value of a call, or what `FunctionCall.get` raises."""
        async with self._slots:
            call = modal.FunctionCall.from_id(token, client=await self._client())
            value = await call.get.aio(timeout=timeout_seconds)
            self._answered_at = time.monotonic()
            return value

    async def cancel(self, token: str) -> None:
        """Cancel a call, queued or running; the container goes on to the next."""
        async with self._slots:
            call = modal.FunctionCall.from_id(token, client=await self._client())
            await call.cancel.aio()

    async def look_up(self, name: str) -> None:
        """Find a deployed function.

        Raises:
            modal.exception.NotFoundError: There is no such app, or it has no such function.
        """
        self._functions.pop(name, None)
        await self._function(name)

    async def close(self) -> None:
        """Let go of the connection."""
        task = self._connecting
        is_connected = task is not None and task.done() and not task.cancelled() and task.exception() is None
        if task is not None and is_connected and not self._is_shared:
            await task.result().close.aio()

    async def _greet(self) -> None:
        client = await self._client()
        await client.hello.aio()  # type: ignore[no-untyped-call]  # the client does not annotate it
        self._answered_at = time.monotonic()

    async def _client(self) -> modal.Client:
        if self._connecting is None or (
            self._connecting.done() and (self._connecting.cancelled() or self._connecting.exception() is not None)
        ):
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> modal.Client:
        token = self._token()
        if token is not None:
            return await modal.Client.from_credentials.aio(*token)
        self._is_shared = True
        return await modal.Client.from_env.aio()

    def _token(self) -> tuple[str, str] | None:
        """The token of the environment; None: as the client's own configuration file says."""
        names = (self._settings.token_id_env, self._settings.token_secret_env)
        token_id, token_secret = map(os.environ.get, names)
        if token_id and token_secret:
            return token_id, token_secret
        fields = type(self._settings).model_fields
        is_own_choice = names != (fields["token_id_env"].default, fields["token_secret_env"].default)
        if is_own_choice or token_id or token_secret:
            missing = [name for name, value in zip(names, (token_id, token_secret), strict=True) if not value]
            raise ConfigError(
                f"connecting to Modal: the environment variable {' and '.join(missing)} is not set; set it to the "
                "token that `modal token new` made, or name other variables in token_id_env and token_secret_env"
            )
        return None

    async def _function(self, name: str) -> modal.Function[Any, Any, Any]:
        """A deployed function; looked up once, whoever asks for it meanwhile."""
        task = self._functions.get(name)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._functions[name] = asyncio.create_task(self._looked_up(name))
        return await asyncio.shield(task)

    async def _looked_up(self, name: str) -> modal.Function[Any, Any, Any]:
        settings = self._settings
        client = await self._client()
        function = modal.Function.from_name(settings.app, name, environment_name=settings.environment, client=client)
        await function.hydrate.aio()
        return function
