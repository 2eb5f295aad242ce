"""Password hashes: argon2id, in few threads, because each takes 64 MiB and all of a core."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError

MAX_LENGTH = 1024
CONCURRENCY = 2

_hasher = PasswordHash.recommended()
_threads = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="passwords")


async def hash_password(password: str) -> str:
    """The hash to store."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, password)


async def verify_password(password: str, stored: str | None) -> tuple[bool, str | None]:
    """Whether it fits, and a newer hash to store if the parameters have changed.

    Without a stored hash the same work is done and the answer is no, so that the time does not
    tell which users exist.
    """
    return await asyncio.get_running_loop().run_in_executor(_threads, _verify, password, stored)


def _verify(password: str, stored: str | None) -> tuple[bool, str | None]:
    nobody = _hash_of_nobody()
    try:
        fits, newer = _hasher.verify_and_update(password[:MAX_LENGTH], stored or nobody)
    except UnknownHashError:
        return False, None
    if stored is None or len(password) > MAX_LENGTH:
        return False, None
    return fits, newer


@lru_cache(maxsize=1)
def _hash_of_nobody() -> str:
    return _hasher.hash("nobody has this password")
