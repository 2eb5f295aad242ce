"""Users: making, finding, changing and removing them. Each function is one unit of work, and commits.

There is always an active administrator: who would take the last one away is refused, also when two try at once.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db.companions import produced
from app.errors import Conflict, FieldError, InvalidInput, NotFound, TooManyRequests
from app.modules.auth.changes import changing
from app.modules.auth.models import LoginSession, User
from app.modules.auth.passwords import MAX_LENGTH, hash_password, verify_password
from app.modules.auth.refusals import Place, Refusal, Refusals
from app.modules.auth.roles import Principal, Role
from app.modules.auth.throttle import Throttle
from app.scheduling import versions
from app.scheduling.ids import new_id
from app.settings import AuthSettings

Sessions = async_sessionmaker[AsyncSession]

MIN_PASSWORD: Final = 8
MAX_USERNAME: Final = 150
LAST_ADMIN: Final = "This is the last active administrator. Make another one first."


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChange:
    """What an administrator changes of a user; None leaves it as it is."""

    role: Role | None = None
    active: bool | None = None
    password: str | None = None


async def create_user(sessions: Sessions, *, username: str, password: str, role: str) -> User:
    """Add a user.

    Raises:
        InvalidInput: the name, the password or the role will not do.
        Conflict: the name is taken.
    """
    check_new_user(username, password, role)
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
    check_new_user(username, password, Role.ADMIN)
    async with sessions() as session:
        if await session.scalar(select(User.id).where(User.username == username)):
            return False
    return await _add_user(sessions, username, password, Role.ADMIN) is not None


async def list_users(
    sessions: Sessions,
    *,
    limit: int,
    after: UUID | None = None,
    search: str | None = None,
    role: Role | None = None,
    active: bool | None = None,
) -> tuple[list[User], UUID | None]:
    """Users by age, oldest first, and the id to go on after; ``search`` is part of the name."""
    query = select(User).order_by(User.id).limit(limit + 1)
    if after is not None:
        query = query.where(User.id > after)
    if search:
        query = query.where(User.username.icontains(search, autoescape=True))
    if role is not None:
        query = query.where(User.role == role)
    if active is not None:
        query = query.where(User.active.is_(active))
    async with sessions() as session:
        found = list(await session.scalars(query))
    return found[:limit], found[limit - 1].id if len(found) > limit else None


async def get_user(sessions: Sessions, user_id: UUID) -> User:
    """One user.

    Raises:
        NotFound: there is none with this id.
    """
    async with sessions() as session:
        user = await session.get(User, user_id)
    if user is None:
        raise _no_user()
    return user


async def change_user(
    sessions: Sessions, user_id: UUID, change: UserChange, *, expected: Collection[int] | None = None
) -> User:
    """Change role, activity or password; a new password and a deactivation end the user's sessions.

    Raises:
        NotFound: there is none with this id.
        PreconditionFailed: they are at another version than the ``expected`` ones.
        InvalidInput: the password will not do.
        Conflict: there would be no active administrator any more.
    """
    if change.password is not None:
        check_password(change.password)
    password_hash = None if change.password is None else await hash_password(change.password)
    async with changing(sessions) as session:
        admins = await _locked_admins(session)
        user = await session.get(User, user_id, with_for_update=True)
        if user is None:
            raise _no_user()
        versions.require(user.version, expected, "user")
        demoted = change.role not in (None, Role.ADMIN)
        if (demoted or change.active is False) and admins == [user_id]:
            raise Conflict(LAST_ADMIN)
        user.role = change.role or user.role
        user.active = user.active if change.active is None else change.active
        user.password_hash = password_hash or user.password_hash
        user.version += 1
        if password_hash is not None or not user.active:
            await end_sessions(session, user_id)
        await session.flush()
    return user


async def delete_user(sessions: Sessions, user_id: UUID, *, expected: Collection[int] | None = None) -> None:
    """Remove a user with their sessions and keys; what they did stays in the audit.

    Raises:
        NotFound: there is none with this id.
        PreconditionFailed: they are at another version than the ``expected`` ones.
        Conflict: there would be no active administrator any more.
    """
    async with changing(sessions) as session:
        admins = await _locked_admins(session)
        user = await session.get(User, user_id, with_for_update=True)
        if user is None:
            raise _no_user()
        versions.require(user.version, expected, "user")
        if admins == [user_id]:
            raise Conflict(LAST_ADMIN)
        gone = await session.scalar(delete(User).where(User.id == user_id).returning(User.id))
        if gone is None:
            raise _no_user()


async def change_password(
    sessions: Sessions,
    rules: AuthSettings,
    owner: Principal,
    current: str,
    new: str,
    *,
    place: Place,
    refusals: Refusals,
) -> None:
    """Let a user change their own password; their other sessions end.

    Raises:
        InvalidInput: the current password is wrong, or the new one will not do.
        TooManyRequests: too many guesses were wrong.
    """
    check_password(new, "new_password")
    throttle = Throttle(rules, owner.username, place.address)
    refusal = partial(Refusal, owner.username, owner.id, place, action="change_own_password")
    try:
        await throttle.count(sessions)
    except TooManyRequests:
        refusals.note(refusal("throttled"))
        raise
    user = await get_user(sessions, owner.id)
    fits, _ = await verify_password(current, user.password_hash)
    if not fits:
        refusals.note(refusal("refused"))
        raise InvalidInput(
            FieldError("current_password", "Is not your password. An administrator can give you another.")
        )
    password_hash = await hash_password(new)
    async with sessions.begin() as session:
        await throttle.forgive(session)
        done = await session.scalar(
            update(User)
            .where(User.id == owner.id, User.password_hash == user.password_hash)
            .values(password_hash=password_hash, version=User.version + 1)
            .returning(User.id)
        )
        if done is None:
            raise Conflict("The password was changed by somebody else at this moment. Log in again.")
        await end_sessions(session, owner.id, but=owner.credential_id)


async def end_sessions(session: AsyncSession, user_id: UUID, *, but: UUID | None = None) -> int:
    """End a user's sessions, all or all but one; answers how many."""
    ended = await session.scalars(
        update(LoginSession)
        .where(LoginSession.user_id == user_id, LoginSession.revoked_at.is_(None), LoginSession.id != but)
        .values(revoked_at=func.clock_timestamp())
        .returning(LoginSession.id)
    )
    return len(ended.all())


