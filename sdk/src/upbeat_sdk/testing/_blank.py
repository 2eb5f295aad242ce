"""Records with every field that a model has, so that the fake keeps up with the API."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin
from uuid import uuid4

from upbeat_sdk._model import Model

EMPTY: Final[Mapping[Any, Any]] = {str: "", bool: False, int: 0, float: 0.0, list: [], dict: {}}


def blank(model: type[Model]) -> dict[str, Any]:
    """A JSON object of this model: null where that is allowed, else a new id, the time, or something empty."""
    return {
        info.alias or name: _value(info.annotation)
        for name, info in model.model_fields.items()
        if info.is_required()
    }


def _value(annotation: Any) -> Any:
    choices = get_args(annotation)
    if annotation is Any or NoneType in choices:
        return None
    kind = get_origin(annotation) or annotation
    if kind is Literal:
        return choices[0]
    if kind is datetime:
        return datetime.now(UTC).isoformat()
    if kind in EMPTY:
        return type(EMPTY[kind])(EMPTY[kind])
    return _value(choices[0]) if choices else str(uuid4())
