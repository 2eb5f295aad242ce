"""What people write: types where pydantic's own take more than their schema says, and what a change gives. Pure."""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

# What ids, intervals and offsets can be computed from, in both directions.
FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST: Final = datetime(9000, 1, 1, tzinfo=UTC)
_READER = TypeAdapter(AwareDatetime)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _written(value: object) -> datetime:
    """A number is no date, although it could be counted from 1970."""
    if not isinstance(value, datetime | str) or (isinstance(value, str) and not _DATE.match(value)):
        raise PydanticCustomError("datetime_type", "Input should be a date with time as text")
    try:
        return _READER.validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        raise PydanticCustomError(found["type"], found["msg"]) from None


def _sensible(instant: datetime) -> datetime:
    if not FIRST <= instant <= LAST:
        raise ValueError(f"must lie between the years {FIRST.year} and {LAST.year}")
    return instant


Instant = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_sensible)]


def changes(body: BaseModel, *, emptied: Collection[str]) -> dict[str, Any]:
    """The fields of a change that are given; a null counts as not given, but in the fields that may be ``emptied``."""
    given = body.model_dump(exclude_unset=True)
    return {name: value for name, value in given.items() if value is not None or name in emptied}
