"""Who a caller is and what that lets them do. Pure.

A user has one of three roles, each of which includes the ones before. An API key acts for its user, narrowed by
scopes: `read`, `operate` or `admin` for everything, or one resource's, such as `runs:operate`. What it may do is what
its user's role and one of its scopes both allow.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    """What a user may do; each includes the ones before."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Whether this role may do what ``other`` may."""
        return _RANK[self] >= _RANK[other]


_RANK = {role: number for number, role in enumerate(Role)}


class Means(StrEnum):
    """How a caller proved who they are."""

    SESSION = "session"
    COOKIE = "cookie"
    API_KEY = "api_key"
    CLI = "cli"


LEVELS = {"read": Role.VIEWER, "operate": Role.OPERATOR, "admin": Role.ADMIN}


@dataclass(frozen=True, slots=True)
class Scope:
    """``resource`` is the first part of the paths after /api/v1; None for all of them."""

    level: Role
    resource: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Scope":
        """From `operate` or `runs:operate`.

        Raises:
            ValueError: it is neither.
        """
        resource, _, level = text.rpartition(":")
        if level not in LEVELS or (":" in text and not resource):
            raise ValueError(f"Must be one of {', '.join(LEVELS)}, or a resource's: runs:operate.")
        return cls(LEVELS[level], resource or None)

    def covers(self, needed: Role, resource: str) -> bool:
        """Whether it allows ``needed`` on ``resource``."""
        return self.level.includes(needed) and self.resource in (None, resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller. ``credential_id`` is the session or key that was used."""

    id: UUID
    username: str
    role: Role
    created_at: datetime
    means: Means
    credential_id: UUID
    scopes: tuple[Scope, ...] | None = None
    csrf_hash: bytes | None = None

    def may(self, needed: Role, resource: str) -> bool:
        """Whether role and scopes allow ``needed`` on ``resource``."""
        scoped = self.scopes is None or any(scope.covers(needed, resource) for scope in self.scopes)
        return self.role.includes(needed) and scoped

    @property
    def is_admin(self) -> bool:
        """Whether others' sessions and keys are open to this caller."""
        return self.may(Role.ADMIN, "users")


def wider_than(role: Role, scopes: Iterable[Scope]) -> list[Scope]:
    """The scopes that allow more than ``role`` does: a key must not promise what it cannot keep."""
    return [scope for scope in scopes if not role.includes(scope.level)]