def is_text(value: str, longest: int) -> bool:
    """Whether it can be a name at all."""
    return 0 < len(value) <= longest and value.isprintable()


def check_password(password: str, field: str = "password") -> None:
    """Raises InvalidInput when it is too short or too long."""
    if not MIN_PASSWORD <= len(password) <= MAX_LENGTH:
        raise InvalidInput(FieldError(field, f"Must have {MIN_PASSWORD} to {MAX_LENGTH} characters."))


def check_new_user(username: str, password: str, role: str) -> None:
    """Raises InvalidInput with everything that will not do."""
    errors = []
    if not is_text(username, MAX_USERNAME) or username != username.strip():
        errors.append(
            FieldError(
                "username", f"Must have 1 to {MAX_USERNAME} printable characters, no space at either end."
            )
        )
    try:
        check_password(password)
    except InvalidInput as error:
        errors += error.errors
    if role not in set(Role):
        errors.append(FieldError("role", f"Must be one of {', '.join(Role)}."))
    if errors:
        raise InvalidInput(errors)


async def _add_user(sessions: Sessions, username: str, password: str, role: str) -> User | None:
    password_hash = await hash_password(password)
    async with sessions.begin() as session:
        made = await session.scalar(
            insert(User)
            .values(id=new_id(), username=username, password_hash=password_hash, role=role)
            .on_conflict_do_nothing(index_elements=[User.username])
            .returning(User)
        )
        produced(session, made)
    return made


async def _locked_admins(session: AsyncSession) -> list[UUID]:
    """The active administrators, locked in one order: two who demote each other take turns."""
    query = select(User.id).where(User.role == Role.ADMIN, User.active).order_by(User.id).with_for_update()
    return list(await session.scalars(query))


def _no_user() -> NotFound:
    return NotFound("There is no user with this id. GET /api/v1/users lists them.")
