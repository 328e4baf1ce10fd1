"""What a policy may say, in the decorator, in the configuration and for one call; and what follows a failure by it."""

from __future__ import annotations

import asyncio
import math

import pytest

from durable_monty import Retry, function
from durable_monty.config import Config
from durable_monty.errors import FunctionError
from durable_monty.flow import options
from durable_monty.functions import FunctionOptions
from durable_monty.models import CallStatus, Failure
from durable_monty.overrides import call_overrides
from durable_monty.planning import Planner
from durable_monty.policies import CallPolicy, rate_per_second
from durable_monty.predicates import find_predicate, is_wanted
from durable_monty.records import CallKind, CallRow, FunctionRef, NextAttempt, WorkflowRecord

BAD_FIELDS = [
    ({"timeout_seconds": 0}, "timeout_seconds is 0; it must be more than 0"),
    ({"timeout_seconds": -1}, "timeout_seconds is -1"),
    ({"timeout_seconds": math.nan}, "timeout_seconds is nan"),
    ({"timeout_seconds": "5"}, "timeout_seconds is '5'"),
    ({"timeout_seconds": True}, "timeout_seconds is True"),
    ({"total_timeout_seconds": math.inf}, "total_timeout_seconds is inf"),
    ({"total_timeout_seconds": 1e12}, "at most 100 years"),
    ({"heartbeat_seconds": -0.5}, "heartbeat_seconds is -0.5"),
    ({"executor": ""}, "executor is ''"),
    ({"queue": 7}, "queue is 7"),
    ({"priority": 1.5}, "priority is 1.5; it must be a whole number"),
    ({"priority": 10**9}, "from -1000 to 1000"),
    ({"concurrency": 0}, "concurrency is 0; it must be a whole number of at least 1"),
    ({"concurrency": -3}, "concurrency is -3"),
    ({"rate": "0/s"}, "rate is '0/s'"),
    ({"rate": "-5/s"}, "rate is '-5/s'"),
    ({"rate": "5/d"}, "it must be like '50/s', '10/m' or '100/h'"),
    ({"rate": 50}, "rate is 50"),
    ({"resources": 4}, "resources is 4; it must be a mapping"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_FIELDS, ids=lambda item: str(item))
def test_a_field_out_of_its_range_is_a_clear_error(fields, message):
    with pytest.raises(ValueError, match=r"^@function ") as raised:
        FunctionOptions(**fields)
    assert message in str(raised.value)
    with pytest.raises(ValueError, match=r"^options\(\) ") as raised:
        call_overrides(fields)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attempts": 0}, "Retry attempts is 0; it must be at least 1"),
        ({"attempts": 1.5}, "Retry attempts is 1.5"),
        ({"first_delay_seconds": -1}, "Retry first_delay_seconds is -1; it must be between 0 and 100 years"),
        ({"max_delay_seconds": math.inf}, "Retry max_delay_seconds is inf"),
        ({"factor": 0.5}, "Retry factor is 0.5"),
        ({"jitter": 2}, "Retry jitter is 2"),
        ({"on": ValueError}, "Retry on is"),
        ({"on": (3,)}, "a tuple of exception types or their names"),
        ({"when": 3}, "Retry when is 3; it must be a function that takes a Failure, or its dotted path"),
        ({"when": "nowhere"}, "Retry when is 'nowhere'"),
    ],
    ids=str,
)
def test_a_retry_that_cannot_be_is_a_clear_error(fields, message):
    with pytest.raises(ValueError) as raised:
        Retry(**fields)
    assert message in str(raised.value)
    with pytest.raises(ValueError):
        call_overrides({"retry": fields if fields != {"on": ValueError} else {"on": 3}})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"timeout": 5}, "options() has no 'timeout'; did you mean 'timeout_seconds'?"),
        ({"blocking": True}, "options() has no 'blocking'"),
        ({"zzz": True}, "options() has no 'zzz'; it has retry, timeout_seconds"),
        ({"key": len}, "it must be the key of this call, as text"),
        ({"retry": 3}, "options() retry is 3; write for example retry=Retry(attempts=3)"),
        ({"retry": {"tries": 3}}, "Retry has no 'tries'"),
    ],
    ids=str,
)
def test_options_that_one_call_cannot_have_are_a_clear_error(fields, message):
    with pytest.raises(ValueError) as raised:
        call_overrides(fields)
    assert message in str(raised.value)


def test_only_what_is_given_for_one_call_is_stored():
    assert call_overrides({"timeout_seconds": None, "priority": 0, "key": "a", "idempotent": False}) == {
        "timeout_seconds": None,
        "priority": 0,
        "key_value": "a",
        "is_idempotent": False,
    }
    own = CallPolicy(timeout_seconds=5, priority=3, queue="q")
    changed = own.overridden({"timeout_seconds": None, "priority": 0})
    assert (changed.timeout_seconds, changed.priority, changed.queue) == (None, 0, "q")


