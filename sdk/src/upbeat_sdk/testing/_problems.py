"""How the fake refuses: the service's problem documents."""

from collections.abc import Mapping
from http import HTTPStatus

import httpx


class Refusal(Exception):
    """The answer is a problem; ``fields`` are the wrong ones with their messages."""

    def __init__(self, status: int, code: str, detail: str, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.fields = fields


def not_found(what: str) -> Refusal:
    """It does not exist."""
    return Refusal(404, "not_found", f"{what} does not exist.")


def invalid(field: str, message: str) -> Refusal:
    """One field is wrong."""
    return Refusal(422, "invalid_input", f"{field}: {message}", {field: message})


def problem(refusal: Refusal, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """The answer of a refusal."""
    body: dict[str, object] = {
        "type": f"/problems/{refusal.code}",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
        "instance": path,
        "request_id": "fake",
    }
    if refusal.fields is not None:
        body["errors"] = [{"field": name, "message": text} for name, text in refusal.fields.items()]
    return httpx.Response(
        refusal.status, json=body, headers={"Content-Type": "application/problem+json", **(headers or {})}
    )
