"""Retries with a predicate, time limits over one attempt and over all, heartbeats and progress."""

from __future__ import annotations

import time

import pytest

from durable_monty import LocalExecutor, OrchestratorService, Worker, init_db
from durable_monty.config import Config
from durable_monty.models import Accepted, Capabilities
from support import policy_functions as host
from support.scripted import Scripted
from support.workers import DEADLINE_SECONDS, eventually, running

CATCH = """
try:
    found = await call({arguments})
except Exception as e:
    found = [isinstance(e, {kind}), str(e)]
found
"""


def result_of(service, function, *arguments, kind="TimeoutError", executor=None):
    """What a workflow makes of one call: its value, or the failure that it catches."""
    text = ", ".join(map(repr, arguments))
    code = CATCH.format(arguments=text, kind=kind).replace("call(", f"{function.__name__}(")
    execution_id = service.start_execution(code, [function])
    with running(Worker(service, executor, poll_interval=0.1)):
        return service.wait(execution_id, DEADLINE_SECONDS)["output"]


@pytest.fixture
def quick(tmp_path):
    """A service whose worker ends calls soon after their time."""
    config = Config.model_validate({"worker": {"timeout_grace_seconds": 0.2}})
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/quick.db", synchronous="NORMAL"), config) as opened:
        yield opened


# Retries


def test_a_predicate_has_the_last_word_on_a_retry(lite_service, tmp_path):
    assert result_of(lite_service, host.choosy, str(tmp_path / "a"), ["again", "again"]) == 3
    found = result_of(lite_service, host.choosy, str(tmp_path / "b"), ["again", "enough"], kind="OSError")
    assert found[1].endswith("enough")
    assert host.lines(tmp_path / "b") == ["1", "2"]


def test_a_predicate_may_be_a_lambda_of_the_decorator(lite_service):
    assert result_of(lite_service, host.choosy_lambda, ["again"]) == 2
    assert result_of(lite_service, host.choosy_lambda, ["enough"])[1].endswith("enough")


def test_a_predicate_that_cannot_be_found_lets_no_attempt_follow_and_says_so(lite_service, tmp_path, caplog):
    assert result_of(lite_service, host.unpredictable, str(tmp_path / "a"))[1].endswith("again")
    assert host.lines(tmp_path / "a") == ["ran"]
    assert "is_nowhere" in caplog.text


def test_the_budget_of_the_infrastructure_is_a_matter_of_configuration(tmp_path):
    config = Config.model_validate({"infrastructure": {"attempts": 3, "first_delay_seconds": 0.01}})
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), config) as service:
        from support import functions

        executor = LocalExecutor(mode="process", workers=1)
        found = result_of(service, functions.exit_process, kind="RuntimeError", executor=executor)
        assert found[0]
        (call,) = service.runtime.store.calls(service.list_executions()[0]["execution_id"])
        assert (call.attempt, call.lost) == (3, 2)


# Time limits


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_a_call_has_so_long_for_all_its_attempts(lite_service, tmp_path, mode):
    found = result_of(lite_service, host.endless, str(tmp_path / "release"), executor=LocalExecutor(mode=mode))
    assert found == [True, "support.policy_functions.endless did not end within 0.5 s in all; attempt 1 was the last"]
    (tmp_path / "release").touch()


def test_an_attempt_that_would_begin_too_late_is_none(lite_service, tmp_path):
    found = result_of(lite_service, host.hopeless, str(tmp_path / "a"))
    assert found[0]
    assert "within 0.4 s in all" in found[1]
    assert 1 < len(host.lines(tmp_path / "a")) < 20


def test_a_timeout_counts_as_an_attempt(lite_service, tmp_path):
    assert result_of(lite_service, host.slow_at_first, str(tmp_path / "a"), str(tmp_path / "release")) in (2, 3)
    (tmp_path / "release").touch()


class Deaf(Scripted):
    """Accepts every call and never says a word again."""

    capabilities = Capabilities(survives_restart=True, cancel=True, poll_interval_seconds=0.01)

    def __init__(self):
        super().__init__(submit=[lambda calls: [Accepted(call.job_id, "token") for call in calls]] * 100)
        self.cancelled = []

    from durable_monty.hookspecs import hookimpl

    @hookimpl
    def cancel(self, jobs, force):
        self.cancelled += [job.job_id for job in jobs]
        return {job.job_id: True for job in jobs}


