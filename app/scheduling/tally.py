"""What happened, told to whoever counts it in this process; without a listener it costs nothing.

What happened in a transaction is told after its commit, and not at all after a rollback, nor after that of the
savepoint in which it happened.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

_PENDING = "upbeat_tally"
_Pending = list[tuple[SessionTransaction | None, "Happening"]]


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
        event.listen(Session, "after_soft_rollback", _rolled_back)
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
        pending: _Pending = session.info.setdefault(_PENDING, [])
        pending.append((session.get_nested_transaction(), happening))


def _committed(session: Session) -> None:
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        for _, happening in session.info.pop(_PENDING, ()):
            tell(happening)
    else:
        pending: _Pending = session.info.get(_PENDING, [])
        pending[:] = [(_around(savepoint) if at is savepoint else at, what) for at, what in pending]


def _rolled_back(session: Session, ended: SessionTransaction) -> None:
    if ended.parent is None:
        session.info.pop(_PENDING, None)
    elif ended.nested:
        pending: _Pending = session.info.get(_PENDING, [])
        pending[:] = [(at, what) for at, what in pending if at is not ended]


def _around(savepoint: SessionTransaction) -> SessionTransaction | None:
    """The savepoint in which another one is, if it is in one."""
    around = savepoint.parent
    while around is not None and not around.nested:
        around = around.parent
    return around
