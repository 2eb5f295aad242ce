"""What the OpenAPI document shows is true: every example of a request is sent and accepted as documented, every
example of an answer fits its schema, and so does what the examples of requests are answered.

Generated from the document: an operation with a body that has no example is named here, and so is an example whose
path needs an object that this file does not know how to make.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jsonschema_rs
import pytest
from cryptography.fernet import Fernet
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import SecretStr

from app.api.problems import MEDIA_TYPE
from app.main import create_app
from app.settings import SecretSettings, Settings
from support.api import ADMIN, connected, serving
from support.people import cheap_passwords, person, token_of

DOCUMENT: dict[str, Any] = create_app(Settings()).openapi()
TASK = "scheduled_task.test_task"
NOWHERE = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"
# Their objects come with running processes; of one that is not there, 404 is said when the body has been accepted.
MADE_BY_THE_SERVICE = {"acknowledge_alert", "resize_worker", "revoke_worker_run"}
# These answer by what the body says of the caller, so a right one cannot be written down.
SECRETS = {"change_own_password": {"current_password": ADMIN[1]}}


@dataclass(frozen=True)
class Example:
    """One example of a request."""

    method: str
    path: str
    operation: dict[str, Any]
    name: str
    value: Any


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def examples() -> list[Example]:
    found = []
    for method, path, operation in operations():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in content.get("examples", {}).items():
            found.append(Example(method, path, operation, name, example["value"]))
    return found


def validator(schema: dict[str, Any]) -> Any:
    """Of a part of the document, with its references."""
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": DOCUMENT["components"]}
    return jsonschema_rs.validator_for(whole | schema, validate_formats=True)


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    sealing = SecretSettings(keys=SecretStr(Fernet.generate_key().decode()))
    with cheap_passwords():
        async with serving(settings.model_copy(update={"secret": sealing})) as app:
            yield app


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        yield client


async def _made(client: httpx.AsyncClient, path: str, body: dict[str, Any], key: str = "id") -> str:
    answer = await client.post(f"/api/v1/{path}", json=body)
    assert answer.is_success, answer.text
    return str(answer.json()[key])


async def _schedule(client: httpx.AsyncClient, *, paused: bool) -> str:
    body = {
        "task_name": "x",
        "task_path": TASK,
        "schedule": {"type": "interval", "every": 1, "unit": "hours"},
    }
    made = await _made(client, "scheduled-tasks", body)
    if paused:
        await _made(client, f"scheduled-tasks/{made}/pause", {"note": "for the example"})
    return made


async def object_for(client: httpx.AsyncClient, app: FastAPI, example: Example) -> str:
    """A new object of the kind that the path names, in the state that the operation needs."""
    name = str(example.operation["operationId"])
    parameter = example.path.partition("{")[2].partition("}")[0]
    if parameter == "schedule_id":
        return await _schedule(client, paused=name == "resume_scheduled_task")
    if parameter == "run_id":
        made = await _made(client, f"tasks/{TASK}/runs", {})
        if name == "replay_run":
            await _made(client, f"runs/{made}/cancel", {})
        return made
    if parameter == "user_id":
        user = await person(app)
        found = (await client.get("/api/v1/users", params={"search": user})).json()["items"]
        return str(next(each["id"] for each in found if each["username"] == user))
    resource = example.path.split("/")[3]
    named = {"tasks": TASK, "queues": example.value.get("confirm") or "priority_low"}
    bodies: dict[str, dict[str, Any]] = {
        "agents": {
            "name": f"{name} {example.name}",
            "kind": "webhook",
            "url": "https://agents.example.com/x",
        },
        "webhooks": {
            "name": example.name,
            "url": "https://hooks.example.com/x",
            "event_types": ["run.failed"],
        },
        "calendars": {"name": f"{name}-{example.name}"},
    }
    if resource in named:
        return str(named[resource])
    if resource in bodies:
        return await _made(client, resource, bodies[resource], "name" if resource == "calendars" else "id")
    raise AssertionError(f"{example.path}: say here how to make an object for this path")


@pytest.mark.parametrize(
    "example", examples(), ids=lambda each: f"{each.operation['operationId']}-{each.name}"
)
async def test_an_example_of_a_request_is_accepted(
    api: FastAPI, admin: httpx.AsyncClient, example: Example
) -> None:
    name = str(example.operation["operationId"])
    path, body = example.path.replace("{version}", "1"), example.value
    missing = name in MADE_BY_THE_SERVICE
    if "{" in path:
        identifier = NOWHERE if missing else await object_for(admin, api, example)
        path = "/".join(identifier if part.startswith("{") else part for part in path.split("/"))
    if name in SECRETS:
        body = body | SECRETS[name]
        admin.headers["Authorization"], kept = f"Bearer {await token_of(api)}", admin.headers["Authorization"]
    answer = await admin.request(example.method, path, json=body, headers={"If-Match": "*"})
    if name in SECRETS:
        admin.headers["Authorization"] = kept
    documented = example.operation["responses"]
    first = "404" if missing else min(documented)
    assert str(answer.status_code) == first, answer.text
    content = documented[first].get("content", {}).get("application/json")
    if content is not None:
        validator(content["schema"]).validate(answer.json())


def test_every_body_has_an_example() -> None:
    bare = [
        operation["operationId"]
        for _, _, operation in operations()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
        and not operation["requestBody"]["content"]["application/json"].get("examples")
    ]
    assert bare == [], "give Body(openapi_examples=…) to these operations"
    assert len(examples()) > 20


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_the_examples_of_a_schema_fit_it(name: str) -> None:
    schema = DOCUMENT["components"]["schemas"][name]
    for value in schema.get("examples", []):
        validator({"$ref": f"#/components/schemas/{name}"}).validate(value)
    for part in schema.get("properties", {}).values():
        for value in part.get("examples", []):
            validator(part).validate(value)


def test_every_operation_declares_what_can_go_wrong() -> None:
    """By what it takes: 401, 403, 429 and 503 of what is closed, 404 of one object, 400, 413 and 415 of a body."""
    for method, path, operation in operations():
        declared, expected = set(operation["responses"]), set()
        if operation["x-access"]["role"] != "anyone":
            expected |= {"401", "403", "429", "503"}
        if "{" in path:
            expected |= {"404", "422"}
        if operation.get("parameters"):
            expected |= {"422"}
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            expected |= {"400", "413", "415", "422"}
        assert expected <= declared, (method, path, sorted(expected - declared))
        for status in declared & {
            "400",
            "401",
            "403",
            "404",
            "409",
            "412",
            "413",
            "415",
            "422",
            "428",
            "429",
        }:
            assert set(operation["responses"][status]["content"]) == {MEDIA_TYPE}, (method, path, status)


def test_operation_ids_are_the_names_of_functions() -> None:
    """So that they stay when paths change, and generated clients with them."""
    served = {
        (method, str(context.path)): context.endpoint.__name__
        for context in iter_route_contexts(create_app(Settings()).routes)
        if isinstance(context.original_route, APIRoute) and context.endpoint is not None
        for method in context.methods or ()
    }
    for method, path, operation in operations():
        assert operation["operationId"] == served[method, path]
