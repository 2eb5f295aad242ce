"""A task's signature as JSON schemas, and arguments checked by it."""

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel, Field

from app.errors import FieldError
from app.scheduling.catalogue import Catalogue, TaskSpec, Unfit
from app.scheduling.parameters import DIALECT, Parameters
from app.worker import codec

if TYPE_CHECKING:
    from fractions import Fraction


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: int = 1


@dataclass
class Point:
    x: int
    y: int


class Opaque:
    pass


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"{value} is even")
    return value


def plain(days: int = 30) -> None:
    """Delete what is old.

    Twice.
    """


def several(region: str, *codes: int, limit: int | None = None, **labels: str) -> None: ...


def placed(first: int, second: str = "x", /, third: int = 0) -> None: ...


def unannotated(anything, other=None): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201


def forward(
    address: "Address", absent: "Fraction | None" = None, call: Callable[[], int] | None = None
) -> None: ...


def opaque(thing: Opaque, day: date) -> None: ...


def wrong(parameters: Parameters, *args: Any, **kwargs: Any) -> dict[str, str]:
    return {each.field: each.message for each in parameters.check(args, kwargs)}


def of_type(annotation: Any) -> Parameters:
    def task(value: Any) -> None: ...

    task.__annotations__ = {"value": annotation}
    return Parameters(task)


def test_the_schema_of_keyword_arguments() -> None:
    assert Parameters(plain).keywords == {
        "$schema": DIALECT,
        "type": "object",
        "properties": {"days": {"type": "integer", "default": 30}},
        "required": [],
        "additionalProperties": False,
        "description": "Delete what is old.\n\nTwice.",
    }


def test_the_schema_of_a_signature_with_everything() -> None:
    known = Parameters(several)
    assert known.keywords == {
        "$schema": DIALECT,
        "type": "object",
        "properties": {
            "region": {"type": "string"},
            "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        },
        "required": ["region"],
        "additionalProperties": {"type": "string"},
    }
    assert known.positions == {
        "$schema": DIALECT,
        "type": "array",
        "prefixItems": [{"title": "region", "type": "string"}],
        "items": {"type": "integer"},
        "minItems": 0,
    }


def test_what_is_positional_only_is_not_given_by_name() -> None:
    known = Parameters(placed)
    assert known.keywords["properties"] == {"third": {"type": "integer", "default": 0}}
    assert [item["title"] for item in known.positions["prefixItems"]] == ["first", "second", "third"]
    assert (known.positions["minItems"], known.positions["items"]) == (1, False)


def test_an_annotation_that_cannot_be_handled_takes_anything_and_says_so() -> None:
    assert Parameters(opaque).keywords["properties"] == {
        "thing": {
            "description": f"Not checked: its annotation, {Opaque.__module__}.Opaque, has no JSON schema."
        },
        "day": {"type": "string", "format": "date"},
    }
    properties = Parameters(forward).keywords["properties"]
    assert properties["address"] == {"$ref": "#/$defs/Address"}
    assert properties["absent"]["description"].startswith("Not checked: its annotation, Fraction | None,")
    assert properties["call"]["description"].startswith("Not checked")
    assert Parameters(forward).keywords["$defs"]["Address"]["required"] == ["street"]
    assert wrong(Parameters(opaque), thing={"a": [1]}, day="2026-03-01") == {}


def test_without_annotations_anything_is_taken_by_the_right_names() -> None:
    known = Parameters(unannotated)
    assert known.keywords["properties"] == {"anything": {}, "other": {"default": None}}
    assert wrong(known, anything={"a": 1}, other=[None]) == {}
    assert wrong(known, 1, 2) == {}
    assert set(wrong(known)) == {"task_kwargs.anything"}


def test_a_bound_task_is_not_given_itself() -> None:
    def task(self: Any, days: int) -> None: ...

    assert wrong(Parameters(task, bound=True), 3) == {}
    assert set(wrong(Parameters(task, bound=True), self=1)) == {"task_kwargs.self", "task_kwargs.days"}


def test_wrapped_and_partial_functions_and_builtins() -> None:
    assert list(Parameters(functools.partial(plain)).keywords["properties"]) == ["days"]
    assert Parameters(functools.partial(several, "eu")).keywords["required"] == []
    assert wrong(Parameters(max), 1, [2], key="x") == {}


MUST_INT, MUST_TEXT = "Must be a whole number.", "Must be a string."


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, 5, None),
        (int, "5", MUST_INT),
        (int, 5.5, MUST_INT),
        (int, True, MUST_INT),
        (int, None, MUST_INT),
        (float, 5, None),
        (float, 5.5, None),
        (float, "5.5", "Must be a number."),
        (bool, True, None),
        (bool, 1, "Must be true or false."),
        (bool, "true", "Must be true or false."),
        (str, "5", None),
        (str, 5, MUST_TEXT),
        (int | None, None, None),
        (int | None, "x", MUST_INT),
        (int | str, [], f"{MUST_INT} Or: {MUST_TEXT}"),
        (datetime, "2026-03-01T09:00:00+01:00", None),
        (datetime, 1767225600, "Must be a date with time as text, such as 2026-03-01T09:00:00+01:00."),
        (datetime, "tomorrow", "Must be a date with time as text, such as 2026-03-01T09:00:00+01:00."),
        (date, "2026-03-01", None),
        (date, "2026-03-01T09:00:00Z", "Must be a date as text, such as 2026-03-01."),
        (time, "09:30:00", None),
        (timedelta, "PT90S", None),
        (timedelta, 90, "Must be a duration as text, such as PT90S or P1D."),
        (UUID, "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1", None),
        (UUID, "no", "Must be a UUID, such as 0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1."),
        (Decimal, "1.50", None),
        (Decimal, 1.5, None),
        (Decimal, "x", "Must be a number, or a number as text."),
        (Colour, "red", None),
        (Colour, "green", "Must be one of 'red' or 'blue'."),
        (Literal["a", "b"], "c", "Must be one of 'a' or 'b'."),
        (list[int], [1, 2], None),
        (list[int], {}, "Must be a list."),
        (tuple[int, str], [1, "a"], None),
        (set[str], ["a"], None),
        (dict[str, int], {"a": 1}, None),
        (dict[str, int], [], "Must be an object."),
        (Address, {"street": "x"}, None),
        (Point, {"x": 1, "y": 2}, None),
        (Point, 5, "Must be an object."),
        (Annotated[int, Field(ge=1)], 0, "Must be greater than or equal to 1."),
        (Annotated[int, AfterValidator(_odd)], 3, None),
        (Annotated[int, AfterValidator(_odd)], 4, "Is refused by the task's own rule for this parameter."),
        (Any, {"a": [1, None]}, None),
    ],
)
def test_values_are_checked_as_json_is(annotation: Any, value: Any, message: str | None) -> None:
    assert wrong(of_type(annotation), value=value) == (
        {} if message is None else {"task_kwargs.value": message}
    )
    assert wrong(of_type(annotation), value) == ({} if message is None else {"task_args[0]": message})


