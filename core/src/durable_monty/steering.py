"""What people do to an execution that is under way or has failed, and what passes between it and the outside."""

from __future__ import annotations

from typing import Any

from durable_monty import codec, convert
from durable_monty.describing import ended_how
from durable_monty.errors import ExecutionConflict, ExecutionEnded
from durable_monty.interpreter.operations import MAX_NAME_CHARACTERS
from durable_monty.models import ExecutionStatus
from durable_monty.records import ExecutionRow
from durable_monty.runtime import Runtime
from durable_monty.signals import check_payload
from durable_monty.texts import is_storable, storable

_LAST_OFFSET = 2**31 - 1


class Steering:
    """The methods of `OrchestratorService` that cancel, pause, resume, retry, signal, and read what is published."""

    runtime: Runtime

    def cancel(self, execution_id: str, reason: str | None = None, deadline_seconds: float = 60.0) -> None:
        """Ask for the end of an execution.

        One that has not begun is cancelled at once. In a running one every `await` raises a `BaseException`, which
        `except Exception` does not see, once, so that `finally` blocks run; what has not ended by the deadline is
        ended by force. Asking again while it is being cancelled does nothing.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionEnded: It has ended.
        """
        now = self.runtime.clock()
        before = self.runtime.store.steering.request_cancel(
            execution_id, storable(reason or "cancelled on request"), now + deadline_seconds, now
        )
        if before.status.is_terminal:
            raise ExecutionEnded(f"cancelling execution {execution_id!r}: it {ended_how(before)} already")
        self.runtime.want_look()

    def pause(self, execution_id: str, reason: str | None = None) -> None:
        """Keep an execution from going on until `resume`.

        Its open calls go on; their outcomes wait, and so do signals. Pausing a paused execution does nothing.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionEnded: It has ended.
        """
        self._require_alive(
            "pausing", self.runtime.store.steering.pause(execution_id, None if reason is None else storable(reason))
        )

    def resume(self, execution_id: str) -> None:
        """Let a paused execution go on; does nothing to one that is not paused.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionEnded: It has ended.
        """
        self._require_alive("resuming", self.runtime.store.steering.resume(execution_id, self.runtime.clock()))
        self.runtime.want_look()

    def retry(self, execution_id: str) -> None:
        """Let a failed execution go on from its last snapshot, as if its last turn had not happened.

        The call whose failure ended it is made again, as its next attempt; nothing that was delivered before is. A
        deadline that it had is dropped.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionConflict: It has not failed, or another one with its singleton key lives.
        """
        before = self.runtime.store.steering.retry(execution_id, self.runtime.clock())
        if before.status is not ExecutionStatus.FAILED:
            raise ExecutionConflict(
                f"retrying execution {execution_id!r}: it is {before.status.value}; only a failed one can be retried"
            )
        self.runtime.want_look()

    # Signals, and what an execution tells

    def signal(self, execution_id: str, name: str, payload: Any = None) -> None:
        """Send a signal; it is kept until the execution waits for one of this name, in the order of sending.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionEnded: It has ended; nothing was stored.
            SignalRefused: The execution waits for this signal with a payload of another type; nothing was stored.
            EncodeError: The payload cannot be carried.
            ValueError: The name is empty or too long.
        """
        if not 0 < len(name) <= MAX_NAME_CHARACTERS:
            raise ValueError(
                f"sending a signal to {execution_id!r}: its name has {len(name)} characters; it must have 1 to "
                f"{MAX_NAME_CHARACTERS}"
            )
        if not is_storable(name):
            raise ValueError(
                f"sending a signal to {execution_id!r}: its name is {name!r}; it must not have a null character or a "
                "surrogate"
            )
        plain = convert.plain(payload)
        runtime = self.runtime
        text = runtime.fitting(codec.dumps(plain, path="payload"), f"the payload of signal {name!r}")
        before = runtime.store.steering.signal(
            execution_id,
            name,
            text,
            runtime.clock(),
            lambda arguments, line: check_payload(name, plain, arguments, line),
        )
        self._require_alive(f"sending signal {name!r} to", before)
        runtime.want_look()

    def published(self, execution_id: str, key: str | None = None) -> Any:
        """What the execution has published: the last value of each key, or of one.

        Returns:
            A dictionary, or with `key` its value, None if it was never published.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        found = self.runtime.store.telling.published(execution_id, key)
        values = {name: codec.loads(text)[0][1] for name, text in found.items()}
        return values if key is None else values.get(key)

    def read_stream(self, execution_id: str, stream: str, offset: int = 0, limit: int = 1000) -> list[tuple[int, Any]]:
        """Items that the execution has emitted: (offset, value), from `offset` on; the first item has offset 0.

        Raises:
            ExecutionNotFound: No execution has this id.
            ValueError: `offset` is below 0 or `limit` below 1.
        """
        if not 0 <= offset <= _LAST_OFFSET or not 1 <= limit <= _LAST_OFFSET:
            raise ValueError(
                f"reading stream {stream!r:.200}: offset {offset!r:.40} and limit {limit!r:.40} must be at least 0 and 1, "
                f"and at most {_LAST_OFFSET}"
            )
        found = self.runtime.store.telling.emitted(execution_id, stream, offset, limit)
        return [(offset + index, codec.loads(text)[0][1]) for index, text in enumerate(found)]

    def _require_alive(self, doing: str, before: ExecutionRow) -> None:
        if before.status.is_terminal:
            raise ExecutionEnded(f"{doing} execution {before.id!r}: it {ended_how(before)} already")
