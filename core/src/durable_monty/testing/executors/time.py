"""Promises about time limits, cancelling, starting and stopping."""

from __future__ import annotations

from collections.abc import Sequence

from durable_monty.models import Capabilities, Job
from durable_monty.testing import functions
from durable_monty.testing.executors.base import NO_SUCH_JOB
from durable_monty.testing.executors.completion import Completion
from durable_monty.testing.executors.driver import Driver, make_call, read


class Time(Completion):
    """What holds when calls take too long, are not wanted any more, or outlive the worker."""

    def test_a_call_that_runs_longer_than_it_may_times_out(self, kit: Driver) -> None:
        call = make_call(functions.sleep, self.timeout_seconds * 20, timeout_seconds=self.timeout_seconds)
        (reply,) = kit.run(call)
        kind = reply.failure.kind if reply.failure else None
        assert kind == "timeout", f"a call past its timeout_seconds came back as {reply!r}; it must be a timeout"

    def test_a_call_that_ends_in_time_is_left_alone(self, kit: Driver) -> None:
        call = make_call(functions.echo, "in time", timeout_seconds=self.patience_seconds)
        (reply,) = kit.run(call)
        assert reply.value == "in time", f"a call with time to spare came back as {reply!r}"

    def test_after_a_timeout_the_next_call_runs(self, kit: Driver) -> None:
        slow = make_call(functions.sleep, self.timeout_seconds * 20, timeout_seconds=self.timeout_seconds)
        kit.run(slow)
        (reply,) = kit.run(make_call(functions.echo, "after"))
        assert reply.value == "after", f"after a timeout the next call came back as {reply!r}"

    def test_a_queued_job_that_is_cancelled_does_not_run(self, kit: Driver, can: Capabilities) -> None:
        """It stands behind as many others as a batch holds; where all begin at once it counts as running."""
        key = make_call(functions.echo).execution_id
        others = [make_call(functions.sleep, self.pause_seconds / 4) for _ in range(self._crowd(can))]
        wanted_no_more = make_call(functions.note_begin_and_end, key, self.pause_seconds * 2, execution_id=key)
        *jobs, victim = kit.start_calls(*others, wanted_no_more)
        is_stopped = self._cancelled(kit, [victim], can).get(victim.job_id, False)
        kit.finish(jobs)
        if can.cancel:
            assert is_stopped, "it declares cancel, and did not stop a job that waited behind others"
        if is_stopped:
            kit.run(make_call(functions.sleep, self.pause_seconds * 2.5))
            assert "end" not in kit.runs(key), "cancel said that a queued job will never start, and it ran to its end"
        kit.complete([victim])

    def test_a_running_job_that_is_said_to_be_cancelled_does_not_end_well(self, kit: Driver, can: Capabilities) -> None:
        """True means: it is stopped. An executor that cannot stop it says False, and that is fine."""
        key = make_call(functions.echo).execution_id
        (job,) = kit.start_calls(make_call(functions.note_begin_and_end, key, self.pause_seconds, execution_id=key))
        self._until_begun(kit, key, can)
        is_stopped = self._cancelled(kit, [job], can).get(job.job_id, False)
        kit.run(make_call(functions.sleep, self.pause_seconds * 1.5))
        if is_stopped:
            assert "end" not in kit.runs(key), "cancel said that a running job is stopped, and it went on to its end"
        kit.complete([job])

    def test_cancelling_a_job_that_has_ended_harms_nothing(self, kit: Driver, can: Capabilities) -> None:
        jobs = kit.start_calls(make_call(functions.echo, "ended"))
        outcome = kit.collect(jobs)[jobs[0].job_id]
        self._cancelled(kit, jobs, can)
        kit.complete(jobs)
        self._cancelled(kit, jobs, can)
        assert read(outcome).value == "ended", f"the outcome of a job that had ended is {outcome!r}"
        (reply,) = kit.run(make_call(functions.echo, "after"))
        assert reply.value == "after", f"after cancelling a job that had ended, the next call came back as {reply!r}"

    def test_cancelling_a_job_that_nobody_knows_harms_nothing(self, kit: Driver, can: Capabilities) -> None:
        (job,) = kit.start_calls(make_call(functions.sleep, self.pause_seconds, "well"))
        self._cancelled(kit, [NO_SUCH_JOB], can)
        reply = read(kit.collect([job])[job.job_id])
        assert reply.value == "well", f"when an unknown job was cancelled, another came back as {reply!r}"
        kit.complete([job])

    def test_stopping_leaves_jobs_to_the_next_worker(self, kit: Driver, other: Driver, can: Capabilities) -> None:
        """A worker is stopped for every new version of the program; its remote jobs go on."""
        jobs = kit.start_calls(make_call(functions.sleep, self.pause_seconds, "went on"))
        kit.stop()
        reply = read(other.collect(jobs)[jobs[0].job_id])
        if can.survives_restart:
            assert reply.value == "went on", f"after stop a remote job came back as {reply!r}"
        else:
            kind = reply.failure.kind if reply.failure else None
            assert kind == "lost", f"after stop a job of the worker came back as {reply!r}; it must be lost"
        other.complete(jobs)

    def test_stopping_an_executor_that_did_nothing_is_quiet(self, kit: Driver) -> None:
        """A worker may end before its first call is due."""
        executor = kit.executor
        try:
            executor.stop(0.0)
        except Exception as error:
            raise AssertionError(f"stop, right after start, raised {error!r}") from error
        finally:
            kit.is_started = False

    def _cancelled(self, kit: Driver, jobs: Sequence[Job], can: Capabilities) -> dict[str, bool]:
        if not kit.executor.has("cancel"):
            assert not can.cancel, "it declares cancel and implements no hook `cancel`"
            return {}
        try:
            answer = kit.executor.cancel(jobs, force=True)
        except Exception as error:
            raise AssertionError(f"cancel raised {error!r}; it answers by job id, False where it cannot") from error
        wrong = {key: value for key, value in answer.items() if not isinstance(value, bool)}
        assert not wrong, f"cancel answers True or False by job id, not {wrong!r}"
        return answer

    def _crowd(self, can: Capabilities) -> int:
        """How many jobs a cancelled one waits behind."""
        return min(self.largest_batch, can.max_batch, can.max_in_flight or self.largest_batch, 40) - 1

    def _until_begun(self, kit: Driver, key: str, can: Capabilities) -> None:
        """Until the remote side notes that it has begun; where notes are not shared, for as long as a call takes."""
        for _ in range(20):
            if "begin" in kit.runs(key):
                return
