"""`ETag` and `If-Match`: who edits says which version they have seen, and nobody overwrites what they have not."""

from typing import Annotated, Any, Final

from fastapi import Depends, Header

from app.errors import FieldError, InvalidInput, PreconditionRequired

EVERY: Final = "*"


def etag(version: int) -> str:
    """The strong ETag of a version."""
    return f'"{version}"'


def etag_header(status: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI declaration of the header on an answer."""
    schema = {"type": "string", "example": etag(3)}
    return {
        status: {
            "headers": {"ETag": {"description": "Send it as `If-Match` with a change.", "schema": schema}}
        }
    }


async def if_match(
    value: Annotated[
        str | None,
        Header(
            alias="If-Match",
            max_length=1000,
            description='The `ETag` of the version that you have seen, such as `"3"`; `*` for whichever there is.',
        ),
    ] = None,
) -> frozenset[int] | None:
    """The versions that the caller means to change; None for any. Weak tags match nothing, as RFC 9110 says.

    Raises:
        PreconditionRequired: there is no such header.
        InvalidInput: it is not a list of entity tags.
    """
    if value is None:
        raise PreconditionRequired(
            "Send If-Match with the ETag of the version that you have seen (GET tells it), or `If-Match: *`."
        )
    if value.strip() == EVERY:
        return None
    found = set()
    for part in value.split(","):
        tag = part.strip()
        weak = tag.startswith("W/")
        bare = tag.removeprefix("W/")
        if len(bare) < 2 or not (bare.startswith('"') and bare.endswith('"')):
            raise InvalidInput(FieldError("If-Match", 'Must be entity tags in quotes, such as "3", or *.'))
        text = bare[1:-1]
        if not weak and text.isascii() and text.isdigit() and len(text) < 10:
            found.add(int(text))
    return frozenset(found)


IfMatch = Annotated[frozenset[int] | None, Depends(if_match)]
