"""Canvas, foreign task ids, chords, saved groups, late outcomes, and notification of who waits.

Revision: 0004
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

RUNS, ATTEMPTS = "celery_task_runs", "celery_task_run_attempts"
NOW = sa.text("clock_timestamp()")

# One place for all who end a run: worker, beat, API. The condition is evaluated without a call, and
# nobody pays for a notification that nobody waits for.
NOTIFY = """
CREATE FUNCTION celery_task_runs_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('upbeat_results', NEW.id::text || ' ' || COALESCE(NEW.canvas ->> 'id', ''));
    RETURN NULL;
END $$
"""
TRIGGERS = (
    f"""
CREATE TRIGGER notify_ended AFTER UPDATE OF finished_at ON {RUNS}
FOR EACH ROW WHEN (NEW.watched AND NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL)
EXECUTE FUNCTION celery_task_runs_notify()
""",
    f"""
CREATE TRIGGER notify_inserted AFTER INSERT ON {RUNS}
FOR EACH ROW WHEN (NEW.watched AND NEW.finished_at IS NOT NULL)
EXECUTE FUNCTION celery_task_runs_notify()
""",
)


def instant(name: str, **options: object) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), **options)  # type: ignore[arg-type]


def upgrade() -> None:
    op.add_column(RUNS, sa.Column("canvas", JSONB))
    op.add_column(RUNS, sa.Column("canvas_open", sa.Boolean, nullable=False, server_default="false"))
    op.add_column(RUNS, sa.Column("watched", sa.Boolean, nullable=False, server_default="false"))
    op.add_column(RUNS, sa.Column("cancel_forced", sa.Boolean, nullable=False, server_default="false"))
    op.add_column(RUNS, sa.Column("cancel_note", sa.Text))
    op.create_index(
        "ix_celery_task_runs_canvas",
        RUNS,
        ["id"],
        postgresql_where=sa.text("canvas_open AND finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_celery_task_runs_failed",
        RUNS,
        ["id"],
        postgresql_where=sa.text("state IN ('failed', 'timed_out', 'lost')"),
    )
    op.create_index(
        "ix_celery_task_runs_replay",
        RUNS,
        ["replay_of"],
        postgresql_where=sa.text("replay_of IS NOT NULL"),
    )
    op.create_table(
        "celery_task_late_outcomes",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("attempt", sa.SmallInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("worker_id", sa.Uuid),
        sa.Column("result", JSONB),
        sa.Column("error", JSONB),
        instant("reported_at", nullable=False, server_default=NOW),
    )
    op.create_index(None, "celery_task_late_outcomes", ["run_id"])
    op.create_table(
        "celery_task_ids",
        sa.Column("task_id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Uuid, nullable=False),
    )
    op.create_index(None, "celery_task_ids", ["run_id"])
    op.create_table(
        "celery_task_chords",
        sa.Column("group_id", sa.Text, primary_key=True),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("header", JSONB, nullable=False),
        sa.Column("size", sa.Integer),
        sa.Column("counted", sa.Integer, nullable=False, server_default="0"),
        instant("created_at", nullable=False, server_default=NOW),
        instant("fired_at"),
    )
    op.create_index(
        "ix_celery_task_chords_complete",
        "celery_task_chords",
        ["group_id"],
        postgresql_where=sa.text("fired_at IS NULL AND counted >= size"),
    )
    op.create_table(
        "celery_task_groups",
        sa.Column("group_id", sa.Text, primary_key=True),
        sa.Column("members", JSONB, nullable=False),
        instant("created_at", nullable=False, server_default=NOW),
    )
    op.execute(NOTIFY)
    for trigger in TRIGGERS:
        op.execute(trigger)


def downgrade() -> None:
    op.execute(f"DROP TRIGGER notify_inserted ON {RUNS}")
    op.execute(f"DROP TRIGGER notify_ended ON {RUNS}")
    op.execute("DROP FUNCTION celery_task_runs_notify()")
    for table in (
        "celery_task_groups",
        "celery_task_chords",
        "celery_task_ids",
        "celery_task_late_outcomes",
    ):
        op.drop_table(table)
    op.drop_index("ix_celery_task_runs_replay", RUNS)
    op.drop_index("ix_celery_task_runs_failed", RUNS)
    op.drop_index("ix_celery_task_runs_canvas", RUNS)
    for column in ("cancel_note", "cancel_forced", "watched", "canvas_open", "canvas"):
        op.drop_column(RUNS, column)
