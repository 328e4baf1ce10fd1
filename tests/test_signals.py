"""Signals, published values and streams."""

from __future__ import annotations

import threading

import pytest

from durable_monty import EncodeError, ExecutionEnded, ExecutionNotFound, SignalRefused, Worker
from support import functions as host
from support.children import ping, pong

FLOW = "from durable_monty.flow import signal, send_signal, publish, emit, race\n"


def begin(service, code, functions=(), **options):
    execution_id = service.start_execution(FLOW + code, functions, **options)
    service.process_execution(execution_id)
    return execution_id


def finish(service, execution_id):
    for _ in range(20):
        service.process_execution(execution_id)
        if service.get_execution(execution_id)["status"] in ("completed", "failed", "cancelled"):
            break
    return service.get_result(execution_id)


def test_a_signal_ends_the_wait_and_gives_its_payload(service):
    execution_id = begin(service, "await signal('approved')")
    assert service.get_execution(execution_id)["status"] == "waiting"
    service.signal(execution_id, "approved", {"by": "ada"})
    assert finish(service, execution_id) == {"by": "ada"}


def test_signals_that_come_early_are_kept_in_order(service):
    execution_id = service.start_execution(FLOW + "[await signal('n') for _ in range(3)]", [])
    for number in range(3):
        service.signal(execution_id, "n", number)
    assert finish(service, execution_id) == [0, 1, 2]


def test_a_signal_without_payload_gives_none(service):
    execution_id = begin(service, "await signal('go')")
    service.signal(execution_id, "go")
    assert finish(service, execution_id) is None


def test_signals_go_to_waiters_in_the_order_in_which_they_began_to_wait(service):
    code = "from asyncio import gather\nasync def w(i):\n    return [i, await signal('n')]\nawait gather(*[w(i) for i in range(3)])"
    execution_id = begin(service, code)
    for number in range(3):
        service.signal(execution_id, "n", number)
    assert finish(service, execution_id) == [[0, 0], [1, 1], [2, 2]]


def test_a_signal_of_another_name_wakes_nobody(service):
    execution_id = begin(service, "await signal('a')")
    service.signal(execution_id, "b", 1)
    service.process_execution(execution_id)
    assert service.get_execution(execution_id)["status"] == "waiting"
    service.signal(execution_id, "a", 2)
    assert finish(service, execution_id) == 2


def test_a_wait_that_lost_a_race_takes_no_signal(service):
    """Otherwise the next `b` would vanish into a wait that nobody looks at any more."""
    execution_id = begin(service, "w = await race(signal('a'), signal('b'))\nlater = await signal('b')\n[w[0], later]")
    service.signal(execution_id, "a", 1)
    service.process_execution(execution_id)
    service.signal(execution_id, "b", "for the second wait")
    assert finish(service, execution_id) == [0, "for the second wait"]


def test_a_signal_that_does_not_come_is_a_timeout(service):
    code = "try:\n    await signal('approved', timeout_seconds=0.05)\nexcept TimeoutError as e:\n    out = str(e)\nout"
    execution_id = service.start_execution(FLOW + code, [])
    Worker(service).run(until_complete=True)
    assert service.get_result(execution_id) == "no signal 'approved' within 0.05 s"


def test_a_wait_that_timed_out_takes_no_signal(service):
    code = (
        "try:\n    await signal('a', timeout_seconds=0)\nexcept TimeoutError:\n    pass\n"
        "await add(1, 1)\nawait signal('a')"
    )
    execution_id = service.start_execution(FLOW + code, [host.add])
    worker = Worker(service)
    thread = threading.Thread(target=lambda: worker.run(until_complete=True))
    thread.start()
    while service.runtime.store.count_calls(execution_id).get("completed") != 1:
        pass
    service.signal(execution_id, "a", 5)
    service.wait(execution_id, 30)
    thread.join()
    assert service.get_result(execution_id) == 5


def test_executions_signal_each_other(service):
    service.start_execution(pong, execution_id="pong-1")
    service.start_execution(ping, inputs={"partner": "pong-1"}, execution_id="ping-1")
    worker = Worker(service)
    thread = threading.Thread(target=lambda: worker.run(until_complete=True))
    thread.start()
    assert service.wait("pong-1", 30)["output"] == {"from": "ping"}
    service.signal("ping-1", "pong", "back")
    assert service.wait("ping-1", 30)["output"] == "back"
    thread.join()


@pytest.mark.parametrize(("target", "words"), [("nobody", "no execution 'nobody'"), ("ended", "is completed")])
def test_a_signal_to_nobody_is_an_error_in_the_sender(service, target, words):
    finish(service, begin(service, "1", execution_id="ended"))
    code = f"try:\n    await send_signal({target!r}, 'x')\nexcept ValueError as e:\n    out = str(e)\nout"
    assert words in finish(service, begin(service, code))


