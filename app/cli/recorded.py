"""What the command line changes is in the audit as well, under the name of the system's user."""

import getpass
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.db.companions import Changes
from app.modules.audit.service import Entry, id_of, record


@dataclass(slots=True)
class CommandLine:
    """Joins the first change of a command."""

    action: str
    object_type: str
    done: bool = False

    @property
    def waiting(self) -> bool:
        """Whether nothing is recorded yet."""
        return not self.done

    def joined(self) -> None:
        """It is recorded."""
        self.done = True

    def join(self, session: Session, result: object, changes: Changes) -> None:
        """Commit an entry with the change."""
        made = id_of(result)
        entry = Entry(
            actor=_system_user(),
            means="cli",
            action=self.action,
            object_type=self.object_type,
            object_id=None if made is None else str(made),
            changes=changes,
        )
        record(session, entry)


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "(unknown)"
