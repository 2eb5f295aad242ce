"""What happened, told to whoever counts it in this process; without a listener it costs nothing.

What happened in a transaction is told after its commit, and not at all after a rollback.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import event
from sqlalchemy.orm import Session

_PENDING = "upbeat_tally"


@dataclass(frozen=True, slots=True)
class Began:
    """An attempt started; lateness is in seconds after its run was due."""

    task: str
    queue: str
    start_lateness: float
    dispatch_lateness: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A run is over, ``number`` of a kind; ``seconds`` is None for what never started."""

    task: str
    queue: str
    state: str
    seconds: float | None = None
    number: int = 1


@dataclass(frozen=True, slots=True)
class Requeued:
    """An attempt ended, and its run goes back for another; ``outcome`` is failed or lost."""

    task: str
    queue: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Something else happened so often; `app.worker.measures` knows what there is."""

    what: str
    number: int = 1
    label: str = ""


Happening = Began | Ended | Requeued | Counted

_listeners: list[Callable[[Happening], object]] = []


def listen(listener: Callable[[Happening], object]) -> None:
    """Tell ``listener`` from now on, in whatever thread it happens; once, however often it is given."""
    if listener in _listeners:
        return
    if not _listeners:
        event.listen(Session, "after_commit", _committed)
        event.listen(Session, "after_rollback", _rolled_back)
    _listeners.append(listener)


def tell(happening: Happening) -> None:
    """It has happened."""
    for listener in _listeners:
        listener(happening)


def count(what: str, number: int = 1, label: str = "") -> None:
    """It has happened so often."""
    if number and _listeners:
        tell(Counted(what, number, label))


def note(session: Session, happening: Happening) -> None:
    """It will have happened when this session has committed."""
    if _listeners:
        session.info.setdefault(_PENDING, []).append(happening)


def _committed(session: Session) -> None:
    for happening in session.info.pop(_PENDING, ()):
        tell(happening)


def _rolled_back(session: Session) -> None:
    session.info.pop(_PENDING, None)
