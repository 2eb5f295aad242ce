"""People who may log in, for `upbeat users`."""

import asyncio

from app.cli.recorded import CommandLine
from app.db.companions import accompanied
from app.db.engines import async_engine, async_sessions
from app.modules.auth.service import create_user
from app.settings import Settings


def add_person(settings: Settings, username: str, password: str, role: str) -> None:
    """Add a user.

    Raises:
        InvalidInput: the name, the password or the role will not do.
        Conflict: the name is taken.
    """

    async def add() -> None:
        engine = async_engine(settings.database, name="upbeat-users")
        try:
            with accompanied(CommandLine("create_user", "users")):
                await create_user(async_sessions(engine), username=username, password=password, role=role)
        finally:
            await engine.dispose()

    asyncio.run(add())
