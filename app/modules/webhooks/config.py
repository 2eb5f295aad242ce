"""What people write to describe a webhook, typed and closed: unknown keys are refused."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.modules.alerts.service import FactType
from app.scheduling import inputs

_CLOSED = ConfigDict(extra="forbid", frozen=True)


def _name(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must have printable characters, and no space at either end")
    return text


def _plain(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not have NUL characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_name)]
Url = Annotated[str, Field(min_length=1, max_length=2000)]
Description = Annotated[str, Field(max_length=2000), AfterValidator(_plain)]
Types = Annotated[list[FactType], Field(min_length=1, max_length=len(FactType))]
Schedules = Annotated[list[UUID], Field(min_length=1, max_length=100)]
Words = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_plain)]],
    Field(min_length=1, max_length=100),
]
_FILTER = "With any of the three filters, events that concern no schedule and no task are left out."


class WebhookCreate(BaseModel):
    """A new webhook."""

    model_config = _CLOSED

    name: Name
    url: Url = Field(description="Public, or allowed by `UPBEAT_OUTBOUND_ALLOW`; redirects are not followed.")
    description: Description | None = None
    enabled: bool = True
    event_types: Types = Field(description="What it is told.")
    schedule_ids: Schedules | None = Field(None, description=f"Only of these. {_FILTER}")
    tasks: Words | None = Field(None, description="Only of tasks with these registered names.")
    tags: Words | None = Field(None, description="Only of schedules with one of these tags.")


class WebhookUpdate(BaseModel):
    """A change of a webhook: only what is given changes; null empties a field that may be empty."""

    model_config = _CLOSED

    name: Name | None = None
    url: Url | None = None
    description: Description | None = None
    enabled: bool | None = Field(None, description="Disabling gives up what is still on its way.")
    event_types: Types | None = None
    schedule_ids: Schedules | None = None
    tasks: Words | None = None
    tags: Words | None = None

    def changes(self) -> dict[str, Any]:
        """The fields that are given; a null in a field that must not be empty counts as not given."""
        return inputs.changes(self, emptied=OPTIONAL)


OPTIONAL = frozenset({"description", "schedule_ids", "tasks", "tags"})
