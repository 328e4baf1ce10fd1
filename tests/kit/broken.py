"""For every promise of the kit an executor that breaks it, and no other: `BROKEN[promise]`."""

from __future__ import annotations

import threading
from dataclasses import replace

from pydantic import ConfigDict, Field

from durable_monty import codec, remote
from durable_monty.envelope import encode_value
from durable_monty.models import Accepted, Failure, Finding, Job, Outcome
from kit.heavy import Heavy
from kit.hurried import ReferenceSuite
from kit.reference import Reference, Settings, Volatile, as_dict

BROKEN: dict[str, list[type]] = {}


def breaks(promise):
    def register(broken):
        suite = broken if issubclass(broken, ReferenceSuite) else type("Suite", (ReferenceSuite,), {"kind": broken})
        BROKEN.setdefault(promise, []).append(suite)
        return broken

    return register


def name_of(call):
    return call.function_name.rpartition(".")[2]


def value_outcome(job_id, value):
    return Outcome(job_id, reply=encode_value(job_id, codec.dumps(value), remote.signing_key()))


def failure_outcome(job_id, kind, message="broken"):
    return Outcome(job_id, failure=Failure(kind, "Broken", message))


class Spoiling(Reference):
    """Tells another outcome of the calls that it is told to spoil."""

    def __init__(self, settings):
        super().__init__(settings)
        self.spoilt = {}

    def on_submit(self, calls):
        for call in calls:
            if self.is_spoilt(call, calls):
                self.spoilt[call.job_id] = self.instead(call)
        return super().on_submit(calls)

    def on_outcome(self, machine, job_id):
        outcome = super().on_outcome(machine, job_id)
        return self.spoilt.get(job_id, outcome) if outcome is not None else None

    def is_spoilt(self, call, calls):
        return False

    def instead(self, call):
        return value_outcome(call.job_id, "spoilt")


# --- submission


@breaks("test_an_empty_batch_is_answered_with_nothing")
class AnswersToNobody(Reference):
    def on_submit(self, calls):
        return super().on_submit(calls) or [Accepted("nobody-0-1")]


@breaks("test_one_call_is_run_and_its_value_comes_back")
class WrongValue(Spoiling):
    def is_spoilt(self, call, calls):
        return len(calls) == 1 and (name_of(call), call.args) == ("echo", (42,))


@breaks("test_an_async_function_is_run_to_its_end")
class NoAsync(Spoiling):
    def is_spoilt(self, call, calls):
        return len(calls) == 1 and name_of(call) == "echo_async"


class FullBatch(Spoiling):
    """Watches for a full batch that is followed by another call before anybody polls."""

    last = ()

    def on_submit(self, calls):
        follows, self.last = len(self.last) == 5, calls
        answers = super().on_submit(calls)
        self.followed(follows, calls)
        return answers

    def on_poll(self, jobs, wait_seconds):
        if len(self.last) == 5:
            self.alone(self.last)
        self.last = ()
        return super().on_poll(jobs, wait_seconds)

    def followed(self, follows, calls):
        pass

    def alone(self, calls):
        pass


@breaks("test_every_call_of_a_full_batch_is_run")
class DropsTheLastOfAFullBatch(FullBatch):
    def alone(self, calls):
        self.spoilt[calls[-1].job_id] = self.instead(calls[-1])


@breaks("test_one_call_more_than_a_batch_holds_is_run_too")
class TakesOneBatchOnly(FullBatch):
    def followed(self, follows, calls):
        if follows:
            self.spoilt[calls[0].job_id] = self.instead(calls[0])


@breaks("test_submit_returns_before_its_calls_have_ended")
class WaitsInSubmit(Reference):
    def on_submit(self, calls):
        answers = super().on_submit(calls)
        for call in calls:
            if name_of(call) == "sleep" and call.args == (ReferenceSuite.pause_seconds,):
                super().on_poll([Job(call.job_id)], 10)
        return answers


@breaks("test_every_call_is_answered_once")
class ForgetsAnAnswer(Reference):
    def on_submit(self, calls):
        answers = super().on_submit(calls)
        return answers[1:] if len(answers) == 3 and name_of(calls[0]) == "echo" else answers


class RunsAgain(Reference):
    is_foreign = False

    def on_put(self, machine, call):
        known = machine.records.get(call.job_id)
        machine.put(as_dict(call), again=known is not None and known.is_foreign == self.is_foreign)


