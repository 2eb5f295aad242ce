"""The committed OpenAPI document is the service's, and is fit to generate clients from."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from app.api.openapi import render
from app.main import create_app
from app.settings import Settings

COMMITTED = Path(__file__).parents[2] / "openapi.json"
HTTP_METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(Settings())


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in HTTP_METHODS
    ]


def test_the_committed_document_is_current(document: dict[str, Any]) -> None:
    assert COMMITTED.read_text() == render(document), (
        "run `python -m app.api.openapi > openapi.json` and commit the difference"
    )


def test_operation_ids_are_stable_names(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in ids)
    assert {"create_scheduled_task", "list_runs", "run_task", "login", "readyz"} <= set(ids)


def test_every_operation_is_described_and_tagged(document: dict[str, Any]) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["tags"]) <= set(tags), name


def test_every_error_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if "Health" in operation["tags"]:
            continue
        for status, answer in operation["responses"].items():
            if status.startswith(("4", "5")):
                content = answer["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, (name, status)
        closed = "security" in operation
        assert closed == (operation["x-access"]["role"] != "anyone"), name
        assert not closed or {"401", "503"} <= set(operation["responses"]), name


def test_every_reference_leads_somewhere_and_names_are_plain(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert reference in schemas
    assert [name for name in schemas if not re.fullmatch("[A-Z][A-Za-z]+", name)] == []


def test_swagger_ui_shows_answers_in_order_and_the_choices_of_parameters(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert list(operation["responses"]) == sorted(operation["responses"]), name
        for parameter in operation.get("parameters", []):
            assert "anyOf" not in parameter["schema"], (name, parameter["name"])


def test_the_users_example_is_the_first_one(document: dict[str, Any]) -> None:
    operation = document["paths"]["/api/v1/scheduled-tasks"]["post"]
    first = next(iter(operation["requestBody"]["content"]["application/json"]["examples"].values()))
    assert first["value"] == {
        "task_name": "清理过期会话",
        "task_path": "src.apps.auth.tasks.cleanup_expired_sessions_task",
        "task_type": "system",
        "task_enabled": True,
        "task_crontab_minute": "0",
        "task_crontab_hour": "*/2",
        "task_extra_config": {"queue": "system"},
    }


def test_swagger_logs_in_at_our_login(document: dict[str, Any]) -> None:
    scheme = document["components"]["securitySchemes"]["Password"]
    assert scheme["flows"]["password"]["tokenUrl"] == "/api/v1/auth/login"
    assert "/api/v1/auth/login" in document["paths"]
