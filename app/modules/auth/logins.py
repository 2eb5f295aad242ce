"""Login sessions: their beginning, their use, the replacing of their tokens, their end.

Tokens are opaque, 256 random bits, and stored only as SHA-256. A session ends when it was not used for a while, and at
the latest when its lifetime is over; only the database's clock says when. Each function is one unit of work.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.errors import NotFound, TooManyRequests, Unauthenticated
from app.modules.audit import service as audit
from app.modules.auth.accounts import MAX_USERNAME, end_sessions, is_text
from app.modules.auth.models import LoginSession, User
from app.modules.auth.passwords import verify_password
from app.modules.auth.refusals import Place, Refusal, Refusals, entry_of
from app.modules.auth.roles import Means, Principal, Role
from app.modules.auth.throttle import Throttle
from app.modules.auth.validity import used_rarely
from app.scheduling import tally
from app.scheduling.ids import new_id
from app.settings import AuthSettings

Sessions = async_sessionmaker[AsyncSession]

TOKEN_BYTES: Final = 32
LONGEST_AGENT: Final = 300
WRONG: Final = "The username or the password is wrong."
_NOW = func.clock_timestamp()


@dataclass(frozen=True, slots=True)
class Login:
    """A new or renewed session: the only time that its secrets are known."""

    token: str
    expires_at: datetime
    csrf_token: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A caller, and whether the token is old enough to be replaced."""

    principal: Principal
    rotate: bool
    expires_at: datetime


async def login(
    sessions: Sessions,
    rules: AuthSettings,
    username: str,
    password: str,
    place: Place,
    *,
    refusals: Refusals,
    browser: bool = False,
) -> Login:
    """Start a session; ``browser`` gives it a CSRF token. What happened is in the audit, if it is not too much.

    Raises:
        Unauthenticated: the same for an unknown name, a wrong password and a deactivated user.
        TooManyRequests: too many logins have failed.
    """
    throttle = Throttle(rules, username, place.address)
    user = None
    if is_text(username, MAX_USERNAME):
        async with sessions() as session:
            user = await session.scalar(select(User).where(User.username == username, User.active))
    user_id = None if user is None else user.id
    try:
        await throttle.count(sessions)
    except TooManyRequests:
        refusals.note(Refusal(username, user_id, place, "throttled"))
        raise
    # No connection is held meanwhile: hashing takes a tenth of a second, and may have to wait.
    fits, newer = await verify_password(password, user.password_hash if user else None)
    if user is None or not fits:
        refusals.note(Refusal(username, user_id, place, "refused"))
        raise Unauthenticated(WRONG)
    made = _new_row(user, rules, place, browser=browser)
    async with sessions.begin() as session:
        await throttle.forgive(session)
        changed: dict[str, Any] = {"last_login_at": _NOW} | ({"password_hash": newer} if newer else {})
        still = await session.scalar(
            update(User)
            .where(User.id == user.id, User.password_hash == user.password_hash, User.active)
            .values(**changed)
            .returning(User.id)
            .execution_options(synchronize_session=False)
        )
        if still is None:
            # Changed while the hash was computed: whoever did so has ended the sessions, and would not see this one.
            refusals.note(Refusal(username, user.id, place, "refused"))
            raise Unauthenticated(WRONG)
        session.add(made.row)
        await session.flush()
        await session.refresh(made.row, ["expires_at"])
        entry = entry_of(user.id, username, place, "done", credential_id=made.row.id)
        await session.run_sync(audit.record, entry)
    tally.count("login", label="done")
    return Login(made.token, made.row.expires_at, made.csrf_token)


async def authenticate(sessions: Sessions, rules: AuthSettings, token: str) -> Seen:
    """The caller whose session this is.

    Raises:
        Unauthenticated: no such session, or it has ended, or the user is deactivated.
    """
    hashed = hash_token(token)
    idle = timedelta(seconds=rules.session_idle)
    query = (
        select(
            LoginSession,
            User,
            (LoginSession.token_hash == hashed).label("current"),
            (_NOW - LoginSession.last_used_at).label("unused"),
            (_NOW - LoginSession.rotated_at).label("age"),
        )
        .join(User, LoginSession.user_id == User.id)
        .where(
            or_(
                LoginSession.token_hash == hashed,
                and_(LoginSession.previous_hash == hashed, LoginSession.previous_until > _NOW),
            ),
            LoginSession.revoked_at.is_(None),
            LoginSession.expires_at > _NOW,
            LoginSession.last_used_at > _NOW - idle,
            User.active,
        )
    )
    async with sessions() as session:
        found = (await session.execute(query)).one_or_none()
    if found is None:
        raise Unauthenticated("The session is not valid or has ended. Log in again.")
    row, user, current, unused, age = found
    if unused > used_rarely(idle):
        await _touch(sessions, row.id)
    principal = Principal(
        id=user.id,
        username=user.username,
        role=Role(user.role),
        created_at=user.created_at,
        means=Means.SESSION if row.csrf_hash is None else Means.COOKIE,
        credential_id=row.id,
        csrf_hash=row.csrf_hash,
    )
    share = timedelta(seconds=rules.session_lifetime * rules.session_rotation)
    return Seen(principal, current and age > share, row.expires_at)


