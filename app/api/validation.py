"""pydantic's findings, said so that the caller knows what to do; never with the rejected value."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from fastapi import params
from pydantic import BaseModel

from app.errors import FieldError

MAX_ERRORS = 50
MAX_PATH = 200

# What pydantic says where its own words would quote the value or leave the remedy open.
_MESSAGES = {
    "missing": "This field is required.",
    "uuid_parsing": "Must be a UUID, such as 0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1.",
    "uuid_type": "Must be a UUID, such as 0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1.",
    "string_type": "Must be a string.",
    "bool_type": "Must be true or false.",
    "bool_parsing": "Must be true or false.",
    "int_type": "Must be a whole number.",
    "int_parsing": "Must be a whole number.",
    "int_parsing_size": "The number is too large.",
    "int_from_float": "Must be a whole number.",
    "float_type": "Must be a number.",
    "float_parsing": "Must be a number.",
    "finite_number": "Must be a finite number.",
    "timezone_aware": 'Must have an offset, such as "Z" or "+01:00".',
    "list_type": "Must be a list.",
    "dict_type": "Must be an object.",
    "model_type": "Must be an object.",
    "model_attributes_type": "Must be a JSON object.",
    "string_unicode": "Must be valid Unicode text.",
}


def field_errors(findings: Sequence[Any], endpoint: Callable[..., Any] | None) -> list[FieldError]:
    """One `FieldError` for each finding; ``endpoint`` tells which keys are known."""
    return [_field_error(finding, endpoint) for finding in findings[:MAX_ERRORS]]


def _field_error(finding: Mapping[str, Any], endpoint: Callable[..., Any] | None) -> FieldError:
    place, *path = finding["loc"]
    field = ".".join(str(part) for part in path)[:MAX_PATH] or str(place)
    kind = finding["type"]
    if kind == "extra_forbidden":
        return FieldError(field, _unknown_key(str(path[-1]), _model_at(endpoint, place, path[:-1])))
    if kind in ("literal_error", "enum"):
        return FieldError(field, f"Must be one of {finding['ctx']['expected']}.")
    message = _MESSAGES.get(kind) or _sentence(finding["msg"])
    return FieldError(field, message)


def _sentence(text: str) -> str:
    text = text.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    text = (
        text.replace("Input should", "Must").replace("String should", "Must").replace("List should", "Must")
    )
    return text if text.endswith(".") else f"{text}."


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    if model is None:
        return "Unknown key."
    known = sorted(model.model_fields)
    near = difflib.get_close_matches(key[:MAX_PATH], known, n=1, cutoff=0.75)
    hint = f"Did you mean {near[0]}? " if near else ""
    return f"Unknown key. {hint}Known keys are {', '.join(known)}."


def _model_at(endpoint: Callable[..., Any] | None, place: str, path: Sequence[Any]) -> type[BaseModel] | None:
    """The model whose key was not known: the parameter of this place, followed along the path."""
    model = None if endpoint is None else _parameter_model(endpoint, place)
    for part in path:
        if model is None or part not in model.model_fields:
            return None
        model = _model_of(model.model_fields[str(part)].annotation)
    return model


def _parameter_model(endpoint: Callable[..., Any], place: str) -> type[BaseModel] | None:
    for name, hint in get_type_hints(endpoint, include_extras=True).items():
        model = _model_of(get_args(hint)[0] if hasattr(hint, "__metadata__") else hint)
        is_query = any(isinstance(extra, params.Query) for extra in getattr(hint, "__metadata__", ()))
        if name != "return" and model is not None and is_query == (place == "query"):
            return model
    return None


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) in (Union, UnionType):
        return next((found for part in get_args(annotation) if (found := _model_of(part))), None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None
