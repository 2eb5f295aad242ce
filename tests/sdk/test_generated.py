"""What is written from the OpenAPI document: current, complete, and open to what a newer service says."""

import inspect
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from codegen.__main__ import HERE, stale
from codegen.document import METHODS, answers, bodies, class_name, operations, spelled
from codegen.methods import resource_module
from codegen.operations import Naming, named_operations
from upbeat_sdk import AsyncUpbeat, Upbeat
from upbeat_sdk._generated.operations import OPERATIONS

ROOT = Path(__file__).parents[2]
NAMING = Naming.of(tomllib.loads((HERE / "naming.toml").read_text()))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "openapi.json").read_text())
    return found


def test_the_generated_modules_are_current(document: dict[str, Any]) -> None:
    assert stale(document) == [], "run `make sdk` and commit the difference"


@pytest.mark.parametrize("client", [Upbeat, AsyncUpbeat])
def test_every_operation_is_a_method(document: dict[str, Any], client: type) -> None:
    ids = {operation["operationId"] for _, _, operation in operations(document)} - set(NAMING.left_out)
    missing = [name for name in ids if not callable(method_of(client, name))]
    assert missing == [], "the API has operations that the SDK has not: run `make sdk`"
    assert set(OPERATIONS) == ids


def method_of(client: type, operation: str) -> object:
    if operation not in OPERATIONS:
        return None
    resource = getattr(client, OPERATIONS[operation].resource).func
    kind = inspect.get_annotations(resource, eval_str=True)["return"]
    return getattr(kind, OPERATIONS[operation].method, None)


def test_a_method_is_named_for_the_operation_it_sends() -> None:
    for client in (Upbeat, AsyncUpbeat):
        for name, operation in OPERATIONS.items():
            source = inspect.getsource(method_of(client, name))  # type: ignore[arg-type]
            assert f'"{name}"' in source
            assert f'"{operation.verb}"' in source


def documented(**paths: Any) -> dict[str, Any]:
    """A document with these operations: its path, its verb, and what it says."""
    schemas = {
        "Thing": {
            "type": "object",
            "properties": {
                "state": {"$ref": "#/components/schemas/State"},
                "made": {"type": "string", "format": "date-time"},
                "name": {"type": "string", "maxLength": 3},
            },
            "required": ["state"],
        },
        "State": {"type": "string", "enum": ["on", "off"]},
        "Problem": {"type": "object", "properties": {}},
        "ThingPage": {
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}},
                "next_cursor": {"type": "string"},
            },
        },
    }
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {},
        "paths": {},
        "components": {"schemas": schemas},
    }
    for name, (verb, path, more) in paths.items():
        answer = more.pop("answer", "Thing")
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}}
        operation: dict[str, Any] = {
            "operationId": name,
            "tags": ["Things"],
            "description": "It.",
            "security": [{}],
        }
        operation |= {"responses": {"200": {"content": content}}, **more}
        found["paths"].setdefault(path, {})[verb] = operation
    return spelled(found)


def body(schema: str, *, required: bool = True) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": required, "content": content}}


def parameter(name: str, place: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema or {"type": "string"}}


def written(found: dict[str, Any], *, asynchronous: bool = False) -> str:
    named = named_operations(found, Naming({}, {}, {}))
    return resource_module("# header", found, named, asynchronous=asynchronous)


def test_names_follow_from_paths() -> None:
    item, thing = {"parameters": [parameter("id", "path", required=True)]}, "/api/v1/big-things"
    found = documented(
        list_them=("get", thing, {}),
        make=("post", thing, {}),
        read=("get", f"{thing}/{{id}}", dict(item)),
        write=("patch", f"{thing}/{{id}}", dict(item)),
        drop=("delete", f"{thing}/{{id}}", dict(item)),
        shake=("post", f"{thing}/{{id}}/shake-well", dict(item)),
    )
    named = named_operations(found, Naming({}, {}, {}))
    assert {each.resource for each in named} == {"big_things"}
    assert {each.id: each.method for each in named} == {
        "list_them": "list",
        "make": "create",
        "read": "get",
        "write": "update",
        "drop": "delete",
        "shake": "shake_well",
    }


