"""Agents without any server: templates, what is kept of a call, and what a definition may say."""

import asyncio
from datetime import date

import pytest
from pydantic import ValidationError

from app.errors import InvalidInput
from app.modules.agents import prompts
from app.modules.agents.client import Endpoint, Task, ask
from app.modules.agents.config import AgentCreate, AgentUpdate, Credential, same_origin
from app.modules.agents.errors import AgentBroken, AgentError, AgentRefused, AgentUnreachable
from app.modules.agents.records import MAX_REPLY, REDACTED, estimate_tokens, keep, redact
from app.outbound import OutboundPolicy, OutboundRefused
from app.worker.outcomes import outcome_of

CHAT = {"name": "a", "kind": "chat", "url": "https://models.example.com/v1", "model": "m"}


def test_a_template_names_its_variables_and_is_filled() -> None:
    template = "$greeting, ${name}! It costs $$5. 你好 $name. $data"
    assert prompts.names(template) == ["greeting", "name", "data"]
    filled = prompts.render(
        template, {"greeting": "Hello", "name": "Zoë", "data": {"ü": [1, None, date(2026, 3, 1)]}, "other": 1}
    )
    assert filled == 'Hello, Zoë! It costs $5. 你好 Zoë. {"ü": [1, null, "2026-03-01"]}'


def test_what_is_filled_in_is_not_read_as_a_template() -> None:
    assert prompts.render("$a", {"a": "$b ${c} $$"}) == "$b ${c} $$"


def test_all_missing_variables_are_named() -> None:
    with pytest.raises(InvalidInput) as refused:
        prompts.render("$one $two $three", {"two": 2})
    assert [error.field for error in refused.value.errors] == ["variables.one", "variables.three"]


@pytest.mark.parametrize("template", ["5 $ a", "$", "${", "${a", "${a.b}", "$1", "${a!r}", "$ü"])
def test_a_dollar_sign_that_begins_nothing_is_refused(template: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        prompts.check(template, "prompt_template")
    assert [error.field for error in refused.value.errors] == ["prompt_template"]


@pytest.mark.parametrize(
    "template", ["{a.__class__}", "{{ config }}", "{% for x in y %}", "%(a)s", "$a.__class__"]
)
def test_nothing_in_a_template_is_executed(template: str) -> None:
    assert prompts.render(template, {"a": "x"}) == template.replace("$a", "x")


def test_a_prompt_that_grows_too_long_is_refused() -> None:
    with pytest.raises(InvalidInput, match="longer than"):
        prompts.render("$a" * 100, {"a": "x" * 2000})


def test_the_secret_is_taken_out_however_it_is_written() -> None:
    secret = 'sk-"quo\\ted"'
    text = f'plain {secret} json "sk-\\"quo\\\\ted\\"" header: Bearer abcdefghijkl basic QWxhZGRpbjpvcGVu'
    clean = redact(text, secret)
    assert secret not in clean
    assert "quo" not in clean
    assert "abcdefghijkl" not in clean
    assert "QWxhZGRpbjpvcGVu" not in clean
    assert clean.count(REDACTED) == 4


def test_what_is_kept_is_bounded_and_can_be_stored() -> None:
    assert keep("a\0b\ud800", 100, None) == "a�b?"
    long = keep("x" * (MAX_REPLY + 1), MAX_REPLY, None)
    assert len(long) == MAX_REPLY
    assert long.endswith("[cut]")
    assert keep("x" * MAX_REPLY, MAX_REPLY, None) == "x" * MAX_REPLY
    # Taken out before it is cut, so that no half of it stays.
    assert "secret" not in keep("x" * 96 + "secret-secret", 100, "secret-secret")


def test_tokens_are_estimated_rather_too_many() -> None:
    assert estimate_tokens("abc", None, "") == 1
    assert estimate_tokens("你好", "a") == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"model": None},
        {"name": ""},
        {"name": " a"},
        {"name": "a/b"},
        {"name": "a\nb"},
        {"time_limit": 0},
        {"time_limit": float("inf")},
        {"daily_calls": 0},
        {"credential_header": "Host"},
        {"credential_header": "idempotency-key"},
        {"credential_header": "X-Key: y\r\nZ"},
        {"credential": "x"},
        {"credential_header": ""},
    ],
)
def test_a_definition_that_will_not_do(changes: dict[str, object]) -> None:
    AgentCreate.model_validate(CHAT)
    with pytest.raises(ValidationError):
        AgentCreate.model_validate(CHAT | changes)


def test_a_null_empties_only_what_may_be_empty() -> None:
    body = AgentUpdate.model_validate(
        {"daily_calls": None, "time_limit": None, "url": None, "enabled": False}
    )
    assert body.changes() == {"daily_calls": None, "enabled": False}


def test_a_refused_credential_is_not_repeated() -> None:
    with pytest.raises(ValidationError) as refused:
        Credential.model_validate({"credential": "short"})
    assert "short'" not in str(refused.value)


def test_an_origin_is_scheme_host_and_port() -> None:
    assert same_origin("https://a.example/v1", "https://A.example/models?x")
    assert same_origin("https://a.example/", "https://a.example:443/x")
    assert not same_origin("https://a.example/", "http://a.example/")
    assert not same_origin("https://a.example/", "https://a.example:444/")
    assert not same_origin("https://a.example/", "https://a.example.evil/")


def test_an_error_says_whether_another_attempt_makes_sense() -> None:
    assert outcome_of(AgentBroken("x")).retryable
    assert outcome_of(ValueError("x")).retryable
    assert not outcome_of(AgentRefused("x")).retryable
    assert not outcome_of(OutboundRefused("x")).retryable
    assert not AgentError.retryable


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(7.5, 7.5), (0, 0), (10**400, 1e6), (float("nan"), None), (True, None), ("7", None), (-1, None)],
)
def test_an_error_may_say_when_to_try_again(asked: object, seconds: float | None) -> None:
    error = AgentBroken("busy")
    error.retry_after = asked  # type: ignore[assignment]
    assert outcome_of(error).retry_after == seconds


async def test_who_never_took_a_connection_was_sent_nothing() -> None:
    async def hang(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(30)
        return []

    endpoint = Endpoint(
        name="away",
        kind="webhook",
        url="https://agents.example.com/hook",
        health_url=None,
        model=None,
        system_prompt=None,
        max_tokens=None,
        time_limit=0.1,
        credential_header="Authorization",
        credential=None,
    )
    task = Task(key="1", attempt=1, prompt="Hello", variables={})
    with pytest.raises(AgentUnreachable, match="did not take a connection") as raised:
        await ask(endpoint, task, OutboundPolicy(resolve=hang))
    assert not raised.value.sent
