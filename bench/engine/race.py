"""Beats in processes of their own that claim, insert and advance as fast as they can, and publish nothing."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import text

from bench.beats.population import arm_first
from bench.contestants import ROOT, Beat, Ended
from bench.engine.field import Field

COMMAND = (sys.executable, "-W", "ignore", "-m", "bench.beats.claimer")


@dataclass(frozen=True, slots=True)
class Race:
    """Claims a second of all beats together; ``beat`` and ``server`` are seconds of processor time for each claim:
    of the beats, and of whatever was watched.
    """

    rate: float
    beat: float
    server: float


def race(field: Field, beats: int, due: int, *, watched: Callable[[], float] = float) -> Race:
    """Let ``beats`` claim what is ``due``, each after a first batch that does not count.

    ``watched`` answers the processor time of the server so far.

    Raises:
        Ended: something was not claimed, or twice.
    """
    sessions = field.sessions()
    arm_first(sessions, due, datetime.now(UTC) - timedelta(seconds=5))
    with ExitStack() as ending:
        claimers = [_started(field) for _ in range(beats)]
        for claimer in claimers:
            ending.callback(claimer.end)
        ready = [claimer.expect("ready", 60) for claimer in claimers]
        before = watched()
        for claimer in claimers:
            claimer.tell("go")
        done = [claimer.expect("done", 120) for claimer in claimers]
        server = watched() - before
    with sessions() as session:
        runs = session.scalar(text("SELECT count(*) FROM celery_task_runs WHERE state = 'queued'"))
    if sum(each["claimed"] for each in (*ready, *done)) != due or runs != due:
        raise Ended(f"{due} were due, {ready} and {done} claimed, {runs} runs made")
    seconds = max(each["ended"] for each in done) - min(each["began"] for each in done)
    raced = sum(each["claimed"] for each in done)
    return Race(raced / seconds, sum(each["cpu"] for each in done) / raced, server / raced)


_popen = partial(subprocess.Popen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _started(field: Field) -> Beat:
    return Beat(_popen(COMMAND, env=field.ours.environment, cwd=ROOT))
