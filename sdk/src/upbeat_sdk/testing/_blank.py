"""Records with every field that a model has, so that what is faked keeps up with the API."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin
from uuid import UUID, uuid4

from upbeat_sdk._model import Model

MADE: Final[Mapping[Any, Callable[[], Any]]] = {
    **{kind: kind for kind in (str, bool, int, float, list, dict)},
    UUID: lambda: str(uuid4()),
    datetime: lambda: datetime.now(UTC).isoformat(),
    date: lambda: datetime.now(UTC).date().isoformat(),
}


def blank(model: type[Model]) -> dict[str, Any]:
    """A JSON object of this model: null where that is allowed, else a new id, the time, or something empty."""
    return {
        info.alias or name: _value(info.annotation)
        for name, info in model.model_fields.items()
        if info.is_required()
    }


def _value(annotation: Any) -> Any:
    choices = get_args(annotation)
    kind = get_origin(annotation) or annotation
    if annotation is Any or NoneType in choices:
        return None
    if kind in MADE:
        return MADE[kind]()
    if isinstance(kind, type) and issubclass(kind, Model):
        return blank(kind)
    return choices[0] if kind is Literal else _value(choices[0])
