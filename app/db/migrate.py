"""Bring the database to the newest revision: made when missing, one migration at a time.

An advisory lock lets any number of processes call this at once; lock and statement timeouts are
set in `migrations/env.py`, so that a migration never queues up behind an open transaction and
blocks everybody behind itself for longer than `LOCK_PATIENCE`: it lets them pass, and tries again.
"""

import time
from collections.abc import Collection, Iterable
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from app.db.engines import maintenance_engine
from app.errors import ConfigurationError
from app.settings import Settings

# The second is what the later of two is told who make it at the same time.
_MADE_ALREADY = ("42P04", "23505")
_BUSY = "55P03"

# Seconds that a migration waits for a table, that it leaves it alone after that, and how often it does so.
LOCK_PATIENCE = 4.0
LOCK_PAUSE = 1.0
LOCK_TRIES = 30

ROOT = Path(__file__).resolve().parents[2]


class Standing(StrEnum):
    """How a database stands to this code."""

    BEHIND = "behind"  # it lacks revisions of this code
    EVEN = "even"
    AHEAD = "ahead"  # a later release has migrated it, and takes nothing away that this code uses


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, bound to an open connection if one is given; `alembic.ini` is for its own command."""
    config = Config()
    config.set_main_option("script_location", _literal([ROOT / "migrations"]))
    if own := sorted((ROOT / "app" / "modules").glob("*/migrations")):
        # A business module brings its own: a line of revisions beside the product's, which `depends_on` ties to it.
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", _literal([ROOT / "migrations" / "versions", *own]))
    config.attributes["connection"] = connection
    return config


def head() -> str | None:
    """The newest revision that this code knows; with modules that have their own, the newest of each, with commas."""
    return _joined(ScriptDirectory.from_config(alembic_config()).get_heads())


def current(connection: Connection) -> str | None:
    """The revision that the database is at, as `head` names it; None before the first migration."""
    return _joined(MigrationContext.configure(connection).get_current_heads())


def standing(connection: Connection) -> Standing:
    """How the database stands to this code."""
    script = ScriptDirectory.from_config(alembic_config())
    found = MigrationContext.configure(connection).get_current_heads()
    return compared(found, script.get_heads(), {each.revision for each in script.walk_revisions()})


def compared(found: Collection[str], heads: Collection[str], known: Collection[str]) -> Standing:
    """How the revisions ``found`` in a database stand to the ``heads`` among those that code has ``known``.

    What it does not know was made later, for whatever is older is among its files; then heads that are not there
    have been passed.
    """
    ahead = any(each not in known for each in found)
    if any(each in known and each not in heads for each in found):
        return Standing.BEHIND
    if ahead:
        return Standing.AHEAD
    return Standing.EVEN if set(found) == set(heads) else Standing.BEHIND


def create_database(settings: Settings) -> bool:
    """Make the product's database on its server if it is missing; True if it was made.

    Raises:
        ConfigurationError: the server cannot be reached, or the role may not create databases.
    """
    target = settings.database.product_url()
    engine = maintenance_engine(settings.database.server_url())
    try:
        with engine.connect() as connection:
            found = connection.scalar(
                text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": target.database}
            )
            if found:
                return False
            quoted = engine.dialect.identifier_preparer.quote(str(target.database))
            try:
                connection.execute(text(f"CREATE DATABASE {quoted}"))
            except (ProgrammingError, IntegrityError) as error:
                if getattr(error.orig, "sqlstate", None) in _MADE_ALREADY:
                    return False
                raise ConfigurationError(
                    f"The database {target.database} is missing and this role may not create it."
                    " Create it as a role that may, or give this role CREATEDB."
                ) from error
            return True
    except OperationalError as error:
        raise ConfigurationError(
            f"PostgreSQL at {target.host}:{target.port or 5432} cannot be reached: check DATABASE_URL"
            " and that the server runs."
        ) from error
    finally:
        engine.dispose()


def upgrade(settings: Settings, revision: str = "heads") -> Standing:
    """Create the database when missing and migrate it up to ``revision``; one that is ahead is left as it is.

    Answers how it stood before.

    Raises:
        ConfigurationError: as `create_database`; or a later release has migrated a part of it, and another is behind;
            or a table was in use all the time.
    """
    create_database(settings)
    engine = maintenance_engine(settings.database.product_url())
    try:
        with engine.connect() as connection:
            before = standing(connection)
    finally:
        engine.dispose()
    if before is not Standing.AHEAD:
        try:
            _upgrade_patiently(settings, revision)
        except CommandError as error:
            raise ConfigurationError(f"This code cannot migrate the database: {error}.") from error
    return before


def _upgrade_patiently(settings: Settings, revision: str) -> None:
    for _ in range(LOCK_TRIES):
        try:
            return _run(settings, command.upgrade, revision)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _BUSY:
                raise
        time.sleep(LOCK_PAUSE)
    raise ConfigurationError(
        "The migration waits for a table that a long transaction uses; the view pg_stat_activity tells which. End"
        " that, and migrate again: what was done so far stays."
    )


def downgrade(settings: Settings, revision: str) -> None:
    """Migrate down to ``revision`` (`base` for an empty database)."""
    _run(settings, command.downgrade, revision)


def check(settings: Settings) -> None:
    """Raise alembic's AutogenerateDiffsDetected if models and database differ."""
    engine = maintenance_engine(settings.database.product_url())
    try:
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
            command.check(alembic_config(connection))
    finally:
        engine.dispose()


def _joined(revisions: Iterable[str]) -> str | None:
    return ", ".join(sorted(revisions)) or None


def _literal(folders: Iterable[Path]) -> str:
    return "\n".join(str(folder).replace("%", "%%") for folder in folders)


def _run(settings: Settings, step: object, revision: str) -> None:
    engine = maintenance_engine(settings.database.product_url())
    try:
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
            step(alembic_config(connection), revision)  # type: ignore[operator]
    finally:
        engine.dispose()
