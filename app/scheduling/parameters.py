"""What a task may be called with: the signature of its function as JSON schemas, and as a check of arguments.

Checked as JSON is: a number in quotes is no number and `1` is not true, but a whole number is a number, and dates,
durations, UUIDs and the like are text. A parameter without an annotation takes anything, and so does one whose
annotation pydantic cannot handle; its schema says so. Nothing is converted: a task gets what was given.
"""

import difflib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json, to_jsonable_python

from app.errors import FieldError
from app.scheduling.findings import message_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_ERRORS = 50
LONGEST_NAME = 100
_TAGGED = b'"__type__"'
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. ``unchecked`` says why anything is taken, where that is not what the annotation says."""

    name: str
    kind: Any
    default: Any
    adapter: TypeAdapter[Any]
    unchecked: str | None

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty and self.kind in (*_PLACED, *_NAMED)


class Parameters:
    """The parameters of one function; its annotations are read when first needed.

    ``bound``: the first one is the task itself. ``decode`` turns what is stored into what the function gets, for
    values that JSON has no form of.
    """

    def __init__(
        self, function: Callable[..., Any], *, bound: bool = False, decode: Callable[[Any], Any] = _unchanged
    ) -> None:
        self._function = function
        self._bound = bound
        self._decode = decode

    @cached_property
    def each(self) -> tuple[Parameter, ...]:
        """In the order of the signature."""
        return tuple(_read(self._function, bound=self._bound))

    @cached_property
    def keywords(self) -> dict[str, Any]:
        """JSON schema of the object of keyword arguments, for a call that gives nothing by position."""
        rest = self._of_kind(inspect.Parameter.VAR_KEYWORD)
        named = [each for each in self.each if each.kind in _NAMED]
        schemas, definitions = _schemas(self.each)
        schema: dict[str, Any] = {
            "$schema": DIALECT,
            "type": "object",
            "properties": {each.name: schemas[each.name] for each in named},
            "required": [each.name for each in named if each.required],
            "additionalProperties": schemas[rest.name] if rest else False,
        }
        documentation = inspect.getdoc(self._function)
        described = {"description": documentation} if documentation else {}
        return schema | described | definitions

    @cached_property
    def positions(self) -> dict[str, Any]:
        """JSON schema of the array of positional arguments."""
        rest = self._of_kind(inspect.Parameter.VAR_POSITIONAL)
        schemas, definitions = _schemas(self.each)
        prefix = [{"title": each.name} | schemas[each.name] for each in self._placed]
        schema: dict[str, Any] = {"$schema": DIALECT, "type": "array"}
        if prefix:
            schema["prefixItems"] = prefix
        only = [each for each in self._placed if each.kind is inspect.Parameter.POSITIONAL_ONLY]
        schema["items"] = schemas[rest.name] if rest else False
        schema["minItems"] = sum(each.required for each in only)
        return schema | definitions

    @property
    def rules(self) -> list[tuple[Any, ...]]:
        """What decides which arguments fit, as plain values."""
        return [(each.name, each.kind.name, each.required, each.adapter.json_schema()) for each in self.each]

    def check(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, prefix: str = "task_"
    ) -> list[FieldError]:
        """What is wrong with these arguments, as a JSON body has them; empty when they fit.

        Fields are `<prefix>args[n]` and `<prefix>kwargs.name`, and what lies inside of them.
        """
        found = [*self._check_positions(args, prefix), *self._check_names(args, kwargs, prefix)]
        return found[:MAX_ERRORS]

    def _check_positions(self, args: Sequence[Any], prefix: str) -> Iterator[FieldError]:
        rest = self._of_kind(inspect.Parameter.VAR_POSITIONAL)
        for number, value in enumerate(args):
            field = f"{prefix}args[{number}]"
            parameter = self._placed[number] if number < len(self._placed) else rest
            if parameter is None:
                most = len(self._placed)
                some = f"at most {most} by position" if most else "none by position; give them by name"
                yield FieldError(field, f"Is one argument too many: the task takes {some}.")
                return
            yield from self._check_value(parameter, value, field)
        for number in range(len(args), len(self._placed)):
            parameter = self._placed[number]
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY and parameter.required:
                yield FieldError(f"{prefix}args[{number}]", f"Is missing: the task needs {parameter.name}.")

    def _check_names(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], prefix: str
    ) -> Iterator[FieldError]:
        places = {each.name: number for number, each in enumerate(self._placed)}
        named = {each.name: each for each in self.each if each.kind in _NAMED}
        rest = self._of_kind(inspect.Parameter.VAR_KEYWORD)
        for name, value in kwargs.items():
            field = f"{prefix}kwargs.{name[:LONGEST_NAME]}"
            place = places.get(name)
            if name in named and place is not None and place < len(args):
                yield FieldError(field, f"Is given twice, also as {prefix}args[{place}]; give it once.")
            elif name in named:
                yield from self._check_value(named[name], value, field)
            elif rest is not None:
                yield from self._check_value(rest, value, field)
            elif place is not None:
                yield FieldError(field, f"Is taken by position only: put it into {prefix}args[{place}].")
            else:
                yield FieldError(field, self._unknown(name, list(named)))
        for name, parameter in named.items():
            place = places.get(name, len(args))
            if parameter.required and name not in kwargs and place >= len(args):
                yield FieldError(f"{prefix}kwargs.{name}", "Is missing: the task needs it.")

    def _unknown(self, name: str, known: list[str]) -> str:
        near = difflib.get_close_matches(name[:LONGEST_NAME], known, n=2, cutoff=0.6)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        takes = f"It takes {', '.join(known)}." if known else "It takes none by name."
        return f"The task has no parameter of this name. {hint}{takes}"

    def _check_value(self, parameter: Parameter, value: Any, field: str) -> Iterator[FieldError]:
        try:
            text = to_json(value)
            if _TAGGED in text:
                text = to_json(self._decode(value))
            parameter.adapter.validate_json(text, strict=True)
        except ValidationError as error:
            yield from _told(error, value, field)
        except Exception as error:  # noqa: BLE001 - decoders and a task's own validators raise what they like
            yield FieldError(field, f"Cannot be read: {type(error).__name__}.")

    @cached_property
    def _placed(self) -> tuple[Parameter, ...]:
        return tuple(each for each in self.each if each.kind in _PLACED)

    def _of_kind(self, kind: Any) -> Parameter | None:
        return next((each for each in self.each if each.kind is kind), None)


def _read(function: Callable[..., Any], *, bound: bool) -> Iterator[Parameter]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Not written in Python, and silent about its parameters.
        for name, kind in (
            ("args", inspect.Parameter.VAR_POSITIONAL),
            ("kwargs", inspect.Parameter.VAR_KEYWORD),
        ):
            yield Parameter(name, kind, inspect.Parameter.empty, TypeAdapter(Any), "it has no signature")
        return
    for number, each in enumerate(signature.parameters.values()):
        if bound and number == 0:
            continue
        adapter, unchecked = _adapter(function, each)
        yield Parameter(each.name, each.kind, each.default, adapter, unchecked)


def _adapter(
    function: Callable[..., Any], parameter: inspect.Parameter
) -> tuple[TypeAdapter[Any], str | None]:
    """What checks a parameter, and why it checks nothing."""
    if parameter.annotation is inspect.Parameter.empty:
        return TypeAdapter(Any), None
    try:
        # One at a time: a name that exists for type checkers only must not hide the other annotations.
        holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        names = getattr(function, "__globals__", {})
        hint = typing.get_type_hints(holder, names, include_extras=True)[parameter.name]
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
        adapter.json_schema()
    except Exception:  # noqa: BLE001 - pydantic and annotations raise what they like
        words = parameter.annotation
        stated = words if isinstance(words, str) else inspect.formatannotation(words)
        return TypeAdapter(Any), f"its annotation, {stated}, has no JSON schema"
    return adapter, None


def _schemas(parameters: Sequence[Parameter]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The schema of each parameter by its name, and the definitions that they share."""
    inputs = [(each.name, "validation", each.adapter) for each in parameters]
    found, shared = TypeAdapter.json_schemas(inputs)  # type: ignore[arg-type]
    schemas = {}
    for each in parameters:
        schema = dict(found[each.name, "validation"])
        if each.unchecked is not None:
            schema["description"] = f"Not checked: {each.unchecked}."
        if each.default is not inspect.Parameter.empty:
            schema |= _default(each.default)
        schemas[each.name] = schema
    definitions = {"$defs": shared["$defs"]} if "$defs" in shared else {}
    return schemas, definitions


