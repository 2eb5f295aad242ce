"""What pydantic finds, said so that the caller knows what to do."""

from typing import Annotated, Any, Literal

import pytest
from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.api.validation import MAX_ERRORS, MAX_PATH, field_errors
from app.errors import FieldError

SECRET = "hunter2"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    queue: Literal["one", "two"] | None = None
    count: int = Field(1, ge=1)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: Inner | None = None
    name: str = Field("x", max_length=3)

    @model_validator(mode="after")
    def _rule(self) -> "Outer":
        if self.name == "bad":
            raise ValueError("name must not be bad")
        return self


class Search(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = 1


def endpoint(query: Annotated[Search, Query()], body: Outer) -> None:
    """As a handler declares them."""


def found(value: Any, model: type[BaseModel] = Outer, place: str = "body") -> list[FieldError]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    findings = [{**finding, "loc": (place, *finding["loc"])} for finding in caught.value.errors()]
    return field_errors(findings, endpoint)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"innr": SECRET},
            FieldError("innr", "Unknown key. Did you mean inner? Known keys are inner, name."),
        ),
        ({"inner": {"x": SECRET}}, FieldError("inner.x", "Unknown key. Known keys are count, queue.")),
        ({"inner": {"queue": SECRET}}, FieldError("inner.queue", "Must be one of 'one' or 'two'.")),
        ({"inner": {"count": SECRET}}, FieldError("inner.count", "Must be a whole number.")),
        ({"inner": {"count": 0}}, FieldError("inner.count", "Must be greater than or equal to 1.")),
        ({"inner": [SECRET]}, FieldError("inner", "Must be an object.")),
        ({"name": SECRET}, FieldError("name", "Must have at most 3 characters.")),
        ({"name": "bad"}, FieldError("body", "name must not be bad.")),
        ([SECRET], FieldError("body", "Must be an object.")),
    ],
)
def test_findings_of_a_body(value: Any, expected: FieldError) -> None:
    assert found(value) == [expected]


def test_findings_of_a_query() -> None:
    assert found({"limt": SECRET}, Search, "query") == [
        FieldError("limt", "Unknown key. Did you mean limit? Known keys are limit.")
    ]


def test_a_flood_of_errors_is_cut() -> None:
    errors = found({f"{n}{'x' * 1000}": 1 for n in range(1000)})
    assert len(errors) == MAX_ERRORS
    assert all(len(error.field) <= MAX_PATH for error in errors)
