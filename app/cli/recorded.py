"""What the command line changes is in the audit as well, under the name of the system's user."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.db.companions import Changes
from app.modules.audit.service import Entry, id_of, record


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Joins each change of a command."""

    action: str
    object_type: str

    @property
    def waiting(self) -> bool:
        """Always: a command may change several things, each in a transaction of its own."""
        return True

    def joined(self) -> None:
        """There is nothing to remember."""

    def join(self, session: Session, result: object, changes: Changes) -> None:
        """Commit an entry with what was changed; a command that looked and found nothing leaves none."""
        made = id_of(result)
        if made is None and not changes:
            return
        entry = Entry(
            actor=_system_user(),
            means="cli",
            action=self.action,
            object_type=self.object_type,
            object_id=None if made is None else str(made),
            changes=changes,
        )
        record(session, entry)

    @classmethod
    def join_many(cls, session: Session, calls: Sequence[tuple[Any, object]]) -> None:
        """As `join`, of each; a command makes few runs."""
        for companion, result in calls:
            companion.join(session, result, {})


def told(action: str, object_type: str, object_id: str, changes: Changes) -> Entry:
    """The entry of a command that is recorded by itself, when all of it is done."""
    return Entry(
        actor=_system_user(),
        means="cli",
        action=action,
        object_type=object_type,
        object_id=object_id,
        changes=changes,
    )


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "(unknown)"
