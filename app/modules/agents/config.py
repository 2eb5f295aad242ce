"""What people write to describe an agent, typed and closed: unknown keys are refused."""

import re
from typing import Annotated, Any, Literal, Self

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.modules.agents.prompts import MAX_PROMPT
from app.scheduling import inputs

Kind = Literal["chat", "webhook"]
Health = Literal["unknown", "healthy", "unhealthy"]

_CLOSED = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_OURS = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "idempotency-key"}
)


def _name(text: str) -> str:
    if not text.isprintable() or text != text.strip() or "/" in text:
        raise ValueError("must have printable characters, no slash, and no space at either end")
    return text


def _header(text: str) -> str:
    if not _TOKEN.fullmatch(text) or text.lower() in _OURS:
        raise ValueError("must be the name of an HTTP header that the service does not set itself")
    return text


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_name)]
Url = Annotated[str, Field(min_length=1, max_length=2000)]
Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
Header = Annotated[str, AfterValidator(_header)]
Tokens = Annotated[int, Field(ge=1, le=10_000_000)]


class AgentCreate(BaseModel):
    """A new agent. Its credential is set by a call of its own."""

    model_config = _CLOSED

    name: Name = Field(description="Schedules name the agent by it.")
    kind: Kind = Field(
        description="`chat`: a chat completion API as OpenAI's. `webhook`: any address that takes JSON."
    )
    url: Url = Field(description="`chat`: up to and with the version, `…/v1`. `webhook`: the whole address.")
    health_url: Url | None = Field(
        None,
        description="Asked with GET, a 2xx is healthy. By default `…/models` of a chat agent; a webhook is"
        " healthy when its address answers at all.",
    )
    description: str | None = Field(None, max_length=2000)
    enabled: bool = True
    model: str | None = Field(None, min_length=1, max_length=200, description="Of a chat agent.")
    system_prompt: Prompt | None = Field(None, description="Sent before the prompt, as it is.")
    prompt_template: Prompt | None = Field(
        None, description="`$name` and `${name}` stand for variables, `$$` for a dollar sign."
    )
    max_tokens: Tokens | None = Field(None, description="The most that a reply may have.")
    time_limit: float = Field(60.0, gt=0, le=86_400, description="Seconds from connecting to the end.")
    credential_header: Header = Field(
        "Authorization", description="Carries the credential; `Authorization` as a bearer token."
    )
    daily_calls: int | None = Field(None, ge=1, le=1_000_000_000, description="Per UTC day.")
    daily_tokens: int | None = Field(None, ge=1, le=1_000_000_000_000, description="Per UTC day.")
    failures_allowed: int = Field(
        3, ge=1, le=100, description="So many failures in a row make the agent unhealthy."
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "chat" and self.model is None:
            raise ValueError("a chat agent needs a model")
        return self


class AgentUpdate(BaseModel):
    """A change of an agent: only what is given changes; null empties a field that may be empty."""

    model_config = _CLOSED

    name: Name | None = None
    url: Url | None = None
    health_url: Url | None = None
    description: str | None = Field(None, max_length=2000)
    enabled: bool | None = None
    model: str | None = Field(None, min_length=1, max_length=200)
    system_prompt: Prompt | None = None
    prompt_template: Prompt | None = None
    max_tokens: Tokens | None = None
    time_limit: float | None = Field(None, gt=0, le=86_400)
    credential_header: Header | None = None
    daily_calls: int | None = Field(None, ge=1, le=1_000_000_000)
    daily_tokens: int | None = Field(None, ge=1, le=1_000_000_000_000)
    failures_allowed: int | None = Field(None, ge=1, le=100)

    def changes(self) -> dict[str, Any]:
        """The fields that are given; a null in a field that must not be empty counts as not given."""
        return inputs.changes(self, emptied=OPTIONAL)


OPTIONAL = frozenset(
    {
        "health_url",
        "description",
        "model",
        "system_prompt",
        "prompt_template",
        "max_tokens",
        "daily_calls",
        "daily_tokens",
    }
)


class Credential(BaseModel):
    """A credential, to be stored encrypted and never shown again."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    credential: str | None = Field(
        min_length=8, max_length=10_000, description="Null removes it.", json_schema_extra={"writeOnly": True}
    )


class RunAgent(BaseModel):
    """What an agent is to do once, now."""

    model_config = _CLOSED

    variables: dict[str, Any] = Field(default_factory=dict, description="For the prompt's `$names`.")
    prompt: Prompt | None = Field(None, description="Instead of the agent's own template.")


def same_origin(one: str, other: str) -> bool:
    """Whether two addresses have scheme, host and port in common."""
    first, second = httpx.URL(one), httpx.URL(other)
    return (first.scheme, first.host, first.port) == (second.scheme, second.host, second.port)
