"""Who may call a route. Every route declares it in one line, under its path:

    @router.post("/{schedule_id}/run", …)
    @guarded(OPERATE)
    async def run_scheduled_task(…)

A route that declares nothing is closed to everybody, and `tests/integration/test_access.py` names it. What is declared
is in the OpenAPI document as `x-access`, so a changed guard shows up in its difference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette._utils import get_route_path

from app.errors import Forbidden
from app.modules.auth.service import LEVELS, Means, Principal, Role

F = TypeVar("F", bound=Callable[..., Any])
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_ATTRIBUTE = "__guard__"


@dataclass(frozen=True, slots=True)
class Guard:
    """``role`` is the least one that will do, None for everybody, logged in or not.

    ``owned``: the objects belong to users; to all but administrators others' objects do not exist (404).
    ``interactive``: a person at a login session is needed, an API key will not do. ``scoped``: an API key needs a
    scope for it, which all routes ask for but the one that tells whose key it is.
    """

    role: Role | None
    owned: bool = False
    interactive: bool = False
    scoped: bool = True

    def check(self, caller: Principal, resource: str) -> None:
        """Raises Forbidden when the caller may not call a route of ``resource``."""
        needed = self.role or Role.VIEWER
        if not caller.role.includes(needed):
            raise Forbidden(f"Your role is {caller.role}; this needs the role {needed}.")
        if self.interactive and caller.means is Means.API_KEY:
            raise Forbidden("An API key cannot do this. Log in and do it yourself.")
        if self.scoped and not caller.may(needed, resource):
            level = next(name for name, role in LEVELS.items() if role is needed)
            raise Forbidden(f"The key's scopes do not allow this; it needs {level} or {resource}:{level}.")

    @property
    def documented(self) -> dict[str, Any]:
        """The form of the OpenAPI document."""
        found: dict[str, Any] = {"role": "anyone" if self.role is None else str(self.role)}
        return (
            found
            | ({"owned": True} if self.owned else {})
            | ({"interactive": True} if self.interactive else {})
        )


OPEN = Guard(None)
READ = Guard(Role.VIEWER)
OPERATE = Guard(Role.OPERATOR)
ADMINISTER = Guard(Role.ADMIN)
OWN = Guard(Role.VIEWER, owned=True, interactive=True)
MYSELF = Guard(Role.VIEWER, interactive=True)
WHOEVER = Guard(Role.VIEWER, scoped=False)


def guarded(guard: Guard) -> Callable[[F], F]:
    """Declare who may call the route that the decorated function serves."""

    def declare(endpoint: F) -> F:
        setattr(endpoint, _ATTRIBUTE, guard)
        return endpoint

    return declare


def guard_of(endpoint: object) -> Guard | None:
    """What a route's function declares."""
    return getattr(endpoint, _ATTRIBUTE, None)


def guard_of_request(request: Request) -> Guard:
    """The guard of the route that this request reached.

    Raises:
        Forbidden: it declares none, so it is closed.
    """
    guard = guard_of(request.scope.get("endpoint"))
    if guard is None:
        raise Forbidden("This route does not say who may call it, so nobody may. Tell its developers.")
    return guard


def resource_in(path: str) -> str:
    """The resource of a path, as scopes name it: `runs` of /api/v1/runs/{run_id}."""
    return path.removeprefix("/api/v1/").split("/", 1)[0]


def resource_of(request: Request) -> str:
    """The resource that a request is about."""
    return resource_in(get_route_path(request.scope))