async def rotate(sessions: Sessions, rules: AuthSettings, token: str) -> Login | None:
    """Replace a token; the old one is good for a moment more. None if another request has just done it."""
    fresh = secrets.token_urlsafe(TOKEN_BYTES)
    async with sessions.begin() as session:
        expires_at = await session.scalar(
            update(LoginSession)
            .where(
                LoginSession.token_hash == hash_token(token),
                LoginSession.revoked_at.is_(None),
                LoginSession.expires_at > _NOW,
            )
            .values(
                token_hash=hash_token(fresh),
                previous_hash=LoginSession.token_hash,
                previous_until=_NOW + timedelta(seconds=rules.session_grace),
                rotated_at=_NOW,
            )
            .returning(LoginSession.expires_at)
        )
    return None if expires_at is None else Login(fresh, expires_at)


async def logout(sessions: Sessions, session_id: UUID) -> None:
    """End a session; ending it again does nothing."""
    async with sessions.begin() as session:
        await session.execute(
            update(LoginSession)
            .where(LoginSession.id == session_id, LoginSession.revoked_at.is_(None))
            .values(revoked_at=_NOW)
        )


async def logout_everywhere(sessions: Sessions, user_id: UUID) -> int:
    """End all sessions of a user; answers how many."""
    async with sessions.begin() as session:
        return await end_sessions(session, user_id)


async def list_sessions(
    sessions: Sessions,
    rules: AuthSettings,
    *,
    limit: int,
    before: UUID | None = None,
    user_id: UUID | None = None,
) -> tuple[list[tuple[LoginSession, str]], UUID | None]:
    """Sessions that are alive, newest first, each with its user's name; and the id to go on before."""
    query: Select[LoginSession, str] = (
        select(LoginSession, User.username)
        .join(User, User.id == LoginSession.user_id)
        .where(
            LoginSession.revoked_at.is_(None),
            LoginSession.expires_at > _NOW,
            LoginSession.last_used_at > _NOW - timedelta(seconds=rules.session_idle),
        )
        .order_by(LoginSession.id.desc())
        .limit(limit + 1)
    )
    if user_id is not None:
        query = query.where(LoginSession.user_id == user_id)
    if before is not None:
        query = query.where(LoginSession.id < before)
    async with sessions() as session:
        found = [(row, name) for row, name in await session.execute(query)]
    return found[:limit], found[limit - 1][0].id if len(found) > limit else None


async def revoke_session(sessions: Sessions, session_id: UUID, *, owner: UUID | None) -> None:
    """End one session, of ``owner`` only if one is given.

    Raises:
        NotFound: there is no such session, or it is somebody else's, or it has ended.
    """
    query = update(LoginSession).where(LoginSession.id == session_id, LoginSession.revoked_at.is_(None))
    if owner is not None:
        query = query.where(LoginSession.user_id == owner)
    async with sessions.begin() as session:
        done = await session.scalar(query.values(revoked_at=_NOW).returning(LoginSession.id))
        if done is None:
            raise NotFound("There is no session with this id. GET /api/v1/sessions lists yours.")


def hash_token(token: str) -> bytes:
    """What is stored of a token. It is random, so a plain hash cannot be guessed back, unlike a password's."""
    return sha256(token.encode(errors="replace")).digest()


@dataclass(frozen=True, slots=True)
class _New:
    row: LoginSession
    token: str
    csrf_token: str | None


def _new_row(user: User, rules: AuthSettings, place: Place, *, browser: bool) -> _New:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    csrf_token = secrets.token_urlsafe(TOKEN_BYTES) if browser else None
    row = LoginSession(
        id=new_id(),
        user_id=user.id,
        token_hash=hash_token(token),
        csrf_hash=None if csrf_token is None else hash_token(csrf_token),
        address=place.address,
        user_agent=(place.user_agent or "")[:LONGEST_AGENT] or None,
        expires_at=_NOW + timedelta(seconds=rules.session_lifetime),
    )
    return _New(row, token, csrf_token)


async def _touch(sessions: Sessions, session_id: UUID) -> None:
    async with sessions.begin() as session:
        await session.execute(
            update(LoginSession).where(LoginSession.id == session_id).values(last_used_at=_NOW)
        )
