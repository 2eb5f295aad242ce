"""The two shells around a call: they send, sleep and read, and leave every decision to the parts that they share."""

import asyncio
import copy
import threading
import time
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic_core import PydanticSerializationError, to_json

from upbeat_sdk._answers import accepted, read, read_page, read_text
from upbeat_sdk._call import Call
from upbeat_sdk._errors import ConfigurationError
from upbeat_sdk._events import AsyncEventStream, EventStream, unbroken
from upbeat_sdk._exchange import Exchange
from upbeat_sdk._generated.models import AccessToken
from upbeat_sdk._model import Model
from upbeat_sdk._pages import AsyncPage, AsyncPages, Page
from upbeat_sdk._settings import Credential, Settings
from upbeat_sdk._version import __version__

AGENT: Final = f"upbeat-sdk/{__version__}"
UNAUTHENTICATED: Final = 401
# A stream shows a sign of life every 15 seconds.
SILENCE: Final = 45.0
# Given up before uvicorn does so, after 5 seconds: a request on a connection that is just being closed
# brings no answer, and what creates no work cannot always be sent again.
LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=3.0)
MAX_LISTENERS: Final = 20

M = TypeVar("M", bound=Model)


class Session:
    """The token in use, shared by the copies of a client."""

    def __init__(self, credential: Credential) -> None:
        self.credential = credential
        self.token = credential.token

    def login_call(self) -> Call:
        """The call that gets a token.

        Raises:
            ConfigurationError: there is nothing to log in with.
        """
        if not self.credential.renewable:
            raise ConfigurationError(
                "Who calls? Give token=…, api_key=…, or username= and password=; or set UPBEAT_TOKEN."
            )
        form = {"username": self.credential.username, "password": self.credential.password}
        return Call("login", "POST", "/api/v1/auth/login", form=form, secured=False)

    def refused(self, token: str | None) -> bool:
        """Whether a call that was answered with 401 is worth another try with a new token."""
        if not self.credential.renewable or token is None:
            return False
        if self.token == token:
            self.token = None
        return True


class Shell:
    """What both shells share: the requests that they send, and the options that they go by."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = Session(settings.credential)
        # Streams hold their connections; what waits for one of many runs leaves some for other calls.
        self.listeners = threading.BoundedSemaphore(MAX_LISTENERS)
        self._own = True

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._settings.url

    def with_options(
        self, *, timeout: float | httpx.Timeout | None = None, max_retries: int | None = None
    ) -> Self:
        """The same client with other patience. It shares the connections, which stay with this one."""
        changes: dict[str, Any] = {}
        if timeout is not None:
            changes["timeout"] = timeout if isinstance(timeout, httpx.Timeout) else httpx.Timeout(timeout)
        if max_retries is not None:
            changes["max_retries"] = max_retries
        other = copy.copy(self)
        # Resources are made when they are first used, and belong to one client.
        kept = {name: value for name, value in vars(self).items() if name.startswith("_")}
        kept["listeners"] = self.listeners
        other.__dict__ = kept | {"_settings": replace(self._settings, **changes), "_own": False}
        return other

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url={self._settings.url!r})"

    def _request(
        self,
        http: httpx.Client | httpx.AsyncClient,
        call: Call,
        token: str | None,
        timeout: httpx.Timeout,
    ) -> httpx.Request:
        headers = {"User-Agent": AGENT, "Accept": "application/json", **call.header_items()}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        content = None
        if call.body is not None:
            content = _written(call)
            headers["Content-Type"] = "application/json"
        return http.build_request(
            call.verb,
            self._settings.url + call.path,
            params=call.query_items() or None,
            headers=headers,
            content=content,
            data=None if call.form is None else dict(call.form),
            timeout=timeout,
        )

    def _timeout(self, silence: float | None) -> httpx.Timeout:
        usual = self._settings.timeout
        if silence is None:
            return usual
        return httpx.Timeout(connect=usual.connect, write=usual.write, pool=usual.pool, read=silence)


def _written(call: Call) -> bytes:
    """The body of a call.

    Raises:
        ConfigurationError: something in it has no form in JSON.
    """
    try:
        return to_json(call.body)
    except PydanticSerializationError as error:
        raise ConfigurationError(
            f"What {call.operation} is given cannot be written as JSON: {error}."
        ) from error


class SyncShell(Shell):
    """Sends calls and waits for their answers."""

    def __init__(self, settings: Settings, http_client: httpx.Client | None) -> None:
        super().__init__(settings)
        self._own = http_client is None
        self._http = http_client or httpx.Client(limits=LIMITS)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections, unless they belong to a client that was given."""
        if self._own:
            self._http.close()

    def fetch(self, call: Call, model: type[M], *, within: float | None = None) -> M:
        """The answer, as this model; ``within`` seconds and by one request, if it is given."""
        shell = self if within is None else self.with_options(timeout=within, max_retries=0)
        return read(shell.send(call), model, self)

    def fetch_text(self, call: Call) -> str:
        """The answer, which is plain text."""
        return read_text(self.send(call))

    def fetch_nothing(self, call: Call) -> None:
        """Make sure that it was done."""
        accepted(self.send(call))

    def page(self, call: Call, model: type[M]) -> Page[M]:
        """A page of such items."""
        items, cursor = read_page(self.send(call), model, self)
        return Page(items, cursor, call, model, self)

    def stream(self, call: Call, *, silence: float = SILENCE) -> EventStream:
        """The answer's events; it counts as cut off when nothing came for ``silence`` seconds."""
        call = replace(call, headers={**call.headers, "Accept": "text/event-stream"})
        return EventStream(self, call, silence)

    def open(self, call: Call, silence: float) -> httpx.Response:
        """The answer whose body is still to come; it has to be closed."""
        response = self.send(call, silence=silence)
        if not response.is_success:
            with closing(response), unbroken():
                response.read()
        accepted(response)
        return response

    def send(self, call: Call, *, silence: float | None = None) -> httpx.Response:
        """The answer as it came, after as many requests as it took; ``silence`` is for streams,
        whose body is not read: the longest pause in it, in seconds.
        """
        call = call.with_key()
        token = self._token() if call.secured else None
        response = self._exchange(call, token, silence=silence)
        if response.status_code == UNAUTHENTICATED and self._session.refused(token):
            response.close()
            response = self._exchange(call, self._token(), silence=silence)
        return response

    def _token(self) -> str:
        token = self._session.token
        if token is None:
            with self._lock:
                token = self._session.token
                if token is None:
                    login = self._exchange(self._session.login_call(), None)
                    token = self._session.token = read(login, AccessToken, self).access_token
        return token

    def _exchange(self, call: Call, token: str | None, *, silence: float | None = None) -> httpx.Response:
        exchange = Exchange(call, self._settings)
        timeout = self._timeout(silence)
        while True:
            request = self._request(self._http, exchange.call, token, timeout)
            try:
                response = self._http.send(request, stream=silence is not None)
            except httpx.RequestError as error:
                pause: float | None = exchange.broke(error)
            else:
                pause = exchange.answered(response.status_code, response.headers)
                if pause is None:
                    return exchange.counted(response)
                response.close()
            time.sleep(pause or 0.0)


