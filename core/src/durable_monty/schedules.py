"""Schedules: what people do with them, and what a worker does when one is due."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, Literal

from durable_monty import codec
from durable_monty.describing import seconds_of
from durable_monty.errors import ScheduleConflict, ScheduleError, ScheduleNotFound
from durable_monty.firetimes import FireTimes, checked_times
from durable_monty.models import ExecutionStatus
from durable_monty.records import ExecutionRow
from durable_monty.runtime import Runtime
from durable_monty.starts import Prepared, Starter
from durable_monty.store.schedules import ScheduleRow
from durable_monty.workflows import Workflow

Overlap = Literal["skip", "queue", "cancel"]

MAX_BACKFILL = 10_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_OVERLAPS = ("skip", "queue", "cancel")
_DEFINITION = ("workflow", "inputs", "time_input", "cron", "timezone", "interval_seconds", "overlap")


class Scheduling:
    """The methods of `OrchestratorService` about schedules."""

    runtime: Runtime
    _starter: Starter

    def create_schedule(
        self,
        name: str,
        workflow: str | Workflow[..., Any],
        *,
        cron: str | None = None,
        timezone: str = "UTC",
        interval_seconds: float | None = None,
        overlap: Overlap = "skip",
        inputs: Mapping[str, Any] | None = None,
        time_input: str | None = None,
        external_functions: Iterable[Callable[..., Any] | str] | None = None,
        check: bool = True,
        filename: str = "<workflow>",
    ) -> None:
        """Let workers start a workflow again and again.

        The workflow is stored with the schedule, so that workers need none of your code. An execution is called
        `<name>-<time>`, the time in UTC as in `nightly-20260301T050000Z`, so that none is ever started twice. Times
        that passed while no worker ran are made up for by one execution, for the last of them; `backfill` starts the
        others. Creating a schedule again as it is does nothing.

        Args:
            name: 1 to 80 letters, digits, `-` and `_`, not beginning with `-`.
            workflow: As for `start_execution`; likewise `external_functions`, `check` and `filename`.
            cron: Five fields (minute, hour, day of month, month, day of week), or six with seconds first.
            timezone: The time zone of the cron line, for example `Europe/Berlin`.
            interval_seconds: Instead of a cron line: so many seconds between two times, at least 1, counted from now.
            overlap: What happens at a time at which the last execution still lives. `"skip"`: nothing is started.
                `"queue"`: it is started once that one has ended, in order. `"cancel"`: that one is cancelled.
            inputs: Those of each execution.
            time_input: The input that gets the time for which the execution is started, an aware datetime in UTC.

        Raises:
            ScheduleError: The name, cron line, time zone, interval or overlap cannot be, or the line never fires.
            ScheduleConflict: There is another schedule of this name.
            WorkflowError: The workflow cannot be started with these inputs.
        """
        now = self.runtime.clock()
        doing = f"creating schedule {name!r}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ScheduleError(
                f"{doing}: a name is 1 to 80 letters, digits, `-` and `_`, the first of them no `-`; choose another"
            )
        if overlap not in _OVERLAPS:
            raise ScheduleError(f"{doing}: overlap is {overlap!r}; it is one of {', '.join(_OVERLAPS)}")
        times = checked_times(doing, cron, timezone, interval_seconds, now)
        given = dict(inputs or {})
        if time_input in given:
            raise ScheduleError(f"{doing}: time_input is {time_input!r}, which inputs has too; leave it out there")
        sample = given if time_input is None else {**given, time_input: _aware(now)}
        prepared = self._starter.prepare(workflow, external_functions, sample, check=check, filename=filename)
        row = _new_row(name, prepared, times, overlap, given, time_input, now)
        existing = self.runtime.store.schedules.create(row, prepared.record, prepared.checked_at)
        if existing is not None:
            differs = [item for item in _DEFINITION if getattr(existing, item) != getattr(row, item)]
            if differs:
                raise ScheduleConflict(
                    f"{doing}: there is one with another {', another '.join(differs)}; delete it first, or choose "
                    "another name"
                )
            return
        self.runtime.want_look()

    def list_schedules(self) -> list[dict[str, Any]]:
        """Every schedule, by name.

        Returns:
            For each `name`, `workflow` (its name), `cron`, `timezone`, `interval_seconds`, `overlap`, `inputs`,
            `time_input`, `is_paused`, `created_at`, `next_at`, `last_at` (the last time for which it fired),
            `last_execution` and `queued`, the times that wait for the end of the last execution. Times are seconds
            since the epoch.
        """
        store = self.runtime.store
        return [
            {
                "name": row.name,
                "workflow": store.workflow(row.workflow).name,
                "cron": row.cron,
                "timezone": row.timezone,
                "interval_seconds": row.interval_seconds,
                "overlap": row.overlap,
                "inputs": codec.loads(row.inputs),
                "time_input": row.time_input,
                "is_paused": row.is_paused,
                "created_at": row.created_at,
                "next_at": None if row.is_paused else row.next_at,
                "last_at": row.last_at,
                "last_execution": row.last_execution,
                "queued": list(row.queued),
            }
            for row in store.schedules.all()
        ]

    def pause_schedule(self, name: str) -> None:
        """Let a schedule start nothing until it is resumed; what it has started goes on. Twice is as once.

        Raises:
            ScheduleNotFound: There is no schedule of this name.
        """
        row = self._schedule("pausing", name)
        if not self.runtime.store.schedules.set_paused(name, is_paused=True, next_at=row.next_at):
            raise _not_found("pausing", name)

    def resume_schedule(self, name: str) -> None:
        """Let a paused schedule go on with the next time; what has passed meanwhile is left to `backfill`.

        Raises:
            ScheduleNotFound: There is no schedule of this name.
        """
        row = self._schedule("resuming", name)
        next_at = times_of(row).after(self.runtime.clock())
        if not self.runtime.store.schedules.set_paused(name, is_paused=False, next_at=next_at):
            raise _not_found("resuming", name)
        self.runtime.want_look()

    def delete_schedule(self, name: str) -> None:
        """Delete a schedule; the executions that it has started stay, and go on.

        Raises:
            ScheduleNotFound: There is no schedule of this name.
        """
        if not self.runtime.store.schedules.delete(name):
            raise _not_found("deleting", name)

    def backfill(self, name: str, start: datetime | float, end: datetime | float) -> list[str]:
        """Start an execution for each time of a schedule in the past that has none.

        All of them at once, or, with `overlap="queue"`, one after the other.

        Args:
            start: From this time on, inclusive: an aware datetime, or seconds since the epoch.
            end: Up to this time, inclusive; not in the future.

        Returns:
            The ids of the executions that are started by this, the oldest first.

        Raises:
            ScheduleNotFound: There is no schedule of this name.
            ScheduleError: The times are in the wrong order, in the future, or more than 10,000.
        """
        row = self._schedule("backfilling", name)
        doing = f"backfilling schedule {name!r}"
        begin, until = _range(doing, start, end, self.runtime.clock())
        following = takewhile(lambda time: time <= until, _from(row, begin))
        times = [time for time, _ in zip(following, range(MAX_BACKFILL + 1), strict=False)]
        if len(times) > MAX_BACKFILL:
            raise ScheduleError(f"{doing}: more than {MAX_BACKFILL} times from start to end; do it in parts")
        planned = [execution_for(row, time, self.runtime.clock()) for time in times]
        store = self.runtime.store.schedules
        if row.overlap == "queue":
            existing = store.existing([item.id for item in planned])
            missing = [(item.id, time) for item, time in zip(planned, times, strict=True) if item.id not in existing]
            queued = [(id_, time) for id_, time in missing if time not in row.queued]
            store.backfill(name, [], [time for _, time in queued])
            ids = [id_ for id_, _ in queued]
        else:
            ids = store.backfill(name, planned, [])
        self.runtime.want_look()
        return ids

    def _schedule(self, doing: str, name: str) -> ScheduleRow:
        row = self.runtime.store.schedules.get(name)
        if row is None:
            raise _not_found(doing, name)
        return row


def times_of(row: ScheduleRow) -> FireTimes:
    """When a schedule fires."""
    return FireTimes(row.cron, row.timezone, row.interval_seconds, row.created_at)


def execution_for(row: ScheduleRow, time: float, now: float) -> ExecutionRow:
    """The execution that a schedule starts for a time."""
    id_ = f"{row.name}-{_aware(time):%Y%m%dT%H%M%SZ}"
    inputs = row.inputs
    if row.time_input is not None:
        inputs = codec.dumps({**codec.loads(inputs), row.time_input: _aware(time)})
    return ExecutionRow(
        id_, row.workflow, ExecutionStatus.SCHEDULED, 0, inputs, created_at=now, wake_at=now, schedule=row.name
    )


def _new_row(
    name: str,
    prepared: Prepared,
    times: FireTimes,
    overlap: str,
    inputs: Mapping[str, Any],
    time_input: str | None,
    now: float,
) -> ScheduleRow:
    text = prepared.inputs
    if time_input is not None:
        # Encoded with a sample of the time; stored without it.
        text = codec.dumps({key: value for key, value in codec.loads(text).items() if key in inputs})
    return ScheduleRow(
        name,
        prepared.record.digest,
        text,
        time_input,
        times.cron,
        times.timezone,
        times.interval_seconds,
        overlap,
        is_paused=False,
        created_at=now,
        next_at=times.after(now),
    )


def _from(row: ScheduleRow, begin: float) -> Iterable[float]:
    """The times of a schedule from this one on, inclusive; also those before it was created."""
    times = times_of(row)
    if row.interval_seconds is not None and begin < times.anchor:
        steps = (times.anchor - begin) // row.interval_seconds + 2
        times = replace(times, anchor=times.anchor - steps * row.interval_seconds)
    return (time for time in times.following(begin - 1) if time >= begin)


def _range(doing: str, start: datetime | float, end: datetime | float, now: float) -> tuple[float, float]:
    try:
        begin, until = seconds_of(doing, "start", start), seconds_of(doing, "end", end)
    except ValueError as error:
        raise ScheduleError(str(error)) from error
    if until < begin:
        raise ScheduleError(f"{doing}: end is before start; exchange them")
    if until > now:
        raise ScheduleError(f"{doing}: end is in the future; the schedule itself fires at times to come")
    return begin, until


def _not_found(doing: str, name: str) -> ScheduleNotFound:
    return ScheduleNotFound(
        f"{doing} schedule {name!r}: there is none of this name; `durable-monty schedule list` shows those there are"
    )


def _aware(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC)
