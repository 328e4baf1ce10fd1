"""Envelopes, replies and configurations that nobody meant: each was an exception of the wrong kind, or worse."""

from __future__ import annotations

import json

import pytest

from durable_monty import ConfigError, codec, remote
from durable_monty.config import load
from durable_monty.envelope import decode_envelope, decode_heartbeat, decode_reply
from durable_monty.errors import DecodeError

REPLIES = {
    "failure of numbers": '{"v":1,"job_id":"e-0-1","failure":{"kind":"user","type":1,"message":2,"traceback":3,"bases":[]}}',
    "failure of no kind": (
        '{"v":1,"job_id":"e-0-1","failure":{"kind":["user"],"type":"T","message":"","traceback":"","bases":[]}}'
    ),
    "failure with bases of numbers": (
        '{"v":1,"job_id":"e-0-1","failure":{"kind":"user","type":"T","message":"","traceback":"","bases":[1]}}'
    ),
    "id of a number": '{"v":1,"job_id":5,"value":1}',
    "id of a long number": '{"v":1,"job_id":{"$int":"0x' + "f" * 9000 + '"},"value":1}',
    "value with a surrogate": '{"v":1,"job_id":"e-0-1","x":1,"value":"\\ud800"}',
    "nested too deeply": '{"v":1,"job_id":"e-0-1","value":' + "[" * 50_000 + "]" * 50_000 + "}",
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_that_is_none_is_a_decode_error(name):
    for data in (f'{{"body":{REPLIES[name]}}}', f'{{"body":{REPLIES[name]}}}'.encode()):
        with pytest.raises(DecodeError):
            decode_reply(data, None)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ('{"v":1,"job_id":"e-0-1","value":1,"value":[2]}', [2]),
        ('{"v":1,"job_id":"e-0-1","value":[1] }', [1]),
        ('{"v":1,"job_id":"e-0-1","value":[1]} ', [1]),
        ('{"v":1,"job_id":"e-0-1","value":{"value":{}}}', {"value": {}}),
        ('{"job_id":"e-0-1","value":"}","v":1}', "}"),
    ],
)
def test_what_is_stored_of_a_reply_is_its_value(body, value):
    """The text of the value is cut out of the reply; however that is laid out, it must be one."""
    reply = decode_reply(f'{{"body":{body}}}', None)
    assert codec.loads(reply.value_text) == value
    assert reply.job_id == "e-0-1"


@pytest.mark.parametrize("data", ["\ud800", '{"body":\ud800}', '{"mac":"' + "\ud800" * 80])
def test_text_with_surrogates_is_a_decode_error(data):
    for decode in (decode_envelope, decode_reply, decode_heartbeat):
        with pytest.raises(DecodeError):
            decode(data, None)
    assert decode_reply(remote.run(data), None).failure.kind == "undecodable"


@pytest.mark.parametrize("job_id", ["", "x", "a-b-c", "a/../b-0-1", "a-0-" + "9" * 5000, "a\0-0-1"])
def test_an_envelope_whose_job_id_is_none_is_answered(job_id):
    """`run` never raises: what runs it would lose the job, and nobody would hear of it."""
    data = json.dumps({"body": {"v": 1, "job_id": job_id, "function": "os.getpid", "call": [[], {}]}}).replace(
        ": ", ":"
    )
    reply = decode_reply(remote.run(data), None)
    assert reply.failure.kind in ("undecodable", "refused")


CONFIGURATIONS = {
    "own table that is none": ("pyproject.toml", '[tool]\n"durable-monty" = 1'),
    "nested too deeply": ("durable-monty.toml", "x = " + "[" * 50_000),
    "number with too many digits": ("durable-monty.toml", f"x = {'9' * 5000}"),
    "bytes that are no text": ("durable-monty.toml", b"\xff\xfe"),
    "null character": ("durable-monty.toml", "executor = '\0'"),
    "store that is a text": ("durable-monty.toml", "store = 'sqlite://'"),
    "URL that is a number": ("durable-monty.toml", "[store]\nurl = 5"),
    "routes that are a list": ("durable-monty.toml", "routes = [1]"),
    "function that is a number": ("durable-monty.toml", 'function = {"a.b" = 5}'),
    "time for a number": ("durable-monty.toml", "[worker]\nlease_seconds = 07:32:00"),
    "nan": ("durable-monty.toml", "[worker]\nlease_seconds = nan"),
    "executors as tables of tables": ("durable-monty.toml", "[[executors.local]]\nmode = 'x'"),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_that_is_none_is_a_configuration_error(name, tmp_path):
    file, text = CONFIGURATIONS[name]
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / file)
    assert file in str(raised.value)


def test_a_pyproject_of_others_is_passed_over(tmp_path):
    (tmp_path / "pyproject.toml").write_text("tool = 1")
    assert load(cwd=tmp_path, environ={}).executor == "local"


def test_an_override_of_too_many_digits_is_a_text(tmp_path):
    with pytest.raises(ConfigError, match="max_memory_bytes"):
        load(environ={"DURABLE_MONTY_INTERPRETER__MAX_MEMORY_BYTES": "9" * 5000})
    with pytest.raises(ConfigError, match="executor"):
        load(environ={"DURABLE_MONTY_EXECUTOR": "[" * 50_000})
