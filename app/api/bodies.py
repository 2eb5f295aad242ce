"""JSON bodies, read strictly: what PostgreSQL or another JSON reader could not hold is refused here.

Refused are: another content type, text that is not UTF-8, NaN and infinities, integers beyond 64
bits, NUL characters and lone surrogates, and nesting deeper than 64 levels; and what is of another type than the
schema says, though it could be read as that: 0 for false, "5" for 5, 1 for a date.
"""

import json
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from app.api.problems import MalformedBody, UnsupportedMediaType
from app.api.validation import MAX_PATH
from app.errors import FieldError, InvalidInput

MAX_DEPTH = 64
MAX_DIGITS = 20
SMALLEST, LARGEST = -(2**63), 2**64 - 1

# Where a value stands: in what, and under which key or number. Written out only in an error: a key may be as long as
# the body, and stand before everything else in it.
_Place = tuple["_Place | None", str | int]


class StrictRequest(Request):
    """A request whose `json()` reads strictly."""

    async def json(self) -> Any:
        """The body.

        Raises:
            UnsupportedMediaType: the Content-Type is not JSON.
            MalformedBody: it is not JSON that can be read.
            InvalidInput: it is, but a value cannot be stored.
        """
        if not hasattr(self, "_json"):
            kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json" and not (
                kind.startswith("application/") and kind.endswith("+json")
            ):
                raise UnsupportedMediaType(
                    "Send the body as JSON, with the header Content-Type: application/json."
                )
            self._json = parse(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route whose JSON body is a `StrictRequest`'s.

    The framework reads the body before it asks who the caller is. Here that is asked first: who may not call the
    route is told that, whatever the body was, and no work is spent on it.
    """

    authorize: Callable[[Request], Awaitable[None]] | None = None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of `APIRoute`, with the body read before."""
        handle = super().get_route_handler()
        expected: TypeAdapter[Any] = TypeAdapter(
            (self.body_field and self.body_field.field_info.annotation) or Any
        )

        async def strict(request: Request) -> Response:
            if self.body_field is None:
                return await handle(request)
            if self.authorize is not None:
                await type(self).authorize(request)  # type: ignore[misc]
            request = StrictRequest(request.scope, request.receive)
            if body := await request.body():
                await request.json()
                validated(expected, body)
            return await handle(request)

        return strict


def validated(expected: TypeAdapter[Any], body: bytes) -> Any:
    """The body as what is expected of it, types taken strictly."""
    try:
        return expected.validate_json(body, strict=True)
    except ValidationError as error:
        raise RequestValidationError(
            [each | {"loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        ) from None


def parse(body: bytes) -> Any:
    """The JSON value of a body; errors as `StrictRequest.json`."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedBody("The body is not valid UTF-8. Encode JSON as UTF-8.") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise MalformedBody(f"The body is nested too deeply; at most {MAX_DEPTH} levels are taken.") from None
    _check(value)
    return value


def _constant(name: str) -> float:
    raise MalformedBody("The body has NaN or an infinity, which JSON does not know. Use null or a string.")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedBody("The body has a number that is too large. Use a string.")
    return number


def _int(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS or not SMALLEST <= (number := int(text)) <= LARGEST:
        raise MalformedBody("The body has an integer of more than 64 bits. Use a string.")
    return number


_DECODER = json.JSONDecoder(parse_constant=_constant, parse_float=_float, parse_int=_int)


def _check(value: Any) -> None:
    """Depth and characters, without recursion: the body decides how deep it is."""
    todo: list[tuple[Any, _Place | None, int]] = [(value, None, 1)]
    while todo:
        item, place, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise MalformedBody(f"The body is nested too deeply; at most {MAX_DEPTH} levels are taken.")
        if isinstance(item, str):
            _check_text(item, place)
        elif isinstance(item, list):
            todo.extend((part, (place, number), depth + 1) for number, part in enumerate(item))
        elif isinstance(item, dict):
            for key, part in item.items():
                _check_text(key, place)
                todo.append((part, (place, key), depth + 1))


def _check_text(text: str, place: _Place | None) -> None:
    if "\0" in text:
        raise InvalidInput(FieldError(_path(place), "Text must not have NUL characters (\\u0000)."))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                FieldError(_path(place), "Text must be valid Unicode: a surrogate stands alone.")
            ) from None


def _path(place: _Place | None) -> str:
    parts: list[str] = []
    while place is not None:
        place, part = place
        parts.append(str(part))
    return ".".join(reversed(parts))[:MAX_PATH] or "body"