def _default(value: Any) -> dict[str, Any]:
    try:
        return {"default": to_jsonable_python(value)}
    except Exception:  # noqa: BLE001 - a default may be any object
        return {}


def _told(error: ValidationError, value: Any, field: str) -> Iterator[FieldError]:
    """Each wrong place once: the members of a union say together what would be right."""
    said: dict[str, list[str]] = {}
    for finding in error.errors(include_url=False, include_input=False)[:MAX_ERRORS]:
        place = field + _path(finding["loc"], value, missing=finding["type"].startswith("missing"))
        message = _message(finding, value)
        if message not in said.setdefault(place, []):
            said[place].append(message)
    for place, messages in said.items():
        yield FieldError(place, " Or: ".join(messages))


def _path(location: Sequence[Any], value: Any, *, missing: bool) -> str:
    """The part of a location that leads through the value; the rest are names of unions' members."""
    path = ""
    for number, part in enumerate(location):
        inside = isinstance(value, dict) and part in value
        if isinstance(part, int) and isinstance(value, list) and part < len(value):
            path, value = f"{path}[{part}]", value[part]
        elif inside:
            path, value = f"{path}.{part[:LONGEST_NAME]}", value[part]
        elif missing and number == len(location) - 1:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path


def _message(finding: Mapping[str, Any], value: Any) -> str:
    message = message_of(finding)
    own = finding["type"] in ("value_error", "assertion_error") or "." in finding["type"]
    if own and _repeats(message, value):
        return "Is refused by the task's own rule for this parameter."
    return message


def _repeats(message: str, value: Any) -> bool:
    if isinstance(value, dict):
        return any(_repeats(message, part) for part in value.values())
    if isinstance(value, list):
        return any(_repeats(message, part) for part in value)
    return str(value) in message
