"""Every method of every resource sends what the API's document says, in both forms."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from upbeat_sdk import AsyncEventStream, AsyncUpbeat, EventStream, Upbeat
from upbeat_sdk._generated.operations import OPERATIONS

URL = "http://upbeat.test"


class Sent(Exception):
    """A request that got as far as the transport."""

    def __init__(self, request: httpx.Request) -> None:
        super().__init__(request.url.path)
        self.request = request


def send(request: httpx.Request) -> httpx.Response:
    raise Sent(request)


def call(method: Callable[..., Any]) -> Any:
    """The method called with the least that it takes."""
    parameters = inspect.signature(method).parameters.values()
    positional = [f"a {each.name}" for each in parameters if each.kind is each.POSITIONAL_ONLY]
    required = [
        each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty
    ]
    return method(*positional, **dict.fromkeys(required, "x"))


def check(name: str, request: httpx.Request) -> None:
    operation = OPERATIONS[name]
    path = re.sub(r"\{(\w+)\}", r"a%20\1", operation.path)
    assert (request.method, request.url.raw_path.partition(b"?")[0].decode()) == (operation.verb, path)
    assert ("Idempotency-Key" in request.headers) is operation.keyed


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_sync_form(name: str) -> None:
    operation = OPERATIONS[name]
    with httpx.Client(transport=httpx.MockTransport(send)) as http:
        client = Upbeat(URL, token="x", http_client=http)
        with pytest.raises(Sent) as sent:
            opened(call(getattr(getattr(client, operation.resource), operation.method)))
    check(name, sent.value.request)


def opened(found: Any) -> None:
    """A stream is asked for when it is opened."""
    assert isinstance(found, EventStream)
    with found:
        pass


@pytest.mark.parametrize("name", OPERATIONS)
async def test_the_async_form(name: str) -> None:
    operation = OPERATIONS[name]
    async with httpx.AsyncClient(transport=httpx.MockTransport(send)) as http:
        client = AsyncUpbeat(URL, token="x", http_client=http)
        with pytest.raises(Sent) as sent:
            await awaited(call(getattr(getattr(client, operation.resource), operation.method)))
    check(name, sent.value.request)


async def awaited(found: Any) -> None:
    """A page is asked for when it is awaited, a stream when it is opened."""
    if isinstance(found, AsyncEventStream):
        async with found:
            pass
    await found
