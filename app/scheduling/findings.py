"""What pydantic finds wrong, said so that the reader knows what would be right; never with the rejected value."""

from collections.abc import Mapping
from typing import Any

_UUID = "Must be a UUID, such as 0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1."
_DATETIME = "Must be a date with time as text, such as 2026-03-01T09:00:00+01:00."
_DATE = "Must be a date as text, such as 2026-03-01."
_TIME = "Must be a time as text, such as 09:30:00."
_DURATION = "Must be a duration as text, such as PT90S or P1D."
_DECIMAL = "Must be a number, or a number as text."

# Where pydantic's own words would quote the value or leave the remedy open.
MESSAGES: Mapping[str, str] = {
    "missing": "This field is required.",
    "uuid_parsing": _UUID,
    "uuid_type": _UUID,
    "string_type": "Must be a string.",
    "bool_type": "Must be true or false.",
    "bool_parsing": "Must be true or false.",
    "int_type": "Must be a whole number.",
    "int_parsing": "Must be a whole number.",
    "int_parsing_size": "The number is too large.",
    "int_from_float": "Must be a whole number.",
    "float_type": "Must be a number.",
    "float_parsing": "Must be a number.",
    "decimal_type": _DECIMAL,
    "decimal_parsing": _DECIMAL,
    "finite_number": "Must be a finite number.",
    "timezone_aware": 'Must have an offset, such as "Z" or "+01:00".',
    "list_type": "Must be a list.",
    "tuple_type": "Must be a list.",
    "set_type": "Must be a list.",
    "frozen_set_type": "Must be a list.",
    "dict_type": "Must be an object.",
    "dataclass_type": "Must be an object.",
    "model_type": "Must be an object.",
    "model_attributes_type": "Must be a JSON object.",
    "none_required": "Must be null.",
    "datetime_type": _DATETIME,
    "datetime_parsing": _DATETIME,
    "datetime_from_date_parsing": _DATETIME,
    "date_type": _DATE,
    "date_parsing": _DATE,
    "date_from_datetime_parsing": _DATE,
    "time_type": _TIME,
    "time_parsing": _TIME,
    "time_delta_type": _DURATION,
    "time_delta_parsing": _DURATION,
    "string_unicode": "Must be valid Unicode text.",
    "unexpected_keyword_argument": "Unknown key.",
    "extra_forbidden": "Unknown key.",
    "no_such_attribute": "Unknown key.",
}


def message_of(finding: Mapping[str, Any]) -> str:
    """One sentence for one of `ValidationError.errors()`."""
    if finding["type"] in ("literal_error", "enum"):
        return f"Must be one of {finding['ctx']['expected']}."
    return MESSAGES.get(finding["type"]) or _sentence(finding["msg"])


def _sentence(text: str) -> str:
    text = text.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    for kind in ("Input", "String", "List", "Dictionary", "Tuple", "Set", "Value"):
        text = text.replace(f"{kind} should", "Must")
    return text if text.endswith(".") else f"{text}."
