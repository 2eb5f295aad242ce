"""The database's clock, in a test's hand: it stands still until the test moves it, or goes on, shifted by the test.

Functions of the same names come before PostgreSQL's own on the search path of one database, so the product asks
them without knowing. Only connections that are made after `install` see them; column defaults keep the real time.
"""

from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

SCHEMA = """
CREATE SCHEMA IF NOT EXISTS test_clock;
CREATE TABLE IF NOT EXISTS test_clock.hand (at timestamptz NOT NULL);
TRUNCATE test_clock.hand;
"""
FUNCTION = """
CREATE OR REPLACE FUNCTION test_clock.{}() RETURNS timestamptz
LANGUAGE sql VOLATILE AS 'SELECT at FROM test_clock.hand'
"""


SHIFTED = """
CREATE SCHEMA IF NOT EXISTS test_clock;
CREATE TABLE IF NOT EXISTS test_clock.shift (by interval NOT NULL);
TRUNCATE test_clock.shift;
INSERT INTO test_clock.shift VALUES ('0');
"""
SHIFTED_FUNCTION = """
CREATE OR REPLACE FUNCTION test_clock.{name}() RETURNS timestamptz
LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.{name}() + (SELECT by FROM test_clock.shift)'
"""
FIRST = "ALTER DATABASE {} SET search_path = test_clock, pg_catalog, public"


class ShiftedClock:
    """A clock that goes on, ahead of the real one or behind it. Column defaults keep the real time."""

    def __init__(self, url: str) -> None:
        """Take the clock over, for connections that are made from now on."""
        self._url = url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SHIFTED)
            for name in ("clock_timestamp", "statement_timestamp"):
                connection.execute(sql.SQL(SHIFTED_FUNCTION).format(name=sql.Identifier(name)))
            connection.execute(sql.SQL(FIRST).format(sql.Identifier(connection.info.dbname)))

    def shift(self, by: timedelta) -> None:
        """Be ahead of the real time by this much, at once and for everybody."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("UPDATE test_clock.shift SET by = %s", (by,))


class DatabaseClock:
    """The clock of one database; instants are aware."""

    def __init__(self, url: str) -> None:
        self._url = url

    def install(self, at: datetime) -> None:
        """Take the clock over, and set it."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(SCHEMA)
            for name in ("clock_timestamp", "statement_timestamp"):
                connection.execute(sql.SQL(FUNCTION).format(sql.Identifier(name)))
            connection.execute("INSERT INTO test_clock.hand VALUES (%s)", (at,))
            connection.execute(sql.SQL(FIRST).format(sql.Identifier(connection.info.dbname)))
        self._at = at

    @property
    def now(self) -> datetime:
        return self._at

    def set(self, at: datetime) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("UPDATE test_clock.hand SET at = %s", (at,))
        self._at = at.astimezone(UTC)

    def advance(self, seconds: float) -> datetime:
        self.set(self._at + timedelta(seconds=seconds))
        return self._at
