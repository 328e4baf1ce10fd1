"""Promises about `submit` and `find`."""

from __future__ import annotations

from durable_monty.models import Accepted, Capabilities, Job
from durable_monty.testing import functions
from durable_monty.testing.executors.base import NO_SUCH_JOB, Promises
from durable_monty.testing.executors.driver import Driver, make_call, read, tokens_of
from durable_monty.testing.other_process import submit_and_die


class Submission(Promises):
    """What holds when calls are handed over, once or twice, by a worker that lives or dies."""

    def test_an_empty_batch_is_answered_with_nothing(self, kit: Driver) -> None:
        """The core does not send one; a plug-in that indexes into the batch finds out here."""
        answers = kit.executor.submit([])
        assert answers == [], f"submit was given no call and answered {answers!r}"

    def test_one_call_is_run_and_its_value_comes_back(self, kit: Driver) -> None:
        (reply,) = kit.run(make_call(functions.echo, 42))
        assert reply.value == 42, f"echo(42) came back as {reply!r}"

    def test_an_async_function_is_run_to_its_end(self, kit: Driver) -> None:
        """Every executor runs `async def` functions; `remote.run` does it."""
        (reply,) = kit.run(make_call(functions.echo_async, 7))
        assert reply.value == 7, f"an async function that returns 7 came back as {reply!r}"

    def test_every_call_of_a_full_batch_is_run(self, kit: Driver, can: Capabilities) -> None:
        size = min(can.max_batch, self.largest_batch)
        replies = kit.run(*[make_call(functions.echo, number) for number in range(size)])
        wrong = [number for number, reply in enumerate(replies) if reply.value != number]
        assert not wrong, f"of a batch of {size} calls {len(wrong)} came back wrong, the first: {replies[wrong[0]]!r}"

    def test_one_call_more_than_a_batch_holds_is_run_too(self, kit: Driver, can: Capabilities) -> None:
        """The core cuts what is due into batches of `max_batch`; the second follows before the first has ended."""
        size = min(can.max_batch, self.largest_batch) + 1
        replies = kit.run(*[make_call(functions.echo, number) for number in range(size)])
        assert [reply.value for reply in replies] == list(range(size)), f"of {size} calls not all came back right"

    def test_submit_returns_before_its_calls_have_ended(self, kit: Driver) -> None:
        """A worker that waits in `submit` moves no other execution meanwhile."""
        call = make_call(functions.sleep, self.pause_seconds)
        jobs = kit.start_calls(call)
        told = [*kit.outcomes[call.job_id], *(item for item in kit.poll(jobs) if item.job_id == call.job_id)]
        assert not told, (
            f"submit returned when a call of {self.pause_seconds:g} s had ended; it must start it and return"
        )
        kit.collect(jobs)
        kit.complete(jobs)

    def test_every_call_is_answered_once(self, kit: Driver) -> None:
        """A call without an answer is submitted again, so it may run twice."""
        replies = kit.run(*[make_call(functions.echo, letter) for letter in "abc"])
        assert [reply.value for reply in replies] == ["a", "b", "c"], f"three calls came back as {replies!r}"

    def test_a_call_that_is_submitted_twice_is_answered_twice(self, kit: Driver, can: Capabilities) -> None:
        """After a crash the core cannot know whether the first submission arrived."""
        key = make_call(functions.echo).execution_id
        call = make_call(functions.note_run, key, execution_id=key)
        kit.start_calls(call)
        (job,) = kit.start_calls(call)
        kit.finish([job])
        runs = kit.runs(key)
        values = {read(outcome).value for outcome in kit.outcomes[job.job_id]}
        if can.caller_ids:
            assert len(values) == 1, f"a job that was submitted twice gave {len(values)} values: it ran twice"
            assert len(runs) <= 1, (
                f"a call that was submitted twice ran {len(runs)} times; "
                "an executor that declares caller_ids runs it once"
            )

    def test_a_call_whose_submitter_was_killed_before_the_answer_can_be_submitted_again(
        self, kit: Driver, can: Capabilities
    ) -> None:
        key = make_call(functions.echo).execution_id
        call = make_call(functions.note_run, key, execution_id=key)
        submit_and_die(self._executor, [call], type(self) if self._overrides("make_executor") else None)
        (job,) = kit.start_calls(call)
        (reply,) = kit.finish([job])
        assert reply.failure is None, f"the call that was submitted again failed: {reply.failure!r}"
        runs = kit.runs(key)
        if can.caller_ids and can.survives_restart:
            assert len(runs) <= 1, f"a call that two workers submitted ran {len(runs)} times"

    def test_the_outcome_of_a_job_of_a_killed_worker_reaches_the_next_one(self, kit: Driver, can: Capabilities) -> None:
        """An executor whose jobs die with the worker says that they are lost; the core then runs them again."""
        call = make_call(functions.echo, "from the other")
        tokens = submit_and_die(self._executor, [call], type(self) if self._overrides("make_executor") else None)
        (job,) = tokens_of(tokens)
        reply = read(kit.collect([job])[job.job_id])
        if can.survives_restart:
            assert reply.value == "from the other", f"the job of a killed worker came back as {reply!r}"
        else:
            kind = reply.failure.kind if reply.failure else None
            assert kind == "lost", f"the job of a killed worker came back as {reply!r}; it must be lost"
        kit.complete([job])

    def test_find_knows_what_was_submitted_and_what_was_not(self, kit: Driver, can: Capabilities) -> None:
        call = make_call(functions.echo, 1)
        (job,) = kit.start_calls(call)
        if not kit.executor.has("find"):
            assert not can.can_find, "it declares can_find and implements no hook `find`"
        else:
            # As after a crash: without the token that was never stored.
            found = kit.executor.find([Job(job.job_id), NO_SUCH_JOB])
            expected = {"known", "unknown"} if not can.can_find else {"known"}
            assert found.get(job.job_id, "unknown") in expected, f"find says of a job that is there: {found!r}"
            expected = {"absent", "unknown"} if not can.can_find else {"absent"}
            assert found.get(NO_SUCH_JOB.job_id, "unknown") in expected, f"find says of a job that never was: {found!r}"
        kit.collect([job])
        kit.complete([job])

    def test_a_second_attempt_is_a_job_of_its_own(self, kit: Driver) -> None:
        key = make_call(functions.echo).execution_id
        calls = [make_call(functions.about_me, execution_id=key, attempt=attempt) for attempt in (1, 2)]
        replies = kit.run(*calls)
        assert [reply.value and reply.value["attempt"] for reply in replies] == [1, 2], (
            f"attempts 1 and 2 of one call came back as {replies!r}"
        )

    def test_no_submitted_call_is_accepted_when_the_back_end_is_away(self) -> None:
        """Then the core keeps it pending; a call that is accepted and never arrives is waited for in vain."""
        away = self._unreachable()
        if away is None:
            return
        try:
            (answer,) = away.executor.submit([make_call(functions.echo, 1)])
        except Exception:  # noqa: BLE001 - a plug-in may raise anything, and should
            return
        assert not isinstance(answer, Accepted), "its back end is away, and submit accepted a call"
        assert answer.retry_after_seconds is not None, (
            f"its back end is away, and a call was refused for good: {answer!r}"
        )

    def _unreachable(self) -> Driver | None:
        made = self.make_unreachable()
        assert made is not None or self._executor.capabilities.isolation != "machine", (
            "its functions run on another machine, which may be away: override `make_unreachable` in the suite"
        )
        return None if made is None else Driver(made, self.patience_seconds)
