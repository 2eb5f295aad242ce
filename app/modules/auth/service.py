"""Users, login and sessions. Tokens are opaque, 256 random bits, and stored only as SHA-256.

Each function is one unit of work: it opens its own session, and commits before it returns.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.errors import Conflict, FieldError, InvalidInput, Unauthenticated
from app.modules.auth.models import LoginSession, User
from app.modules.auth.passwords import MAX_LENGTH, hash_password, verify_password
from app.scheduling.ids import new_id

Sessions = async_sessionmaker[AsyncSession]

TOKEN_BYTES: Final = 32
MIN_PASSWORD: Final = 8
MAX_USERNAME: Final = 150


class Role(StrEnum):
    """What a user may do; each includes the ones before."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Whether this role may do what ``other`` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Login:
    """A new session: the only time that its token is known."""

    token: str
    expires_at: datetime


async def create_user(sessions: Sessions, *, username: str, password: str, role: str) -> User:
    """Add a user.

    Raises:
        InvalidInput: the name, the password or the role will not do.
        Conflict: the name is taken.
    """
    _check_new_user(username, password, role)
    user = await _add_user(sessions, username, password, role)
    if user is None:
        raise Conflict("A user of this name exists; choose another name.")
    return user


async def ensure_admin(sessions: Sessions, username: str, password: str) -> bool:
    """Add an administrator unless the name is taken; True if it was added.

    An existing user keeps its password and role. Several processes may call this at once.

    Raises:
        InvalidInput: the name or the password will not do.
    """
    _check_new_user(username, password, Role.ADMIN)
    async with sessions() as session:
        if await session.scalar(select(User.id).where(User.username == username)):
            return False
    return await _add_user(sessions, username, password, Role.ADMIN) is not None


async def login(sessions: Sessions, username: str, password: str, *, lifetime: timedelta) -> Login:
    """Start a session.

    Raises:
        Unauthenticated: the same for an unknown name, a wrong password and a deactivated user.
    """
    user = None
    if _is_text(username, MAX_USERNAME):
        async with sessions() as session:
            user = await session.scalar(select(User).where(User.username == username, User.active))
    # No connection is held meanwhile: hashing takes a tenth of a second, and may have to wait.
    fits, newer = await verify_password(password, user.password_hash if user else None)
    if user is None or not fits:
        raise Unauthenticated("The username or the password is wrong.")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    async with sessions.begin() as session:
        if newer is not None:
            await session.execute(
                update(User)
                .where(User.id == user.id, User.password_hash == user.password_hash)
                .values(password_hash=newer)
            )
        inserted = await session.execute(
            insert(LoginSession)
            .values(
                id=new_id(),
                user_id=user.id,
                token_hash=_hash_token(token),
                expires_at=func.clock_timestamp() + lifetime,
            )
            .returning(LoginSession.expires_at)
        )
        return Login(token, inserted.scalar_one())


async def authenticate(sessions: Sessions, token: str) -> User:
    """The user whose session this is.

    Raises:
        Unauthenticated: no such session, or it has ended, or the user is deactivated.
    """
    async with sessions() as session:
        user = await session.scalar(
            select(User)
            .join(LoginSession, LoginSession.user_id == User.id)
            .where(
                LoginSession.token_hash == _hash_token(token),
                LoginSession.revoked_at.is_(None),
                LoginSession.expires_at > func.clock_timestamp(),
                User.active,
            )
        )
    if user is None:
        raise Unauthenticated("The session is not valid or has ended. Log in again.")
    return user


async def logout(sessions: Sessions, token: str) -> None:
    """End a session; ending it again does nothing."""
    async with sessions.begin() as session:
        await session.execute(
            update(LoginSession)
            .where(LoginSession.token_hash == _hash_token(token), LoginSession.revoked_at.is_(None))
            .values(revoked_at=func.clock_timestamp())
        )


async def _add_user(sessions: Sessions, username: str, password: str, role: str) -> User | None:
    password_hash = await hash_password(password)
    async with sessions.begin() as session:
        return await session.scalar(
            insert(User)
            .values(id=new_id(), username=username, password_hash=password_hash, role=role)
            .on_conflict_do_nothing(index_elements=[User.username])
            .returning(User)
        )


def _hash_token(token: str) -> bytes:
    # The token is random, so a plain hash cannot be guessed back, unlike a password's.
    return sha256(token.encode(errors="replace")).digest()


def _is_text(value: str, longest: int) -> bool:
    return 0 < len(value) <= longest and value.isprintable()


def _check_new_user(username: str, password: str, role: str) -> None:
    errors = []
    if not _is_text(username, MAX_USERNAME) or username != username.strip():
        errors.append(
            FieldError(
                "username", f"Must have 1 to {MAX_USERNAME} printable characters, no space at either end."
            )
        )
    if not MIN_PASSWORD <= len(password) <= MAX_LENGTH:
        errors.append(FieldError("password", f"Must have {MIN_PASSWORD} to {MAX_LENGTH} characters."))
    if role not in set(Role):
        errors.append(FieldError("role", f"Must be one of {', '.join(Role)}."))
    if errors:
        raise InvalidInput(errors)
