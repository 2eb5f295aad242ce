"""pydantic's findings, said so that the caller knows what to do; never with the rejected value."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from fastapi import params
from pydantic import BaseModel

from app.errors import FieldError
from app.scheduling.findings import message_of

MAX_ERRORS = 50
MAX_PATH = 200


def field_errors(findings: Sequence[Any], endpoint: Callable[..., Any] | None) -> list[FieldError]:
    """One `FieldError` for each finding; ``endpoint`` tells which keys are known."""
    return [_field_error(finding, endpoint) for finding in findings[:MAX_ERRORS]]


def _field_error(finding: Mapping[str, Any], endpoint: Callable[..., Any] | None) -> FieldError:
    place, *path = finding["loc"]
    field = ".".join(str(part) for part in path)[:MAX_PATH] or str(place)
    kind = finding["type"]
    if kind == "extra_forbidden":
        return FieldError(field, _unknown_key(str(path[-1]), _model_at(endpoint, place, path[:-1])))
    return FieldError(field, message_of(finding))


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
