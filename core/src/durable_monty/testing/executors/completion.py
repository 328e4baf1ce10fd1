"""Promises about `complete`."""

from __future__ import annotations

from collections.abc import Sequence

from durable_monty.models import Job
from durable_monty.testing import functions
from durable_monty.testing.executors.base import NO_SUCH_JOB
from durable_monty.testing.executors.driver import Driver, make_call, read
from durable_monty.testing.executors.outcomes import Outcomes


class Completion(Outcomes):
    """What holds when the core says that outcomes are durable."""

    def test_completing_no_job_does_nothing(self, kit: Driver) -> None:
        """The core does not ask for it; a plug-in that indexes into the batch finds out here."""
        self._complete(kit, [], "completing no job")

    def test_a_job_may_be_completed_twice(self, kit: Driver) -> None:
        """The core asks again when it did not hear of the first."""
        jobs = kit.start_calls(make_call(functions.echo, 1))
        kit.collect(jobs)
        kit.complete(jobs)
        self._complete(kit, jobs, "completing a job twice")

    def test_jobs_may_be_completed_in_any_order(self, kit: Driver) -> None:
        jobs = kit.start_calls(*[make_call(functions.echo_async, number) for number in range(4)])
        kit.collect(jobs)
        self._complete(kit, jobs[::-2], "completing jobs out of order")
        self._complete(kit, jobs, "completing some jobs again, beside others")
        (reply,) = kit.run(make_call(functions.echo, "after"))
        assert reply.value == "after", f"after completing out of order the next call came back as {reply!r}"

    def test_a_job_that_nobody_knows_may_be_completed(self, kit: Driver) -> None:
        self._complete(kit, [NO_SUCH_JOB], "completing a job that is not known")

    def test_another_worker_may_complete_a_job(self, kit: Driver, other: Driver) -> None:
        """The one that polled it was killed after the commit."""
        jobs = kit.start_calls(make_call(functions.echo, 1))
        kit.collect(jobs)
        self._complete(other, jobs, "completing a job of another worker")

    def test_completing_one_job_leaves_the_others_alone(self, kit: Driver) -> None:
        done, running = kit.start_calls(
            make_call(functions.echo, 1), make_call(functions.sleep, self.pause_seconds, "undisturbed")
        )
        kit.collect([done])
        kit.complete([done])
        reply = read(kit.collect([running])[running.job_id])
        assert reply.value == "undisturbed", f"when another job was completed, this one came back as {reply!r}"
        kit.complete([running])

    def test_a_failed_job_may_be_completed(self, kit: Driver) -> None:
        jobs = kit.start_calls(make_call(functions.fail, "x"))
        kit.collect(jobs)
        self._complete(kit, jobs, "completing a job that failed")

    def _complete(self, kit: Driver, jobs: Sequence[Job], doing: str) -> None:
        try:
            kit.executor.complete(jobs)
        except Exception as error:
            raise AssertionError(f"{doing} raised {error!r}; complete is idempotent") from error
