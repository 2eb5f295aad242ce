"""What is committed together with a caller's change, or not at all: the audit, and the keys of repeated requests.

Whoever serves a caller sets a companion for the time of the call. A session of `app.db.async_sessions` lets it join
just before it commits, so no unit of work has to know of it, and none can forget it. Only transactions that executed
something else than a SELECT are joined; a rollback takes the companion's rows with it, and it joins the next one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from sqlalchemy import event, inspect
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, UOWTransaction

from app.db.base import Base

T = TypeVar("T")

Changes = dict[str, dict[str, Any]]
_RESULT, _CHANGES, _WROTE, _JOINED, _BROUGHT = "result", "changes", "wrote", "joined", "brought"


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

    @classmethod
    def join_many(cls, session: Session, calls: Sequence[tuple[Any, object]]) -> None:
        """As `join`, of those that were brought (`bring`), each with its result; there are no ORM changes."""
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


def present() -> Companion | None:
    """The companion of this call, for whoever hands its work to another task: see `bring`."""
    return _companion.get()


def bring(session: AsyncSession, companion: Companion | None, result: object) -> None:
    """Let another call's companion join the transaction, for work that is done for many calls at once.

    One that refuses rolls all of it back; the work is then done again, call by call.
    """
    if companion is not None:
        session.info.setdefault(_BROUGHT, []).append((companion, result))


def produced(session: AsyncSession, result: object) -> None:
    """Say what the unit of work in ``session`` made, before its commit."""
    session.info[_RESULT] = result


async def unit(sessions: async_sessionmaker[AsyncSession], work: Callable[[Session], T]) -> T:
    """Do ``work`` in a transaction of its own, and say what it made."""
    async with sessions() as session, session.begin():
        made = await session.run_sync(work)
        produced(session, made)
        return made


def changed(session: Session, key: str, columns: dict[str, Any]) -> None:
    """Say what a statement of one's own changed, in the form of `Companion.join`; the ORM's changes are seen."""
    if isinstance(session, UnitSession):
        session.info.setdefault(_CHANGES, {}).setdefault(key, {}).update(columns)


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
    if session.in_nested_transaction():
        return
    own, brought = _companion.get(), session.info.get(_BROUGHT, [])
    if own is None and not brought:
        return
    session.flush()
    if not session.info.get(_WROTE):
        return
    joined = session.info.setdefault(_JOINED, [])
    if brought:
        calls = [(companion, result) for companion, result in brought if companion.waiting]
        for kind in {type(companion) for companion, _ in calls}:
            kind.join_many(session, [call for call in calls if type(call[0]) is kind])
        joined.extend(companion for companion, _ in calls)
    elif own is not None and own.waiting:
        own.join(session, session.info.get(_RESULT), session.info.get(_CHANGES, {}))
        joined.append(own)


@event.listens_for(UnitSession, "after_commit")
def _on_committed(session: Session) -> None:
    if not session.in_nested_transaction():
        for companion in session.info.pop(_JOINED, []):
            companion.joined()


@event.listens_for(UnitSession, "after_transaction_end")
def _on_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        for name in (_RESULT, _CHANGES, _WROTE, _JOINED, _BROUGHT):
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
