"""Facts worth telling, alerts, webhooks and their deliveries; indexes for the live streams.

Revision: 0012

A fact is written by a trigger, in the transaction that makes it one, whoever changes the state. The triggers look only
at updates that end a run badly or take a schedule out of service, so the usual path evaluates one condition.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
TAGS = """COALESCE((SELECT array_agg(tag) FROM jsonb_array_elements_text(
        CASE WHEN jsonb_typeof({extra} -> 'tags') = 'array' THEN {extra} -> 'tags' ELSE '[]' END) AS tag), '{{}}')"""

RUN_FACT = f"""
CREATE FUNCTION upbeat_run_fact() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind text := CASE NEW.state WHEN 'expired' THEN 'schedule.missed' ELSE 'run.failed' END;
    config celery_periodic_task_configs;
BEGIN
    IF NEW.schedule_id IS NOT NULL THEN
        SELECT * INTO config FROM celery_periodic_task_configs c WHERE c.id = NEW.schedule_id;
    END IF;
    INSERT INTO facts (type, at, schedule_id, run_id, task, tags, data)
    VALUES (kind, NEW.finished_at, NEW.schedule_id, NEW.id, NEW.task, {TAGS.format(extra="config.task_extra_config")},
        jsonb_build_object(
            'run_id', NEW.id, 'task', NEW.task, 'queue', NEW.queue, 'origin', NEW.origin, 'state', NEW.state,
            'reason', NEW.reason, 'attempt', NEW.attempt, 'scheduled_for', NEW.scheduled_for,
            'started_at', NEW.started_at, 'finished_at', NEW.finished_at,
            'error', CASE WHEN NEW.error IS NOT NULL THEN jsonb_build_object(
                'type', NEW.error ->> 'type', 'message', left(NEW.error ->> 'message', 500)) END,
            'schedule_id', NEW.schedule_id, 'schedule', config.task_name));
    RETURN NULL;
END $$
"""

RUN_TRIGGER = """
CREATE TRIGGER fact AFTER UPDATE OF state ON celery_task_runs FOR EACH ROW
WHEN (NEW.state IN ('failed', 'timed_out', 'lost', 'expired') AND OLD.state IN ('queued', 'running')
      AND (NEW.state <> 'expired' OR NEW.origin = 'schedule'))
EXECUTE FUNCTION upbeat_run_fact()
"""

SCHEDULE_FACT = f"""
CREATE FUNCTION upbeat_schedule_fact() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO facts (type, at, schedule_id, task, tags, data)
    VALUES ('schedule.' || NEW.state, clock_timestamp(), NEW.id, NEW.task, {TAGS.format(extra="NEW.task_extra_config")},
        jsonb_build_object(
            'schedule_id', NEW.id, 'schedule', NEW.task_name, 'task', NEW.task, 'version', NEW.version,
            'reason', NEW.state_reason, 'paused_by', NEW.paused_by, 'note', NEW.pause_note));
    RETURN NULL;
END $$
"""

SCHEDULE_TRIGGER = """
CREATE TRIGGER fact AFTER UPDATE OF state ON celery_periodic_task_configs FOR EACH ROW
WHEN (NEW.state <> OLD.state AND (NEW.state = 'invalid'
      OR NEW.state = 'paused' AND (NEW.paused_by = 'upbeat' OR NEW.paused_by LIKE 'agent:%')))
EXECUTE FUNCTION upbeat_schedule_fact()
"""

MISSED_FACT = f"""
CREATE FUNCTION upbeat_missed_fact() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO facts (type, at, schedule_id, task, tags, data)
    SELECT 'schedule.missed', clock_timestamp(), c.id, c.task, {TAGS.format(extra="c.task_extra_config")},
        jsonb_build_object(
            'schedule_id', c.id, 'schedule', c.task_name, 'task', c.task, 'reason', NEW.reason,
            'first', NEW.first, 'last', NEW.last, 'count', NEW.count)
    FROM celery_periodic_task_configs c WHERE c.id = NEW.schedule_id;
    RETURN NULL;
