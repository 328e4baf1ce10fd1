"""An executor that keeps every promise, on a back end in memory; each broken one differs from it in one thing.

The back end is a `Machine` in the test's process. Another process, which has none, leaves its calls in a folder, where
the machine finds them.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from durable_monty import remote
from durable_monty.hookspecs import hookimpl
from durable_monty.models import Accepted, Capabilities, Failure, Finding, Outcome

MAX_PAYLOAD_BYTES = 20_000
MACHINES: dict[str, Machine] = {}


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    folder: str = Field(description="Names the machine, and holds what other processes submit.")
    password: SecretStr | None = Field(None, description="A secret.")


@dataclass
class Record:
    call: dict
    state: str = "queued"
    outcome: Outcome | None = None
    began: threading.Event = field(default_factory=threading.Event)
    is_foreign: bool = False


class Machine:
    """Runs jobs in two threads of its own and keeps their outcomes until they are completed."""

    slots = 2
    max_reply_bytes: int | None = MAX_PAYLOAD_BYTES

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changed = threading.Condition(threading.RLock())
        self.records: dict[str, Record] = {}
        self.seen: set[str] = set()
        self.requests = 0
        self._queue: deque[Record] = deque()
        self.on_end = lambda outcome: None
        self._is_over = False
        for _ in range(self.slots):
            self._add_slot()
        MACHINES[str(folder)] = self

    def close(self) -> None:
        with self.changed:
            self._is_over = True
            self.changed.notify_all()
        MACHINES.pop(str(self.folder), None)

    def put(self, call: dict, *, again: bool = False, is_foreign: bool = False) -> None:
        with self.changed:
            if call["job_id"] in self.seen and not again:
                return
            record = Record(call, is_foreign=is_foreign)
            self.seen.add(call["job_id"])
            self.records.setdefault(call["job_id"], record)
            self._queue.append(record)
            self.changed.notify_all()

    def pull(self) -> None:
        for file in sorted(self.folder.glob("*.json")):
            call = json.loads(file.read_text())
            self.put({**call, "envelope": call["envelope"].encode()}, is_foreign=True)
            file.unlink()

    def end(self, record: Record, outcome: Outcome, state: str = "ended") -> bool:
        with self.changed:
            if record.outcome is not None:
                return False
            record.outcome, record.state = outcome, state
            self.changed.notify_all()
        self.on_end(outcome)
        return True

    def kill(self, job_id: str) -> None:
        record = self.records[job_id]
        record.began.wait()
        if self.end(record, Outcome(job_id, failure=Failure("lost", "Lost", "its machine died"))):
            self._add_slot()

    def withdraw(self, job_id: str) -> bool:
        with self.changed:
            record = self.records.get(job_id)
            if record is None or record.state != "queued":
                return record is None
            self._queue.remove(record)
            failure = Failure("cancelled", "Cancelled", "it was cancelled")
            return self.end(record, Outcome(job_id, failure=failure), "cancelled")

    def _add_slot(self) -> None:
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self.changed:
                while not self._queue and not self._is_over:
                    self.changed.wait()
                if self._is_over:
                    return
                record = self._queue.popleft()
                record.state = "running"
            record.began.set()
            self._run(record)

    def _run(self, record: Record) -> None:
        call = record.call
        timer = None
        if call["timeout_seconds"] is not None:
            timer = threading.Timer(call["timeout_seconds"], self._time_out, [record])
            timer.daemon = True
            timer.start()
        reply = remote.run(call["envelope"])
        if timer is not None:
            timer.cancel()
        outcome = Outcome(call["job_id"], reply=reply)
        if self.max_reply_bytes is not None and len(reply) > self.max_reply_bytes:
            outcome = Outcome(call["job_id"], failure=Failure("undecodable", "TooLarge", f"{len(reply)} bytes"))
        self.end(record, outcome)

    def _time_out(self, record: Record) -> None:
        failure = Failure("timeout", "TimeoutError", "it ran for too long")
        if self.end(record, Outcome(record.call["job_id"], failure=failure)):
            self._add_slot()


class Reference:
    """Keeps every promise. What the broken ones change are the methods `on_...`."""

    Settings = Settings
    interface_version = 1
    capabilities = Capabilities(
        caller_ids=True,
        can_find=True,
        cancel=True,
        survives_restart=True,
        max_payload_bytes=MAX_PAYLOAD_BYTES,
        max_batch=5,
        max_in_flight=4,
        poll_interval_seconds=0.0,
        isolation="machine",
    )

    def __init__(self, settings):
        self.settings = settings
        self.context = None
        self.is_stopping = threading.Event()
        self.hooks_called = 0

    def __repr__(self):
        return "<the reference executor>"

    @property
    def machine(self):
        machine = MACHINES.get(self.settings.folder)
        if machine is None:
            raise ConnectionError(f"no machine at {self.settings.folder}")
        machine.requests += 1
        self.hooks_called += 1
        return machine

    @hookimpl
    def start(self, context):
        self.context = context

    @hookimpl
    def stop(self, grace_seconds):
        self.on_stop()

    @hookimpl
    def submit(self, calls):
        return self.on_submit(calls)

    @hookimpl
    def poll(self, jobs, wait_seconds):
        return self.on_poll(jobs, wait_seconds)

    @hookimpl
    def complete(self, jobs):
        self.on_complete(jobs)

    @hookimpl
    def cancel(self, jobs, force):
        return self.on_cancel(jobs)

    @hookimpl
    def find(self, jobs):
        return self.on_find(jobs)

    @hookimpl
    def check(self):
        return self.on_check()

    @hookimpl
    def stats(self):
        return self.on_stats()

    def on_stop(self):
        self.is_stopping.set()
        if self.settings.folder in MACHINES:
            with self.machine.changed:
                self.machine.changed.notify_all()

    def on_submit(self, calls):
        if Path(self.settings.folder).is_dir() and self.settings.folder not in MACHINES:
            for call in calls:
                text = json.dumps({**as_dict(call), "envelope": call.envelope.decode()})
                (Path(self.settings.folder) / f"{call.job_id}.json").write_text(text)
        else:
            machine = self.machine
            machine.pull()
            for call in calls:
                self.on_put(machine, call)
        return [Accepted(call.job_id, f"token of {call.job_id}") for call in calls]

    def on_put(self, machine, call):
        machine.put(as_dict(call))

    def on_poll(self, jobs, wait_seconds):
        machine = self.machine
        machine.pull()
        ends_at = time.monotonic() + wait_seconds
        with machine.changed:
            while True:
                told = [outcome for job in jobs if (outcome := self.on_outcome(machine, job.job_id)) is not None]
                left = ends_at - time.monotonic()
                if told or left <= 0 or self.is_stopping.is_set():
                    return told
                machine.changed.wait(left)

    def on_outcome(self, machine, job_id):
        record = machine.records.get(job_id)
        if record is None:
            return Outcome(job_id, failure=Failure("lost", "Lost", "the machine has never heard of it"))
        return record.outcome

    def on_complete(self, jobs):
        records = self.machine.records
        for job in jobs:
            records.pop(job.job_id, None)

    def on_cancel(self, jobs):
        return {job.job_id: self.machine.withdraw(job.job_id) for job in jobs}

    def on_find(self, jobs):
        return {job.job_id: "known" if job.job_id in self.machine.seen else "absent" for job in jobs}

    def on_check(self):
        if self.settings.folder in MACHINES:
            return [Finding("info", "the machine is there")]
        return [Finding("error", f"no machine at {self.settings.folder!r}", "start it")]

    def on_stats(self):
        return {"requests": self.machine.requests}


class Volatile(Reference):
    """Keeps the promises of an executor that can do nothing but run calls and tell of them: all is in its process."""

    capabilities = Capabilities(pushes=True, isolation="thread", max_batch=5, max_in_flight=4)

    def __init__(self, settings):
        super().__init__(settings)
        self._machine = Machine(Path(f"{settings.folder}/{id(self)}"))
        self._machine.max_reply_bytes = None

    @property
    def machine(self):
        return self._machine

    @hookimpl
    def start(self, context):
        self.context = context
        self._machine.on_end = self.on_end

    def on_end(self, outcome):
        self.context.deliver([outcome])

    @hookimpl
    def stop(self, grace_seconds):
        self.is_stopping.set()
        self._machine.close()

    @hookimpl
    def cancel(self, jobs, force):
        return {}

    @hookimpl
    def find(self, jobs):
        return {}

    def on_submit(self, calls):
        for call in calls:
            self.on_put(self._machine, call)
        return [Accepted(call.job_id) for call in calls]

    def on_check(self):
        return []


def as_dict(call):
    names = ("job_id", "envelope", "timeout_seconds", "function_name", "arguments")
    return {name: getattr(call, name) for name in names}
