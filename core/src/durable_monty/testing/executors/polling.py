"""Promises about `poll`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence

from durable_monty.models import Capabilities, Job, Outcome
from durable_monty.testing import functions
from durable_monty.testing.executors.base import NO_SUCH_JOB
from durable_monty.testing.executors.driver import Driver, make_call, read
from durable_monty.testing.executors.submission import Submission


class Polling(Submission):
    """What holds when the core asks for news."""

    def test_polling_no_job_is_no_news(self, kit: Driver) -> None:
        told = kit.poll([])
        assert told == [], f"poll was asked about no job and told {told!r}"

    def test_a_running_job_is_silence(self, kit: Driver) -> None:
        """Neither a failure nor a value: silence means no news."""
        jobs = kit.start_calls(make_call(functions.sleep, self.pause_seconds, "awake"))
        kit.poll(jobs)
        early = kit.outcomes[jobs[0].job_id]
        assert not early, f"poll told of a running job: {early!r}"
        reply = read(kit.collect(jobs)[jobs[0].job_id])
        assert reply.value == "awake", f"a function that ran for {self.pause_seconds:g} s came back as {reply!r}"
        kit.complete(jobs)

    def test_a_job_that_the_back_end_does_not_know_is_lost(self, kit: Driver) -> None:
        """Not an exception, and not silence for ever: the core runs it again."""
        outcome = kit.collect([NO_SUCH_JOB])[NO_SUCH_JOB.job_id]
        kind = outcome.failure.kind if outcome.failure else None
        assert kind == "lost", f"a job that nobody has heard of came back as {outcome!r}; it must be lost"

    def test_an_unknown_job_does_not_spoil_the_batch(self, kit: Driver) -> None:
        (job,) = kit.start_calls(make_call(functions.echo, "well"))
        found = kit.collect([NO_SUCH_JOB, job])
        reply = read(found[job.job_id])
        assert reply.value == "well", f"beside an unknown job, a good one came back as {reply!r}"
        kit.complete([job])

    def test_poll_returns_when_its_wait_is_over(self, kit: Driver) -> None:
        """Its thread watches all jobs of the executor; one that sleeps must not hold it."""
        jobs = kit.start_calls(make_call(functions.sleep, self.pause_seconds, "held"))
        told: list[Outcome] = []
        thread = _in_thread(kit, jobs, self.pause_seconds / 20, told)
        thread.join(self.patience_seconds)
        held = thread.is_alive() or any(outcome.job_id == jobs[0].job_id for outcome in told)
        kit.collect(jobs)
        kit.complete(jobs)
        assert not held, f"poll was to wait {self.pause_seconds / 20:g} s at most, and waited for the job to end"

    def test_a_poll_that_waits_ends_when_the_executor_is_stopped(self, kit: Driver) -> None:
        """Otherwise a worker that is told to end does not."""
        jobs = kit.start_calls(make_call(functions.sleep, self.pause_seconds * 2))
        told: list[Outcome] = []
        thread = _in_thread(kit, jobs, self.patience_seconds * 3, told)
        kit.stop()
        thread.join(self.patience_seconds)
        held = thread.is_alive() or any(outcome.job_id == jobs[0].job_id for outcome in told)
        assert not held, "poll did not return when the executor was stopped, it waited for the job to end"

    def test_an_outcome_that_was_not_completed_is_told_to_the_next_worker(
        self, kit: Driver, other: Driver, can: Capabilities
    ) -> None:
        """A worker may be killed between `poll` and the commit. The outcome is the back end's until `complete`."""
        jobs = kit.start_calls(make_call(functions.echo, "still there"))
        kit.collect(jobs)
        kit.stop()
        reply = read(other.collect(jobs)[jobs[0].job_id])
        if can.survives_restart:
            assert reply.value == "still there", f"to the next worker the outcome came as {reply!r}"
        else:
            kind = reply.failure.kind if reply.failure else None
            assert kind == "lost", f"to the next worker the outcome came as {reply!r}; it must be lost"
        other.complete(jobs)

    def test_polling_and_submitting_go_on_at_the_same_time(self, kit: Driver) -> None:
        """`poll` runs in a thread of its own while other hooks run in the main thread."""
        first = kit.start_calls(make_call(functions.sleep, self.pause_seconds / 2))
        problems: list[BaseException] = []
        over = threading.Event()

        def poll() -> None:
            while not over.is_set():
                try:
                    kit.poll(first, 0.05)
                except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
                    problems.append(error)
                over.wait(0.01)

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            jobs = [job for number in range(10) for job in kit.start_calls(make_call(functions.echo, number))]
        finally:
            over.set()
            thread.join(self.patience_seconds)
        assert not problems, f"poll failed while calls were submitted: {problems[0]!r}"
        values = [reply.value for reply in kit.finish([*first, *jobs])[1:]]
        assert values == list(range(10)), f"ten calls that were submitted meanwhile came back as {values!r}"

    def test_every_job_gets_its_own_reply(self, kit: Driver) -> None:
        """The reply names its job; one that came under another's name fails the call."""
        jobs = kit.start_calls(*[make_call(functions.about_me) for _ in range(3)])
        replies = kit.finish(jobs)
        swapped = [job.job_id for job, reply in zip(jobs, replies, strict=True) if reply.job_id != job.job_id]
        assert not swapped, f"the reply of another job was told for {swapped!r}"

    def test_an_executor_that_pushes_need_not_be_polled(self, kit: Driver, can: Capabilities) -> None:
        """It hands outcomes to `context.deliver`; where it declares `pushes`, the core never polls it."""
        jobs = kit.start_calls(make_call(functions.echo, "pushed"))
        if can.pushes:
            ends_at = time.monotonic() + self.patience_seconds
            while not kit.outcomes[jobs[0].job_id] and time.monotonic() < ends_at:
                time.sleep(0.01)
            assert kit.outcomes[jobs[0].job_id], "it declares pushes, and told of no outcome until it was polled"
        kit.finish(jobs)

    def test_no_job_is_called_lost_because_the_back_end_is_away(self) -> None:
        """A back end that does not answer knows nothing about its jobs; raising is no news, and all is well."""
        away = self._unreachable()
        if away is None:
            return
        try:
            told = away.executor.poll([NO_SUCH_JOB], 0.0)
        except Exception:  # noqa: BLE001 - a plug-in may raise anything, and should
            return
        assert not told, f"its back end is away, and poll told {told!r}"


def _in_thread(kit: Driver, jobs: Sequence[Job], wait_seconds: float, told: list[Outcome]) -> threading.Thread:
    def poll() -> None:
        # What a poll raises after `stop` is nobody's concern.
        with contextlib.suppress(Exception):
            told.extend(kit.poll(jobs, wait_seconds))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    return thread
