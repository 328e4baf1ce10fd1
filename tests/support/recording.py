"""An observer that keeps everything it is told."""

from __future__ import annotations

from durable_monty.observerspecs import hookimpl


class Recorder:
    """Keeps hooks with their arguments in the order of the calls.

    Attributes:
        told: Pairs of a hook's name and one fact.
        batches: How many facts each call of a hook brought.
    """

    def __init__(self):
        self.told = []
        self.batches = []

    @hookimpl
    def worker_started(self, worker):
        self.told.append(("worker_started", worker))

    @hookimpl
    def worker_stopped(self, worker):
        self.told.append(("worker_stopped", worker))

    @hookimpl
    def executions_started(self, executions):
        self._keep("started", executions)

    @hookimpl
    def executions_suspended(self, executions):
        self._keep("suspended", executions)

    @hookimpl
    def executions_ended(self, executions):
        self._keep("ended", executions)

    @hookimpl
    def calls_submitted(self, calls):
        self._keep("submitted", calls)

    @hookimpl
    def calls_settled(self, calls):
        self._keep("settled", calls)

    @hookimpl
    def calls_retried(self, calls):
        self._keep("retried", calls)

    @hookimpl
    def signals_received(self, signals):
        self._keep("signal", signals)

    def of(self, execution_id):
        """What was told of one execution, without the suspensions: hook and call, or hook and status."""
        found = []
        for name, fact in self.told:
            if getattr(fact, "execution_id", None) != execution_id or name == "suspended":
                continue
            details = {
                "submitted": lambda fact: (fact.call_id, fact.attempt),
                "retried": lambda fact: (fact.call_id, fact.attempt),
                "settled": lambda fact: (fact.call_id, fact.attempt, fact.status.value),
                "ended": lambda fact: (fact.status.value,),
                "signal": lambda fact: (fact.name,),
                "started": lambda fact: (),
            }[name]
            found.append((name, *details(fact)))
        return found

    def facts(self, name):
        """What one hook was told."""
        return [fact for told, fact in self.told if told == name]

    def _keep(self, name, facts):
        self.told += [(name, fact) for fact in facts]
        self.batches.append((name, len(facts)))