END $$
"""

MISSED_TRIGGER = """
CREATE TRIGGER fact AFTER INSERT ON celery_task_missed_ranges FOR EACH ROW
WHEN (NEW.reason IN ('missed', 'catchup_window', 'catchup_limit'))
EXECUTE FUNCTION upbeat_missed_fact()
"""


def instant(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def texts(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, ARRAY(sa.Text), **options)


def upgrade() -> None:
    facts()
    alerts()
    webhooks()
    for function, trigger in (
        (RUN_FACT, RUN_TRIGGER),
        (SCHEDULE_FACT, SCHEDULE_TRIGGER),
        (MISSED_FACT, MISSED_TRIGGER),
    ):
        op.execute(function)
        op.execute(trigger)
    op.create_index(
        "ix_celery_periodic_task_configs_grace",
        "celery_periodic_task_configs",
        ["id"],
        postgresql_where=sa.text("task_extra_config ? 'grace'"),
    )
    op.create_index(None, "celery_periodic_task_config_versions", ["changed_at"])
    op.create_index(
        "ix_celery_task_runs_finished",
        "celery_task_runs",
        ["finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )


def facts() -> None:
    op.create_table(
        "facts",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        instant("at", nullable=False, server_default=NOW),
        sa.Column("schedule_id", sa.Uuid),
        sa.Column("run_id", sa.Uuid),
        sa.Column("task", sa.Text),
        texts("tags", nullable=False, server_default="{}"),
        sa.Column("data", JSONB, nullable=False),
        instant("taken_at"),
    )
    op.create_index("ix_facts_untaken", "facts", ["id"], postgresql_where=sa.text("taken_at IS NULL"))
    op.create_index(None, "facts", ["at"])


def alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("schedule_id", sa.Uuid),
        sa.Column("run_id", sa.Uuid),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False, server_default="1"),
        instant("opened_at", nullable=False, server_default=NOW),
        instant("last_at", nullable=False, server_default=NOW),
        instant("acknowledged_at"),
        sa.Column("acknowledged_by", sa.Text),
        sa.Column("note", sa.Text),
        instant("closed_at"),
    )
    op.create_index(
        "uq_alerts_open",
        "alerts",
        ["kind", "subject"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(None, "alerts", ["schedule_id", "id"])
    op.create_index(None, "alerts", ["closed_at"])


def webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("enabled", sa.Boolean, nullable=False, server_default="true"),
        texts("event_types", nullable=False),
        sa.Column("schedule_ids", ARRAY(sa.Uuid)),
        texts("tasks"),
        texts("tags"),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("previous_secret", sa.LargeBinary),
        instant("previous_until"),
        instant("secret_set_at", nullable=False, server_default=NOW),
        instant("created_at", nullable=False, server_default=NOW),
        instant("updated_at", nullable=False, server_default=NOW),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("webhook_id", sa.Uuid, sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("fact_id", sa.BigInteger, sa.ForeignKey("facts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="pending"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("tries_left", sa.Integer, nullable=False),
        instant("next_attempt_at"),
        sa.Column("status", sa.SmallInteger),
        sa.Column("error", sa.Text),
        sa.Column("duration", sa.Float),
        instant("created_at", nullable=False, server_default=NOW),
        instant("last_attempt_at"),
        instant("delivered_at"),
        sa.UniqueConstraint("fact_id", "webhook_id"),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
    )
    op.create_index(None, "webhook_deliveries", ["webhook_id", "id"])
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["webhook_id", "next_attempt_at"],
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_celery_task_runs_finished", "celery_task_runs")
    op.drop_index(
        "ix_celery_periodic_task_config_versions_changed_at", "celery_periodic_task_config_versions"
    )
    op.drop_index("ix_celery_periodic_task_configs_grace", "celery_periodic_task_configs")
    for table, function in (
        ("celery_task_missed_ranges", "upbeat_missed_fact"),
        ("celery_periodic_task_configs", "upbeat_schedule_fact"),
        ("celery_task_runs", "upbeat_run_fact"),
    ):
        op.execute(f"DROP TRIGGER fact ON {table}")
        op.execute(f"DROP FUNCTION {function}()")
    for table in ("webhook_deliveries", "webhooks", "alerts", "facts"):
        op.drop_table(table)
