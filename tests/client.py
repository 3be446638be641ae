"""A client of the service, of the standard library alone, and a service in a thread."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any
from uuid import uuid4


class Client:
    """Keeps one connection to a service on this machine."""

    def __init__(self, port: int, *, token: str | None = None) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        self.connection.request("GET", path, headers={**self._headers, **headers})
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode()

    def post(
        self, files: Sequence[tuple[str, bytes]], query: str = "", *, field: str = "photographs"
    ) -> tuple[int, dict[str, Any]]:
        """Send files as a form of a browser does."""
        mark = uuid4().hex
        body = b"".join(
            f'--{mark}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            f"Content-Type: application/octet-stream\r\n\r\n".encode()
            + content
            + b"\r\n"
            for name, content in files
        )
        self.connection.request(
            "POST",
            f"/predict{query}",
            body + f"--{mark}--\r\n".encode(),
            {**self._headers, "Content-Type": f"multipart/form-data; boundary={mark}"},
        )
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())


@contextmanager
def running(application: Any) -> Iterator[int]:
    """Run a service in a thread, and yield its port."""
    import uvicorn  # noqa: PLC0415 (an extra)

    config = uvicorn.Config(application, port=0, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def connected(application: Any, *, token: str | None = None) -> Iterator[Client]:
    """Run a service in a thread, and yield a client of it."""
    with running(application) as port:
        client = Client(port, token=token)
        with closing(client.connection):
            yield client
