"""What happens to running systems on purpose: code is removed, the schema is migrated, processes are stopped."""

import shutil
from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine, exc

from app.db.migrate import ROOT, alembic_config, head
from app.settings import Settings
from support import checker
from support.calling import calling
from support.polling import eventually
from support.stack import BOOT, Stack
from support.tasks import instant
from support.trial import EVERY_SECOND, EVERY_TICK_COUNTS, QUICK, Report, Trial

REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "next", {head!r}


def upgrade():
    for table in ("celery_task_runs", "celery_periodic_task_configs", "celery_workers"):
        op.add_column(table, sa.Column("noted", sa.Text()))
"""


def test_a_task_whose_code_was_removed(stack: Stack, trial: Trial, settings: Settings) -> None:
    """A run that waits for it fails and says why; its schedule is invalid before its hour comes."""
    trial.create({"type": "interval", "every": 1, "unit": "hours"})
    with calling(settings):
        run_id = str(instant.delay(1).id)
    stack.environment.update(QUICK | {"UPBEAT_TASK_MODULES": "support.calls"})
    stack.beat(wait=False)
    worker = stack.worker("-P", "threads")
    eventually(lambda: _how(trial, run_id) == ("failed", "task_not_registered"), 20, "the run to fail")
    eventually(lambda: "No task has this name" in _invalid(trial), 20, "the schedule to be invalid")
    assert worker.alive


def _how(trial: Trial, run_id: str) -> tuple[str, object]:
    """State and reason."""
    (run,) = [run for run in checker.read_runs(trial.url) if run.id == run_id]
    return run.state, run.document["reason"]


def _invalid(trial: Trial) -> str:
    """Why the schedule is invalid; nothing while it is not."""
    query = "SELECT state_reason FROM celery_periodic_task_configs WHERE id = %s AND state = 'invalid'"
    with psycopg.connect(trial.url) as connection:
        row = connection.execute(query, trial.schedules).fetchone()
    return "" if row is None else str(row[0])


@pytest.mark.full
def test_processes_are_replaced_and_the_schema_is_migrated_under_load(
    stack: Stack, trial: Trial, settings: Settings, tmp_path: Path, record_property: Report
) -> None:
    """Nothing is missed: each process ends by itself when asked to, and a column is added meanwhile."""
    stack.environment.update(QUICK)
    old = [stack.beat(wait=False), stack.worker("-P", "threads", wait=False), stack.worker(wait=False)]
    old[0].wait_for_output("beat: Starting", BOOT)
    for worker in old[1:]:
        worker.wait_for_output(" ready.", BOOT)
    trial.tick()
    trial.create(EVERY_SECOND, "support.nap", task_args=[0.5], task_extra_config=EVERY_TICK_COUNTS)
    trial.go_on(2)
    new = [stack.beat(), stack.worker("-P", "threads")]
    for process in old:
        process.terminate()
        assert process.wait(20) == 0
        assert "Traceback" not in process.output()
    record_property("migration waited for locks", _migrate(settings, tmp_path))
    trial.go_on(2)
    trial.stop()
    runs = trial.settle()
    record_property("latest tick, s", trial.lateness())
    assert all(process.alive for process in new)
    assert trial.verdict(runs, 3.0) == []
    assert {(run.state, run.attempt) for run in runs} == {("succeeded", 1)}


def _migrate(settings: Settings, folder: Path) -> int:
    """Add a column to three tables in use; answers how often a lock was not to be had in time."""
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    (folder / "migrations" / "versions" / "next.py").write_text(REVISION.format(head=head()))
    engine = create_engine(settings.database.product_url().set(drivername="postgresql+psycopg"))
    waited = 0

    def migrated() -> bool:
        nonlocal waited
        try:
            with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
                config = alembic_config(connection)
                config.set_main_option("script_location", str(folder / "migrations"))
                command.upgrade(config, "next")
        except exc.OperationalError:
            waited += 1
            return False
        return True

    eventually(migrated, 30, "the migration")
    engine.dispose()
    return waited
