"""Who calls while the API is fuzzed: a user of one role, by login session or by API key."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import psycopg

from app.scheduling.ids import new_id

# Each of these ends the session that calls it, or one that the caller was shown.
ENDS_SESSIONS = frozenset({"logout", "logout_everywhere", "refresh_token", "revoke_session"})
KEY = "key"
NAMES = ("kind", "database_url", "user", "spare_user", "keep")


@dataclass
class Caller:
    """``kind`` is a role, or `key` for an administrator's API key that may do everything a key may.

    ``keep`` are the ids of users and keys that must stay as they are, parted by commas.
    """

    kind: str
    database_url: str
    user: str
    spare_user: str
    keep: str
    key: str | None = None
    stranger: str = field(default_factory=lambda: str(new_id()))
    _token: str | None = None

    @classmethod
    def from_environment(cls) -> "Caller":
        """As `environment` says it."""
        names = (*NAMES, "key")
        return cls(**{name: os.environ[_variable(name)] for name in names if _variable(name) in os.environ})

    @property
    def environment(self) -> Mapping[str, str]:
        """For the process that calls."""
        values = {name: getattr(self, name) for name in (*NAMES, "key")}
        return {_variable(name): value for name, value in values.items() if value is not None}

    @property
    def protected(self) -> frozenset[str]:
        """Ids that nothing is done with."""
        return frozenset(self.keep.split(","))

    def token_for(self, operation: str) -> str:
        """The credential for one call."""
        if operation in ENDS_SESSIONS:
            return self._session(self.spare_user)
        if self.key is not None:
            return self.key
        if self._token is None:
            self._token = self._session(self.user)
        return self._token

    def forget_token(self) -> None:
        """It is not valid any more: its session was found and ended."""
        self._token = None

    def _session(self, user: str) -> str:
        """A session as a login makes it, without the tenth of a second that a password takes."""
        token = secrets.token_urlsafe(32)
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "INSERT INTO user_sessions (id, user_id, token_hash, expires_at)"
                " VALUES (%s, %s, %s, clock_timestamp() + interval '1 hour')",
                (new_id(), user, sha256(token.encode()).digest()),
            )
        return token


def _variable(name: str) -> str:
    return f"UPBEAT_TEST_FUZZ_{name.upper()}"
