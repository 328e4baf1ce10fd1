"""One execution environment of a Lambda function: a Runtime API, and the real runtime client behind it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.small_http import Handler, Server

if TYPE_CHECKING:
    from support.lambda_service import Function


@dataclass(frozen=True)
class Outcome:
    """How an invocation ended; `error` is None or what Lambda calls the FunctionError."""

    payload: bytes
    error: str | None = None

    @classmethod
    def failed(cls, kind: str, message: str) -> Outcome:
        return cls(json.dumps({"errorType": kind, "errorMessage": message}).encode(), "Unhandled")


class Invocation:
    def __init__(self, id_: str, payload: bytes, timeout_seconds: float) -> None:
        self.id = id_
        self.payload = payload
        self.ends_at = time.time() + timeout_seconds
        self.done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()


class Sandbox:
    """Starts its process at the first event, and a new one after the process has died."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._inbox: queue.SimpleQueue[Invocation | None] = queue.SimpleQueue()
        self._current: Invocation | None = None
        self._init_error: bytes | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._api = Server(_runtime_api(self))

    def run(self, id_: str, payload: bytes) -> Outcome:
        with self._lock:
            if self._is_closed:
                return Outcome.failed("Runtime.ExitError", "the service ends")
            if self._process is None or self._process.poll() is not None:
                self._start()
        invocation = self._current = Invocation(id_, payload, self._function.timeout)
        self._inbox.put(invocation)
        try:
            return self._wait(invocation)
        finally:
            self._current = None

    def kill(self) -> bool:
        """Kill the process if it is running an event, as Lambda does where memory is short."""
        if self._current is None or self._process is None:
            return False
        self._process.kill()
        return True

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()
        self._inbox.put(None)
        self._api.close()

    def _start(self) -> None:
        function = self._function
        self._init_error = None
        # What an old process left there, its successor must not fetch.
        while not self._inbox.empty():
            self._inbox.get_nowait()
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": function.path,
            "LAMBDA_TASK_ROOT": function.path.partition(os.pathsep)[0],
            "AWS_LAMBDA_RUNTIME_API": self._api.url.removeprefix("http://"),
            "_HANDLER": function.handler,
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            **function.environment,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", function.handler],
            env=environment,
            cwd=environment["LAMBDA_TASK_ROOT"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _wait(self, invocation: Invocation) -> Outcome:
        process = self._process
        assert process is not None
        while True:
            try:
                return invocation.done.get(timeout=0.02)
            except queue.Empty:
                pass
            if process.poll() is not None:
                return self._ended(invocation, process.returncode)
            if time.time() > invocation.ends_at:
                process.kill()
                process.wait()
                text = f"RequestId: {invocation.id} Error: Task timed out after {self._function.timeout:.2f} seconds"
                return Outcome.failed("Sandbox.Timedout", text)

    def _ended(self, invocation: Invocation, status: int) -> Outcome:
        try:
            return invocation.done.get(timeout=0.05)
        except queue.Empty:
            pass
        if self._init_error:
            return Outcome(self._init_error, "Unhandled")
        how = f"signal: {'killed' if status == -9 else -status}" if status < 0 else f"exit status {status}"
        return Outcome.failed(
            "Runtime.ExitError", f"RequestId: {invocation.id} Error: Runtime exited with error: {how}"
        )


def _runtime_api(sandbox: Sandbox) -> type[Handler]:
    class Runtime(Handler):
        def do_GET(self) -> None:
            invocation = sandbox._inbox.get()
            if invocation is None:
                self.send(500)
                return
            headers = {
                "Lambda-Runtime-Aws-Request-Id": invocation.id,
                "Lambda-Runtime-Deadline-Ms": str(int(invocation.ends_at * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": f"arn:aws:lambda:us-east-1:123456789012:function:{sandbox._function.name}",
                "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000",
                "Content-Type": "application/json",
            }
            self.send(200, invocation.payload, headers)

        def do_POST(self) -> None:
            body = self.body()
            path = self.path.split("/2018-06-01/runtime/")[1]
            if path == "init/error":
                sandbox._init_error = body
            else:
                _, request_id, kind = path.split("/")
                invocation = sandbox._current
                if invocation is None or invocation.id != request_id:
                    self.send(400, b"{}")
                    return
                invocation.done.put(Outcome(body, None if kind == "response" else "Unhandled"))
            self.send(202, b'{"status":"OK"}')

    return Runtime