@breaks("test_a_call_that_is_submitted_twice_is_answered_twice")
class RunsTwice(RunsAgain):
    pass


@breaks("test_a_call_that_is_submitted_twice_is_answered_twice")
class RefusesTheSecond(Volatile):
    def on_put(self, machine, call):
        assert call.job_id not in machine.seen
        super().on_put(machine, call)


@breaks("test_a_call_whose_submitter_was_killed_before_the_answer_can_be_submitted_again")
class RunsTwiceForAnother(RunsAgain):
    is_foreign = True


@breaks("test_the_outcome_of_a_job_of_a_killed_worker_reaches_the_next_one")
class LosesJobsOfOthers(Spoiling):
    def on_outcome(self, machine, job_id):
        record = machine.records.get(job_id)
        if record is not None and record.is_foreign and "from the other" in record.call["arguments"]:
            return failure_outcome(job_id, "lost")
        return super().on_outcome(machine, job_id)


@breaks("test_find_knows_what_was_submitted_and_what_was_not")
class FindsNothing(Reference):
    def on_find(self, jobs):
        return {job.job_id: "absent" for job in jobs}


@breaks("test_find_knows_what_was_submitted_and_what_was_not")
class ClaimsToFind(Volatile):
    def __init__(self, settings):
        super().__init__(settings)
        self.capabilities = replace(type(self).capabilities, can_find=True)


@breaks("test_a_second_attempt_is_a_job_of_its_own")
class AlwaysTheFirstAttempt(Spoiling):
    def is_spoilt(self, call, calls):
        return name_of(call) == "about_me" and call.attempt == 2

    def instead(self, call):
        return value_outcome(call.job_id, {"attempt": 1})


@breaks("test_no_submitted_call_is_accepted_when_the_back_end_is_away")
class AcceptsWithoutBackEnd(Reference):
    def on_submit(self, calls):
        if self.settings.folder == "/nowhere":
            return [Accepted(call.job_id) for call in calls]
        return super().on_submit(calls)


# --- polling


@breaks("test_polling_no_job_is_no_news")
class TellsOfNobody(Reference):
    def on_poll(self, jobs, wait_seconds):
        return super().on_poll(jobs, wait_seconds) if jobs else [failure_outcome("nobody-0-1", "lost")]


class TellsEarly(Reference):
    """Tells of running jobs with this in their arguments."""

    word = ""

    def on_outcome(self, machine, job_id):
        record = machine.records.get(job_id)
        if record is not None and record.outcome is None and self.word in record.call["arguments"]:
            return failure_outcome(job_id, "unavailable")
        return super().on_outcome(machine, job_id)


@breaks("test_a_running_job_is_silence")
class NoPatience(TellsEarly):
    word = "awake"


@breaks("test_a_job_that_the_back_end_does_not_know_is_lost")
class BlamesTheUser(Reference):
    def on_outcome(self, machine, job_id):
        outcome = super().on_outcome(machine, job_id)
        return failure_outcome(job_id, "user") if job_id == "kit-of-nobody-0-1" else outcome


@breaks("test_an_unknown_job_does_not_spoil_the_batch")
class SpoiltBatch(Reference):
    def on_poll(self, jobs, wait_seconds):
        if len(jobs) == 2 and any(job.job_id == "kit-of-nobody-0-1" for job in jobs):
            raise KeyError(jobs[0].job_id)
        return super().on_poll(jobs, wait_seconds)


@breaks("test_poll_returns_when_its_wait_is_over")
class WaitsForTheJob(Reference):
    def on_poll(self, jobs, wait_seconds):
        known = self.machine.records
        records = [known[job.job_id] for job in jobs if job.job_id in known]
        is_held = any("held" in record.call["arguments"] for record in records)
        return super().on_poll(jobs, 60 if is_held else wait_seconds)


@breaks("test_a_poll_that_waits_ends_when_the_executor_is_stopped")
class DoesNotHearOfStop(Reference):
    def on_stop(self):
        pass


@breaks("test_an_outcome_that_was_not_completed_is_told_to_the_next_worker")
class TellsOnce(Reference):
    def on_poll(self, jobs, wait_seconds):
        told = super().on_poll(jobs, wait_seconds)
        records = self.machine.records
        for outcome in told:
            record = records.get(outcome.job_id)
            if record is not None and "still there" in record.call["arguments"]:
                del records[outcome.job_id]
        return told