def test_a_timeout_holds_where_the_executor_keeps_none_and_the_job_is_cancelled(quick, tmp_path):
    executor = Deaf()
    found = result_of(quick, host.slow_at_first, str(tmp_path / "a"), "", executor=executor)
    assert found[0]
    assert "ran longer than 0.5 s" in found[1]
    assert executor.cancelled == executor.submitted
    assert len(executor.submitted) == 3


def test_a_timeout_holds_when_the_worker_that_submitted_is_gone(database_url, tmp_path):
    config = Config.model_validate({"worker": {"timeout_grace_seconds": 0.2, "lease_seconds": 1}})
    first = OrchestratorService(init_db(database_url), config)
    execution_id = first.start_execution(
        CATCH.format(arguments="'p', 'r'", kind="TimeoutError").replace("call(", "slow_at_first("), [host.slow_at_first]
    )
    executor = Deaf()
    with running(Worker(first, executor, poll_interval=0.05)):
        eventually(lambda: executor.submitted)
    first.close()
    second = OrchestratorService(init_db(database_url), config)
    with second, running(Worker(second, Deaf(), poll_interval=0.05)):
        found = second.wait(execution_id, DEADLINE_SECONDS)["output"]
    assert found[0], found


def test_waiting_in_a_queue_is_no_part_of_an_attempt(quick):
    """Ten calls of 0.2 s with a timeout of 1.5 s, one at a time."""
    from support import functions

    code = (
        "from asyncio import gather\nfrom durable_monty.flow import options\n"
        "await gather(*[options(sleep, timeout_seconds=1.5)(0.2) for _ in range(10)])"
    )
    execution_id = quick.start_execution(code, [functions.sleep])
    with running(Worker(quick, LocalExecutor(workers=1))):
        assert quick.wait(execution_id, DEADLINE_SECONDS)["output"] == [0.2] * 10


# Heartbeats


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_a_call_that_falls_silent_is_tried_again_with_the_last_progress(database_url, tmp_path, mode):
    release = str(tmp_path / "release")
    with OrchestratorService(init_db(database_url), Config()) as service:
        executor = LocalExecutor(mode=mode)
        attempt, start = result_of(service, host.climbing, str(tmp_path / "a"), release, executor=executor)
        assert (attempt > 1, start) == (True, 3)
        (row,) = service.list_executions()
        (_, _, _, failure) = service.runtime.store.failed_attempts(row["execution_id"])[0]
        assert "no heartbeat for 1 s" in failure
    (tmp_path / "release").touch()
    assert host.lines(tmp_path / "a")[:2] == ["1 from 0", "2 from 3"]


def test_an_async_function_can_fall_silent_too(lite_service, tmp_path):
    attempt, start = result_of(lite_service, host.climbing_async, str(tmp_path / "a"))
    assert (attempt > 1, start) == (True, 3)


def test_a_call_that_is_not_silent_may_run_as_long_as_it_likes(lite_service):
    assert result_of(lite_service, host.steady, 16) == 1


def test_a_silent_call_with_a_retry_of_its_own_ends_when_that_is_spent(lite_service, tmp_path):
    found = result_of(lite_service, host.silent, str(tmp_path / "release"))
    assert found == [True, "support.policy_functions.silent has sent no heartbeat for 0.3 s in attempt 2"]
    (tmp_path / "release").touch()


def test_the_last_progress_of_an_attempt_that_fails_is_not_lost(lite_service):
    """Fifty heartbeats in a moment; few go out, the last one does."""
    assert result_of(lite_service, host.fails_with_progress) == 49


def test_heartbeats_where_none_are_carried_are_refused_in_clear_words(lite_service):
    found = result_of(lite_service, host.steady, 1, kind="RuntimeError", executor=Deaf())
    assert found[0]
    assert "carries no heartbeats" in found[1]
    assert "choose another executor" in found[1]


