"""API keys made by hand, for `upbeat api-keys`."""

import asyncio
from datetime import UTC, datetime, timedelta

from app.cli.recorded import CommandLine
from app.db.companions import accompanied
from app.db.engines import async_engine, async_sessions
from app.errors import NotFound
from app.modules.auth.service import Means, NewKey, Principal, Role, create_key, list_users
from app.settings import Settings


def make_key(settings: Settings, username: str, name: str, scopes: list[str], days: int | None) -> NewKey:
    """A key that acts for a user, within ``scopes``: read, operate or admin.

    Raises:
        NotFound: there is no such user, or not an active one.
        InvalidInput: a scope allows more than the user may.
    """

    async def make() -> NewKey:
        engine = async_engine(settings.database, name="upbeat-api-keys")
        sessions = async_sessions(engine)
        try:
            found, _ = await list_users(sessions, limit=1000, search=username, active=True)
            user = next((each for each in found if each.username == username), None)
            if user is None:
                raise NotFound(
                    f"There is no active user {username}. `upbeat users create {username}` makes one."
                )
            owner = Principal(
                id=user.id,
                username=user.username,
                role=Role(user.role),
                created_at=user.created_at,
                means=Means.CLI,
                credential_id=user.id,
            )
            expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
            with accompanied(CommandLine("create_api_key", "api-keys")):
                return await create_key(
                    sessions, owner, name=name, scopes=scopes, expires_at=expires_at, resources=frozenset()
                )
        finally:
            await engine.dispose()

    return asyncio.run(make())