@breaks("test_polling_and_submitting_go_on_at_the_same_time")
class OneThreadOnly(Reference):
    thread = None

    def on_poll(self, jobs, wait_seconds):
        self.thread = threading.current_thread()
        return super().on_poll(jobs, wait_seconds)

    def on_submit(self, calls):
        if self.thread is not None and self.thread is not threading.current_thread():
            raise RuntimeError("it is polled in another thread")
        return super().on_submit(calls)


@breaks("test_every_job_gets_its_own_reply")
class Swaps(Spoiling):
    def on_submit(self, calls):
        answers = super().on_submit(calls)
        if len(calls) == 3 and name_of(calls[0]) == "about_me":
            first, second, _ = calls
            self.spoilt[first.job_id] = Outcome(first.job_id, reply=remote.run(second.envelope))
        return answers


@breaks("test_an_executor_that_pushes_need_not_be_polled")
class WaitsToBeAsked(Volatile):
    def on_end(self, outcome):
        pass


@breaks("test_no_job_is_called_lost_because_the_back_end_is_away")
class AwayIsLost(Reference):
    def on_poll(self, jobs, wait_seconds):
        if self.settings.folder == "/nowhere":
            return [failure_outcome(job.job_id, "lost") for job in jobs]
        return super().on_poll(jobs, wait_seconds)


# --- outcomes


@breaks("test_a_value_comes_back_as_it_was")
class JsonOnly(Spoiling):
    def is_spoilt(self, call, calls):
        return name_of(call) == "echo" and isinstance(call.args[0], set)

    def instead(self, call):
        return value_outcome(call.job_id, list(call.args[0]))


class Rewrites(Reference):
    """Changes the failure of a function."""

    function = ""

    def on_outcome(self, machine, job_id):
        outcome = super().on_outcome(machine, job_id)
        record = machine.records.get(job_id)
        if record is None or outcome is None or record.call["function_name"].rpartition(".")[2] != self.function:
            return outcome
        failure = outcome.failure or remote.read_reply(outcome.reply).failure
        return Outcome(job_id, failure=self.rewritten(failure))

    def rewritten(self, failure):
        return replace(failure, kind="user")


@breaks("test_what_a_function_raises_comes_back_with_type_message_and_traceback")
class NoTraceback(Rewrites):
    function = "fail"

    def rewritten(self, failure):
        return replace(failure, traceback="")


@breaks("test_an_exception_of_a_type_of_the_users_own_comes_back_with_its_bases")
class NoBases(Rewrites):
    function = "fail_in_own_way"

    def rewritten(self, failure):
        return replace(failure, bases=())


@breaks("test_a_result_that_cannot_be_carried_is_a_failure_that_says_where")
class BlamesTheFunction(Rewrites):
    function = "unencodable"


@breaks("test_a_function_that_does_not_exist_fails_its_own_call_only")
class MissingIsAnError(Rewrites):
    function = "no_such_function"


@breaks("test_an_envelope_that_cannot_be_read_fails_its_own_call_only")
class ReadsEnvelopes(Reference):
    def on_submit(self, calls):
        if any(b'"v":0' in call.envelope for call in calls):
            raise ValueError("not an envelope")
        return super().on_submit(calls)


@breaks("test_a_function_that_ends_its_process_harms_no_other_call")
class ExitIsLost(Rewrites):
    function = "leave"

    def rewritten(self, failure):
        return replace(failure, kind="lost")


@breaks("test_a_job_whose_machine_dies_is_lost")
class DeathIsAnError(Reference):
    def on_outcome(self, machine, job_id):
        outcome = super().on_outcome(machine, job_id)
        died = outcome is not None and outcome.failure is not None and "died" in outcome.failure.message
        return failure_outcome(job_id, "user") if died else outcome


@breaks("test_a_large_value_comes_back")
class Small(Spoiling):
    def is_spoilt(self, call, calls):
        return len(call.envelope) > 10_000

    def instead(self, call):
        return failure_outcome(call.job_id, "undecodable")


@breaks("test_a_result_over_the_limit_is_a_failure_and_not_silence")
class TooLargeForWords(Reference):
    def on_outcome(self, machine, job_id):
        outcome = super().on_outcome(machine, job_id)
        is_too_large = outcome is not None and outcome.failure is not None and outcome.failure.type == "TooLarge"
        return None if is_too_large else outcome