class AsyncShell(Shell):
    """Sends calls and awaits their answers."""

    def __init__(self, settings: Settings, http_client: httpx.AsyncClient | None) -> None:
        super().__init__(settings)
        self._own = http_client is None
        self._http = http_client or httpx.AsyncClient(limits=LIMITS)
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections, unless they belong to a client that was given."""
        if self._own:
            await self._http.aclose()

    async def fetch(self, call: Call, model: type[M], *, within: float | None = None) -> M:
        """The answer, as this model; ``within`` seconds and by one request, if it is given."""
        shell = self if within is None else self.with_options(timeout=within, max_retries=0)
        return read(await shell.send(call), model, self)

    async def fetch_text(self, call: Call) -> str:
        """The answer, which is plain text."""
        return read_text(await self.send(call))

    async def fetch_nothing(self, call: Call) -> None:
        """Make sure that it was done."""
        accepted(await self.send(call))

    def page(self, call: Call, model: type[M]) -> AsyncPages[M]:
        """A page of such items, or all of them."""
        return AsyncPages(call, model, self)

    async def read_page(self, call: Call, model: type[M]) -> AsyncPage[M]:
        """A page of such items."""
        items, cursor = read_page(await self.send(call), model, self)
        return AsyncPage(items, cursor, call, model, self)

    def stream(self, call: Call, *, silence: float = SILENCE) -> AsyncEventStream:
        """The answer's events; it counts as cut off when nothing came for ``silence`` seconds."""
        call = replace(call, headers={**call.headers, "Accept": "text/event-stream"})
        return AsyncEventStream(self, call, silence)

    async def open(self, call: Call, silence: float) -> httpx.Response:
        """The answer whose body is still to come; it has to be closed."""
        response = await self.send(call, silence=silence)
        if not response.is_success:
            async with aclosing(response):
                with unbroken():
                    await response.aread()
        accepted(response)
        return response

    async def send(self, call: Call, *, silence: float | None = None) -> httpx.Response:
        """The answer as it came, after as many requests as it took; ``silence`` is for streams,
        whose body is not read: the longest pause in it, in seconds.
        """
        call = call.with_key()
        token = await self._token() if call.secured else None
        response = await self._exchange(call, token, silence=silence)
        if response.status_code == UNAUTHENTICATED and self._session.refused(token):
            await response.aclose()
            response = await self._exchange(call, await self._token(), silence=silence)
        return response

    async def _token(self) -> str:
        token = self._session.token
        if token is None:
            async with self._lock:
                token = self._session.token
                if token is None:
                    login = await self._exchange(self._session.login_call(), None)
                    token = self._session.token = read(login, AccessToken, self).access_token
        return token

    async def _exchange(
        self, call: Call, token: str | None, *, silence: float | None = None
    ) -> httpx.Response:
        exchange = Exchange(call, self._settings)
        timeout = self._timeout(silence)
        while True:
            request = self._request(self._http, exchange.call, token, timeout)
            try:
                response = await self._http.send(request, stream=silence is not None)
            except httpx.RequestError as error:
                pause: float | None = exchange.broke(error)
            else:
                pause = exchange.answered(response.status_code, response.headers)
                if pause is None:
                    return exchange.counted(response)
                await response.aclose()
            await asyncio.sleep(pause or 0.0)