def test_exceptions_to_the_names() -> None:
    found = documented(a=("get", "/api/v1/things", {}), b=("get", "/api/v1/others", {}))
    (only,) = named_operations(found, Naming({"things": "stuff"}, {"a": "every"}, {"b": "why"}))
    assert (only.resource, only.method) == ("stuff", "every")


def test_two_operations_of_one_name_are_told() -> None:
    found = documented(
        one=("post", "/api/v1/things/stop", {}),
        many=("post", "/api/v1/things/{id}/stop", {}),
    )
    with pytest.raises(ValueError, match=r"one and many would both be things\.stop"):
        named_operations(found, Naming({}, {}, {}))


def test_calls_that_create_work_carry_a_key() -> None:
    key = {"parameters": [parameter("Idempotency-Key", "header")]}
    source = written(documented(make=("post", "/api/v1/things", {**key, **body("Thing")})))
    assert "idempotency_key: str | None = None" in source
    assert "keyed=True, idempotency_key=idempotency_key" in source
    assert "keyed" not in written(documented(make=("post", "/api/v1/things", body("Thing"))))


def test_a_version_can_be_named() -> None:
    seen = {"parameters": [parameter("id", "path", required=True), parameter("If-Match", "header")]}
    source = written(documented(write=("patch", "/api/v1/things/{id}", {**seen, **body("Thing")})))
    assert 'if_match: int | str = "*"' in source
    assert '"If-Match": entity_tag(if_match)' in source


def test_pages_streams_text_and_nothing() -> None:
    cursor = {"parameters": [parameter("cursor", "query")]}
    events = {"responses": {"200": {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}}
    text = {"responses": {"200": {"content": {"text/plain": {"schema": {"type": "string"}}}}}}
    found = documented(
        walk=("get", "/api/v1/things", {"answer": "ThingPage", **cursor}),
        hear=("get", "/api/v1/things/events", events),
        tell=("get", "/api/v1/things/text", text),
        drop=("post", "/api/v1/things/drop", {"responses": {"204": {}}}),
    )
    sync, other = written(found), written(found, asynchronous=True)
    assert "-> Page[models.Thing]" in sync
    assert "def list(self, *, cursor: str | None = None) -> AsyncPages[models.Thing]" in other
    assert "async def list" not in other
    assert "def events(self) -> AsyncEventStream" in other
    assert "async def text(self) -> str" in other
    assert "async def drop(self) -> None" in other
    assert "await self._client.fetch_nothing(call)" in other


def test_a_body_and_a_query_of_one_name_are_told() -> None:
    both = {"parameters": [parameter("name", "query")], **body("Thing")}
    with pytest.raises(ValueError, match=r"make: .*name"):
        written(documented(make=("post", "/api/v1/things", both)))


def test_an_open_operation_is_sent_without_a_token() -> None:
    source = written(documented(ask=("get", "/livez", {"security": None})))
    assert "secured=False" in source


def test_enumerations_are_open_in_answers_and_closed_in_bodies() -> None:
    found = documented(make=("post", "/api/v1/things", body("Thing")))
    received = answers(found)["components"]["schemas"]["Thing"]["properties"]
    sent = bodies(found)["components"]["schemas"]["Thing"]["properties"]
    assert received["state"] == {"anyOf": [{"type": "string", "enum": ["on", "off"]}, {"type": "string"}]}
    assert sent["state"] == {"type": "string", "enum": ["on", "off"]}
    assert received["made"] == {"type": "string", "format": "date-time"}
    assert sent["made"] == {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string"}]}
    assert received["name"] == sent["name"] == {"type": "string"}


def test_a_page_is_no_model_of_its_own() -> None:
    found = answers(documented(walk=("get", "/api/v1/things", {"answer": "ThingPage"})))
    assert set(found["components"]["schemas"]) == {"Problem", "Thing"}


def test_class_names() -> None:
    assert class_name("Body_login") == "BodyLogin"
    assert class_name("ScheduledTask") == "ScheduledTask"
    assert "get" in METHODS
