"""People in tests: made with a name of their own, so that tests of one module do not meet."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from fastapi import FastAPI
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.modules.auth import passwords, service
from support.api import log_in

PASSWORD = "correct horse battery staple"
_numbers = count(1)


async def person(app: FastAPI, role: str = "viewer") -> str:
    """The name of a new user, whose password is `PASSWORD`."""
    name = f"{role} {next(_numbers)}"
    await service.create_user(app.state.services.sessions, username=name, password=PASSWORD, role=role)
    return name


async def token_of(app: FastAPI, role: str = "viewer") -> str:
    """A session's token of a new user."""
    return await log_in(app, await person(app, role), PASSWORD)


@contextmanager
def cheap_passwords() -> Iterator[None]:
    """Hashes by the same algorithm with a hundredth of the work, for modules that log in a hundred times."""
    cheap = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=256, parallelism=1),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", cheap)
        passwords._hash_of_nobody.cache_clear()
        yield
    passwords._hash_of_nobody.cache_clear()
