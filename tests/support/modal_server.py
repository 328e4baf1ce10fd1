"""Modal's control plane for tests: the real `modal` client talks to it over gRPC, real processes run the functions.

    with ModalServer() as server:
        server.deploy("my-app", "run", timeout_seconds=5)
        os.environ.update(server.variables)

It answers what `Function.from_name`, `spawn`, `FunctionCall.get` and `cancel` ask, and what `modal deploy` asks
(`support.modal_deploys`). Everything else is UNIMPLEMENTED.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpclib.server
from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_grpc
from modal_proto import api_pb2 as pb

from support.modal_blobs import BlobStore
from support.modal_container import RETURNED, Container
from support.modal_deploys import Deploys

TOKEN_ID, TOKEN_SECRET = "ak-local", "as-local-secret"
RETENTION_SECONDS = 7 * 24 * 3600.0
_BLOB_FROM_BYTES = 2 * 1024 * 1024
_STATUS = pb.GenericResult
_TESTS = str(Path(__file__).parent.parent)


@dataclasses.dataclass
class Deployed:
    """A deployed function.

    Attributes:
        target: What a container imports, `module:function`.
        environment: What its image sets.
    """

    target: str = "durable_monty_modal.remote:run"
    timeout_seconds: float = 300.0
    max_containers: int = 3
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    id: str = dataclasses.field(default_factory=lambda: f"fu-{uuid.uuid4().hex}")


@dataclasses.dataclass
class Input:
    """One input of a function call, and what became of it."""

    call_id: str
    function: Deployed
    payload: bytes
    data_format: int
    container: Container | None = None
    result: Any = None
    ended_at: float = 0.0


class ControlPlane(Deploys):
    """The answers; runs on one event loop.

    Attributes:
        faults: By RPC, what to fail with instead of answering, the next first.
        lost_replies: How many of the next `FunctionMap`s are done, and answered with UNAVAILABLE.
        delays: By RPC, how many seconds pass before it is answered.
        is_mute: Whether requests are taken and not answered.
        rpcs: How often each RPC was asked for.
        started: How many calls were started.
    """

    def __init__(self, blobs: BlobStore) -> None:
        super().__init__()
        self.blobs = blobs
        self.functions: dict[tuple[str, str], Deployed] = {}
        self.calls: dict[str, Input] = {}
        self.faults: dict[str, list[Status]] = collections.defaultdict(list)
        self.delays: dict[str, float] = {}
        self.is_mute = False
        self.lost_replies = 0
        self.rpcs: collections.Counter[str] = collections.Counter()
        self.started = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.containers: list[Container] = []
        self._replies: dict[str, Any] = {}
        self._idle: dict[str, list[Container]] = collections.defaultdict(list)
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._changed = asyncio.Condition()

    async def admit(self, rpc: str, metadata: Any) -> None:
        """Count a request, hold it up, raise what is to be raised for it."""
        self.rpcs[rpc] += 1
        await asyncio.sleep(3600 if self.is_mute else self.delays.get(rpc, 0))
        if metadata.get("x-modal-token-secret") != TOKEN_SECRET:
            raise GRPCError(Status.UNAUTHENTICATED, "Token validation failed")
        if self.faults[rpc]:
            raise GRPCError(self.faults[rpc].pop(0), "injected")

    async def ClientHello(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.ClientHelloResponse())

    async def FunctionGet(self, stream: Any) -> None:
        request = await stream.recv_message()
        name = request.object_tag
        function = self.functions.get((request.app_name, name)) or self._from_deployment(request.app_name, name)
        if function is None:
            raise GRPCError(Status.NOT_FOUND, f"App or function not found: {request.app_name}/{name}")
        metadata = pb.FunctionHandleMetadata(
            function_name=name,
            function_type=pb.Function.FUNCTION_TYPE_FUNCTION,
            supported_input_formats=[pb.DATA_FORMAT_PICKLE, pb.DATA_FORMAT_CBOR],
            supported_output_formats=[pb.DATA_FORMAT_PICKLE, pb.DATA_FORMAT_CBOR],
            app_id="ap-1",
        )
        ranked = pb.FunctionData.RankedFunction(rank=0, function=pb.Function(function_name=name, module_name="m"))
        data = pb.FunctionData(ranked_functions=[ranked])
        await stream.send_message(
            pb.FunctionGetResponse(function_id=function.id, handle_metadata=metadata, function=data)
        )

    async def FunctionMap(self, stream: Any) -> None:
        request = await stream.recv_message()
        key = stream.metadata["x-idempotency-key"]
        if key not in self._replies:
            self._replies[key] = self._start(request)
        if self.lost_replies:
            self.lost_replies -= 1
            raise GRPCError(Status.UNAVAILABLE, "the reply was lost")
        await stream.send_message(self._replies[key])

    async def FunctionGetOutputs(self, stream: Any) -> None:
        request = await stream.recv_message()
        item = self._input(request.function_call_id)
        ends_at = time.monotonic() + request.timeout
        async with self._changed:
            while item.result is None and (left := ends_at - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), left)
        outputs = []
        if item.result is not None and time.time() - item.ended_at < RETENTION_SECONDS:
            outputs = [pb.FunctionGetOutputsItem(result=item.result, input_id="in-1", data_format=item.data_format)]
        unfinished = int(item.result is None)
        await stream.send_message(pb.FunctionGetOutputsResponse(outputs=outputs, num_unfinished_inputs=unfinished))

    async def FunctionCallCancel(self, stream: Any) -> None:
        request = await stream.recv_message()
        item = self._input(request.function_call_id)
        if item.result is None:
            text = "Input was cancelled by user"
            await self._end(item, pb.GenericResult(status=_STATUS.GENERIC_STATUS_TERMINATED, exception=text))
            if item.container is not None:
                await item.container.kill()
        await stream.send_message(Empty())

    async def BlobCreate(self, stream: Any) -> None:
        await stream.recv_message()
        blob_id, url = self.blobs.new()
        await stream.send_message(pb.BlobCreateResponse(blob_ids=[blob_id], upload_urls=pb.UploadUrlList(items=[url])))

    async def BlobGet(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(pb.BlobGetResponse(download_url=self.blobs.url(request.blob_id)))

    async def close(self) -> None:
        """End everything that runs."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for container in self.containers:
            await container.kill()

    def _start(self, request: Any) -> Any:
        function = next(item for item in self.functions.values() if item.id == request.function_id)
        (put,) = request.pipelined_inputs
        is_blob = put.input.WhichOneof("args_oneof") == "args_blob_id"
        payload = self.blobs.data[put.input.args_blob_id] if is_blob else put.input.args
        call_id = f"fc-{uuid.uuid4().hex}"
        item = Input(call_id, function, payload, put.input.data_format or pb.DATA_FORMAT_PICKLE)
        self.calls[call_id] = item
        self.started += 1
        task = asyncio.get_running_loop().create_task(self._run(item))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        answer = pb.FunctionPutInputsResponseItem(idx=put.idx, input_id=f"in-{call_id}", input_jwt=call_id)
        return pb.FunctionMapResponse(function_call_id=call_id, function_call_jwt=call_id, pipelined_inputs=[answer])

    def _input(self, call_id: str) -> Input:
        if call_id not in self.calls:
            raise GRPCError(Status.NOT_FOUND, f"No FunctionCall with ID {call_id!r} found.")
        return self.calls[call_id]

    def _from_deployment(self, app: str, name: str) -> Deployed | None:
        """A function that `modal deploy` has created."""
        created = self.published.get((app, name))
        if created is None:
            return None
        target = f"{created.module_name}:{created.implementation_name or created.function_name}"
        made = Deployed(target, created.timeout_secs or 300.0, environment=self.image_environment(created.image_id))
        self.functions[app, name] = made
        return made

    async def _run(self, item: Input) -> None:
        function = item.function
        slots = self._slots.setdefault(function.id, asyncio.Semaphore(function.max_containers))
        async with slots:
            if item.result is None:
                await self._end(item, await self._result(item))

    async def _result(self, item: Input) -> Any:
        function = item.function
        idle = self._idle[function.id]
        try:
            container = idle.pop() if idle else await self._started(function)
        except RuntimeError as error:
            return pb.GenericResult(status=_STATUS.GENERIC_STATUS_INIT_FAILURE, exception=str(error))
        item.container = container
        try:
            answered = container.call(item.data_format, item.payload)
            kind, data, extra = await asyncio.wait_for(answered, function.timeout_seconds)
        except TimeoutError:
            await container.kill()
            text = f"Task's current input hit its timeout of {function.timeout_seconds:g}s"
            return pb.GenericResult(status=_STATUS.GENERIC_STATUS_TIMEOUT, exception=text)
        except asyncio.IncompleteReadError:
            code = await container.process.wait()
            status = _STATUS.GENERIC_STATUS_INTERNAL_FAILURE if code < 0 else _STATUS.GENERIC_STATUS_FAILURE
            return pb.GenericResult(status=status, exception=f"Runner terminated, exit code {code}")
        finally:
            item.container = None
        idle.append(container)
        carried = {"data_blob_id": self.blobs.put(data)} if len(data) > _BLOB_FROM_BYTES else {"data": data}
        if kind == RETURNED:
            return pb.GenericResult(status=_STATUS.GENERIC_STATUS_SUCCESS, **carried)
        text, traceback = extra.split("\0", 1)
        item.data_format = pb.DATA_FORMAT_PICKLE
        return pb.GenericResult(status=_STATUS.GENERIC_STATUS_FAILURE, exception=text, traceback=traceback, **carried)

    async def _started(self, function: Deployed) -> Container:
        path = os.pathsep.join([_TESTS, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        container = await Container.start(function.target, {"PYTHONPATH": path, **function.environment})
        self.containers.append(container)
        return container

    async def _end(self, item: Input, result: Any) -> None:
        if item.result is None:
            item.result, item.ended_at = result, time.time()
        async with self._changed:
            self._changed.notify_all()


class ModalServer:
    """The control plane on a thread of its own; `stop` and `start` again take its port away and give it back."""

    def __init__(self) -> None:
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="modal-server")
        self._server: _Server | None = None

    def __enter__(self) -> ModalServer:
        self._blobs = BlobStore()
        self.plane = ControlPlane(self._blobs)
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._do(self.plane.close())
        self._do(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._blobs.close()

    @property
    def variables(self) -> dict[str, str]:
        """What points the `modal` client here."""
        return {
            "MODAL_SERVER_URL": f"http://127.0.0.1:{self.port}",
            "MODAL_TOKEN_ID": TOKEN_ID,
            "MODAL_TOKEN_SECRET": TOKEN_SECRET,
            "MODAL_CONFIG_PATH": os.devnull,
        }

    def deploy(self, app: str = "durable-monty", name: str = "run", **function: Any) -> Deployed:
        """Make a function available; the arguments are the fields of `Deployed`."""
        made = self.plane.functions[app, name] = Deployed(**function)
        return made

    def expire(self) -> None:
        """Let results be as old as Modal lets them become."""
        for item in self.plane.calls.values():
            item.ended_at -= RETENTION_SECONDS

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = self._do(self._listen())

    def stop(self) -> None:
        """Stop listening and drop every connection; what runs goes on."""
        if self._server is not None:
            self._do(_shut(self._server))
            self._server = None

    async def _listen(self) -> _Server:
        server = _Server(_service(self.plane))
        await server.start("127.0.0.1", self.port)
        assert server._server is not None
        self.port = server._server.sockets[0].getsockname()[1]
        return server

    def _do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


@contextlib.contextmanager
def serving() -> Iterator[ModalServer]:
    """A server with the function `run` of the app `durable-monty`."""
    with ModalServer() as server:
        server.deploy()
        yield server


class _Server(grpclib.server.Server):
    """A server that can drop its connections, as one does that dies."""

    def __init__(self, service: Any) -> None:
        super().__init__([service])
        self._protocols: list[Any] = []

    def _protocol_factory(self) -> Any:
        made = super()._protocol_factory()
        self._protocols.append(made)
        return made

    def drop(self) -> None:
        """Stop listening and drop every connection."""
        self.close()
        for protocol in self._protocols:
            protocol.connection.close()


async def _shut(server: _Server) -> None:
    server.drop()
    await server.wait_closed()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _service(plane: ControlPlane) -> Any:
    """Every method of the service: the plane's, or UNIMPLEMENTED."""

    def method(name: str) -> Any:
        async def answer(_self: Any, stream: Any) -> None:
            await plane.admit(name, stream.metadata)
            own = getattr(plane, name, None)
            if own is None:
                raise GRPCError(Status.UNIMPLEMENTED, name)
            await own(stream)

        return answer

    names = api_grpc.ModalClientBase.__abstractmethods__
    return type("Service", (api_grpc.ModalClientBase,), {name: method(name) for name in names})()
