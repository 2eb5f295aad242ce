"""One request to an agent, and what its answer means. Knows no database.

An answer is read up to a limit, redirects are not followed, and connections go only where
`app.outbound` allows.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from app import outbound
from app.modules.agents.config import same_origin
from app.modules.agents.errors import (
    AgentBroken,
    AgentError,
    AgentOverloaded,
    AgentRefused,
    AgentUnauthorized,
    AgentUnreachable,
    ReplyUnusable,
)
from app.modules.agents.records import redact
from app.outbound import OutboundPolicy

MAX_BYTES: Final = 1_048_576
CHECK_SECONDS: Final = 10.0
EXCERPT: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where an agent is, and how it wants to be spoken to. ``time_limit`` in seconds."""

    name: str
    kind: str
    url: str
    health_url: str | None
    model: str | None
    system_prompt: str | None
    max_tokens: int | None
    time_limit: float
    credential_header: str
    credential: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What it is to do; ``key`` is the same for every attempt at it."""

    key: str
    attempt: int
    prompt: str | None
    variables: Mapping[str, Any]
    scheduled_for: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What it answered; token counts are None where it does not tell them."""

    status: int
    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    limit: float
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    text: str
    retry_after: float | None = None


async def ask(endpoint: Endpoint, task: Task, policy: OutboundPolicy) -> Reply:
    """Send the request and read the answer, within the agent's time limit.

    Raises:
        AgentError: it did not work; the class says why, and whether to try again.
        OutboundRefused: the address may not be reached.
    """
    chat = endpoint.kind == "chat"
    url = f"{endpoint.url.rstrip('/')}/chat/completions" if chat else endpoint.url
    body = _chat_body(endpoint, task) if chat else _webhook_body(endpoint, task)
    headers = _headers(endpoint, url) | {
        "Content-Type": "application/json",
        "Idempotency-Key": task.key,
    }
    request = _Request("POST", url, headers, endpoint.time_limit, json.dumps(body, default=str).encode())
    answer = await _exchange(endpoint, request, policy)
    _refuse_failure(endpoint, answer)
    return _chat_reply(answer) if chat else _webhook_reply(answer)


async def check(endpoint: Endpoint, policy: OutboundPolicy) -> None:
    """Find out whether it is there; raises as `ask` if not."""
    url = endpoint.health_url or (
        f"{endpoint.url.rstrip('/')}/models" if endpoint.kind == "chat" else endpoint.url
    )
    request = _Request("GET", url, _headers(endpoint, url), min(CHECK_SECONDS, endpoint.time_limit))
    answer = await _exchange(endpoint, request, policy)
    answers_at_all = endpoint.kind == "webhook" and endpoint.health_url is None
    if not (answers_at_all and 300 <= answer.status < 500 and answer.status not in (401, 403)):
        _refuse_failure(endpoint, answer)


def _headers(endpoint: Endpoint, url: str) -> dict[str, str]:
    # What was compressed may be a thousand times as large when it is read.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "upbeat"}
    if endpoint.credential is not None and same_origin(url, endpoint.url):
        bearer = endpoint.credential_header.lower() == "authorization" and " " not in endpoint.credential
        headers[endpoint.credential_header] = f"{'Bearer ' if bearer else ''}{endpoint.credential}"
    return headers


def _chat_body(endpoint: Endpoint, task: Task) -> dict[str, Any]:
    system = [{"role": "system", "content": endpoint.system_prompt}] if endpoint.system_prompt else []
    limit = {} if endpoint.max_tokens is None else {"max_tokens": endpoint.max_tokens}
    messages = [*system, {"role": "user", "content": task.prompt}]
    return {"model": endpoint.model, "messages": messages, **limit}


def _webhook_body(endpoint: Endpoint, task: Task) -> dict[str, Any]:
    return {
        "agent": endpoint.name,
        "run_id": task.key,
        "attempt": task.attempt,
        "scheduled_for": task.scheduled_for,
        "prompt": task.prompt,
        "variables": dict(task.variables),
    }


async def _exchange(endpoint: Endpoint, request: _Request, policy: OutboundPolicy) -> _Answer:
    sent = connected = False

    async def happened(event: str, _: Mapping[str, Any]) -> None:
        nonlocal sent
        sent = sent or event.endswith(".send_request_headers.started")

    try:
        async with (
            asyncio.timeout(request.limit),
            outbound.client(policy, timeout=request.limit) as client,
            client.stream(
                request.method,
                request.url,
                headers=request.headers,
                content=request.content,
                extensions={"trace": happened},
            ) as response,
        ):
            connected = True
            asked = outbound.retry_after(response.headers.get("retry-after"), datetime.now(UTC))
            return _Answer(response.status_code, await _read(response), asked)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise AgentUnreachable(
            f"{endpoint.name} cannot be connected to: {_words(error)}.", sent=False
        ) from error
    except (TimeoutError, httpx.TimeoutException) as error:
        did = "answer completely" if sent else "take a connection"
        raise AgentUnreachable(
            f"{endpoint.name} did not {did} within {request.limit:g} s.", sent=sent
        ) from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise AgentUnreachable(
            f"The connection to {endpoint.name} broke {'while it answered' if connected else 'off'}:"
            f" {_words(error)}.",
            sent=sent,
        ) from error


async def _read(response: httpx.Response) -> str:
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise ReplyUnusable(
            "The answer is compressed, which was not asked for.", answered=response.status_code
        )
    read = bytearray()
    async for chunk in response.aiter_raw():
        read += chunk
        if len(read) > MAX_BYTES:
            raise ReplyUnusable(f"The answer has more than {MAX_BYTES} bytes.", answered=response.status_code)
    return read.decode("utf-8", "replace")


def _refuse_failure(endpoint: Endpoint, answer: _Answer) -> None:
    status = answer.status
    if 200 <= status < 300:
        return
    excerpt = redact(answer.text, endpoint.credential)[:EXCERPT].strip()
    said = f"{endpoint.name} answered {status}{f': {excerpt}' if excerpt else ''}"
    error: type[AgentError] = AgentRefused
    if status == 429:
        error = AgentOverloaded
    elif status >= 500 or status == 408:
        error = AgentBroken
    elif status in (401, 403):
        error = AgentUnauthorized
    elif 300 <= status < 400:
        said = f"{endpoint.name} answered {status}, a redirect, which is not followed. Set the final address"
    raise error(f"{said}.", answered=status, retry_after=answer.retry_after)


def _chat_reply(answer: _Answer) -> Reply:
    status = answer.status
    document = _object(status, answer.text)
    try:
        content = document["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise ReplyUnusable("The answer has no choices[0].message.content.", answered=status) from None
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return Reply(status, str(content or ""), *_usage(document))


def _webhook_reply(answer: _Answer) -> Reply:
    try:
        document = json.loads(answer.text)
    except (ValueError, RecursionError):
        document = None
    return Reply(answer.status, answer.text, *_usage(document if isinstance(document, dict) else {}))


def _object(status: int, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ReplyUnusable("The answer is not a JSON object.", answered=status)
    return document


def _usage(document: Mapping[str, Any]) -> tuple[int | None, int | None]:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None, None
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _count(value: Any) -> int | None:
    sane = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if sane else None


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
