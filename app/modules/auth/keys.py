"""API keys: credentials for programs, shown once and stored as a hash. Each function is one unit of work."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db.companions import produced
from app.errors import FieldError, InvalidInput, NotFound, Unauthenticated
from app.modules.auth.changes import changing
from app.modules.auth.logins import hash_token
from app.modules.auth.models import ApiKey, User
from app.modules.auth.roles import Means, Principal, Role, Scope, wider_than
from app.scheduling.ids import new_id

Sessions = async_sessionmaker[AsyncSession]

PREFIX: Final = "upb_"
TOKEN_BYTES: Final = 32
SHOWN: Final = len(PREFIX) + 6
TOUCH_EVERY: Final = timedelta(minutes=1)
_NOW = func.clock_timestamp()


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was made now: the only time that its secret is known."""

    row: ApiKey
    secret: str


async def create_key(
    sessions: Sessions,
    owner: Principal,
    *,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
    resources: frozenset[str],
) -> NewKey:
    """Make a key for ``owner``; ``resources`` are those that a scope may name.

    Raises:
        InvalidInput: a scope is unknown or allows more than its owner may, or it would have expired already.
    """
    _check_scopes(owner, scopes, resources)
    secret = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    row = ApiKey(
        id=new_id(),
        user_id=owner.id,
        name=name,
        start=secret[:SHOWN],
        key_hash=hash_token(secret),
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
    async with sessions.begin() as session:
        if expires_at is not None and expires_at <= (await session.execute(select(_NOW))).scalar_one():
            raise InvalidInput(FieldError("expires_at", "Lies in the past. Give a later instant, or none."))
        session.add(row)
        await session.flush()
        await session.refresh(row)
        produced(session, row)
    return NewKey(row, secret)


async def authenticate_key(sessions: Sessions, secret: str) -> tuple[Principal, timedelta | None]:
    """The caller whose key this is, and how long it is valid still, None for ever.

    Raises:
        Unauthenticated: no such key, or it has expired or was revoked, or its user is deactivated.
    """
    query = (
        select(
            ApiKey,
            User,
            (_NOW - ApiKey.last_used_at).label("unused"),
            (ApiKey.expires_at - _NOW).label("left"),
        )
        .join(User, User.id == ApiKey.user_id)
        .where(
            ApiKey.key_hash == hash_token(secret),
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > _NOW),
            User.active,
        )
    )
    async with sessions() as session:
        found = (await session.execute(query)).one_or_none()
    if found is None:
        raise Unauthenticated("The API key is not valid, has expired or was revoked.")
    row, user, unused, left = found
    if unused is None or unused > TOUCH_EVERY:
        async with sessions.begin() as session:
            await session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=_NOW))
    principal = Principal(
        id=user.id,
        username=user.username,
        role=Role(user.role),
        created_at=user.created_at,
        means=Means.API_KEY,
        credential_id=row.id,
        scopes=tuple(Scope.parse(text) for text in row.scopes),
    )
    return principal, left


async def list_keys(
    sessions: Sessions, *, limit: int, before: UUID | None = None, user_id: UUID | None = None
) -> tuple[list[tuple[ApiKey, str]], UUID | None]:
    """Keys, newest first, each with its owner's name, also the revoked ones; and the id to go on before."""
    query = _with_owner().order_by(ApiKey.id.desc()).limit(limit + 1)
    if user_id is not None:
        query = query.where(ApiKey.user_id == user_id)
    if before is not None:
        query = query.where(ApiKey.id < before)
    async with sessions() as session:
        found = [(row, name) for row, name in await session.execute(query)]
    return found[:limit], found[limit - 1][0].id if len(found) > limit else None


async def get_key(sessions: Sessions, key_id: UUID, *, owner: UUID | None) -> tuple[ApiKey, str]:
    """One key with its owner's name, of ``owner`` only if one is given.

    Raises:
        NotFound: there is no such key, or it is somebody else's.
    """
    query = _with_owner().where(ApiKey.id == key_id)
    if owner is not None:
        query = query.where(ApiKey.user_id == owner)
    async with sessions() as session:
        found = (await session.execute(query)).one_or_none()
    if found is None:
        raise _no_key()
    return found[0], found[1]


async def revoke_key(sessions: Sessions, key_id: UUID, *, owner: UUID | None) -> None:
    """Make a key worthless, of ``owner`` only if one is given; it stays in the list. Again, it changes nothing.

    Raises:
        NotFound: there is no such key, or it is somebody else's.
    """
    query = update(ApiKey).where(ApiKey.id == key_id)
    if owner is not None:
        query = query.where(ApiKey.user_id == owner)
    async with changing(sessions) as session:
        revoked_at = func.coalesce(ApiKey.revoked_at, _NOW)
        if await session.scalar(query.values(revoked_at=revoked_at).returning(ApiKey.id)) is None:
            raise _no_key()


def _with_owner() -> Select[ApiKey, str]:
    return select(ApiKey, User.username).join(User, User.id == ApiKey.user_id)


def _check_scopes(owner: Principal, scopes: Sequence[str], resources: frozenset[str]) -> None:
    parsed = []
    for number, text in enumerate(scopes):
        try:
            scope = Scope.parse(text)
        except ValueError as error:
            raise InvalidInput(FieldError(f"scopes.{number}", str(error))) from None
        if scope.resource is not None and scope.resource not in resources:
            known = ", ".join(sorted(resources))
            raise InvalidInput(FieldError(f"scopes.{number}", f"The resources are {known}."))
        parsed.append(scope)
    if wider_than(owner.role, parsed):
        raise InvalidInput(FieldError("scopes", f"Your role, {owner.role}, does not allow as much."))


def _no_key() -> NotFound:
    return NotFound("There is no API key with this id. GET /api/v1/api-keys lists yours.")