def test_a_signal_to_an_ended_execution_is_an_error_and_is_not_stored(service):
    execution_id = begin(service, "1")
    for _ in range(2):
        with pytest.raises(ExecutionEnded, match=r"sending signal 'x'.*completed"):
            service.signal(execution_id, "x")
    with service.runtime.store._connections.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM signals").scalar() == 0


def test_a_signal_to_an_unknown_execution_is_an_error(service):
    with pytest.raises(ExecutionNotFound, match="nowhere"):
        service.signal("nowhere", "x")


@pytest.mark.parametrize(
    ("wanted", "payload"), [("int", "three"), ("int", True), ("str", 3), ("dict", [1]), ("Order", 7)]
)
def test_a_payload_of_another_type_than_is_waited_for_is_refused_and_nothing_is_stored(service, wanted, payload):
    order = "from dataclasses import dataclass\n@dataclass\nclass Order:\n    cents: int\n"
    execution_id = begin(service, f"{order}await signal('pay', type={wanted})")
    with pytest.raises(SignalRefused, match=f"waits for it.*{wanted}.*{type(payload).__name__}; nothing was sent"):
        service.signal(execution_id, "pay", payload)
    good = {"int": 3, "str": "x", "dict": {"a": 1}, "Order": {"cents": 5}}[wanted]
    service.signal(execution_id, "pay", good)
    finish(service, execution_id)


def test_a_class_of_the_workflow_is_made_from_the_payload(service):
    code = "from dataclasses import dataclass\n@dataclass\nclass Order:\n    cents: int\no = await signal('pay', type=Order)\no.cents + 1"
    execution_id = begin(service, code)
    service.signal(execution_id, "pay", {"cents": 5})
    assert finish(service, execution_id) == 6


def test_a_payload_of_the_wrong_type_that_came_early_is_raised_in_the_workflow(service):
    code = "try:\n    await signal('n', type=int)\nexcept TypeError as e:\n    out = str(e)\nout"
    execution_id = service.start_execution(FLOW + code, [])
    service.signal(execution_id, "n", "text")
    assert finish(service, execution_id) == "signal 'n' has the payload 'text'; int is wanted"


def test_a_payload_that_cannot_be_carried_is_refused(service):
    execution_id = begin(service, "await signal('x')")
    with pytest.raises(EncodeError, match=r"payload\['a'\]"):
        service.signal(execution_id, "x", {"a": object()})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("signal('')", "signal() name has 0 characters"),
        ("signal(3)", "signal() name is 3"),
        ("signal('x', timeout_seconds=-1)", "timeout_seconds is -1"),
        ("signal('x', timeout_seconds='soon')", "timeout_seconds is 'soon'"),
        ("signal('x' * 300)", "300 characters"),
    ],
)
def test_a_wait_that_cannot_be_is_an_error_at_its_line(service, call, words):
    code = f"try:\n    await {call}\nexcept (ValueError, TypeError) as e:\n    out = str(e)\nout"
    assert words in finish(service, begin(service, code, check=False))


def test_what_is_published_is_read_from_outside_while_the_workflow_waits(service):
    execution_id = begin(
        service, "for i in range(3):\n    publish('progress', i)\npublish('state', {'a': 1})\nawait signal('go')"
    )
    assert service.published(execution_id) == {"progress": 2, "state": {"a": 1}}
    assert service.published(execution_id, "progress") == 2
    assert service.published(execution_id, "nothing") is None
    with pytest.raises(ExecutionNotFound):
        service.published("nowhere")


def test_a_stream_is_read_from_any_offset(service):
    execution_id = begin(service, "for i in range(5):\n    emit('log', {'n': i})\nemit('other', 1)")
    assert service.read_stream(execution_id, "log") == [(i, {"n": i}) for i in range(5)]
    assert service.read_stream(execution_id, "log", 3) == [(3, {"n": 3}), (4, {"n": 4})]
    assert service.read_stream(execution_id, "log", 1, limit=1) == [(1, {"n": 1})]
    assert service.read_stream(execution_id, "log", 9) == []
    with pytest.raises(ValueError, match="offset -1"):
        service.read_stream(execution_id, "log", -1)


def test_publishing_suspends_nothing(service):
    execution_id = begin(service, "publish('a', 1)\nawait signal('go')")
    assert service.runtime.store.execution(execution_id).version == 1


def test_signals_and_streams_survive_the_loss_of_the_snapshot(service):
    code = "emit('s', 1)\na = await signal('x')\nemit('s', a)\nb = await signal('x')\n[a, b]"
    execution_id = begin(service, code)
    service.signal(execution_id, "x", "one")
    service.process_execution(execution_id)
    with service.runtime.store._connections.write() as connection:
        connection.exec_driver_sql("DELETE FROM snapshots")
    service.runtime.engine.release_all()
    service.signal(execution_id, "x", "two")
    assert finish(service, execution_id) == ["one", "two"]
    assert service.read_stream(execution_id, "s") == [(0, 1), (1, "one")]
    assert "rebuilt" in service.get_execution(execution_id)["note"]
