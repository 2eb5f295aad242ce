"""PostgreSQL and Redis: reachable, new enough, and set up so that nothing is lost."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import psycopg
import redis
from sqlalchemy.exc import DBAPIError

from app.cli.doctor.findings import Finding, fail, ok, skipped, warn
from app.cli.reach import reach_database
from app.db.engines import sync_engine
from app.db.migrate import Standing, current, head, standing
from app.errors import ConfigurationError
from app.settings import Settings

OLDEST_POSTGRES = 140_000
OLDEST_REDIS = (6, 2)
CLOCK_TOLERANCE = 2.0  # seconds
MEMORY_SHARE = 0.9


def postgres(settings: Settings) -> Iterator[Finding]:
    """Reachable, version, clock, revision, writable."""
    try:
        reach_database(settings)
    except ConfigurationError as error:
        yield fail("postgresql", _first_sentence(error.detail), _postgres_remedy(error.detail))
        return
    name = settings.database.name
    url = settings.database.product_url().render_as_string(hide_password=False)
    try:
        with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
            yield from _look_at(connection, settings)
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        yield fail(
            "postgresql",
            f"The database {name} cannot be used: {reason}",
            "Run `upbeat migrate`, which makes it.",
        )


def _look_at(connection: psycopg.Connection[Any], settings: Settings) -> Iterator[Finding]:
    place = settings.database.server_url()
    info = connection.info
    version = f"PostgreSQL {info.parameter_status('server_version')} at {place.host}:{place.port or 5432}"
    if info.server_version < OLDEST_POSTGRES:
        yield fail("postgresql", version, "Upgrade to PostgreSQL 14 or newer.")
    else:
        yield ok("postgresql", f"{version}, database {settings.database.name}")
    yield _clock(connection)
    yield _writable(connection)
    yield _revision(settings)


def _clock(connection: psycopg.Connection[Any]) -> Finding:
    before = datetime.now(UTC)
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    after = datetime.now(UTC)
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return clock(row[0], before, after)


def clock(theirs: datetime, before: datetime, after: datetime) -> Finding:
    """``theirs`` was read between the other two, which are of this host."""
    difference = (theirs - (before + (after - before) / 2)).total_seconds()
    if abs(difference) > CLOCK_TOLERANCE:
        return warn(
            "clock",
            f"the database's clock is {abs(difference):.1f} s {'ahead of' if difference > 0 else 'behind'} this host's",
            "Only the database's clock decides, so nothing is fired twice; but ticks come by that clock, and logs"
            " are hard to read. Synchronise both hosts (NTP).",
        )
    return ok("clock", f"the database's clock differs from this host's by {abs(difference) * 1000:.0f} ms")


def _writable(connection: psycopg.Connection[Any]) -> Finding:
    row = connection.execute(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'"
    ).fetchone()
    replica, read_only = row or (False, False)
    if replica or read_only:
        why = "is a replica" if replica else "is read-only (default_transaction_read_only)"
        return fail(
            "writable",
            f"the database {why}",
            "Let DATABASE_URL name the primary server, or allow writing again.",
        )
    return ok("writable", "the database takes writes")


def _revision(settings: Settings) -> Finding:
    engine = sync_engine(settings.database, name="upbeat-doctor")
    try:
        with engine.connect() as connection:
            found, stands = current(connection), standing(connection)
    except DBAPIError as error:
        return fail("migrations", str(error.orig).splitlines()[0], "Run `upbeat migrate`.")
    finally:
        engine.dispose()
    if stands is Standing.EVEN:
        return ok("migrations", f"at the newest revision, {found}")
    if stands is Standing.AHEAD:
        return warn(
            "migrations",
            f"at revision {found}, which is later than this code's {head()}: a later release has migrated it",
            "That is as it should be during an upgrade; end it by replacing what still runs this code.",
        )
    return fail(
        "migrations", f"at revision {found or 'none'}, this code needs {head()}", "Run `upbeat migrate`."
    )


def _postgres_remedy(detail: str) -> str:
    if "password" in detail or "role" in detail:
        return "Correct user and password in DATABASE_URL."
    if "not set" in detail or "not an address" in detail:
        return "Set DATABASE_URL, or start the embedded servers with `upbeat start` or `make up`."
    return "Start it, or correct the address in DATABASE_URL."


def redis_server(settings: Settings) -> Iterator[Finding]:
    """Reachable, version, eviction, persistence, memory, role."""
    try:
        url = settings.broker.url()
    except ConfigurationError as error:
        yield fail(
            "redis",
            _first_sentence(error.detail),
            "Set REDIS_URL, or start the embedded servers with `upbeat start`.",
        )
        return
    seconds = settings.broker.socket_timeout
    try:
        with redis.Redis.from_url(
            url, socket_connect_timeout=seconds, socket_timeout=seconds, decode_responses=True
        ) as client:
            info: Mapping[str, Any] = client.info()
            saves = _asked(lambda: client.config_get("save").get("save"))
    except ValueError as error:
        yield fail(
            "redis", f"REDIS_URL is not an address: {error}", "It looks like redis://:PASSWORD@HOST:6379/0."
        )
        return
    except redis.AuthenticationError as error:
        yield fail("redis", f"Redis refuses the password: {error}", "Correct the password in REDIS_URL.")
        return
    except redis.RedisError as error:
        yield fail(
            "redis", f"Redis cannot be used: {error}", "Start it, or correct the address in REDIS_URL."
        )
        return
    yield from judge_redis(info, saves)


def judge_redis(info: Mapping[str, Any], saves: str | None) -> Iterator[Finding]:
    """``info`` is what INFO says, ``saves`` the setting `save`, None where asking is not allowed."""
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        yield fail("redis", f"Redis {version}", "Upgrade to Redis 6.2 or newer.")
    elif info.get("role") == "slave":
        yield fail("redis", f"Redis {version} is a replica", "Let REDIS_URL name the primary server.")
    else:
        yield ok("redis", f"Redis {version}")
    yield _eviction(info)
    yield _persistence(info, saves)
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if limit and used > MEMORY_SHARE * limit:
        yield fail(
            "redis memory",
            f"{used / 1e6:.1f} of {limit / 1e6:.1f} MB are used",
            "Raise maxmemory: a full Redis takes no wake-ups, and runs wait for a beat to send them again.",
        )


def _eviction(info: Mapping[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return skipped("redis eviction", "the policy is not told")
    if policy != "noeviction":
        return fail(
            "redis eviction",
            f"maxmemory-policy is {policy}: Redis may throw whole queues away",
            "CONFIG SET maxmemory-policy noeviction, and in redis.conf.",
        )
    return ok("redis eviction", "maxmemory-policy is noeviction")


def _persistence(info: Mapping[str, Any], saves: str | None) -> Finding:
    if info.get("rdb_last_bgsave_status") == "err" or info.get("aof_last_write_status") == "err":
        return fail(
            "redis persistence",
            "the last attempt to save failed; Redis may refuse writes",
            "Look at Redis's own log: the disk is full, or its folder cannot be written.",
        )
    if int(info.get("aof_enabled", 0)):
        return ok("redis persistence", "append-only file")
    if saves is None:
        return skipped("redis persistence", "asking for the setting is not allowed")
    if saves:
        return ok("redis persistence", f"snapshots ({saves})")
    return warn(
        "redis persistence",
        "none: a restart of Redis forgets its queues",
        "Nothing is lost, because runs are in PostgreSQL, but each waits until a beat has noticed. Set appendonly yes.",
    )


def _asked(question: Callable[[], str | None]) -> str | None:
    try:
        return question() or ""
    except redis.ResponseError:
        return None


def _first_sentence(text: str) -> str:
    return text.split(". ", maxsplit=1)[0].rstrip(".")