@breaks("test_outcomes_of_two_attempts_do_not_mix")
class OneJobForAllAttempts(Reference):
    def on_complete(self, jobs):
        super().on_complete(jobs)
        for job in jobs:
            call = job.job_id.rpartition("-")[0]
            for key, record in list(self.machine.records.items()):
                if key.rpartition("-")[0] == call and record.outcome is None:
                    del self.machine.records[key]


# --- completion


class CompletesNot(Reference):
    def __init__(self, settings):
        super().__init__(settings)
        self.completed = set()
        self.submitted = []

    def on_submit(self, calls):
        self.submitted += [call.job_id for call in calls]
        return super().on_submit(calls)

    def on_complete(self, jobs):
        if self.is_refused(jobs):
            raise KeyError("it cannot be completed")
        self.completed.update(job.job_id for job in jobs)
        super().on_complete(jobs)

    def is_refused(self, jobs):
        return False

    def record(self, job):
        return self.machine.records.get(job.job_id)


@breaks("test_completing_no_job_does_nothing")
class NeedsOneToComplete(CompletesNot):
    def is_refused(self, jobs):
        return not jobs


@breaks("test_a_job_may_be_completed_twice")
class CompletesOnce(CompletesNot):
    def is_refused(self, jobs):
        return len(jobs) == 1 and jobs[0].job_id in self.completed


@breaks("test_jobs_may_be_completed_in_any_order")
class CompletesInOrder(CompletesNot):
    def is_refused(self, jobs):
        places = [self.submitted.index(job.job_id) for job in jobs if job.job_id in self.submitted]
        return places != sorted(places)


@breaks("test_a_job_that_nobody_knows_may_be_completed")
class CompletesTheKnown(CompletesNot):
    def is_refused(self, jobs):
        return any(job.job_id not in self.machine.seen for job in jobs)


@breaks("test_another_worker_may_complete_a_job")
class CompletesItsOwn(CompletesNot):
    def is_refused(self, jobs):
        return not self.submitted and any(
            self.record(job) is not None and self.record(job).call["arguments"] == "[[1],{}]" for job in jobs
        )


@breaks("test_completing_one_job_leaves_the_others_alone")
class CompletesEverything(CompletesNot):
    def on_complete(self, jobs):
        super().on_complete(jobs)
        for key, record in list(self.machine.records.items()):
            if "undisturbed" in record.call["arguments"]:
                del self.machine.records[key]


@breaks("test_a_failed_job_may_be_completed")
class CompletesSuccess(CompletesNot):
    def is_refused(self, jobs):
        return any(self.record(job) is not None and self.record(job).call["arguments"] == '[["x"],{}]' for job in jobs)


# --- time


@breaks("test_a_call_that_runs_longer_than_it_may_times_out")
class NoTimeLimit(Reference):
    def on_put(self, machine, call):
        machine.put({**as_dict(call), "timeout_seconds": None})


@breaks("test_a_call_that_ends_in_time_is_left_alone")
class InAHurry(Spoiling):
    def is_spoilt(self, call, calls):
        return call.timeout_seconds == ReferenceSuite.patience_seconds

    def instead(self, call):
        return failure_outcome(call.job_id, "timeout")


@breaks("test_after_a_timeout_the_next_call_runs")
class StoppedByATimeout(Spoiling):
    has_timed_out = False

    def is_spoilt(self, call, calls):
        was, self.has_timed_out = self.has_timed_out, call.timeout_seconds == ReferenceSuite.timeout_seconds
        return was


class CancelsInWords(Reference):
    """Says that jobs are stopped which note that they run for so long."""

    seconds = ReferenceSuite.pause_seconds * 2

    def on_cancel(self, jobs):
        records = {job.job_id: self.machine.records.get(job.job_id) for job in jobs}
        said = {
            key
            for key, record in records.items()
            if record is not None and record.call["arguments"].endswith(f",{self.seconds}],{{}}]")
        }
        return {**super().on_cancel([job for job in jobs if job.job_id not in said]), **dict.fromkeys(said, True)}


@breaks("test_a_queued_job_that_is_cancelled_does_not_run")
class CancelsNothing(CancelsInWords):
    pass


@breaks("test_a_queued_job_that_is_cancelled_does_not_run")
class CannotCancel(Reference):
    def on_cancel(self, jobs):
        return {}


