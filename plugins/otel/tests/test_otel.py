"""What executions leave in OpenTelemetry's own in-memory exporters, on real workers."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config
from durable_monty.models import CallStatus, ExecutionStatus
from durable_monty.observerspecs import CallSettled, CallSubmitted, ExecutionEnded, WorkerInfo
from durable_monty_otel import Observer, OtelSettings, continue_trace, traced
from durable_monty_otel.ids import Ids
from durable_monty_otel.spans import MAX_REMEMBERED, Spans
from support import children
from support import functions as host
from support import otel_functions as tracing
from support.workers import eventually, running

SECRET = "tea-and-cake"


class Rig:
    """An observer with exporters of its own."""

    def __init__(self, sampler=None, **settings):
        self.spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.provider = provider
        self.observer = Observer(
            OtelSettings(**settings), tracer_provider=provider, meter_provider=MeterProvider([self.reader])
        )

    def of(self, execution_id, name=None):
        """The spans in the trace of an execution, the earliest end first."""
        trace_id = Ids().trace(execution_id)
        found = [span for span in self.spans.get_finished_spans() if span.context.trace_id == trace_id]
        return [span for span in found if name is None or span.name == name]

    def points(self, name):
        """The data points of a metric: attributes, and value or count."""
        data = self.reader.get_metrics_data()
        found = {}
        for metric in (
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ):
            found.setdefault(metric.name, []).extend(metric.data.data_points)
        return {
            tuple(sorted(point.attributes.items())): getattr(point, "value", getattr(point, "count", None))
            for point in found.get(name, ())
        }


@pytest.fixture
def rig():
    return Rig()


def run(service, rig, code, functions, **options):
    execution_id = service.start_execution(code, functions, **options)
    Worker(service, observers=[rig.observer]).run(until_complete=True)
    return execution_id


def parent_of(span):
    return span.parent.span_id if span.parent is not None else None


def test_an_execution_is_one_trace_of_calls_and_attempts(service, rig):
    execution_id = run(service, rig, "await add(1, 2)\nawait fail_until_third()", [host.add, host.fail_until_third])
    (root,) = rig.of(execution_id, "workflow workflow")
    assert parent_of(root) is None
    assert root.context.span_id == Ids().execution(execution_id)
    assert root.attributes["durable_monty.execution.id"] == execution_id
    assert root.attributes["durable_monty.execution.status"] == "completed"
    (first,) = rig.of(execution_id, "call support.functions.add")
    (second,) = rig.of(execution_id, "call support.functions.fail_until_third")
    assert {parent_of(first), parent_of(second)} == {root.context.span_id}
    assert second.attributes["durable_monty.call.attempts"] == 3
    attempts = rig.of(execution_id, "attempt support.functions.fail_until_third")
    assert {parent_of(span) for span in attempts} == {second.context.span_id}
    assert [span.attributes["durable_monty.call.attempt"] for span in attempts] == [1, 2, 3]
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert attempts[0].attributes["error.type"] == "ConnectionError"
    assert attempts[0].attributes["durable_monty.failure.kind"] == "user"
    assert len(rig.of(execution_id)) == 1 + 2 + 4
    for outer, inner in ((root, first), (root, second), (second, attempts[0]), (second, attempts[2])):
        assert outer.start_time <= inner.start_time <= inner.end_time <= outer.end_time


def test_a_failed_and_a_cancelled_execution_say_so(lite_service, rig):
    service = lite_service
    failed = service.start_execution("await refuse('x')", [tracing.refuse])
    cancelled = service.start_execution("await nap(3600)", [host.nap])
    with running(Worker(service, observers=[rig.observer])):
        eventually(lambda: service.runtime.store.count_calls(cancelled).get("submitting"))
        service.cancel(cancelled)
        service.wait(failed, 30)
        service.wait(cancelled, 30)
    (root,) = rig.of(failed, "workflow workflow")
    assert (root.status.status_code, root.attributes["error.type"]) == (StatusCode.ERROR, "PermissionError")
    (root,) = rig.of(cancelled, "workflow workflow")
    assert (root.status.status_code, root.attributes["durable_monty.execution.status"]) == (
        StatusCode.UNSET,
        "cancelled",
    )
    (call,) = rig.of(cancelled, "call support.functions.nap")
    assert (call.status.status_code, call.attributes["durable_monty.call.status"]) == (StatusCode.UNSET, "cancelled")


def test_a_parent_and_its_child_are_linked_both_ways(lite_service, rig):
    service = lite_service
    service.start_execution(children.family, inputs={"values": [5]}, execution_id="parent")
    Worker(service, observers=[rig.observer]).run(until_complete=True)
    (root,) = rig.of("parent-0", "workflow doubled")
    (stand_in,) = rig.of("parent", "child doubled")
    (parent,) = rig.of("parent", "workflow family")
    assert parent_of(stand_in) == parent.context.span_id
    assert [link.context.span_id for link in root.links] == [stand_in.context.span_id]
    assert [link.context.trace_id for link in root.links] == [parent.context.trace_id]
    assert [(link.context.trace_id, link.context.span_id) for link in stand_in.links] == [
        (root.context.trace_id, root.context.span_id)
    ]
    assert root.attributes["durable_monty.parent"] == "parent"


@pytest.mark.parametrize("mode", ["thread", "process", "inline"])
def test_what_a_function_does_is_below_its_attempt_wherever_it_runs(tmp_path, rig, mode):
    config = Config.model_validate({"executors": {"local": {"mode": mode, "workers": 1}}})
    code = "await work('x')\nawait flaky('x')\nawait work_async('x')\nawait made_here()"
    functions = [tracing.work, tracing.flaky, tracing.work_async, tracing.made_here]
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db", synchronous="NORMAL"), config) as service:
        execution_id = run(service, rig, code, functions)
        found = service.get_result(execution_id)
    assert ({item["pid"] for item in found} == {os.getpid()}) == (mode != "process")
    by_name = {}
    for item in found:
        by_name.setdefault(item["name"], []).append(item)
    attempts = {}
    for span in rig.of(execution_id):
        if span.name.startswith("attempt"):
            attempts.setdefault(span.name.rpartition(".")[2], []).append(f"{span.context.span_id:016x}")
    (work,), (inner,) = by_name["run support.otel_functions.work"], by_name["inner"]
    assert work["parent"] == attempts["work"][0]
    assert inner["parent"] == work["span"]
    flaky = by_name["run support.otel_functions.flaky"]
    assert [item["parent"] for item in flaky] == attempts["flaky"]
    assert [item["error"] for item in flaky] == ["ValueError", None]
    assert {item["events"] for item in found} == {0}, "an exception's message may hold values"
    # `async def` functions run on the worker's loop, whatever the mode.
    here = tracing.spans_of(f"00-{Ids().trace(execution_id):032x}")
    (awaited,) = [item for item in here if item["name"] == "run support.otel_functions.work_async"]
    assert awaited["parent"] == attempts["work_async"][0]


def test_a_trace_is_continued_without_a_span_of_its_own(lite_service, rig):
    execution_id = run(lite_service, rig, "await current_parent()", [tracing.current_parent])
    (attempt,) = rig.of(execution_id, "attempt support.otel_functions.current_parent")
    expected = f"{attempt.context.trace_id:032x}-{attempt.context.span_id:016x}"
    assert lite_service.get_result(execution_id) == expected


def test_workers_that_share_an_execution_make_one_trace(tmp_path):
    """One worker runs the first call, another one, days later, the rest."""
    url = f"sqlite:///{tmp_path}/a.db"
    first, second = Rig(), Rig()
    with OrchestratorService(init_db(url)) as service:
        code = "from durable_monty.flow import signal\nawait add(1, 2)\nawait signal('go')\nawait add(3, 4)"
        execution_id = service.start_execution(code, [host.add])
        with running(Worker(service, observers=[first.observer])):
            eventually(lambda: len(first.of(execution_id)) == 2)
    with OrchestratorService(init_db(url)) as service:
        service.signal(execution_id, "go")
        Worker(service, observers=[second.observer]).run(until_complete=True)
    (early,) = first.of(execution_id, "call support.functions.add")
    (late,) = second.of(execution_id, "call support.functions.add")
    (root,) = second.of(execution_id, "workflow workflow")
    assert first.of(execution_id, "workflow workflow") == []
    assert parent_of(early) == parent_of(late) == root.context.span_id
    assert early.context.span_id != late.context.span_id
    assert root.start_time <= early.start_time < late.start_time <= root.end_time


def test_no_argument_result_or_message_is_in_a_span(lite_service, rig):
    code = "a = await work(secret)\ntry:\n    await refuse(secret)\nexcept OSError:\n    pass\nraise ValueError(a)"
    execution_id = run(lite_service, rig, code, [tracing.work, tracing.refuse], inputs={"secret": SECRET})
    assert len(rig.of(execution_id)) == 5
    for span in rig.spans.get_finished_spans():
        assert SECRET not in span.to_json()


def test_messages_of_failures_are_there_if_they_are_asked_for(lite_service):
    rig = Rig(failure_messages=True)
    execution_id = run(lite_service, rig, "await refuse(secret)", [tracing.refuse], inputs={"secret": SECRET})
    (call,) = rig.of(execution_id, "call support.otel_functions.refuse")
    (root,) = rig.of(execution_id, "workflow workflow")
    assert call.status.description == f"PermissionError: no {SECRET}"
    assert f"PermissionError: no {SECRET}" in root.status.description


def test_what_is_counted_and_measured(lite_service, rig):
    service = lite_service
    service.start_execution("await add(1, 2)\nawait fail_until_third()", [host.add, host.fail_until_third])
    service.start_execution("await add(1, 2)\nawait refuse('x')", [host.add, tracing.refuse])
    code = "from durable_monty.flow import signal\nawait signal('go')"
    waiting = service.start_execution(code, [])
    service.signal(waiting, "go")
    Worker(service, observers=[rig.observer]).run(until_complete=True)
    workflow = ("durable_monty.workflow", "workflow")
    status = "durable_monty.execution.status"
    assert rig.points("durable_monty.executions.started") == {(workflow,): 3}
    ended = {
        ((status, "completed"), workflow): 2,
        ((status, "failed"), workflow, ("error.type", "PermissionError")): 1,
    }
    assert rig.points("durable_monty.executions.ended") == ended
    assert rig.points("durable_monty.execution.duration") == ended
    assert rig.points("durable_monty.execution.wait") == {(workflow,): 3}
    assert rig.points("durable_monty.signals.received") == {(): 1}
    assert rig.points("durable_monty.executions.suspended")[(workflow,)] >= 5

    def of(name, *more):
        return tuple(sorted([("code.function.name", name), ("durable_monty.executor", "local"), *more]))

    add, third, refuse = "support.functions.add", "support.functions.fail_until_third", "support.otel_functions.refuse"
    completed, failed = ("durable_monty.call.status", "completed"), ("durable_monty.call.status", "failed")
    user = ("durable_monty.failure.kind", "user")
    assert rig.points("durable_monty.calls.submitted") == {of(add): 2, of(third): 3, of(refuse): 1}
    settled = {of(add, completed): 2, of(third, completed): 1, of(refuse, failed, user): 1}
    assert rig.points("durable_monty.calls.ended") == settled
    assert rig.points("durable_monty.call.duration") == settled
    assert rig.points("durable_monty.call.wait") == {of(add): 2, of(third): 1, of(refuse): 1}
    assert rig.points("durable_monty.calls.retried") == {of(third, user): 2}


def test_open_jobs_are_measured_while_a_worker_works(lite_service, rig):
    service = lite_service
    code = "from asyncio import gather\nawait gather(nap(3600), nap(3600))"
    execution_id = service.start_execution(code, [host.nap])
    local = (("durable_monty.executor", "local"),)
    with running(Worker(service, observers=[rig.observer])):
        eventually(lambda: rig.points("durable_monty.jobs.open").get(local) == 2)
        assert rig.points("durable_monty.observers.dropped") == {(): 0}
        service.cancel(execution_id)
        service.wait(execution_id, 30)
        eventually(lambda: rig.points("durable_monty.jobs.open").get(local) == 0)
    assert rig.points("durable_monty.jobs.open") == {}


@pytest.mark.parametrize("kind", ["traces", "metrics"])
def test_each_half_can_be_left_out(lite_service, kind):
    rig = Rig(**{kind: False})
    execution_id = run(lite_service, rig, "await trace_context()", [host.trace_context])
    assert bool(rig.of(execution_id)) == (kind == "metrics")
    assert (lite_service.get_result(execution_id) is None) == (kind == "traces")
    assert bool(rig.points("durable_monty.executions.ended")) == (kind == "traces")


def test_a_trace_is_sampled_as_a_whole_or_not_at_all(lite_service):
    service = lite_service
    rig = Rig(ParentBased(TraceIdRatioBased(0.5)))
    ids = [
        service.start_execution("await trace_context()", [host.trace_context], execution_id=f"e{n}") for n in range(30)
    ]
    Worker(service, observers=[rig.observer]).run(until_complete=True)
    sampled = {execution_id for execution_id in ids if rig.of(execution_id)}
    assert 0 < len(sampled) < 30
    for execution_id in ids:
        context = service.get_result(execution_id)
        assert context.startswith(f"00-{Ids().trace(execution_id):032x}-")
        assert context.endswith("-01" if execution_id in sampled else "-00")
        assert len(rig.of(execution_id)) == (3 if execution_id in sampled else 0)


def test_a_span_of_the_script_around_the_worker_is_not_taken_for_a_parent(lite_service, rig):
    with rig.provider.get_tracer("script").start_as_current_span("script") as span:
        execution_id = run(lite_service, rig, "await current_parent()", [tracing.current_parent])
    (root,) = rig.of(execution_id, "workflow workflow")
    assert parent_of(root) is None
    assert span.get_span_context().trace_id != root.context.trace_id


def test_spans_of_others_have_ids_of_their_own(rig):
    other = rig.provider.get_tracer("other")
    ids = {other.start_span("x").get_span_context().trace_id for _ in range(3)}
    assert len(ids) == 3


def test_two_observers_of_one_provider_make_the_same_traces(rig):
    second = Observer(tracer_provider=rig.provider, meter_provider=NoOpMeterProvider())
    for observer, execution_id in ((rig.observer, "e"), (second, "f"), (rig.observer, "g")):
        observer.executions_ended([ExecutionEnded(execution_id, "w", 90.0, ExecutionStatus.COMPLETED, 80.0)])
        assert [span.context.span_id for span in rig.of(execution_id)] == [Ids().execution(execution_id)]


def test_traces_of_two_namespaces_are_different():
    assert Ids("staging").trace("order-1") != Ids("production").trace("order-1")
    assert Ids("staging").trace("order-1") == Ids("staging").trace("order-1")


def test_a_worker_of_the_command_line_uses_it_and_says_that_nothing_is_set_up(tmp_path):
    (tmp_path / "durable-monty.toml").write_text('observe = ["otel"]\n[observers.otel]\nmetrics = false\n')
    (tmp_path / "shop.py").write_text(
        "from durable_monty import current_call, function, workflow\n"
        "@function\ndef context() -> str | None:\n    return current_call().trace_context\n"
        "@workflow\nasync def order() -> str | None:\n    return await context()\n"
    )
    script = Path(sys.executable).parent / "durable-monty"
    arguments = [script, "run", "shop.py", "--id", "order-1"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.startswith(f'"00-{Ids().trace("order-1"):032x}-')
    assert "OpenTelemetry is not set up in this process" in done.stderr


def test_functions_need_the_api_of_opentelemetry_and_nothing_else():
    code = "from durable_monty_otel import traced; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "opentelemetry.trace" in loaded
    assert not loaded & {"opentelemetry.sdk", "pydantic", "pluggy", "sqlalchemy", "stevedore"}


def test_ids_never_change():
    """Workers of two versions must find the same ones."""
    ids = Ids()
    assert f"{ids.trace('order-1'):032x}" == "5984e119d108fd3aa82a794590989832"
    assert f"{ids.execution('order-1'):016x}" == "9a34e3e06e3d3c71"
    assert f"{ids.call('order-1', 0):016x}" == "e3d4048d0ea0d053"
    assert f"{ids.attempt('order-1-0-1'):016x}" == "219467ecb4f9e12e"


def test_a_call_that_another_worker_submitted_begins_with_the_call(rig):
    settled = CallSettled("e", 0, 1, "shop.price", "rq", 100.0, 130.0, CallStatus.COMPLETED)
    rig.observer.calls_settled([settled])
    (attempt,) = rig.of("e", "attempt shop.price")
    assert (attempt.start_time, attempt.end_time) == (100 * 10**9, 130 * 10**9)
    assert attempt.attributes["durable_monty.call.is_taken_over"] is True
    assert attempt.kind is SpanKind.PRODUCER


def test_a_call_that_was_never_submitted_has_no_attempt(rig):
    rig.observer.calls_settled([CallSettled("e", 0, 1, "shop.price", None, 100.0, 130.0, CallStatus.CANCELLED)])
    assert [span.name for span in rig.of("e")] == ["call shop.price"]


def test_a_clock_that_was_set_back_makes_no_span_that_ends_before_it_begins(rig):
    rig.observer.executions_ended([ExecutionEnded("e", "w", 90.0, ExecutionStatus.COMPLETED, 100.0, 95.0)])
    (root,) = rig.of("e")
    assert root.start_time == root.end_time
    assert root.attributes["durable_monty.execution.wait_seconds"] == 0


def test_what_is_remembered_of_attempts_is_bounded(monkeypatch, rig):
    assert MAX_REMEMBERED >= 100_000
    monkeypatch.setattr("durable_monty_otel.spans.MAX_REMEMBERED", 2)
    for call_id in range(3):
        rig.observer.calls_submitted([CallSubmitted("e", call_id, 1, "shop.price", "rq", 100.0, 120.0)])
    for call_id in range(3):
        done = CallSettled("e", call_id, 1, "shop.price", "rq", 100.0, 130.0, CallStatus.COMPLETED)
        rig.observer.calls_settled([done])
    begins = [span.start_time // 10**9 for span in rig.of("e", "attempt shop.price")]
    assert begins == [100, 120, 120]


def test_a_tracer_that_makes_its_own_ids_still_gets_the_right_trace():
    """Other implementations of the API have no id generator."""
    seen = []

    class OtherTracer(trace.NoOpTracer):
        def start_span(self, name, context=None, *args, **kwargs):
            seen.append((name, trace.get_current_span(context).get_span_context().trace_id))
            return super().start_span(name, context)

    Spans(OtherTracer(), Ids()).ended(ExecutionEnded("e", "w", 90.0, ExecutionStatus.COMPLETED, 80.0))
    assert seen == [("workflow w", Ids().trace("e"))]


def test_a_process_without_opentelemetry_set_up_is_told_so(caplog):
    with caplog.at_level(logging.WARNING):
        Observer(tracer_provider=trace.NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    assert "opentelemetry-instrument" in caplog.text


def test_everything_is_sent_before_the_worker_ends(rig):
    flushed = []
    rig.provider.force_flush = flushed.append
    rig.observer.worker_stopped(WorkerInfo("w", dict, lambda: 0))
    assert flushed == [3000]


def test_outside_a_host_function_nothing_is_continued():
    @traced
    def plain(value):
        return value, trace.get_current_span().get_span_context().trace_id

    before = trace.get_current_span().get_span_context().trace_id
    value, within = plain(7)
    assert value == 7
    assert within != before
    with continue_trace() as span:
        assert span.get_span_context().trace_id == before


def test_a_decorated_function_keeps_its_signature_for_the_check_at_submit(lite_service):
    from durable_monty import WorkflowCheckError

    with pytest.raises(WorkflowCheckError, match="secret"):
        lite_service.start_execution("await work(secret_=1)", [tracing.work])
