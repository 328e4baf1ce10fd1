"""Deciding where and how a call runs, and what follows a failed attempt. Pure decisions; nothing is done here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from durable_monty.limits import UNKNOWN_KEY, limit_key
from durable_monty.models import INFRASTRUCTURE_KINDS, Failure
from durable_monty.policies import NO_RETRY, CallPolicy, RetryPolicy
from durable_monty.predicates import is_wanted
from durable_monty.records import CallRow, NextAttempt, WorkflowRecord

log = logging.getLogger(__name__)

INFRASTRUCTURE = RetryPolicy(attempts=10, first_delay_seconds=0.5, jitter=0.0)
HEARTBEAT_TYPE = "HeartbeatTimeout"
"""Type of the failure of an attempt that was silent for too long."""
TOTAL_TYPE = "TotalTimeout"
"""Type of the failure of a call that took too long over all attempts."""
_TIMEOUT_BASES = ("TimeoutError", "OSError", "Exception")

# What is decided when a call is made and has to be known to whoever finds it later.
_KEPT = ("total_timeout_seconds", "heartbeat_seconds", "concurrency", "rate")


def _keep(_path: str, policy: CallPolicy) -> CallPolicy:
    return replace(policy, executor=policy.executor or "local")


@dataclass(slots=True)
class Planner:
    """Completes what functions say about their calls by what the configuration says.

    Args:
        complete: Gives the policy for a function's dotted path, from what its decorator says; the result names an
            executor.
        infrastructure: The budget for failures of the infrastructure, and the waits between them.
        only_executor: The executor that every call goes to, whatever anybody asks for; None: the one asked for.
    """

    complete: Callable[[str, CallPolicy], CallPolicy] = _keep
    infrastructure: RetryPolicy = INFRASTRUCTURE
    random: Random = field(default_factory=Random)
    only_executor: str | None = None

    def policy(self, function: str, workflow: WorkflowRecord) -> CallPolicy:
        """How calls of this function of this workflow are run."""
        own = next((ref.policy for ref in workflow.functions.values() if ref.path == function), CallPolicy())
        return self.complete(function, own)

    def plan(self, call: CallRow, workflow: WorkflowRecord) -> None:
        """Fill in where and how a new call runs."""
        policy = self.policy(call.function, workflow).overridden(call.policy or {})
        chosen = policy.executor or self.complete(call.function, CallPolicy()).executor
        call.executor = self.only_executor or chosen
        call.queue = policy.queue
        call.priority = policy.priority
        call.timeout_seconds = policy.timeout_seconds
        call.resources = policy.resources
        kept = {name: value for name in _KEPT if (value := getattr(policy, name)) is not None}
        call.policy = {**(call.policy or {}), **kept} or None
        call.expires_at = total_ends_at(call)
        if policy.is_limited:
            call.limit_key = limit_key(call, policy)
            if call.limit_key.startswith(UNKNOWN_KEY):
                log.warning("limit key cannot be had: %s", call.limit_key, extra={"function": call.function})

    def next_attempt(
        self, execution_id: str, call: CallRow, failure: Failure, workflow: WorkflowRecord, now: float
    ) -> NextAttempt | None:
        """The attempt that follows a failed one, or None if the call has failed."""
        decided = self.decide(execution_id, call, failure, workflow, now)
        return decided if isinstance(decided, NextAttempt) else None

    def decide(
        self, execution_id: str, call: CallRow, failure: Failure, workflow: WorkflowRecord, now: float
    ) -> NextAttempt | Failure:
        """The attempt that follows a failed one, or the failure that the workflow gets to see.

        Failures of the infrastructure have a budget of their own and do not spend the function's attempts. An attempt
        that would begin after the call's time is over is none.
        """
        following = self._following(execution_id, call, failure, workflow, now)
        if following is None:
            return failure
        if following.expires_at is not None and following.due_at >= following.expires_at:
            return _cut_short(call, failure)
        return following

    def _following(
        self, execution_id: str, call: CallRow, failure: Failure, workflow: WorkflowRecord, now: float
    ) -> NextAttempt | None:
        """The next attempt, whether there is time for it or not."""
        policy = self.policy(call.function, workflow).overridden(call.policy or {})
        own = policy.retry
        if failure.type == TOTAL_TYPE:
            return None
        # An attempt that may have been started is tried again if the function may run twice.
        is_lost = failure.kind in INFRASTRUCTURE_KINDS or (failure.kind == "ambiguous" and policy.is_idempotent)
        if is_lost or (failure.type == HEARTBEAT_TYPE and own is None):
            if call.lost + 1 >= self.infrastructure.attempts:
                return None
            # The first loss is usually the death of one process; there is nothing to wait for.
            delay, lost = self.infrastructure.delay_seconds(call.lost, self.random) if call.lost else 0.0, 1
        else:
            retry = own or NO_RETRY
            spent = call.attempt - call.lost
            if not retry.allows(failure, spent) or not is_wanted(call.function, retry.when, failure):
                return None
            delay, lost = retry.delay_seconds(spent, self.random), 0
        return NextAttempt(
            execution_id, call.call_id, call.attempt, failure, now + delay, now, lost, expires_at=total_ends_at(call)
        )


def total_ends_at(call: CallRow) -> float | None:
    """When the time for all attempts of a call is over; None: never."""
    seconds = (call.policy or {}).get("total_timeout_seconds")
    return None if seconds is None else call.created_at + float(seconds)


def out_of_total_time(call: CallRow) -> Failure:
    """The failure of a call whose time for all attempts is over."""
    seconds = (call.policy or {}).get("total_timeout_seconds")
    message = f"{call.function} did not end within {seconds} s in all; attempt {call.attempt} was the last"
    return Failure("timeout", TOTAL_TYPE, message, bases=_TIMEOUT_BASES)


def out_of_attempt_time(call: CallRow) -> Failure:
    """The failure of an attempt that ran longer than it may, and that its executor did not stop."""
    message = f"{call.function} ran longer than {call.timeout_seconds} s, and its executor has not stopped it"
    return Failure("timeout", "TimeoutError", message, bases=_TIMEOUT_BASES[1:])


def without_heartbeat(call: CallRow) -> Failure:
    """The failure of an attempt that was silent for too long."""
    seconds = (call.policy or {}).get("heartbeat_seconds")
    message = f"{call.function} has sent no heartbeat for {seconds} s in attempt {call.attempt}"
    return Failure("timeout", HEARTBEAT_TYPE, message, bases=_TIMEOUT_BASES)


def _cut_short(call: CallRow, failure: Failure) -> Failure:
    total = out_of_total_time(call)
    last = f"{failure.type}: {failure.message}"
    return replace(total, message=f"{total.message} and failed with {last}", traceback=failure.traceback)
