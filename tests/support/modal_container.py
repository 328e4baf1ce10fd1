"""What stands for a container at Modal: a warm process that runs one input after another.

It reads and writes with the `modal` client's own serialisers, as the real container does.

    modal_container.py MODULE:FUNCTION     reads inputs from stdin, writes results to the descriptor OUTPUT names
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
import traceback
from pathlib import Path

READY, RETURNED, RAISED = b"r", b"v", b"e"
_HEAD = 17


class Container:
    """One process; `call` runs one input in it."""

    def __init__(
        self, process: asyncio.subprocess.Process, output: asyncio.StreamReader, pipe: asyncio.BaseTransport
    ) -> None:
        self.process = process
        self._output = output
        self._pipe = pipe

    @classmethod
    async def start(cls, target: str, environment: dict[str, str]) -> Container:
        """Start one and wait until it has imported its function.

        Raises:
            RuntimeError: It ended before.
        """
        reading, writing = os.pipe()
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__)), target,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, pass_fds=(writing,),
            env={**os.environ, **environment, "OUTPUT": str(writing)},
        )  # fmt: skip
        os.close(writing)
        output = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output),
            os.fdopen(reading, "rb", 0),
        )
        container = cls(process, output, pipe)
        try:
            kind, _, _ = await container._read()
        except asyncio.IncompleteReadError:
            code = await process.wait()
            await container.kill()
            raise RuntimeError(f"Runner failed with exit code {code}") from None
        except asyncio.CancelledError:
            await container.kill()
            raise
        assert kind == READY
        return container

    async def call(self, data_format: int, payload: bytes) -> tuple[bytes, bytes, str]:
        """Kind, serialised value or exception, and the exception's text and traceback.

        Raises:
            asyncio.IncompleteReadError: The process ended.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(bytes([data_format]) + len(payload).to_bytes(8, "big") + payload)
            await self.process.stdin.drain()
        except ConnectionError:
            raise asyncio.IncompleteReadError(b"", 1) from None
        return await self._read()

    async def kill(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        self._pipe.close()
        # Without this its destructor looks for an event loop that is gone.
        self.process._transport.close()

    async def _read(self) -> tuple[bytes, bytes, str]:
        head = await self._output.readexactly(_HEAD)
        size, extra = int.from_bytes(head[1:9], "big"), int.from_bytes(head[9:], "big")
        body = await self._output.readexactly(size + extra)
        return head[:1], body[:size], body[size:].decode()


def main() -> None:
    # The container's own code.
    from modal._serialization import deserialize_data_format, serialize, serialize_data_format

    module, _, name = sys.argv[1].partition(":")
    with os.fdopen(int(os.environ["OUTPUT"]), "wb") as output:

        def send(kind: bytes, data: bytes = b"", extra: bytes = b"") -> None:
            output.write(kind + len(data).to_bytes(8, "big") + len(extra).to_bytes(8, "big") + data + extra)
            output.flush()

        function = getattr(importlib.import_module(module), name)
        send(READY)
        while head := sys.stdin.buffer.read(9):
            payload = sys.stdin.buffer.read(int.from_bytes(head[1:], "big"))
            try:
                args, kwargs = deserialize_data_format(payload, head[0], None)
                result = serialize_data_format(function(*args, **kwargs), head[0])
            except Exception as error:
                send(RAISED, serialize(error), f"{error!r}\0{traceback.format_exc()}".encode())
            else:
                send(RETURNED, result)


if __name__ == "__main__":
    main()