@pytest.mark.parametrize(
    "table",
    [
        {"rate": "0/s"},
        {"concurrency": 0},
        {"timeout_seconds": -1},
        {"total_timeout_seconds": float("inf")},
        {"heartbeat_seconds": 1e12},
        {"priority": 10**6},
        {"key": "no path"},
        {"retry": {"attempts": 0}},
        {"retry": {"when": "nowhere"}},
    ],
    ids=str,
)
def test_the_configuration_is_held_to_the_same(table):
    with pytest.raises(ValueError):
        Config.model_validate({"function": {"a.b": table}})


def test_the_configuration_beats_the_decorator_and_one_call_beats_both():
    table = {"rate": "5/s", "total_timeout_seconds": 9, "heartbeat_seconds": 8, "concurrency": 7, "key": "m:f"}
    config = Config.model_validate({"function": {"a.b": table}})
    own = CallPolicy(rate="1/s", concurrency=1, timeout_seconds=2)
    policy = config.complete("a.b", own)
    assert (policy.rate, policy.concurrency, policy.timeout_seconds) == ("5/s", 7, 2)
    assert (policy.total_timeout_seconds, policy.heartbeat_seconds, policy.key) == (9, 8, "m.f")
    workflow = WorkflowRecord("d", "n", "f", "s", (1,), "s", 1, {"b": FunctionRef("b", "a.b", policy=own)})
    row = CallRow(0, CallKind.FUNCTION, "a.b", "[[],{}]", CallStatus.PENDING, policy=call_overrides({"concurrency": 2}))
    planner = Planner(config.complete)
    row.policy = {**row.policy, "key_value": "k"}
    planner.plan(row, workflow)
    assert (row.policy["concurrency"], row.limit_key, row.expires_at) == (2, "a.b:k", 9.0)


def test_rates_are_read_as_they_are_written():
    assert [rate_per_second(rate) for rate in ("50/s", "30/m", "7200/h", "0.5/s")] == [50, 0.5, 2, 0.5]


def decided(failure, *, now=0.0, **fields):
    policy = CallPolicy(retry=fields.pop("retry", None))
    workflow = WorkflowRecord("d", "n", "f", "s", (1,), "s", 1, {"b": FunctionRef("b", "a.b", policy=policy)})
    row = CallRow(0, CallKind.FUNCTION, "a.b", "[[],{}]", CallStatus.SUBMITTED, **fields)
    return Planner().decide("e", row, failure, workflow, now)


def test_a_silent_attempt_is_a_loss_where_the_function_has_no_retry():
    failure = Failure("timeout", "HeartbeatTimeout", "silent", bases=("TimeoutError", "Exception"))
    following = decided(failure)
    assert isinstance(following, NextAttempt)
    assert (following.lost, following.due_at) == (1, 0.0)
    assert decided(failure, retry=Retry(attempts=1).to_policy()) is failure
    own = decided(failure, retry=Retry(attempts=2).to_policy())
    assert isinstance(own, NextAttempt)
    assert own.lost == 0


def test_a_call_whose_time_is_over_has_no_further_attempt():
    limits = {"total_timeout_seconds": 10}
    failure = Failure("lost", "Lost", "gone")
    assert isinstance(decided(failure, policy=limits, now=5.0), NextAttempt)
    over = decided(failure, policy=limits, now=10.0)
    assert isinstance(over, Failure)
    assert (over.kind, over.type) == ("timeout", "TotalTimeout")
    assert "Lost: gone" in over.message


def test_what_the_database_names_is_not_run_unless_it_is_registered():
    """Whoever can write to the database must not choose what the worker calls."""
    with pytest.raises(FunctionError):
        find_predicate("nowhere.at.all", "os.system", lambda own: own.key)


def test_a_predicate_of_the_decorator_needs_no_path():
    @function(retry=Retry(when=lambda failure: True), key=lambda order: order)
    def decorated(order: str) -> str:
        return order

    policy = decorated.options.to_policy()
    assert policy.key == policy.retry.when, "lambdas of one place have one name"
    assert find_predicate(decorated.path, policy.key, lambda own: own.key)("a") == "a"
    assert is_wanted(decorated.path, policy.retry.when, Failure("user", "ValueError", "x"))


def test_options_under_plain_asyncio_call_the_function():
    @function
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async def both():
        first = await options(slow, priority=3)(0.0)
        with pytest.raises(TimeoutError):
            await options(slow, timeout_seconds=0.01)(60.0)
        return first

    assert asyncio.run(both()) == "done"
    with pytest.raises(ValueError, match="rate is '0/s'"):
        options(slow, rate="0/s")