@breaks("test_a_running_job_that_is_said_to_be_cancelled_does_not_end_well")
class CancelsNothingThatRuns(CancelsInWords):
    seconds = ReferenceSuite.pause_seconds


@breaks("test_cancelling_a_job_that_has_ended_harms_nothing")
class CancelsTheLivingOnly(Reference):
    def on_cancel(self, jobs):
        if any("ended" in record.call["arguments"] for job in jobs if (record := self.machine.records.get(job.job_id))):
            raise KeyError("it has ended")
        return super().on_cancel(jobs)


@breaks("test_cancelling_a_job_that_nobody_knows_harms_nothing")
class CancelsEverything(Reference):
    def on_cancel(self, jobs):
        for job in jobs:
            if job.job_id not in self.machine.seen:
                self.machine.records.clear()
        return super().on_cancel(jobs)


@breaks("test_stopping_leaves_jobs_to_the_next_worker")
class TakesItsJobsAlong(Reference):
    def on_stop(self):
        super().on_stop()
        for key, record in list(self.machine.records.items()):
            if "went on" in record.call["arguments"]:
                del self.machine.records[key]


@breaks("test_stopping_an_executor_that_did_nothing_is_quiet")
class StopsWhatItNeverStarted(Reference):
    def on_stop(self):
        if not self.hooks_called:
            raise AttributeError("it has no connection")
        super().on_stop()


# --- settings


class PlainSettings:
    def __init__(self, **values):
        self.__dict__ |= values

    def model_dump(self):
        return dict(vars(self))


@breaks("test_it_has_a_settings_model")
class NoModel(Reference):
    Settings = PlainSettings


@breaks("test_an_unknown_setting_is_refused")
class TakesAnySetting(Reference):
    class Settings(Settings):
        model_config = ConfigDict(extra="ignore")


@breaks("test_every_setting_has_a_description")
class Undescribed(Reference):
    class Settings(Settings):
        speed: int = 3


@breaks("test_secrets_are_secret_in_the_settings")
class OpenSecret(Reference):
    class Settings(Settings):
        api_token: str = Field("", description="Shown to everybody.")


@breaks("test_no_repr_shows_a_secret")
class Talkative(Reference):
    def __repr__(self):
        password = self.settings.password
        return f"<executor with {password.get_secret_value() if password else None}>"


@breaks("test_neither_values_nor_secrets_are_logged")
class LogsArguments(Reference):
    def on_submit(self, calls):
        for call in calls:
            self.context.logger.info("submitting", extra={"arguments_of_the_user": call.args})
        return super().on_submit(calls)


@breaks("test_it_declares_its_capabilities")
class PollsBeforeItIsAsked(Reference):
    capabilities = replace(Reference.capabilities, poll_interval_seconds=-1.0)


@breaks("test_it_was_written_for_an_interface_that_this_core_has")
class OfNoVersion(Reference):
    interface_version = None


@breaks("test_every_method_with_the_name_of_a_hook_is_one")
class ForgotTheMarker(Reference):
    def stats(self):
        return {}


@breaks("test_check_finds_nothing_wrong_with_a_back_end_that_works")
class AlwaysWorried(Reference):
    def on_check(self):
        return [Finding("error", "I have a bad feeling", "none")]


@breaks("test_check_says_what_is_wrong_with_a_back_end_that_is_away")
class NeverWorried(Reference):
    def on_check(self):
        return []


@breaks("test_check_says_what_is_wrong_with_a_back_end_that_is_away")
class WorriedWithoutRemedy(Reference):
    def on_check(self):
        return [replace(finding, remedy="") for finding in super().on_check()]


@breaks("test_stats_are_numbers_by_name")
class StatsInWords(Reference):
    def on_stats(self):
        return {"requests": "a few"}


breaks("test_importing_it_is_light")(Heavy)


@breaks("test_no_promise_is_overridden_without_a_reason")
class QuietlyWeaker(ReferenceSuite):
    def test_stats_are_numbers_by_name(self):
        """Nothing is asserted."""


# --- load


@breaks("test_many_calls_all_come_back")
class LosesOneOfMany(Spoiling):
    def is_spoilt(self, call, calls):
        return len(calls) == 4 and name_of(call) == "echo" and call.args == (6,)


@breaks("test_open_jobs_are_asked_about_in_a_bounded_number_of_requests")
class OneRequestPerJob(Reference):
    def on_outcome(self, machine, job_id):
        return super().on_outcome(self.machine, job_id)
