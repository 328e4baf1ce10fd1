"""Where the `modal` client puts what is too large for a gRPC message: an HTTP server that takes and gives bytes."""

from __future__ import annotations

import hashlib
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class BlobStore:
    """Blobs by id."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Nothing."""

            def do_PUT(self) -> None:
                data = store.data[self.path.strip("/")] = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                # The client checks it.
                self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                data = store.data.get(self.path.strip("/"), b"")
                self.send_response(200 if data else 404)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="modal-blobs")
        self._thread.start()

    def new(self) -> tuple[str, str]:
        """The id of a blob to come, and where to put it."""
        blob_id = f"bl-{uuid.uuid4().hex}"
        return blob_id, self.url(blob_id)

    def put(self, data: bytes) -> str:
        """Keep a blob; returns its id."""
        blob_id, _ = self.new()
        self.data[blob_id] = data
        return blob_id

    def url(self, blob_id: str) -> str:
        """Where a blob is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{blob_id}"

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
