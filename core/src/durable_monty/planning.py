"""Deciding where and how a call runs, and what follows a failed attempt. Pure decisions; nothing is done here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from durable_monty.models import INFRASTRUCTURE_KINDS, Failure
from durable_monty.policies import NO_RETRY, CallPolicy
from durable_monty.records import CallRow, NextAttempt, WorkflowRecord

INFRASTRUCTURE_ATTEMPTS = 10
_INFRASTRUCTURE_FIRST_DELAY_SECONDS = 0.5
_INFRASTRUCTURE_MAX_DELAY_SECONDS = 60.0


def _keep(_path: str, policy: CallPolicy) -> CallPolicy:
    return replace(policy, executor=policy.executor or "local")


@dataclass(slots=True)
class Planner:
    """Completes what functions say about their calls by what the configuration says.

    Args:
        complete: Gives the policy for a function's dotted path, from what its decorator says; the result names an
            executor.
    """

    complete: Callable[[str, CallPolicy], CallPolicy] = _keep
    random: Random = field(default_factory=Random)

    def policy(self, function: str, workflow: WorkflowRecord) -> CallPolicy:
        """How calls of this function of this workflow are run."""
        own = next((ref.policy for ref in workflow.functions.values() if ref.path == function), CallPolicy())
        return self.complete(function, own)

    def plan(self, call: CallRow, workflow: WorkflowRecord) -> None:
        """Fill in where and how a new call runs."""
        policy = self.policy(call.function, workflow)
        call.executor = policy.executor
        call.queue = policy.queue
        call.priority = policy.priority
        call.timeout_seconds = policy.timeout_seconds
        call.resources = policy.resources

    def next_attempt(
        self, execution_id: str, call: CallRow, failure: Failure, workflow: WorkflowRecord, now: float
    ) -> NextAttempt | None:
        """The attempt that follows a failed one, or None if the failure is the call's outcome.

        Failures of the infrastructure have a budget of their own and do not spend the function's attempts. Whether an
        attempt that may have been started counts as one of them is what the function says about running twice.
        """
        if failure.kind in INFRASTRUCTURE_KINDS or self._may_run_twice(call, failure, workflow):
            if call.lost + 1 >= INFRASTRUCTURE_ATTEMPTS:
                return None
            delay = min(_INFRASTRUCTURE_FIRST_DELAY_SECONDS * 2**call.lost, _INFRASTRUCTURE_MAX_DELAY_SECONDS)
            # The first loss is usually the death of one process; there is nothing to wait for.
            due_at = now + (delay if call.lost else 0.0)
            return NextAttempt(execution_id, call.call_id, call.attempt, failure, due_at, now, lost=1)
        retry = self.policy(call.function, workflow).retry or NO_RETRY
        spent = call.attempt - call.lost
        if not retry.allows(failure, spent):
            return None
        due_at = now + retry.delay_seconds(spent, self.random)
        return NextAttempt(execution_id, call.call_id, call.attempt, failure, due_at, now)

    def _may_run_twice(self, call: CallRow, failure: Failure, workflow: WorkflowRecord) -> bool:
        return failure.kind == "ambiguous" and self.policy(call.function, workflow).is_idempotent
