"""The service as its clients see it, for the verbs that speak to it: through the SDK, at UPBEAT_URL or this host."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from app.cli.choices import LOOPBACK
from app.errors import ConfigurationError, Conflict, NotFound
from app.settings import ApiSettings, get_settings

if TYPE_CHECKING:
    from upbeat_sdk import Upbeat

CHECKOUT = Path(__file__).resolve().parents[2] / "sdk" / "src"
RETRIES = 2  # somebody is waiting
PAGE = 200  # items that one answer may have
LIMIT = 100  # items of a list, unless told
VERBS = {
    "runs": "runs list",
    "scheduled-tasks": "schedules list",
    "tasks": "tasks list",
    "workers": "workers",
}
KEY_HINT = "Set UPBEAT_TOKEN to a key, which is made by `upbeat api-keys create USER NAME --scope operate`."


def address(settings: ApiSettings) -> str:
    """Where the service is: at UPBEAT_URL, else at this host's port."""
    return (settings.url or f"http://{LOOPBACK}:{settings.port}").rstrip("/")


@contextmanager
def connected() -> Iterator["Upbeat"]:
    """A client that calls with UPBEAT_TOKEN.

    Raises:
        ConfigurationError: there is no token, or the SDK is not installed, nor in this checkout.
    """
    if find_spec("upbeat_sdk") is None:
        if not CHECKOUT.is_dir():
            raise ConfigurationError(
                "This verb speaks to the service through the SDK: pip install upbeat-sdk"
            )
        sys.path.append(str(CHECKOUT))
    from upbeat_sdk import Upbeat

    settings = get_settings().api
    token = "" if settings.token is None else settings.token.get_secret_value()
    if not token:
        raise ConfigurationError(f"The service wants to know who calls. {KEY_HINT}")
    with Upbeat(address(settings), token=token, max_retries=RETRIES) as client:
        yield client


def schedule_id(client: "Upbeat", given: str) -> str:
    """The id of the schedule that has this id or this name; raises as `id_of`."""
    return id_of(
        given,
        lambda: [each.id for each in client.schedules.list(search=given) if each.task_name == given],
        kind="schedule",
        listed_by="schedules list",
    )


def worker_id(client: "Upbeat", given: str) -> str:
    """The id of the living worker that has this id or this name; raises as `id_of`."""
    return id_of(
        given,
        lambda: [each.id for each in client.workers.list(alive=True, search=given) if each.name == given],
        kind="living worker",
        listed_by="workers",
    )


def id_of(given: str, named: Callable[[], list[UUID]], *, kind: str, listed_by: str) -> str:
    """What was given, if it is an id; else the one id of what has this name.

    Raises:
        NotFound: nothing has it.
        Conflict: several have.
    """
    try:
        return str(UUID(given))
    except ValueError:
        found = named()
    if not found:
        raise NotFound(f"No {kind} is called {given}. `upbeat {listed_by}` has them all.")
    if len(found) > 1:
        raise Conflict(
            f"Several {kind}s are called {given}; name one by its id: {', '.join(map(str, found))}"
        )
    return str(found[0])


def sdk_problem(error: Exception) -> str | None:
    """What an error of the SDK says, and what to do; None for any other."""
    if "upbeat_sdk" not in sys.modules:
        return None
    import upbeat_sdk

    if not isinstance(error, upbeat_sdk.UpbeatError):
        return None
    said = _in_verbs("; ".join(str(error).split("\n")).rstrip("."))
    if isinstance(error, upbeat_sdk.Unauthenticated):
        return f"{said}. {KEY_HINT}"
    if isinstance(error, upbeat_sdk.ConnectionFailed):
        return f"{said}. Is the API there? `upbeat start api` starts it; UPBEAT_URL says where it is."
    return f"{said}."


def _in_verbs(said: str) -> str:
    """With this command's verbs where the API names its own paths."""
    return re.sub(
        r"GET /api/v1/([a-z-]+)\b(?!/)",
        lambda path: f"`upbeat {VERBS[path[1]]}`" if path[1] in VERBS else path[0],
        said,
    )