@pytest.mark.parametrize(
    ("annotation", "value", "fields"),
    [
        (list[int], [1, "secret", 3, "secret"], ["[1]", "[3]"]),
        (dict[str, list[int]], {"eu": [1, None]}, [".eu[1]"]),
        (Address, {"number": 1}, [".street"]),
        (Address, {"street": "x", "number": "secret"}, [".number"]),
        (tuple[int, str], [1], ["[1]"]),
        (list[dict[str, int | float]], [{"a": "secret"}], ["[0].a"]),
        (Address | None, {"street": 5}, [".street"]),
    ],
)
def test_what_is_inside_a_value_is_named(annotation: Any, value: Any, fields: list[str]) -> None:
    found = wrong(of_type(annotation), value=value)
    assert list(found) == [f"task_kwargs.value{field}" for field in fields]
    assert "secret" not in str(found)


def test_names_and_positions() -> None:
    assert wrong(Parameters(plain), dayz=1) == {
        "task_kwargs.dayz": "The task has no parameter of this name. Did you mean days? It takes days."
    }
    assert wrong(Parameters(plain), 1, 2, 3) == {
        "task_args[1]": "Is one argument too many: the task takes at most 1 by position."
    }
    assert wrong(Parameters(plain), 1, days=2) == {
        "task_kwargs.days": "Is given twice, also as task_args[0]; give it once."
    }
    assert wrong(Parameters(placed)) == {"task_args[0]": "Is missing: the task needs first."}
    assert wrong(Parameters(placed), 1, second="x") == {
        "task_kwargs.second": "Is taken by position only: put it into task_args[1]."
    }
    assert wrong(Parameters(several), limit=1) == {"task_kwargs.region": "Is missing: the task needs it."}
    assert wrong(Parameters(several), "eu", 1, 2, label="x") == {}
    assert set(wrong(Parameters(several), "eu", 1, "2", label=5)) == {"task_args[2]", "task_kwargs.label"}


def test_a_task_without_parameters() -> None:
    assert wrong(Parameters(lambda: None), a=1) == {
        "task_kwargs.a": "The task has no parameter of this name. It takes none by name."
    }
    assert "give them by name" in wrong(Parameters(lambda: None), 1)["task_args[0]"]


def test_values_that_json_has_no_form_of_keep_their_type() -> None:
    known = Parameters(of_type(datetime)._function, decode=codec.from_stored)
    stored = codec.to_stored({"value": datetime(2026, 3, 1)})
    assert known.check([], stored) == []
    assert known.check([], codec.to_stored({"value": b"x"})) != []
    broken = {"value": {"__type__": "nonsense", "__value__": 1}}
    assert known.check([], broken) == [FieldError("task_kwargs.value", "Cannot be read: ValueError.")]


def test_errors_are_few_and_short() -> None:
    found = Parameters(several).check(["eu", *["x"] * 500], {"y" * 5000: 1})
    assert len(found) == 50
    assert all(len(each.field) < 200 for each in found)


def test_the_fingerprint_changes_with_what_fits_and_not_with_defaults() -> None:
    def before(days: int = 1) -> None: ...

    def same(days: int = 2) -> None: ...

    def other(days: str = "1") -> None: ...

    def fingerprint(function: Any, **more: Any) -> str:
        spec = TaskSpec(name="a", path="b", parameters=Parameters(function), **more)
        return Catalogue([spec]).fingerprint

    assert fingerprint(before) == fingerprint(same)
    assert len({fingerprint(before), fingerprint(other), fingerprint(before, schedulable=False)}) == 3


def test_a_spec_refuses_arguments_under_the_callers_names() -> None:
    spec = TaskSpec(name="a", path="b", parameters=Parameters(plain))
    with pytest.raises(Unfit) as refused:
        spec.require_fit(["x"], {}, prefix="")
    assert refused.value.errors == (FieldError("args[0]", MUST_INT),)
    TaskSpec(name="a", path="b").require_fit([object()], {"whatever": 1})
