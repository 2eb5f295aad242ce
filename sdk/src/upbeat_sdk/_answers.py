"""From an HTTP answer to a model, or to the error that it stands for."""

from functools import cache
from typing import Generic, TypeVar

import httpx
from pydantic import ValidationError

from upbeat_sdk._errors import PROBLEMS, ProblemError, ServerError, UnexpectedAnswer
from upbeat_sdk._exchange import retry_after
from upbeat_sdk._generated.models import Problem
from upbeat_sdk._model import Model

REQUEST_ID = "X-Request-ID"
SERVER_ERRORS = 500

M = TypeVar("M", bound=Model)


def accepted(response: httpx.Response) -> None:
    """Do nothing for a success.

    Raises:
        ProblemError: the service refused.
        UnexpectedAnswer: somebody else did.
    """
    if response.is_success:
        return
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        raise _unexpected(response, "is no problem of the API") from None
    usual = ServerError if response.status_code >= SERVER_ERRORS else ProblemError
    kind = PROBLEMS.get(response.status_code, usual)
    raise kind(
        problem,
        request_id=response.headers.get(REQUEST_ID),
        retry_after=retry_after(response.headers),
    )


def read(response: httpx.Response, model: type[M], client: object) -> M:
    """The answer's model, which knows the client that it came by.

    Raises:
        ProblemError: the service refused.
        UnexpectedAnswer: the answer is not of this form.
    """
    accepted(response)
    try:
        return model.model_validate_json(response.content, context=client)
    except ValidationError as error:
        raise _unexpected(response, _summary(error)) from None


def read_text(response: httpx.Response) -> str:
    """The answer's text; raises as `accepted` does."""
    accepted(response)
    return response.text


class _Items(Model, Generic[M]):
    items: list[M]
    next_cursor: str | None


@cache
def _page_of(model: type[M]) -> type[_Items[M]]:
    return _Items[model]  # type: ignore[valid-type]  # made when it is first asked for


def read_page(response: httpx.Response, model: type[M], client: object) -> tuple[list[M], str | None]:
    """The items of a page, and the cursor of the next one; raises as `read` does."""
    page = read(response, _page_of(model), client)
    return page.items, page.next_cursor


def _summary(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return (
        f"is not of the expected form ({where}: {first['msg']})" if where else "is not of the expected form"
    )


def _unexpected(response: httpx.Response, what: str) -> UnexpectedAnswer:
    kind = response.headers.get("Content-Type", "no content type")
    request = response.request
    return UnexpectedAnswer(
        f"The answer to {request.method} {request.url.path} ({response.status_code}, {kind}) {what}."
        " Is this the address of an Upbeat service, and is the SDK as new as it?",
        status=response.status_code,
        request_id=response.headers.get(REQUEST_ID),
    )
