"""The service: starting executions, looking at them, and ending them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from durable_monty import codec, config
from durable_monty.by_hand import ByHand
from durable_monty.config import Config
from durable_monty.describing import describe, ended_how, filter_of
from durable_monty.doctor import AFTER_SECONDS, EXAMPLES, WAITING_AFTER_SECONDS, Diagnosis, diagnose
from durable_monty.ends import Ends
from durable_monty.errors import ExecutionFailed, ExecutionNotEnded
from durable_monty.models import ExecutionStatus
from durable_monty.records import ExecutionRow
from durable_monty.retention import Retaining
from durable_monty.runtime import Runtime
from durable_monty.schedules import Scheduling
from durable_monty.starts import Starter, StartOptions
from durable_monty.steering import Steering
from durable_monty.store import Store, init_db
from durable_monty.store.starting import IdReuse
from durable_monty.workflows import Workflow


class OrchestratorService(ByHand, Steering, Scheduling, Retaining):
    """Everything one can ask of the executions in a database. Safe to use from several threads.

    Args:
        store: What `init_db` returned, or the URL of a database.
        configuration: The configuration; None: read as the command line reads it.
        clock: The time, in seconds since the epoch; everything durable goes by it, and what workflows read. None: the
            database server's on PostgreSQL, else this machine's.

    Raises:
        ConfigError: The configuration or the URL cannot be used.
        StoreUnreachable: The database cannot be opened.
    """

    def __init__(
        self,
        store: Store | str,
        configuration: Config | None = None,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        chosen = config.load() if configuration is None else configuration
        opened = init_db(store, synchronous=chosen.store.synchronous) if isinstance(store, str) else store
        self.runtime = Runtime(opened, chosen, clock)
        self.ends = Ends(opened)
        self._starter = Starter(self.runtime)

    # Starting

    def start_execution(
        self,
        workflow: str | Workflow[..., Any],
        external_functions: Iterable[Callable[..., Any] | str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        *,
        execution_id: str | None = None,
        check: bool = True,
        filename: str = "<workflow>",
        workflows: Iterable[Workflow[..., Any]] = (),
        id_reuse: IdReuse | None = None,
        deadline_seconds: float | None = None,
        delay_seconds: float = 0.0,
        tags: Mapping[str, str] | None = None,
        memo: Mapping[str, Any] | None = None,
        singleton_key: str | None = None,
        debounce_key: str | None = None,
    ) -> str:
        """Store a new execution; a worker runs it.

        Starting again with an id that exists, the same workflow and the same inputs, does nothing.

        Args:
            workflow: A `@workflow` function, or source text with top-level `await`.
            external_functions: The host functions it may call: callables or dotted paths. None: those that the
                `@workflow` function names. They are registered in this process.
            inputs: Global names of source text, or arguments of a `@workflow` function.
            execution_id: 1 to 100 letters, digits, `-` and `_`, not beginning with `-`; None: a new one.
            check: Whether to type-check the workflow against the signatures of its host functions first.
            filename: What tracebacks call source text.
            workflows: The workflows that it may start as children, besides those that a `@workflow` function names.
            id_reuse: What to do if `execution_id` is taken. None: as said above. `"reject"`: an error, whatever it
                was started with. `"return"`: its id, whatever it was started with. `"restart"`: one that has ended
                is replaced, with its calls, tags and signals; one that lives is an error.
            deadline_seconds: After this long, counted from now, it is cancelled whatever it does.
            delay_seconds: It does not begin before this long has passed.
            tags: Names and values, texts of 1 to 200 characters, to find it by with `list_executions`; at most 50.
            memo: What else to remember with it; any values that the codec carries.
            singleton_key: At most one execution with this key lives at a time: while one does, its id is returned and
                nothing is started.
            debounce_key: While an execution with this key has not begun, it is given this workflow and these inputs,
                its delay begins anew, and its id is returned; needs `delay_seconds`.

        Returns:
            The id of the execution that now stands for this start: the new one, or the one that was found.

        Raises:
            WorkflowCheckError: The check found problems; each names line and column.
            WorkflowError: The workflow's source cannot be taken.
            InputError: Inputs are missing, are none of this workflow's, or cannot be encoded.
            FunctionError: A host function does not exist or has no name.
            ExecutionConflict: The id is taken by an execution of another workflow or with other inputs, or by any
                with `id_reuse="reject"`.
            ExecutionNotEnded: It is to be restarted, but lives, or its parent still waits for it.
            ValueError: The id has characters that it may not have, or an option has a value that means nothing.
        """
        options = StartOptions(id_reuse, deadline_seconds, delay_seconds, tags, memo, singleton_key, debounce_key)
        prepared = self._starter.prepare(
            workflow, external_functions, inputs or {}, workflows, check=check, filename=filename
        )
        return self._starter.start(prepared, execution_id, options)

    def start_executions(
        self,
        workflow: str | Workflow[..., Any],
        external_functions: Iterable[Callable[..., Any] | str] | None = None,
        inputs: Iterable[Mapping[str, Any]] = (),
        *,
        execution_ids: Sequence[str] | None = None,
        check: bool = True,
        filename: str = "<workflow>",
        workflows: Iterable[Workflow[..., Any]] = (),
        deadline_seconds: float | None = None,
        delay_seconds: float = 0.0,
        tags: Mapping[str, str] | None = None,
        memo: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Store an execution of one workflow for each of the inputs, in one transaction: all of them, or none.

        Several times as fast as one start after the other. What has an id that exists, the same workflow and the same
        inputs is left as it is, so that a start of many can be made again.

        Args:
            inputs: One mapping for each execution, as in `start_execution`.
            execution_ids: An id for each of the inputs; None: new ones.

        Other arguments are those of `start_execution`, and hold for every one of them.

        Returns:
            The ids, in the order of the inputs.

        Raises:
            ValueError: There are not as many ids as inputs, or as `start_execution`.

        What else is raised is as for `start_execution`; nothing is stored then.
        """
        options = StartOptions(None, deadline_seconds, delay_seconds, tags, memo)
        functions, children = list(external_functions or ()), list(workflows)
        prepared = [
            self._starter.prepare(workflow, functions, item, children, check=check, filename=filename)
            for item in inputs
        ]
        return self._starter.start_all(prepared, execution_ids, options)

    # Looking

    def get_execution(self, execution_id: str) -> dict[str, Any]:
        """What is known about an execution.

        Returns:
            `execution_id`, `workflow`, `status`, `inputs`, `output` (the value, once completed), `error` (the
            workflow's traceback, then the call's, once failed), `note`, the times `created_at`, `started_at`,
            `ended_at` and `deadline_at` in seconds since the epoch, `tags`, `memo`, and the name of the `schedule`
            that started it.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        return self._described(self.runtime.store.execution(execution_id))

    def get_result(self, execution_id: str) -> Any:
        """The value that the workflow returned.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionNotEnded: It has not ended.
            ExecutionFailed: It failed or was cancelled; the text holds the traceback.
        """
        row = self.runtime.store.execution(execution_id)
        if row.status is ExecutionStatus.COMPLETED:
            return codec.loads(row.output or "null")
        if row.status.is_terminal:
            raise ExecutionFailed(f"the result of execution {execution_id!r}: it {ended_how(row)}:\n{row.error or ''}")
        raise ExecutionNotEnded(
            f"the result of execution {execution_id!r}: it is {row.status.value}; wait for its end with `wait`, or run "
            "a worker"
        )

    def list_executions(
        self,
        status: str | None = None,
        limit: int = 100,
        *,
        tags: Mapping[str, str] | None = None,
        workflow: str | None = None,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        before: str | None = None,
    ) -> list[dict[str, Any]]:
        """Executions as `get_execution` describes them, each with its `cursor`, the newest first.

        A page costs the same at any depth, however many executions there are.

        Args:
            status: Only those with this status.
            limit: Most executions to return, at most 10,000.
            tags: Only those that have all of these tags.
            workflow: Only those of workflows with this name, whatever their source.
            since: Only those started at this time or later: an aware datetime, or seconds since the epoch.
            until: Only those started before this time.
            before: The `cursor` of an execution: only those that come after it in the list, for the next page.

        Raises:
            ValueError: There is no such status, or a limit, time, tag or cursor cannot be.
        """
        chosen = filter_of(status, limit, tags, workflow, since, until, before)
        return describe(self.runtime.store, self.runtime.store.listing.executions(chosen, limit), with_cursor=True)

    def diagnose(
        self,
        *,
        after_seconds: float = AFTER_SECONDS,
        waiting_seconds: float = WAITING_AFTER_SECONDS,
        examples: int = EXAMPLES,
        check_executors: bool = True,
    ) -> list[Diagnosis]:
        """Executions that do not go on, by reason, the most frequent reason first; changes nothing.

        What sleeps, runs or waits for its time is not among them. Every living execution is read once, in pages.

        Args:
            after_seconds: How long something that workers do by themselves may be late.
            waiting_seconds: How long something that only somebody outside can end may last: a wait for a signal, a
                call at an executor that has no time limit, a queue for a place.
            examples: Most executions to name for each reason.
            check_executors: Whether to ask executors whose calls do not begin whether they can work, as this
                process's configuration has them.

        Raises:
            ValueError: A number is negative.
            StoreError: The database does not answer.
        """
        return diagnose(self.runtime, after_seconds, waiting_seconds, examples=examples, checks=check_executors)

    def wait(self, execution_id: str, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Wait until an execution has ended or is paused; runs nothing itself.

        The end is noticed within milliseconds, and a hundred waiting threads cost hardly more than one.

        Returns:
            As `get_execution`.

        Raises:
            ExecutionNotFound: No execution has this id.
            TimeoutError: It has not ended within `timeout_seconds`.
            StoreError: The service was closed meanwhile.
        """
        ends_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (row := self._over(execution_id)) is None:
            ended = threading.Event()
            with self.ends.watching(execution_id, ended.set):
                # It may have ended before it was watched.
                left = None if ends_at is None else max(ends_at - time.monotonic(), 0.0)
                if self._over(execution_id) is None and not ended.wait(left):
                    raise self.not_ended(execution_id, timeout_seconds)
        return self._described(row)

    def not_ended(self, execution_id: str, timeout_seconds: float | None) -> TimeoutError:
        """What `wait` raises after so many seconds."""
        status = self.runtime.store.execution(execution_id).status
        return TimeoutError(
            f"waiting for execution {execution_id!r}: it is still {status.value} after {timeout_seconds} s"
        )

    # Ending

    def close(self) -> None:
        """Give up what this process holds and close its connections and sandboxes."""
        self.ends.close()
        self.runtime.engine.release_all()
        self.runtime.interpreter.close()
        self.runtime.store.close()

    def __enter__(self) -> OrchestratorService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _over(self, execution_id: str) -> ExecutionRow | None:
        row = self.runtime.store.execution(execution_id)
        return row if row.status.is_terminal or row.status is ExecutionStatus.PAUSED else None

    def _described(self, row: ExecutionRow) -> dict[str, Any]:
        return describe(self.runtime.store, [row])[0]
