"""The fake service's face and its HTTP: calls are matched to operations, answered, and kept."""

import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from json import dumps, loads
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import httpx

from upbeat_sdk._client import AsyncUpbeat, Upbeat
from upbeat_sdk._generated.operations import OPERATIONS
from upbeat_sdk._operation import Operation
from upbeat_sdk.testing._problems import Refusal, problem
from upbeat_sdk.testing._runs import Runs
from upbeat_sdk.testing._schedules import Schedules

URL: Final = "http://upbeat.fake"
TOKEN: Final = "fake-token"  # noqa: S105 - opens nothing
F = TypeVar("F", bound=Callable[..., Any])


class NotFaked(NotImplementedError):
    """The fake does not know this operation; `FakeUpbeat.answer` tells it what to say."""


@dataclass(frozen=True, slots=True)
class Received:
    """A call that reached the fake. ``json`` is its body; ``path`` and ``query`` are text."""

    operation: str
    path: dict[str, str]
    query: dict[str, str]
    json: Any
    headers: httpx.Headers


class FakeUpbeat:
    """A service in memory; its clients are real ones, whose calls end here."""

    def __init__(self, *, username: str = "fake", password: str = "fake") -> None:  # noqa: S107 - guards nothing
        self._login = (username, password)
        self._runs = Runs()
        self._schedules = Schedules(self._runs)
        self._received: list[Received] = []
        self._told: dict[str, deque[httpx.Response]] = defaultdict(deque)
        self._always: dict[str, tuple[int, Any]] = {}
        # What was answered under an idempotency key; it is answered again.
        self._done: dict[tuple[str, str | None], tuple[int, Any]] = {}
        self._lock = threading.RLock()
        self._routes = [(name, each, _pattern(each.path)) for name, each in OPERATIONS.items()]

    def task(self, name: str, *, queue: str = "celery") -> Callable[[F], F]:
        """Register a function as a task, which runs execute; what it prints becomes their log."""

        def register(function: F) -> F:
            self._runs.register(name, function, queue)
            return function

        return register

    def answer(self, operation: str, json: Any = None, *, status: int | None = None) -> None:
        """Answer an operation always with this.

        Raises:
            ValueError: there is no such operation.
        """
        self._always[operation] = (self._operation(operation).status if status is None else status, json)

    def fail(
        self, operation: str, status: int, *, times: int = 1, detail: str = "", retry_after: int | None = None
    ) -> None:
        """Refuse the next calls of an operation.

        Raises:
            ValueError: there is no such operation.
        """
        self._operation(operation)
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        refusal = Refusal(status, HTTPStatus(status).phrase.lower().replace(" ", "_"), detail or "As told.")
        for _ in range(times):
            self._told[operation].append(problem(refusal, "/", headers))

    def calls(self, operation: str | None = None) -> list[Received]:
        """What was received, in order; of one operation, or of all."""
        return [each for each in self._received if operation in (None, each.operation)]

    @property
    def transport(self) -> httpx.MockTransport:
        """For an httpx client of your own."""
        return httpx.MockTransport(self._handle)

    def client(self, **options: Any) -> Upbeat:
        """A client of this service; ``options`` are those of `Upbeat`."""
        options = {"url": URL, "http_client": httpx.Client(transport=self.transport), **options}
        return Upbeat(**_authenticated(options))

    def async_client(self, **options: Any) -> AsyncUpbeat:
        """An async client of this service; ``options`` are those of `AsyncUpbeat`."""
        options = {"url": URL, "http_client": httpx.AsyncClient(transport=self.transport), **options}
        return AsyncUpbeat(**_authenticated(options))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            name, operation, values = self._match(request)
            body = _body(request)
            received = Received(name, values, dict(request.url.params), body, request.headers)
            self._received.append(received)
            if self._told[name]:
                return self._told[name].popleft()
            key = (name, request.headers.get("Idempotency-Key"))
            if key in self._done:
                return _response(*self._done[key])
            try:
                response = self._answer(received, operation, request)
                if key[1] is not None:
                    self._done[key] = (response.status_code, response.json())
            except Refusal as refusal:
                response = problem(refusal, request.url.path)
            response.headers["X-Request-ID"] = f"fake-{len(self._received)}"
            return response

    def _answer(self, received: Received, operation: Operation, request: httpx.Request) -> httpx.Response:
        if received.operation in self._always:
            status, json = self._always[received.operation]
            return _response(status, json)
        if received.operation == "login":
            return _response(200, self._token(received.json))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "unauthenticated", "Send a bearer token.")
        if received.operation == "stream_run_logs":
            text = self._runs.stream(received)
            return httpx.Response(200, text=text, headers={"Content-Type": "text/event-stream"})
        for part in (self._runs, self._schedules):
            handler = part.handlers.get(received.operation)
            if handler is not None:
                return _response(operation.status, handler(received))
        raise NotFaked(f"tell the fake what to answer: fake.answer({received.operation!r}, …)")

    def _token(self, form: dict[str, str]) -> dict[str, str]:
        if (form.get("username"), form.get("password")) != self._login:
            raise Refusal(401, "unauthenticated", "Username or password is wrong.")
        return {"access_token": TOKEN, "token_type": "bearer"}

    def _match(self, request: httpx.Request) -> tuple[str, Operation, dict[str, str]]:
        path = request.url.raw_path.partition(b"?")[0].decode()
        # A fixed path before one with a parameter in its place, as in the service.
        for name, operation, pattern in sorted(self._routes, key=lambda each: each[1].path.count("{")):
            found = pattern.fullmatch(path)
            if found and operation.verb == request.method:
                return name, operation, {key: unquote(value) for key, value in found.groupdict().items()}
        raise NotFaked(f"the API has no {request.method} {path}")

    @staticmethod
    def _operation(name: str) -> Operation:
        found = OPERATIONS.get(name)
        if found is None:
            raise ValueError(f"the API has no operation {name!r}")
        return found


def _authenticated(options: dict[str, Any]) -> dict[str, Any]:
    return options if options.keys() & {"token", "api_key", "username"} else {**options, "token": TOKEN}


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))


def _body(request: httpx.Request) -> Any:
    if not request.content:
        return None
    if request.headers.get("Content-Type", "").startswith("application/json"):
        return loads(request.content)
    return dict(httpx.QueryParams(request.content.decode()))


def _response(status: int, json: Any) -> httpx.Response:
    if json is None:
        return httpx.Response(status)
    return httpx.Response(
        status, content=dumps(json, default=str), headers={"Content-Type": "application/json"}
    )