def test_show_tells_progress_limits_and_times(tmp_path):
    """As a person sees it while the calls are open."""
    import json
    import subprocess
    import sys
    from pathlib import Path

    url = f"sqlite:///{tmp_path}/shown.db"
    (tmp_path / "durable-monty.toml").write_text(f'[store]\nurl = "{url}"\n')
    release, path = tmp_path / "release", str(tmp_path / "notes")
    code = (
        "from asyncio import gather\nfrom durable_monty.flow import options\n"
        "one = options(report_and_hang, concurrency=1, key='ada', total_timeout_seconds=600)\n"
        "await gather(one(path, release), one(path, release))"
    )
    with OrchestratorService(init_db(url), Config()) as service:
        inputs = {"path": path, "release": str(release)}
        execution_id = service.start_execution(code, [host.report_and_hang], inputs)
        with running(Worker(service)):
            eventually(lambda: any(call.progress for call in service.runtime.store.calls(execution_id)))
            command = [str(Path(sys.executable).parent / "durable-monty"), "show", execution_id]
            text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
            shown = subprocess.run(
                [*command, "--json"], capture_output=True, text=True, check=True, cwd=tmp_path
            ).stdout
            release.touch()
    assert 'call 0 reported {"page":7}' in text
    assert "call 1 waits for its limit, support.policy_functions.report_and_hang:ada" in text
    assert "call 1 has" in text
    first, second = json.loads(shown)["calls"]
    assert (first["progress"], first["limit_key"]) == ({"page": 7}, "support.policy_functions.report_and_hang:ada")
    assert second["policy"]["concurrency"] == 1


def test_options_that_cannot_be_are_raised_at_the_call_and_leave_nothing(lite_service):
    from support import functions

    cases = {
        "rate='0/s'": "rate is '0/s'",
        "timeout_seconds=-1": "timeout_seconds is -1",
        "concurrency=0": "concurrency is 0",
        "retry={'attempts': 0}": "Retry attempts is 0",
        "tries=3": "options() has no 'tries'",
    }
    for fields, message in cases.items():
        code = (
            "from durable_monty.flow import options\n"
            f"try:\n    found = await options(add, {fields})(1, 2)\nexcept ValueError as e:\n    found = str(e)\nfound"
        )
        execution_id = lite_service.start_execution(code, [functions.add], check=False)
        Worker(lite_service).run(until_complete=True)
        assert message in lite_service.get_result(execution_id)
        assert lite_service.runtime.store.calls(execution_id) == []


def test_options_are_checked_at_submit_and_so_are_the_arguments(lite_service):
    from durable_monty import WorkflowCheckError
    from support import functions

    for wrong in ("options(add, timeout_seconds='5')(1, 2)", "options(add)(1, 'two')", "options(add, timeout=5)(1, 2)"):
        with pytest.raises(WorkflowCheckError):
            lite_service.start_execution(f"from durable_monty.flow import options\nawait {wrong}", [functions.add])


def test_a_retry_of_one_call_names_its_exceptions_in_the_sandbox(lite_service, tmp_path):
    from support import functions

    code = (
        "from durable_monty.flow import Retry, options\n"
        "twice = Retry(attempts=2, first_delay_seconds=0.01, on=(ValueError, 'ConnectionError'))\n"
        "try:\n    await options(fail, retry=twice)('KeyError', 'k')\nexcept KeyError:\n    pass\n"
        "try:\n    await options(fail, retry=twice)('ValueError', 'v')\nexcept ValueError:\n    pass\n"
    )
    execution_id = lite_service.start_execution(code, [functions.fail])
    Worker(lite_service).run(until_complete=True)
    assert [call.attempt for call in lite_service.runtime.store.calls(execution_id)] == [1, 2]


def test_signs_of_life_that_are_garbled_or_of_another_job_are_ignored(lite_service, caplog):
    from durable_monty.envelope import encode_heartbeat
    from durable_monty.hookspecs import hookimpl
    from durable_monty.models import Heartbeat
    from support import functions

    class Babbling(Scripted):
        @hookimpl
        def poll(self, jobs, wait_seconds):
            found = [Heartbeat(job.job_id, b"what") for job in jobs]
            found += [Heartbeat(job.job_id, encode_heartbeat("other-0-1", None, None)) for job in jobs]
            return [
                *found,
                Heartbeat("unknown-3-1", encode_heartbeat("unknown-3-1", "7", None)),
                *super().poll(jobs, 0),
            ]

    execution_id = lite_service.start_execution("await add(1, 2)", [functions.add])
    Worker(lite_service, Babbling()).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert "heartbeat ignored" in caplog.text


def test_many_heartbeats_cost_few_messages():
    from durable_monty.heartbeats import Heartbeats

    sent = []
    beats = Heartbeats("e-0-1", sent.append, None)
    beats.begin()
    ends_at = time.monotonic() + 0.6
    while time.monotonic() < ends_at:
        beats.beat(1)
    beats.end(has_failed=True)
    assert 2 <= len(sent) <= 5
