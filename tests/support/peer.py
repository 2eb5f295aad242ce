"""A real HTTP server on loopback that plays an agent's endpoint: answers, delays, fails, redirects.

What it does next is told by `answer`; what it was asked is in `requests`. Its own count of
idempotency keys shows who was called twice.
"""

import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say; ``delay`` in seconds before the first byte."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def completion(text: str, *, prompt_tokens: int = 7, completion_tokens: int = 5) -> Answer:
    """A chat completion, as the compatible services word it."""
    return Answer(
        body=json.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {
                    "prompt_tokens": prompt_tokens,
                    "completion_tokens": completion_tokens,
                    "total_tokens": prompt_tokens + completion_tokens,
                },
            }
        ).encode(),
        headers={"Content-Type": "application/json"},
    )


class Peer:
    """The server's face for tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, Answer] = {}
        self._stopping = threading.Event()
        self.requests: list[Request] = []
        self.url = ""

    def answer(self, path: str, answer: Answer) -> None:
        """From now on, say this at ``path``; elsewhere it is 404."""
        with self._lock:
            self._answers[path] = answer

    def forget(self) -> None:
        """Forget what was asked and what to say."""
        with self._lock:
            self.requests.clear()
            self._answers.clear()
            self._stopping = threading.Event()

    def keys(self) -> Counter[str]:
        """How often each idempotency key came."""
        with self._lock:
            return Counter(
                r.headers["idempotency-key"] for r in self.requests if "idempotency-key" in r.headers
            )

    def asked(self, path: str) -> list[Request]:
        """The requests at ``path``."""
        with self._lock:
            return [request for request in self.requests if request.path == path]

    def handle(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            answer = self._answers.get(request.path, Answer(404, b'{"error": "nothing here"}'))
            stopping = self._stopping
        if answer.delay:
            stopping.wait(answer.delay)
        return answer

    def release(self) -> None:
        """Let those that wait go on."""
        self._stopping.set()


@contextmanager
def running_peer(tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """The server for the time of the context, with TLS if a context is given."""
    peer = Peer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(length)
            answer = peer.handle(Request(self.command, self.path, headers, body))
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)
            except OSError:
                self.close_connection = True  # the caller did not wait

        do_GET = do_POST = do_HEAD = do_OPTIONS = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    peer.url = f"{'http' if tls is None else 'https'}://{LOOPBACK}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        peer.release()
        server.shutdown()
        server.server_close()
        thread.join(5)
