"""Least privilege in PostgreSQL: what each kind of process may do with each table, and nothing else.

Three roles log in: `upbeat_api`, `upbeat_worker` and `upbeat_beat`. The role that migrates owns everything but the
partitioned tables: those belong to `upbeat_partitions`, of which workers and beats are members, because making and
dropping months is ownership's. No role of the three can change what is in the audit, and only the API's can read
password hashes.
"""

from typing import Final

from sqlalchemy import Connection, text

from app.db.base import Base
from app.db.partitions import partitions

API: Final = "upbeat_api"
WORKER: Final = "upbeat_worker"
BEAT: Final = "upbeat_beat"
PARTITIONS: Final = "upbeat_partitions"
LOGINS: Final = (API, WORKER, BEAT)

PARTITIONED: Final = ("celery_task_runs", "celery_task_run_attempts", "celery_task_run_logs")
_WORDS: Final = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}

# What API, worker and beat may do: S select, I insert, U update (and lock rows), D delete.
TABLES: Final[dict[str, tuple[str, str, str]]] = {
    "alembic_version": ("S", "S", "S"),
    # Identity: the API's alone. Workers clear away old sessions and count them.
    "users": ("SIUD", "", ""),
    "user_sessions": ("SIUD", "SUD", ""),
    "user_session_statistics": ("S", "SIU", ""),
    "api_keys": ("SIUD", "", ""),
    "login_throttles": ("SIUD", "", ""),
    "idempotency_keys": ("SIUD", "", ""),
    "audit_log": ("SI", "", ""),
    # Schedules: the API edits them; the end of a run and a firing change their state.
    "celery_periodic_task_configs": ("SIUD", "SU", "SU"),
    "celery_periodic_task_config_versions": ("SI", "SIUD", "SI"),
    "celery_periodic_task_clocks": ("SIUD", "SU", "SU"),
    "celery_task_missed_ranges": ("SI", "SIUD", "SI"),
    "calendars": ("SIUD", "S", "S"),
    "celery_task_catalogues": ("SIUD", "", "SIUD"),
    # Runs. Old ones are deleted by a worker's task.
    "celery_task_runs": ("SIU", "SIUD", "SIU"),
    "celery_task_run_attempts": ("SI", "SID", "SI"),
    "celery_task_run_logs": ("S", "SID", ""),
    "celery_task_late_outcomes": ("S", "SIUD", "SI"),
    # Limits by key: whoever ends a run frees its slot.
    "celery_task_limits": ("SIUD", "SIUD", "SIUD"),
    # Foreign ids, chords and groups: the end of a run goes on with what follows it, whoever ends it.
    "celery_task_ids": ("SIU", "SIUD", "SIUD"),
    "celery_task_chords": ("SU", "SIUD", "SIUD"),
    "celery_task_groups": ("S", "SIUD", "SIUD"),
    # Paused queues: people pause them, starts and wake-ups look.
    "celery_queue_pauses": ("SIUD", "S", "S"),
    # Facts are written by whoever makes them so; the API makes alerts and deliveries of them.
    "facts": ("SIUD", "SI", "SI"),
    "alerts": ("SIUD", "S", "S"),
    "webhooks": ("SIUD", "SU", ""),
    "webhook_deliveries": ("SIUD", "", ""),
    # Who is alive, and what people ask of them.
    "celery_workers": ("SU", "SIUD", "SUD"),
    "celery_beats": ("S", "SUD", "SIUD"),
    # Agents: the API edits them, workers call them and note their health.
    "agents": ("SIUD", "SU", ""),
    "agent_usage": ("SIUD", "SIU", ""),
    "agent_calls": ("SIUD", "SIUD", ""),
}


def allowed() -> dict[str, tuple[str, str, str]]:
    """`TABLES`, and those of modules that say it of themselves: ``{"info": {"privileges": ("SI", "S", "")}}``."""
    own = {
        name: table.info["privileges"]
        for name, table in Base.metadata.tables.items()
        if "privileges" in table.info
    }
    return TABLES | own


def grant(connection: Connection, *, embedded_beat: bool = False) -> None:
    """Make the roles that are missing, and give each what it needs; repeat it after each migration.

    The caller owns the tables and may make roles. New roles have no password, so nobody can log in as them before one
    is set. ``embedded_beat`` is for an API that runs a beat inside: it may then do what a beat may.
    """
    connection.execute(text("SET LOCAL lock_timeout = '4s'"))
    for statement in statements(connection, embedded_beat=embedded_beat):
        connection.execute(text(statement))


def statements(connection: Connection, *, embedded_beat: bool = False) -> list[str]:
    """The SQL of `grant` for this database; tables that are not there are left out."""
    quote = connection.dialect.identifier_preparer.quote
    database = quote(str(connection.scalar(text("SELECT current_database()"))))
    tables = text("SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'public'")
    present = {row.tablename: row.tableowner for row in connection.execute(tables)}
    everybody = ", ".join(LOGINS)
    membership = "GRANT" if embedded_beat else "REVOKE"
    return [
        *(_role(name, "LOGIN") for name in LOGINS),
        _role(PARTITIONS, "NOLOGIN"),
        f"GRANT {PARTITIONS} TO CURRENT_USER",
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC, {everybody}",
        f"GRANT CONNECT ON DATABASE {database} TO {everybody}",
        f"REVOKE ALL ON SCHEMA public FROM PUBLIC, {everybody}",
        f"GRANT USAGE ON SCHEMA public TO {everybody}",
        f"GRANT USAGE, CREATE ON SCHEMA public TO {PARTITIONS}",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, {everybody}",
        f"GRANT {PARTITIONS} TO {WORKER}, {BEAT}",
        f"{membership} {BEAT} {'TO' if embedded_beat else 'FROM'} {API}",
        # Only those that are not: even an owner that stays the same waits for all who look at the table, and everybody
        # else behind it.
        *(
            f"ALTER TABLE {name} OWNER TO {PARTITIONS}"
            for name in _family(connection)
            if present.get(name, PARTITIONS) != PARTITIONS
        ),
        *(
            f"GRANT {', '.join(_WORDS[letter] for letter in letters)} ON {table} TO {role}"
            for table, rights in allowed().items()
            if table in present
            for role, letters in zip(LOGINS, rights, strict=True)
            if letters
        ),
    ]


def _role(name: str, kind: str) -> str:
    # "IF NOT EXISTS" does not exist for roles, and two databases of a server share them.
    return (
        f"DO $$ BEGIN CREATE ROLE {name} {kind} NOSUPERUSER NOCREATEDB NOCREATEROLE;"
        " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )


def _family(connection: Connection) -> list[str]:
    """The partitioned tables and their months."""
    months = [month.name for parent in PARTITIONED for month in partitions(connection, parent)]
    return [*PARTITIONED, *months]
