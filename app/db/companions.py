"""What is committed together with a caller's change, or not at all: the audit, and the keys of repeated requests.

Whoever serves a caller sets a companion for the time of the call. A session of `app.db.async_sessions` lets it join
just before it commits, so no unit of work has to know of it, and none can forget it. Only transactions that executed
something else than a SELECT are joined; a rollback takes the companion's rows with it, and it joins the next one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from sqlalchemy import event, inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, UOWTransaction

from app.db.base import Base

Changes = dict[str, dict[str, Any]]
_RESULT, _CHANGES, _WROTE, _JOINED = "result", "changes", "wrote", "joined"


class Companion(Protocol):
    """Joins the first transaction that changes something while it is ``waiting``."""

    @property
    def waiting(self) -> bool:
        """Whether there is something to commit, and it is not committed yet."""
        ...

    def joined(self) -> None:
        """What was added is committed."""
        ...

    def join(self, session: Session, result: object, changes: Changes) -> None:
        """Add rows to the transaction that is about to be committed; raising rolls all of it back.

        ``result`` is what the unit of work made, None if it did not say (`produced`); ``changes`` are the ORM's, as
        ``{"table/id": {"column": {"before": …, "after": …}}}``.
        """
        ...


_companion: ContextVar[Companion | None] = ContextVar("companion", default=None)


@contextmanager
def accompanied(companion: Companion | None) -> Iterator[None]:
    """Let ``companion`` join what is committed inside."""
    token = _companion.set(companion)
    try:
        yield
    finally:
        _companion.reset(token)


def produced(session: AsyncSession, result: object) -> None:
    """Say what the unit of work in ``session`` made, before its commit."""
    session.info[_RESULT] = result


class UnitSession(Session):
    """The session of one unit of work."""


@event.listens_for(UnitSession, "do_orm_execute")
def _on_execute(state: ORMExecuteState) -> None:
    if not state.is_select:
        state.session.info[_WROTE] = True


@event.listens_for(UnitSession, "after_flush")
def _on_flush(session: Session, context: UOWTransaction) -> None:
    if _companion.get() is None:
        return
    session.info[_WROTE] = True
    found: Changes = session.info.setdefault(_CHANGES, {})
    for row in (*session.new, *session.dirty, *session.deleted):
        columns = _changed(row, gone=row in session.deleted)
        if columns:
            key = f"{row.__tablename__}/{'/'.join(str(part) for part in inspect(row).mapper.primary_key_from_instance(row))}"
            found.setdefault(key, {}).update(columns)


@event.listens_for(UnitSession, "before_commit")
def _on_commit(session: Session) -> None:
    companion = _companion.get()
    if companion is None or not companion.waiting or session.in_nested_transaction():
        return
    session.flush()
    if session.info.get(_WROTE):
        companion.join(session, session.info.get(_RESULT), session.info.get(_CHANGES, {}))
        session.info[_JOINED] = companion


@event.listens_for(UnitSession, "after_commit")
def _on_committed(session: Session) -> None:
    if not session.in_nested_transaction() and (companion := session.info.pop(_JOINED, None)) is not None:
        companion.joined()


@event.listens_for(UnitSession, "after_transaction_end")
def _on_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        for name in (_RESULT, _CHANGES, _WROTE, _JOINED):
            session.info.pop(name, None)


def _changed(row: Base, *, gone: bool) -> dict[str, Any]:
    found = {}
    for attribute in inspect(row).mapper.column_attrs:
        history = inspect(row).attrs[attribute.key].history
        before, after = (side[0] if side else None for side in (history.deleted, history.added))
        if gone:
            before, after = (history.unchanged or history.deleted or [None])[0], None
        if before != after:
            found[attribute.key] = {"before": before, "after": after}
    return found
