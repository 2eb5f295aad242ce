"""What it costs a task to have its log stored: the same runs with `UPBEAT_LOG_RUNS` on and off."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from bench.report import report
from support.ledger import Ledger
from support.processes import Process, Processes
from support.servers import running_servers, settings_for
from support.stack import Stack, stack_environment

RUNS = 2000
ROUNDS = 3
PATIENCE = 300.0

SUBMIT = """
import sys
from app.worker import app
app.loader.import_default_modules()
task = app.tasks["talkative.chatter"]
for _ in range(int(sys.argv[1])):
    task.delay(int(sys.argv[2]))
"""
ELAPSED = """
SELECT count(*), EXTRACT(EPOCH FROM max(finished_at) - min(started_at))::float
FROM celery_task_runs WHERE finished_at IS NOT NULL
"""


def run(*, quick: bool, **_: Any) -> None:
    """Runs that print nothing, one line, and ten, in two prefork children."""
    runs = RUNS // 4 if quick else RUNS
    with running_servers(quick=False) as servers:
        for printed in (0, 10) if quick else (0, 1, 10):
            rates: dict[str, list[float]] = {"true": [], "false": []}
            for _ in range(1 if quick else ROUNDS):
                for stored, found in rates.items():
                    found.append(_rate(servers, runs, printed, stored))
            with_logs, without = median(rates["true"]), median(rates["false"])
            report(
                "run_logs",
                "stored",
                printed,
                with_logs,
                "runs/s",
                peer="logs-off",
                peer_value=without,
                rounds={key: [round(rate) for rate in found] for key, found in rates.items()},
            )


def _rate(servers: Any, runs: int, printed: int, stored: str) -> float:
    settings = settings_for(servers.postgres.url, servers.new_database(), servers.new_redis_url())
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        environment = stack_environment(
            servers.postgres.url, settings.database.name, settings.broker.url(), ledger
        )
        environment |= {"UPBEAT_TASK_MODULES": "support.talkative", "UPBEAT_LOG_RUNS": stored}
        subprocess.run([sys.executable, "-c", SUBMIT, str(runs), str(printed)], env=environment, check=True)
        processes = Processes(Path(folder))
        engine = sync_engine(settings.database, name="bench")
        try:
            worker = Stack(processes, environment, Ledger(ledger)).worker("-l", "WARNING", wait=False)
            return runs / _elapsed(sync_sessions(engine), runs, worker)
        finally:
            engine.dispose()
            processes.end()


def _elapsed(sessions: sessionmaker[Session], runs: int, worker: Process) -> float:
    """Seconds from the first start to the last end."""
    end, ended = time.monotonic() + PATIENCE, 0
    while worker.alive and time.monotonic() < end:
        time.sleep(0.2)
        with sessions() as session:
            ended, seconds = session.execute(text(ELAPSED)).one()
        if ended == runs:
            return float(seconds)
    raise RuntimeError(f"{ended} of {runs} runs ended\n{worker.output()[-2000:]}")
