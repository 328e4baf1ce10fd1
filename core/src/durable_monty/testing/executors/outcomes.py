"""Promises about values and failures on their way back."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import pytest

from durable_monty.functions import Function, FunctionOptions
from durable_monty.models import Call, Capabilities, Failure
from durable_monty.testing import functions
from durable_monty.testing.executors.driver import Driver, make_call, read
from durable_monty.testing.executors.polling import Polling

_VALUES: dict[str, Any] = {
    "nothing": None,
    "text": "plain",
    "unicode": "naïve ☃ \U0001f40d \x00 \u2028 'quoted' \"twice\" \\",
    "bytes": bytes(range(256)),
    "big number": 2**200,
    "fraction": Decimal("0.10"),
    "infinity": -math.inf,
    "tuple": (1, [2, {"three": (4,)}]),
    "set": {1, 2, 3},
    "keys that are no texts": {1: "a", (2, 3): "b", None: "c"},
    "moment": dt.datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=dt.UTC),
}
_DEFAULT_LARGE = 200_000
_NOT_THERE = "durable_monty.testing.functions.no_such_function"


class Outcomes(Polling):
    """What holds for what a function returns or raises."""

    @pytest.mark.parametrize("kind", _VALUES)
    def test_a_value_comes_back_as_it_was(self, kit: Driver, kind: str) -> None:
        (reply,) = kit.run(make_call(functions.echo, _VALUES[kind]))
        assert reply.value == _VALUES[kind], f"a value ({kind}) came back as {reply!r}"

    def test_what_a_function_raises_comes_back_with_type_message_and_traceback(self, kit: Driver) -> None:
        failure = self._failure(kit, make_call(functions.fail, "no more ☃"))
        assert (failure.kind, failure.type, failure.message) == ("user", "ValueError", "no more ☃"), (
            f'ValueError("no more ☃") came back as {failure!r}'
        )
        assert "raise ValueError(message)" in failure.traceback, (
            f"the traceback does not show the line that raised: {failure.traceback!r}"
        )

    def test_an_exception_of_a_type_of_the_users_own_comes_back_with_its_bases(self, kit: Driver) -> None:
        """As text: the worker need not be able to import the type."""
        failure = self._failure(kit, make_call(functions.fail_in_own_way, "own"))
        assert (failure.kind, failure.type, failure.bases[:1]) == ("user", "KitError", ("LookupError",)), (
            f"KitError, a LookupError, came back as {failure!r}"
        )

    def test_a_result_that_cannot_be_carried_is_a_failure_that_says_where(self, kit: Driver) -> None:
        failure = self._failure(kit, make_call(functions.unencodable))
        assert failure.kind == "undecodable", f"a result that cannot be carried came back as {failure!r}"
        assert "result['items'][1]" in failure.message, f"the message does not say where: {failure.message!r}"

    def test_a_function_that_does_not_exist_fails_its_own_call_only(self, kit: Driver) -> None:
        missing = Function(functions.echo.__wrapped__, FunctionOptions())
        missing.path = _NOT_THERE
        bad, good = kit.run(make_call(missing, 1), make_call(functions.echo, 2))
        kind = bad.failure.kind if bad.failure else None
        assert kind == "refused", f"a function that does not exist came back as {bad!r}; it must be refused"
        assert good.value == 2, f"beside a function that does not exist, a good call came back as {good!r}"

    def test_an_envelope_that_cannot_be_read_fails_its_own_call_only(self, kit: Driver) -> None:
        """Written by another version, or with another signing key."""
        good = make_call(functions.echo, 1)
        other = make_call(functions.echo, 2)
        bad = Call(other.job_id, other.execution_id, 0, 1, other.function_name, other.arguments, b'{"body":{"v":0}}')
        garbled, sound = kit.run(bad, good)
        assert garbled.failure is not None, f"an envelope of another version came back as {garbled!r}"
        assert sound.value == 1, f"beside an envelope that cannot be read, a good call came back as {sound!r}"

    def test_a_function_that_ends_its_process_harms_no_other_call(self, kit: Driver, can: Capabilities) -> None:
        """`sys.exit` is the function's failure. A process that is gone without a word is a lost job."""
        failure = self._failure(kit, make_call(functions.leave))
        assert (failure.kind, failure.type) == ("user", "SystemExit"), f"sys.exit() came back as {failure!r}"
        (reply,) = kit.run(make_call(functions.echo, "after"))
        assert reply.value == "after", f"after sys.exit() the next call came back as {reply!r}"

    def test_a_job_whose_machine_dies_is_lost(self, kit: Driver, can: Capabilities) -> None:
        """Lost, not failed: it is run again, and that does not count against the function's own attempts."""
        if can.isolation == "thread":
            assert not can.survives_restart, "functions that run in the worker cannot survive it; it declares both"
            return
        if self._overrides("kill_remote"):
            (job,) = kit.start_calls(make_call(functions.sleep, self.patience_seconds))
            self.kill_remote(job)
        else:
            (job,) = kit.start_calls(make_call(functions.die))
        reply = read(kit.collect([job])[job.job_id])
        kind = reply.failure.kind if reply.failure else None
        assert kind == "lost", f"a job whose process was killed came back as {reply!r}; it must be lost"
        kit.complete([job])
        (after,) = kit.run(make_call(functions.echo, "after"))
        assert after.value == "after", f"after a death the next call came back as {after!r}"

    def test_a_large_value_comes_back(self, kit: Driver, can: Capabilities) -> None:
        """As large as declared, or 200,000 characters where no limit is."""
        size = _DEFAULT_LARGE if can.max_payload_bytes is None else can.max_payload_bytes
        text = "x" * (size - len(make_call(functions.echo, "").envelope))
        call = make_call(functions.echo, text)
        assert len(call.envelope) == size, "the kit's own arithmetic is wrong"
        (reply,) = kit.run(call)
        assert reply.value == text, f"an envelope of {size} bytes, which is allowed, came back as {repr(reply)[:200]}"

    def test_a_result_over_the_limit_is_a_failure_and_not_silence(self, kit: Driver, can: Capabilities) -> None:
        """The core holds back arguments that are too large; a result is too large on the other side."""
        if can.max_payload_bytes is None:
            size = 3 * _DEFAULT_LARGE
            (reply,) = kit.run(make_call(functions.text_of, size))
            assert reply.value == "x" * size, (
                f"it declares no limit; {size} characters came back as {repr(reply)[:200]}"
            )
            return
        failure = self._failure(kit, make_call(functions.text_of, can.max_payload_bytes + 1))
        assert failure.kind in ("undecodable", "refused"), f"a result over the limit came back as {failure!r}"

    def test_outcomes_of_two_attempts_do_not_mix(self, kit: Driver) -> None:
        """A machine that was believed lost comes back late; its outcome is the first attempt's, not the second's."""
        key = make_call(functions.echo).execution_id
        late = make_call(functions.sleep, self.pause_seconds, "first", execution_id=key, attempt=1)
        quick = make_call(functions.echo, "second", execution_id=key, attempt=2)
        first, second = kit.start_calls(late, quick)
        found = kit.collect([second])
        kit.complete([second])
        found |= kit.collect([first])
        kit.complete([first])
        values = [read(found[job.job_id]).value for job in (first, second)]
        assert values == ["first", "second"], f"the outcomes of attempts 1 and 2 came back as {values!r}"

    def _failure(self, kit: Driver, call: Call) -> Failure:
        (reply,) = kit.run(call)
        assert reply.failure is not None, f"{call.function_name} must fail, and came back as {reply!r}"
        return reply.failure
