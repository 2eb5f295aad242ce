"""`claims`: claim, insert and advance, without publishing, by one beat and by two at once."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from statistics import median

from sqlalchemy import text

from bench.beats.population import arm_first
from bench.contestants import ROOT, Beat, Ended
from bench.engine.field import BENCH, Field
from bench.report import report

DUE = 20_000


def measure(field: Field) -> None:
    """One and two in turns."""
    due = min(DUE, field.size)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2 if field.quick else 3 if field.size > 100_000 else 5):
        for beats, found in rates.items():
            found.append(_rate(field, beats, due))
    one, two = median(rates[1]), median(rates[2])
    rounds = {str(beats): [round(rate) for rate in found] for beats, found in rates.items()}
    report(
        BENCH,
        "claims",
        field.size,
        two,
        "claims/s of two beats",
        peer="one beat of ours",
        peer_value=one,
        rounds=rounds,
    )


def _rate(field: Field, beats: int, due: int) -> float:
    sessions = field.sessions()
    arm_first(sessions, due, datetime.now(UTC) - timedelta(seconds=5))
    command = [sys.executable, "-W", "ignore", "-m", "bench.beats.claimer"]
    claimers = [
        Beat(
            subprocess.Popen(
                command,
                env=field.ours.environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        for _ in range(beats)
    ]
    try:
        for claimer in claimers:
            claimer.expect("ready", 60)
        for claimer in claimers:
            claimer.tell("go")
        done = [claimer.expect("done", 120) for claimer in claimers]
    finally:
        for claimer in claimers:
            claimer.end()
    with sessions() as session:
        runs = session.scalar(text("SELECT count(*) FROM celery_task_runs WHERE state = 'queued'"))
    if sum(each["claimed"] for each in done) != due or runs != due:
        raise Ended(f"{due} were due, {done} claimed, {runs} runs made")
    return due / (max(each["ended"] for each in done) - min(each["began"] for each in done))
