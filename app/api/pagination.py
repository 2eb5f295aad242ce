"""Pages by opaque cursor: where the last page ended, so that new rows shift nothing."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.errors import FieldError, InvalidInput

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
NO_CURSOR = "Pass next_cursor of a page as it was given, or leave it out."


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not have NUL characters")
    return text


FilterText = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_storable)]
NextCursor = Annotated[str | None, Field(description="Pass it as `cursor`; null on the last page.")]


class PageQuery(BaseModel):
    """Which page. A mistyped parameter is refused: ignored, it would answer another question."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="Items on a page.")
    cursor: str | None = Field(
        None, max_length=1500, description="`next_cursor` of the page before; the first page has none."
    )

    def position(self) -> UUID | None:
        """The id that the cursor stands for.

        Raises:
            InvalidInput: it is not a cursor that this service gave.
        """
        return decode_id(self.cursor)


def encode(position: UUID | str | int | None) -> str | None:
    """The cursor of a position; None after the last page."""
    return None if position is None else urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def decode(cursor: str | None) -> str | None:
    """The position of a cursor.

    Raises:
        InvalidInput: it is not a cursor that this service gave.
    """
    if cursor is None:
        return None
    try:
        return _storable(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode())
    except (Base64Error, ValueError):
        raise _refused() from None


def decode_id(cursor: str | None) -> UUID | None:
    """The id that a cursor stands for.

    Raises:
        InvalidInput: it is not a cursor that this service gave.
    """
    text = decode(cursor)
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise _refused() from None


def decode_number(cursor: str | None) -> int | None:
    """The number that a cursor stands for.

    Raises:
        InvalidInput: it is not a cursor that this service gave.
    """
    text = decode(cursor)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _refused()
    return int(text)


def _refused() -> InvalidInput:
    return InvalidInput(FieldError("cursor", NO_CURSOR))
