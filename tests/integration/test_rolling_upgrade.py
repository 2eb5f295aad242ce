"""Old and new code side by side: what migrations may do to the schema of the code before them, and how that code
behaves on a schema that it does not know."""

from collections.abc import Mapping
from dataclasses import replace

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from app.cli.doctor.servers import postgres
from app.cli.reach import require_migrated
from app.db import sync_engine
from app.db.migrate import Standing, compared, head, upgrade
from app.settings import Settings
from support.catalog import Catalog, Column, broken, read
from support.processes import ROOT
from support.servers import Servers, settings_for

# Conditions that no row of older code can meet, each with its reason.
HARMLESS: Mapping[str, set[str]] = {
    "0006": {  # the column came with it, and who does not know it leaves it NULL
        (
            "celery_periodic_task_configs has a new condition: CREATE UNIQUE INDEX ON public.celery_periodic_task_configs"
            " USING btree (owner, owner_key) WHERE (owner IS NOT NULL)"
        )
    }
}


def test_each_migration_leaves_what_the_code_before_it_reads_and_writes(
    servers: Servers, redis_url: str
) -> None:
    settings = settings_for(servers.postgres.url, servers.new_database(migrated=False), redis_url)
    script = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    engine = sync_engine(settings.database, name="test")
    before, found = None, {}
    for revision in reversed([each.revision for each in script.walk_revisions()]):
        upgrade(settings, revision)
        with engine.connect() as connection:
            after = read(connection)
        if before is not None and (problems := broken(before, after)):
            found[revision] = set(problems)
        before = after
    engine.dispose()
    assert found == HARMLESS


TABLE = Catalog(
    {"t": {"id": Column("uuid", required=True), "note": Column("text", required=False)}},
    {"t": frozenset({"CHECK (id IS NOT NULL)"})},
    frozenset({"f(integer)"}),
)


def with_columns(**columns: Column) -> Catalog:
    return replace(TABLE, columns={"t": {**TABLE.columns["t"], **columns}})


@pytest.mark.parametrize(
    ("after", "problems"),
    [
        (TABLE, []),
        (replace(TABLE, columns={**TABLE.columns, "new": {"id": Column("uuid", required=True)}}), []),
        (with_columns(more=Column("text", required=False)), []),
        (replace(TABLE, conditions={"t": frozenset()}), []),
        (with_columns(more=Column("text", required=True)), ["t.more has to be given"]),
        (with_columns(note=Column("text", required=True)), ["t.note has to be given"]),
        (with_columns(note=Column("integer", required=False)), ["t.note is integer, was text"]),
        (replace(TABLE, columns={"t": {"id": Column("uuid", required=True)}}), ["t.note is gone"]),
        (replace(TABLE, columns={}), ["t is gone"]),
        (replace(TABLE, functions=frozenset()), ["f(integer) is gone"]),
        (
            replace(TABLE, conditions={"t": TABLE.conditions["t"] | {"CHECK (note <> '')"}}),
            ["t has a new condition: CHECK (note <> '')"],
        ),
    ],
)
def test_what_breaks_older_code(after: Catalog, problems: list[str]) -> None:
    assert broken(TABLE, after) == problems


@pytest.mark.parametrize(
    ("found", "stands"),
    [
        (["2", "m1"], Standing.EVEN),
        ([], Standing.BEHIND),
        (["2"], Standing.BEHIND),  # a module's own line is missing
        (["1", "m1"], Standing.BEHIND),
        (["3", "m1"], Standing.AHEAD),
        (["3", "m2"], Standing.AHEAD),
        (["2", "m1", "gone"], Standing.AHEAD),  # a module that this code does not have
        (["1", "m2"], Standing.BEHIND),
    ],
)
def test_how_a_database_stands_to_the_code(found: list[str], stands: Standing) -> None:
    assert compared(found, heads=["2", "m1"], known=["1", "2", "m1"]) is stands


@pytest.fixture
def later(servers: Servers, redis_url: str) -> Settings:
    """Settings of a database that a later release has migrated."""
    name = servers.new_database()
    with psycopg.connect(servers.database_url(name), autocommit=True) as connection:
        connection.execute("ALTER TABLE celery_task_runs ADD COLUMN of_the_future text")
        connection.execute("UPDATE alembic_version SET version_num = 'later'")
    return settings_for(servers.postgres.url, name, redis_url)


def test_the_code_before_starts_and_stays_ready_on_a_later_schema(later: Settings) -> None:
    require_migrated(later)
    assert upgrade(later) is Standing.AHEAD
    (found,) = [each for each in postgres(later) if each.check == "migrations"]
    assert (found.verdict, "later release" in found.found) == ("warn", True)
    assert head() != "later"
