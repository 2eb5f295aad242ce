"""What happens to PostgreSQL, its sessions, its locks and its clock."""

import signal
import time
from contextlib import suppress
from datetime import timedelta

import psycopg
from psycopg import sql

from support.soak.field import Field
from support.soak.kinds import kind

OURS = "datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'upbeat%'"
LOOKED_FOR = 1.0
LOCK_PATIENCE = "SET lock_timeout = '1s'"


def _backends(field: Field, what: str, which: str) -> bool:
    """Do it to a few sessions of ours; those that are meant may be so for a moment only."""
    with field.database() as connection:
        query = f"SELECT pid FROM pg_stat_activity WHERE {OURS} AND ({which})"
        end = time.monotonic() + LOOKED_FOR
        while not (pids := [pid for (pid,) in connection.execute(query)]) and time.monotonic() < end:
            pass
        chosen = field.chance.sample(pids, min(len(pids), field.chance.randint(1, 3)))
        for pid in chosen:
            connection.execute(f"SELECT {what}(%s)", [pid])
    return bool(chosen)


@kind("sessions terminated", 2.0)
def terminated(field: Field) -> bool:
    return _backends(field, "pg_terminate_backend", "true")


@kind("all sessions terminated", 0.6)
def all_terminated(field: Field) -> bool:
    with field.database() as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
    return True


@kind("sessions terminated inside their transactions", 1.5)
def terminated_inside(field: Field) -> bool:
    return _backends(field, "pg_terminate_backend", "xact_start IS NOT NULL")


@kind("statements cancelled, as by a time-out", 1.5)
def cancelled(field: Field) -> bool:
    return _backends(field, "pg_cancel_backend", "state = 'active' OR xact_start IS NOT NULL")


@kind("beats' ears cut: notifications are lost", 1.0)
def deaf(field: Field) -> bool:
    return _backends(field, "pg_terminate_backend", "application_name LIKE '%listen%'")


@kind("PostgreSQL restarted immediately", 0.15)
def crashed(field: Field) -> bool:
    return _restart(field, signal.SIGQUIT)


@kind("PostgreSQL restarted fast", 0.1)
def restarted(field: Field) -> bool:
    return _restart(field, signal.SIGINT)


def _restart(field: Field, number: signal.Signals) -> bool:
    if not field.servers.is_running("postgres"):
        return False
    field.servers.stop("postgres", number)
    field.later(field.chance.uniform(0, 1.5), field.start_postgres)
    return True


def _hold(field: Field, statement: str, longest: float) -> bool:
    """A session that takes locks and keeps them for a while."""
    connection = field.held()
    try:
        connection.execute(LOCK_PATIENCE)
        connection.execute(statement)
    except psycopg.Error:
        connection.close()
        return False
    field.later(field.chance.uniform(0.2, longest), connection.close)
    return True


@kind("somebody locks schedules", 1.5)
def locked_schedules(field: Field) -> bool:
    return _hold(field, "SELECT 1 FROM celery_periodic_task_clocks FOR UPDATE SKIP LOCKED", 3)


@kind("somebody locks runs", 1.5)
def locked_runs(field: Field) -> bool:
    statement = (
        "SELECT 1 FROM celery_task_runs WHERE state IN ('queued', 'running') LIMIT 50 FOR UPDATE SKIP LOCKED"
    )
    return _hold(field, statement, 3)


@kind("a table is locked, as by a migration", 0.8)
def locked_table(field: Field) -> bool:
    tables = (
        "celery_task_runs",
        "celery_periodic_task_configs",
        "celery_periodic_task_clocks",
        "celery_workers",
    )
    return _hold(field, f"LOCK TABLE {field.chance.choice(tables)} IN ACCESS EXCLUSIVE MODE", 1.5)


@kind("deadlocks: locks taken in the wrong order", 1.0)
def deadlocks(field: Field) -> bool:
    connection = field.held()
    with suppress(psycopg.Error):
        connection.execute("SET deadlock_timeout = '5s'")
        connection.execute("SET lock_timeout = '1500ms'")
        connection.execute(
            "SELECT 1 FROM celery_task_runs WHERE state IN ('queued', 'running') ORDER BY id DESC LIMIT 50 FOR UPDATE"
        )
        connection.execute("SELECT 1 FROM celery_periodic_task_clocks ORDER BY schedule_id DESC FOR UPDATE")
    connection.close()
    return True


@kind("no connection is left", 0.5)
def crowded(field: Field) -> bool:
    taken: list[psycopg.Connection] = []
    with suppress(psycopg.Error):
        while len(taken) < 250:
            taken.append(field.held())

    def leave() -> None:
        for connection in taken:
            connection.close()

    field.later(field.chance.uniform(0.5, 2), leave)
    return True


@kind("the database is read-only", 0.6)
def read_only(field: Field) -> bool:
    _configure(field, "ALTER SYSTEM SET default_transaction_read_only = on")
    field.later(
        field.chance.uniform(0.3, 2.5),
        lambda: _configure(field, "ALTER SYSTEM RESET default_transaction_read_only"),
    )
    return True


def _configure(field: Field, statement: str) -> None:
    with field.database() as connection:
        connection.execute(statement)
        connection.execute("SELECT pg_reload_conf()")


@kind("no room for what is written to disk", 0.6)
def no_room(field: Field) -> bool:
    """As a full disk for whatever extends a run: the partition refuses every new row."""
    with field.database() as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION test_clock.full() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END$$"
        )
        connection.execute(LOCK_PATIENCE)
        try:
            connection.execute(
                "CREATE TRIGGER test_full BEFORE INSERT OR UPDATE ON celery_task_runs"
                " FOR EACH ROW EXECUTE FUNCTION test_clock.full()"
            )
        except psycopg.Error:
            return False

    def room() -> None:
        with field.database() as admin:
            admin.execute("DROP TRIGGER IF EXISTS test_full ON celery_task_runs")

    field.later(field.chance.uniform(0.3, 2), room)
    return True


@kind("a partition is detached and attached", 0.5)
def detached(field: Field) -> bool:
    """The one of the newest bounds, which is empty."""
    with field.database() as connection:
        name, bounds = connection.execute(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = inhrelid"
            " WHERE inhparent = 'celery_task_runs'::regclass AND NOT inhdetachpending ORDER BY c.relname DESC LIMIT 1"
        ).fetchone() or ("", "")
        partition = sql.Identifier(name)
        connection.execute(LOCK_PATIENCE)
        with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
            detach = sql.SQL("ALTER TABLE celery_task_runs DETACH PARTITION {}")
            connection.execute(detach.format(partition))

            def attach() -> None:
                with field.database() as admin:
                    whole = sql.SQL("ALTER TABLE celery_task_runs ATTACH PARTITION {} {}")
                    with suppress(psycopg.errors.WrongObjectType):  # it is there already
                        admin.execute(whole.format(partition, sql.SQL(bounds)))

            field.later(field.chance.uniform(0.2, 1), attach)
            return True
    return False


@kind("the database's clock is set by up to two seconds", 1.0)
def clock_set(field: Field) -> bool:
    field.clock.shift(timedelta(seconds=field.chance.uniform(-2, 2)))
    field.later(field.chance.uniform(0.5, 4), lambda: field.clock.shift(timedelta(0)))
    return True
