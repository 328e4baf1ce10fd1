"""What must be true of every execution, whatever happened while it ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chaos.figures import Figures
from durable_monty import OrchestratorService
from durable_monty.errors import ExecutionFailed
from support.chaos_workflows import Planned


class Broken(AssertionError):
    """A promise that was not kept."""


@dataclass(slots=True)
class Judge:
    """Looks at executions that have ended, remembers their calls, and compares them with the ledger in the end."""

    figures: Figures
    # When a call was made and when it ended, by execution and call.
    _calls: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)
    _timers: set[tuple[str, int]] = field(default_factory=set)

    def look(self, service: OrchestratorService, planned: Planned) -> None:
        """The execution has the right end, and each of its calls was delivered once.

        Raises:
            Broken: It has not, or one was not.
        """
        end = _end(service, planned)
        if end != planned.expected:
            raise Broken(f"{planned.execution_id} has ended with {end!r} instead of {planned.expected!r}")
        calls = service.runtime.store.calls(planned.execution_id)
        places = [(call.batch, call.position) for call in calls]
        if None in [number for place in places for number in place]:
            raise Broken(f"a call of {planned.execution_id} was not delivered")
        if len(set(places)) != len(places):
            raise Broken(f"two calls of {planned.execution_id} were delivered in one place")
        for call in calls:
            key = (planned.execution_id, call.call_id)
            if call.ended_at is None:
                raise Broken(f"call {key} was delivered and has not ended")
            self._calls[key] = call.created_at, call.ended_at
            if call.kind != "function":
                self._timers.add(key)
        self.figures.executions += 1
        self.figures.calls += len(calls)

    def compare(self, ledger: Iterable[str]) -> None:
        """Every call has run; those that ran more than once were at an executor while a fault could repeat them.

        Raises:
            Broken: One has not, or was not.
        """
        runs = Counter((line.split()[0], int(line.split()[1])) for line in ledger)
        for key, (created_at, ended_at) in self._calls.items():
            ran = runs.pop(key, 0)
            if ran < 1 and key not in self._timers:
                raise Broken(f"call {key} has an outcome and never ran")
            if ran <= 1:
                continue
            self.figures.repeated[key] = ran
            if not any(
                span.repeats and span.began_at <= ended_at and created_at <= span.ended_at
                for span in self.figures.spans
            ):
                raise Broken(
                    f"call {key} ran {ran} times from {created_at:.1f} to {ended_at:.1f}; no fault explains it"
                )
        if runs:
            raise Broken(f"calls ran that are in no log: {runs}")


def _end(service: OrchestratorService, planned: Planned) -> Any:
    """The result; of one that is to fail, what is expected, if that is why it has failed."""
    try:
        return service.get_result(planned.execution_id)
    except ExecutionFailed as error:
        return planned.expected if planned.fails and planned.expected in str(error) else str(error)
