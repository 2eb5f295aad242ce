"""Types of what people write, where pydantic's own take more than their schema says. Pure."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, TypeAdapter, ValidationError
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
