"""Why an execution does not go on: one cause each, the most fundamental first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from durable_monty.engine import CRASHES_BEFORE_PAUSE
from durable_monty.facts import Facts
from durable_monty.store.examining import Living, LivingCall
from durable_monty.store.vault import UNREADABLE_NOTE

_START_WORKER = "start a worker: `durable-monty worker`, with the same configuration"
_FEW_ATTEMPTS = 3
_SHOWN_NAMES = 5
_LOOK_AT_LOGS = "look at the logs of the workers, and restart them"


@dataclass(frozen=True, slots=True)
class Stuck:
    """An execution that does not go on.

    Attributes:
        kind: The kind of reason, one of the words that `docs/howto/stuck.md` explains.
        subject: What it is about, such as an executor's name; empty: nothing in particular.
        explanation: A sentence that holds for all executions of this kind and subject.
        remedy: What to do.
        detail: What is to be said about this one.
        since: Since when, in seconds since the epoch; None: that cannot be told.
        call_id: The call that does not end, the first if there are several; None: it is no call's fault.
        line: The line of that call in the user's file, or None.
    """

    execution_id: str
    kind: str
    subject: str
    explanation: str
    remedy: str
    detail: str = ""
    since: float | None = None
    call_id: int | None = None
    line: int | None = None


def judge(living: Living, facts: Facts) -> Stuck | None:
    """Why this execution does not go on; None: it does, or waits for something that will come."""
    if living.status == "paused":
        return _paused(living)
    found = _unreadable(living) or _not_advanced(living, facts)
    if found is not None:
        return found
    for call in living.calls:
        if call.kind == "function" and call.is_open:
            found = _pending(living, call, facts) if call.status == "pending" else _in_work(living, call, facts)
            if found is not None:
                return found
    return _waits_in_vain(living, facts)


def _paused(living: Living) -> Stuck:
    if living.crashes >= CRASHES_BEFORE_PAUSE:
        return Stuck(
            living.id,
            "poisoned",
            "",
            f"its turn took the sandbox process down {CRASHES_BEFORE_PAUSE} times in a row, so it was paused",
            "raise [interpreter] max_memory_bytes if it needs more memory; then `durable-monty resume ID`, or "
            "`durable-monty cancel ID`",
            living.note or "",
        )
    return Stuck(
        living.id,
        "paused",
        "",
        "somebody has paused it",
        "`durable-monty resume ID` lets it go on, `durable-monty cancel ID` ends it",
        living.note or "",
    )


def _unreadable(living: Living) -> Stuck | None:
    """It is tried again every few seconds, so that it never seems to be late."""
    note = living.note or ""
    if living.worker is not None or living.wake_at is None or not note.startswith(UNREADABLE_NOTE):
        return None
    return Stuck(
        living.id,
        "unreadable",
        "",
        "something that it needs could not be decrypted by the worker that tried last",
        "add the key that is named to [security] previous_encryption_keys of every worker; what was changed in the "
        "database has to come from a backup, or `durable-monty cancel ID`",
        note.removeprefix(UNREADABLE_NOTE),
        living.created_at,
    )


def _not_advanced(living: Living, facts: Facts) -> Stuck | None:
    """A turn that is due, and that nobody runs."""
    if living.wake_at is None or living.wake_at > facts.late:
        return None
    since = living.wake_at
    if not facts.has_worker:
        return _no_worker(living, facts, since)
    if living.worker is not None and not facts.is_alive(living.worker):
        return _held(living, facts, living.worker, since)
    if living.crashes:
        return Stuck(
            living.id,
            "poisoned",
            "",
            "its turn takes the sandbox process down",
            "raise [interpreter] max_memory_bytes if it needs more memory, or `durable-monty cancel ID`",
            living.note or "",
            since,
        )
    reason = facts.unreadable(living)
    if reason is not None:
        return Stuck(
            living.id,
            "snapshot",
            f"{living.monty_version} (format {living.format})",
            f"its snapshot was written by Monty {living.monty_version}, and Monty {facts.monty_version} here cannot read "
            "it; a worker like this one rebuilds the execution from its log",
            f"install pydantic-monty {living.monty_version} or newer where the workers run, or let a worker rebuild it",
            reason,
            since,
        )
    worker = facts.worker(living.worker)
    if worker is not None:
        return Stuck(
            living.id,
            "busy",
            worker.id,
            f"worker {worker.id!r} (process {worker.pid} on {worker.host}) holds it, is alive and does not advance it",
            "look at that worker's log and load, and restart it if it hangs",
            since=since,
        )
    return Stuck(
        living.id,
        "unattended",
        "",
        f"its next turn is due, workers are alive ({facts.alive}), and none takes it",
        f"they may have too much to do: start more; or {_LOOK_AT_LOGS}",
        since=since,
    )


def _pending(living: Living, call: LivingCall, facts: Facts) -> Stuck | None:
    """A call that no executor has taken."""
    executor = call.executor or ""
    due_at = call.created_at if call.due_at is None else call.due_at
    if call.created_at > facts.late:
        return None
    if due_at > facts.late:
        return _postponed(living, call, facts, due_at)
    if not facts.has_worker:
        return _no_worker(living, facts, due_at, call)
    broken = _broken(living, call, facts, due_at)
    if broken is not None:
        return broken
    if call.limit_key is not None:
        limit, holders = facts.limit(call.limit_key)
        if limit.concurrency is not None and holders:
            return _limited(living, call, facts, limit.concurrency, holders)
        if limit.per_second is not None:
            # The next one begins when the rate lets it.
            return None
    return _untaken(living, call, facts, executor, due_at)


def _postponed(living: Living, call: LivingCall, facts: Facts, due_at: float) -> Stuck | None:
    """A call that is tried again and again."""
    if call.attempt > 1:
        return _failing(living, call, facts, f"the next begins at {shown_utc(due_at)}")
    if due_at <= facts.now:
        # Given back a moment ago, or about to begin.
        return None
    return _broken(living, call, facts, call.created_at) or _of_call(
        living,
        call,
        "refused",
        call.executor or "",
        f"executor {call.executor!r} refuses the call, or raises when it is handed over, and it is offered again and again",
        f"`durable-monty executors check {call.executor}` where the workers run, and look at their logs: they say why",
        f"it is offered again at {shown_utc(due_at)}",
        call.created_at,
    )


def _failing(living: Living, call: LivingCall, facts: Facts, now: str) -> Stuck:
    last = facts.last_failure(living, call)
    failed = f"{last.kind}, {last.type}: {last.message}" if last is not None else "unknown"
    return _of_call(
        living,
        call,
        "failing",
        call.function,
        f"the call of {call.function} fails again and again",
        "mend what it says; retries go on until the attempts of its policy are used up; `durable-monty cancel ID` "
        "ends it now",
        f"attempts that failed: {call.attempt - 1}, the last with {failed}; {now}",
        call.created_at,
    )


def _broken(living: Living, call: LivingCall, facts: Facts, since: float) -> Stuck | None:
    problem = facts.problem(call.executor or "")
    if problem is None:
        return None
    return _of_call(
        living,
        call,
        "executor",
        call.executor or "",
        f"executor {call.executor!r} cannot work here: {problem}",
        f"mend it, see `durable-monty executors check {call.executor}`, and restart the workers; or send the function "
        "somewhere else in [routes] for executions to come",
        since=since,
    )


def _limited(living: Living, call: LivingCall, facts: Facts, concurrency: int, holders: Sequence[str]) -> Stuck | None:
    """A call whose turn does not come because others occupy its limit; a queue that moves is none."""
    since = call.created_at if call.due_at is None else call.due_at
    if since > facts.long_ago:
        return None
    return _of_call(
        living,
        call,
        "limit",
        call.limit_key or "",
        f"the limit {call.limit_key!r} lets {concurrency} run at a time, and these calls occupy it: {', '.join(holders)}",
        "look at what holds it with `durable-monty show`; cancel those executions, or give the function a timeout_seconds",
        since=since,
    )


def _untaken(living: Living, call: LivingCall, facts: Facts, executor: str, since: float) -> Stuck | None:
    number = facts.in_work.get(executor, 0)
    if number:
        if since > facts.long_ago:
            return None
        return _of_call(
            living,
            call,
            "room",
            executor,
            f"executor {executor!r} has calls in work ({number}), and there has been no room for more for long",
            "start more workers or give the executor more room; look for calls that never end",
            since=since,
        )
    return _of_call(
        living,
        call,
        "untaken",
        executor,
        f"workers are alive ({facts.alive}), and none takes calls of executor {executor!r}: their configuration has no "
        "such executor, or it cannot start there",
        f"`durable-monty executors check {executor}` where the workers run; restart them once it is mended",
        since=since,
    )


def _in_work(living: Living, call: LivingCall, facts: Facts) -> Stuck | None:
    """A call that an executor has."""
    if not facts.is_alive(call.worker):
        worker = facts.worker(call.worker)
        since = max(worker.lease_until if worker is not None else 0.0, call.created_at)
        if since > facts.late:
            return None
        if not facts.has_worker:
            return _no_worker(living, facts, since, call)
        return _held(living, facts, call.worker or "", since, call)
    if call.expires_at is not None and call.expires_at <= facts.late:
        return _of_call(
            living,
            call,
            "expired",
            call.executor or "",
            f"its time is over, and worker {call.worker!r}, which watches it, does not end it",
            _LOOK_AT_LOGS,
            since=call.expires_at,
        )
    if call.attempt > _FEW_ATTEMPTS and call.created_at <= facts.late:
        last = facts.last_failure(living, call)
        # One that has lasted for longer than that may well be the one that succeeds.
        if last is not None and last.ended_at > facts.late:
            return _failing(living, call, facts, f"attempt {call.attempt} is at its executor")
    if call.expires_at is None and call.created_at <= facts.long_ago:
        return _of_call(
            living,
            call,
            "silent",
            call.function,
            f"the call of {call.function} is at its executor, has no time limit and sends no heartbeat, so nobody can tell "
            "whether it still runs",
            "see whether it runs; if not, `durable-monty cancel ID`; give the function timeout_seconds or "
            "heartbeat_seconds",
            f"executor {call.executor!r}, attempt {call.attempt}",
            call.created_at,
        )
    return None


def _waits_in_vain(living: Living, facts: Facts) -> Stuck | None:
    """Nothing that it waits for will come by itself."""
    open_ = [call for call in living.calls if call.is_open]
    ended = [call.ended_at for call in living.calls if call.ended_at is not None]
    if ended or not open_:
        since = min(ended, default=living.created_at)
        if living.status != "waiting" or living.wake_at is not None or since > facts.late:
            return None
        if facts.is_alive(living.worker):
            return None
        return Stuck(
            living.id,
            "forgotten",
            "",
            "it has what it waited for, and no worker was told" if ended else "it waits for nothing",
            "`durable-monty pause ID` and then `durable-monty resume ID` has a worker look at it; please report it",
            since=since,
        )
    kinds = {call.kind for call in open_}
    if kinds == {"channel"} and open_[0].created_at <= facts.late:
        return Stuck(
            living.id,
            "deadlock",
            "",
            "its tasks wait for one another, and nothing from outside can end that",
            "`durable-monty cancel ID`; mend the workflow: a task waits for something that no other task provides",
            since=open_[0].created_at,
        )
    signals = [call for call in open_ if call.kind == "signal"]
    if not signals or kinds - {"signal", "channel"}:
        return None
    first = min(signals, key=lambda call: call.created_at)
    if first.created_at > facts.long_ago:
        return None
    names = facts.signals.get(living.id, [])
    others = [repr(name) for name in names[:_SHOWN_NAMES]]
    if len(names) > _SHOWN_NAMES:
        others.append(f"and {len(names) - _SHOWN_NAMES} more")
    until = "it waits for ever" if first.due_at is None else f"it stops waiting at {shown_utc(first.due_at)}"
    sent = f"; others were sent that it does not wait for: {', '.join(others)}" if others else ""
    return _of_call(
        living,
        first,
        "signal",
        first.function,
        f"it waits for signal {first.function!r}, which nobody has sent",
        f"`durable-monty signal ID {first.function} JSON`, or `durable-monty cancel ID`; give the wait a timeout",
        until + sent,
        first.created_at,
    )


def _no_worker(living: Living, facts: Facts, since: float, call: LivingCall | None = None) -> Stuck:
    ends = [worker.lease_until for worker in facts.workers.values() if worker.lease_until > 0]
    last = f"; the lease of the last one ended at {shown_utc(max(ends))}" if ends else ""
    found = ("no-worker", "", f"no worker is alive on this database{last}", _START_WORKER)
    if call is None:
        return Stuck(living.id, *found, since=since)
    return _of_call(living, call, *found, since=since)


def _held(living: Living, facts: Facts, worker: str, since: float, call: LivingCall | None = None) -> Stuck:
    if facts.worker(worker) is not None:
        why = f"worker {worker!r}, which holds it, is gone, and no other worker takes over"
        remedy = "workers take over three times per lease: look at their logs, and restart them if this stays"
    else:
        why = f"it is held by {worker!r}, which is no worker that anybody knows, such as a program that was killed"
        remedy = "if that program is gone: `durable-monty pause ID` and then `durable-monty resume ID`"
    if call is None:
        return Stuck(living.id, "held", worker, why, remedy, since=since)
    return _of_call(living, call, "held", worker, why, remedy, since=since)


def _of_call(
    living: Living,
    call: LivingCall,
    kind: str,
    subject: str,
    explanation: str,
    remedy: str,
    detail: str = "",
    since: float | None = None,
) -> Stuck:
    alike = f"{call.number} calls like it" if call.number > 1 else ""
    said = "; ".join(part for part in (detail, alike) if part)
    return Stuck(living.id, kind, subject, explanation, remedy, said, since, call.call_id, call.line or None)


def shown_utc(time: float) -> str:
    """A time in a sentence."""
    return dt.datetime.fromtimestamp(time, dt.UTC).isoformat(" ", "seconds").replace("+00:00", " UTC")
