"""`Idempotency-Key` at what creates work, in one line at a route:

    @router.post("", …, dependencies=[repeatable(_answer)])

``_answer`` makes the answer from what the unit of work made, so that both are committed at once; it answers None when
nothing was made that a repeat could double. Without it the answer is stored after the fact: a crash in between leaves a
key that knows that its effect happened, and cannot show it again (409).
"""

import re
from collections.abc import Mapping
from hashlib import scrypt, sha256
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request
from fastapi.params import Depends as Dependency
from pydantic import BaseModel
from starlette.responses import Response

from app.api.companion import Render, companion_of, in_parts
from app.api.dependencies import caller, services_of
from app.errors import Conflict, FieldError, InvalidInput
from app.modules.idempotency import service as idempotency
from app.modules.idempotency.service import Answer, Claim, Known
from app.scheduling.calculating import calculated

__all__ = [
    "HEADER",
    "Answer",
    "Replay",
    "answer",
    "answer_of",
    "kept",
    "repeat_under",
    "repeatable",
    "replayed",
    "replied",
]

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT_HEADERS = ("Location", "ETag")


class Replay(Exception):
    """The answer is known already."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def repeatable(
    render: Render | None = None, *, secret: bool = False, kept_answer: bool = True, parts: bool = False
) -> Dependency:
    """The dependency of a route that may be repeated under a key.

    ``secret``: its body has a secret, which must not be guessed from what is stored. Without ``kept_answer`` its answer
    has one, and is never given again (409). ``parts``: as `companion.in_parts`.
    """

    async def repeat(
        request: Request,
        key: Annotated[
            str | None,
            Header(
                alias=HEADER,
                max_length=255,
                description="Any text without spaces, such as a UUID. For a day, the same request with the same key has"
                " no second effect and gets the first one's answer.",
            ),
        ] = None,
    ) -> None:
        if parts:
            in_parts(request)
        await repeat_under(request, key, render, secret=secret, kept_answer=kept_answer)

    dependency: Dependency = Depends(repeat)
    return dependency


async def repeat_under(
    request: Request,
    key: str | None,
    render: Render | None,
    *,
    secret: bool = False,
    kept_answer: bool = True,
) -> None:
    """Let the request's effect claim ``key``, if there is one.

    Raises:
        Replay: it has its effect already; this is the answer.
        InvalidInput: it is no key, or was used for another request.
        Conflict: its effect is there, but its answer was lost.
    """
    if key is None:
        return
    if not _KEY.fullmatch(key):
        raise InvalidInput(FieldError(HEADER, "Must have 1 to 255 visible ASCII characters."))
    companion = companion_of(request.scope)
    user, fingerprint = await caller(request), await _fingerprint(request)
    if secret:
        fingerprint = await calculated(_hardened, fingerprint, f"{user.id} {key}")
    claim = Claim(str(user.id), key, fingerprint)
    found = await idempotency.known(services_of(request).sessions, claim.caller, key)
    if found is not None:
        raise Replay(answer_of(found, claim))
    companion.claim, companion.render, companion.forgetful = claim, render, not kept_answer


def answer_of(found: Known, claim: Claim) -> Answer:
    """The answer to give again.

    Raises:
        InvalidInput: the key was used for another request.
        Conflict: its effect is there, but its answer was lost.
    """
    if found.fingerprint != claim.fingerprint:
        raise InvalidInput(FieldError(HEADER, "Was used for another request. Use a new key for this one."))
    if found.answer is None:
        raise Conflict(
            "The request with this Idempotency-Key was done or is being done; its answer is not known. Look before"
            " you use another key."
        )
    return found.answer


def replied(answer: Answer) -> Response:
    """The response for an answer."""
    return Response(answer.body, answer.status, answer.headers, "application/json")


def replayed(answer: Answer) -> Response:
    """The response for an answer that is given again."""
    return replied(Answer(answer.status, {**answer.headers, REPLAYED: "true"}, answer.body))


def answer(status: int, body: BaseModel, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer as the framework would send it."""
    return Answer(status, headers or {}, body.model_dump_json())


def kept(response: Response) -> Answer:
    """An answer that was made, to be given again."""
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return Answer(response.status_code, headers, bytes(response.body).decode())


def _hardened(fingerprint: bytes, salt: str) -> bytes:
    """As slow to guess from as a stored password."""
    return scrypt(fingerprint, salt=salt.encode(), n=2**14, r=8, p=1, dklen=32)


async def _fingerprint(request: Request) -> bytes:
    digest = sha256()
    parts: tuple[Any, ...] = (request.method, request.url.path, request.url.query)
    for part in parts:
        digest.update(str(part).encode() + b"\0")
    digest.update(await request.body())
    return digest.digest()
