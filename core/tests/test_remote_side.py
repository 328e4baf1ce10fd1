"""The remote side: envelopes in, replies out, whatever the function does."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import sys
import uuid

import pytest
from pydantic import BaseModel

from durable_monty import current_call, function, remote
from durable_monty.envelope import decode_reply, encode_envelope
from durable_monty.errors import DecodeError, SignatureMismatch

KEY = b"a key of many characters"
JOB = "e-0-2"


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Line:
    name: str
    amounts: list[int]


class Order(BaseModel):
    customer: str
    lines: list[Line] = []


@function
def describe(order: Order, colour: Colour, key: uuid.UUID, lines: dict[str, Line] | None = None) -> dict:
    made = [type(item).__name__ for item in (order, colour, key)]
    return {"made": made, "order": order, "lines": lines and type(lines["a"]).__name__}


@function
def about_me() -> list:
    call = current_call()
    return [call.execution_id, call.call_id, call.attempt, call.idempotency_key]


@function
async def later(value: int) -> int:
    await asyncio.sleep(0)
    return value + 1


class OutOfStock(LookupError):
    pass


@function
def boom(kind: str) -> None:
    if kind == "own":
        raise OutOfStock("no apples")
    if kind == "exit":
        sys.exit("enough")
    raise ValueError("no")


@function
def unencodable() -> dict:
    return {"rows": [1, object()]}


def call(function_path, arguments="[[],{}]", *, key=None):
    return remote.read_reply(remote.run(encode_envelope(JOB, function_path, arguments, key)))


def test_values_are_made_by_the_functions_annotations_and_come_back_plain():
    arguments = (
        '[[{"customer":"ada","lines":[{"name":"tea","amounts":[1]}]},"red","12345678123456781234567812345678"],'
        '{"lines":{"a":{"name":"x","amounts":[]}}}]'
    )
    reply = call(describe.path, arguments)
    assert reply.failure is None
    assert reply.value == {
        "made": ["Order", "Colour", "UUID"],
        "order": {"customer": "ada", "lines": [{"name": "tea", "amounts": [1]}]},
        "lines": "Line",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('[[{"customer":1},"red","1"],{}]', "order"),
        ('[[{"customer":"a"},"blue","12345678123456781234567812345678"],{}]', "colour"),
        ('[[{"customer":"a"},"red","no uuid"],{}]', "key"),
        ("[[1,2,3,4,5,6],{}]", "positional"),
        ('[[{"customer":"a"},"red","1"],{"nonsense":1}]', "nonsense"),
    ],
)
def test_arguments_that_do_not_fit_are_a_failure_that_names_them(arguments, words):
    failure = call(describe.path, arguments).failure
    assert failure is not None
    assert words in failure.message


def test_a_function_knows_its_call():
    assert call(about_me.path).value == ["e", 0, 2, "e-0"]


def test_an_async_function_is_run_to_its_end():
    assert call(later.path, "[[4],{}]").value == 5


def test_an_exception_comes_back_with_its_bases_and_the_users_part_of_the_traceback():
    failure = call(boom.path, '[["own"],{}]').failure
    assert (failure.kind, failure.type, failure.message) == ("user", "OutOfStock", "no apples")
    assert "LookupError" in failure.bases
    assert 'raise OutOfStock("no apples")' in failure.traceback
    assert "durable_monty/remote.py" not in failure.traceback


def test_a_function_that_exits_fails_and_the_machine_goes_on():
    failure = call(boom.path, '[["exit"],{}]').failure
    assert (failure.type, failure.message) == ("SystemExit", "enough")


def test_a_result_that_cannot_be_encoded_is_a_failure_that_names_the_place():
    failure = call(unencodable.path).failure
    assert failure.kind == "undecodable" or failure.type == "EncodeError"
    assert "result['rows'][1]" in failure.message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_at_all.f", "no_such_module_at_all"),
        ("os.no_such_function", "no_such_function"),
        ("os.system", "@function"),
        ("subprocess.Popen", "@function"),
    ],
)
def test_only_functions_that_were_released_run(name, words):
    failure = call(name, '[["true"],{}]').failure
    assert failure.kind == "refused"
    assert words in failure.message


def test_a_pattern_releases_undecorated_functions():
    remote.configure(allow=["math.*"])
    assert call("math.sqrt", "[[9],{}]").value == 3.0


def test_with_a_key_only_signed_envelopes_run():
    remote.configure(signing_key=KEY)
    assert remote.run(encode_envelope(JOB, about_me.path, "[[],{}]", KEY))
    for forged in (
        encode_envelope(JOB, about_me.path, "[[],{}]", None),
        encode_envelope(JOB, about_me.path, "[[],{}]", b"another key, as long"),
        encode_envelope(JOB, about_me.path, "[[],{}]", KEY).replace(b"about_me", b"boom"),
    ):
        reply = decode_reply(remote.run(forged), KEY)
        assert reply.failure is not None
        assert reply.failure.kind == "refused"


def test_a_reply_that_was_changed_or_is_not_signed_is_refused():
    remote.configure(signing_key=KEY)
    reply = remote.run(encode_envelope(JOB, later.path, "[[4],{}]", KEY))
    assert decode_reply(reply, KEY).value_text == "5"
    for forged in (reply.replace(b'"v":5', b'"v":6').replace(b":5", b":6"), b'{"mac":null,"body":{}}'):
        with pytest.raises((SignatureMismatch, DecodeError)):
            decode_reply(forged, KEY)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"mac":null}', b"\xff\xfe", b'{"mac":null,"body":{"v":99}}'])
def test_an_envelope_that_cannot_be_read_is_a_failure_and_not_a_crash(data):
    assert remote.read_reply(remote.run(data)).failure is not None


CONTEXT = f"00-{'1' * 32}-{'2' * 16}-01"


@pytest.mark.parametrize("key", [None, b"sixteen bytes at least"])
def test_a_trace_context_travels_in_the_envelope(key):
    remote.configure(signing_key=key, allow=["support.functions.*"])
    envelope = remote.make_envelope("support.functions.trace_context", job_id="e-0-1", trace_context=CONTEXT)
    assert remote.read_reply(remote.run(envelope)).value == CONTEXT
    bare = remote.make_envelope("support.functions.trace_context", job_id="e-0-1")
    assert b'trace":' not in bare
    assert remote.read_reply(remote.run(bare)).value is None


def test_a_field_of_a_later_version_is_ignored():
    """So the trace context is by remote machines that do not know it."""
    envelope = remote.make_envelope("support.functions.add", [1, 2], job_id="e-0-1").decode()
    later = envelope.replace('"job_id"', '"colour":"red","job_id"', 1)
    assert later != envelope
    assert remote.read_reply(remote.run(later)).value == 3
