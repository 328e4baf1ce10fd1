"""What one process needs to advance executions, built once and shared by its service and its worker."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from durable_monty import encryption, remote
from durable_monty.bell import Bell
from durable_monty.config import Config
from durable_monty.engine import Engine
from durable_monty.errors import EncodeError
from durable_monty.interpreter import Interpreter, Limits, fitting
from durable_monty.lease import Lease
from durable_monty.planning import Planner
from durable_monty.store import Store


class Runtime:
    """The parts of one process, wired together.

    Attributes:
        has_worker: Whether a worker of this process keeps what is claimed; without one every claim is given up after
            its turn.
    """

    def __init__(self, store: Store, config: Config, clock: Callable[[], float] | None = None) -> None:
        clock = store.clock if clock is None else clock
        self.store = store
        self.config = config
        self.clock = clock
        self.bell = Bell()
        self.has_worker = False
        self.planner = Planner(config.complete, config.infrastructure.to_policy())
        self.interpreter = Interpreter(
            Limits(**config.interpreter.model_dump()), now=lambda: dt.datetime.fromtimestamp(clock(), dt.UTC)
        )
        self.lease = Lease(store, config.worker.lease_seconds, clock)
        self.engine = Engine(
            store,
            self.interpreter,
            self.planner,
            lambda: self.lease.worker,
            signing_key=config.signing_key,
            clock=clock,
        )
        self._looks_wanted = 0
        if config.cipher_name is not None:
            cipher = encryption.load(config.cipher_name, config.security.cipher_options, config.encryption_keys)
            store.encrypt(cipher, config.cipher_name)
        remote.configure(signing_key=config.signing_key, allow=config.functions.allow)

    @property
    def looks_wanted(self) -> int:
        """Counts the occasions to look at the database; a worker that has seen fewer looks."""
        return self._looks_wanted

    def use_default_executor(self, name: str) -> None:
        """Let calls that name no executor go to this one, whatever the configuration says."""
        self.config = self.config.model_copy(update={"executor": name})
        self.planner.complete = self.config.complete

    def fitting(self, text: str, what: str) -> str:
        """The codec's text of a value that comes from outside, if it is not too long.

        Raises:
            EncodeError: It is.
        """
        try:
            return fitting(text, what, self.interpreter.limits.max_value_bytes)
        except ValueError as error:
            raise EncodeError(str(error)) from None

    def want_look(self) -> None:
        """Have the worker look at the database now. May be called from any thread."""
        self._looks_wanted += 1
        self.bell.ring()
