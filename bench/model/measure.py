"""The costs of this machine: processor time of each part for so many ticks and runs, on durable servers."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median

import psutil
from sqlalchemy import text

from app.scheduling.dispatch import Dispatcher
from bench.beats import places
from bench.beats.population import arm_first
from bench.beats.silence import Silence
from bench.contestants import OURS, ROOT, contestant
from bench.engine.field import Field
from bench.engine.race import Race, race
from bench.engine.rig import CATALOGUE, Rig
from bench.model.capacity import beats_together
from bench.model.costs import Costs, Point
from support.polling import eventually
from support.servers import Servers, running_servers

TICKS = 30_000
RUNS = 3_000
IDLE_SECONDS = 12.0
SETTLED = 5.0
HELD = 10_000
# Each race begins with a VACUUM; one that comes by itself falls upon some of them only.
STILL = ("autovacuum=off",)
WORKER = ("-m", "celery", "-A", "app.worker", "worker", "-c", "2", "--without-mingle", "--without-gossip")


def busy(pid: int) -> float:
    """Seconds that a process and its descendants, as they live now, have had a processor."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(
        int(thread.read_text().split()[0]) / 1e9
        for process in family
        for thread in Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    )


def measured(rounds: int) -> tuple[Costs, list[Point]]:
    """Costs, and the points with one, two and three beats to hold them against: medians of ``rounds`` in turns.

    The costs are those of one beat; what beats cost each other is what a second one falls short of them. Of three
    nothing is used.
    """
    races: dict[int, list[Race]] = {1: [], 2: [], 3: []}
    with running_servers(quick=False, options=STILL) as servers, contestant(OURS, servers, TICKS) as ours:
        field = Field(TICKS, ours, [], quick=True)
        rig = Rig(field)
        try:
            silent = Dispatcher(rig.sessions, Silence(), CATALOGUE, field.settings(), name="bench")
            fires = [
                (*_fire(servers, rig, silent), *_fire(servers, rig, rig.beat)) for _ in range(min(rounds, 3))
            ]
            skip = median(_skip(rig) for _ in range(3))
            runs, idle = _run(servers, rig)
        finally:
            rig.close()
        watched = partial(busy, servers.pid("postgres"))
        for _ in range(rounds):
            for beats, found in races.items():
                found.append(race(field, beats, TICKS, watched=watched))
    alone = races[1]
    claim, postgres = median(each.beat for each in alone), median(each.server for each in alone)
    wait = median(max(0.0, 1 / each.rate - each.beat - each.server) for each in alone)
    quiet, _, _, loud, _, redis = (median(each) for each in zip(*fires, strict=True))
    costs = Costs(
        claim_beat=claim,
        fire_beat=claim + max(0.0, loud - quiet),
        fire_postgres=postgres,
        fire_redis=redis,
        fire_wait=wait,
        skip=skip,
        company=1.0,
        run_worker=runs[0],
        run_postgres=runs[1],
        run_redis=runs[2],
        idle_postgres=idle[0],
        idle_redis=idle[1],
    )
    rates = {beats: tuple(each.rate for each in found) for beats, found in races.items()}
    points = [Point(beats, median(found), found) for beats, found in rates.items()]
    company = points[1].rate / beats_together(costs, 2, os.cpu_count() or 1)
    return replace(costs, company=min(1.0, company)), points


@contextmanager
def _watching(*pids: int) -> Iterator[list[float]]:
    """Fills the list with the seconds of each, when the context ends."""
    before, found = [busy(pid) for pid in pids], [0.0] * len(pids)
    yield found
    found[:] = [busy(pid) - then for pid, then in zip(pids, before, strict=True)]


def _fire(servers: Servers, rig: Rig, beat: Dispatcher) -> tuple[float, float, float]:
    """Of one tick: the beat, PostgreSQL, Redis."""
    rig.arm(TICKS)
    own, fired = time.process_time(), 0
    with _watching(servers.pid("postgres"), servers.pid("redis")) as found:
        while claimed := beat.fire():
            fired += claimed
        own = time.process_time() - own
    rig.contestant.forget_sent()
    postgres, redis = found
    return own / fired, postgres / fired, redis / fired


def _skip(rig: Rig) -> float:
    """Of one row that somebody else holds."""
    arm_first(rig.sessions, TICKS, datetime.now(UTC) - timedelta(seconds=2))
    claim = text(
        "SELECT schedule_id FROM celery_periodic_task_clocks WHERE next_run_at <= (SELECT clock_timestamp())"
        " ORDER BY next_run_at LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED"
    )
    hold = text(str(claim).replace("500", str(HELD)))
    times = []
    for held in (False, True):
        with rig.sessions() as holder, rig.sessions() as claimer:
            if held:
                holder.execute(hold).all()
            claimer.execute(text("SELECT 1"))
            began = time.perf_counter()
            claimer.execute(claim).all()
            times.append(time.perf_counter() - began)
    return max(0.0, times[1] - times[0]) / HELD


def _run(servers: Servers, rig: Rig) -> tuple[tuple[float, float, float], tuple[float, float]]:
    """Of one run: worker, PostgreSQL, Redis; and of a second in which a worker has nothing to do: the latter two."""
    rig.contestant.forget_sent()
    # Redis goes on for a while with what was thrown away.
    time.sleep(SETTLED)
    # What the servers do when nobody asks them anything is no worker's.
    with _watching(servers.pid("postgres"), servers.pid("redis")) as alone:
        time.sleep(IDLE_SECONDS)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", *WORKER],
        env=rig.contestant.environment | {"PYTHONUNBUFFERED": "1"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as worker:
        try:
            _drained(rig, 100)
            with _watching(servers.pid("postgres"), servers.pid("redis")) as idle:
                time.sleep(IDLE_SECONDS)
            rig.arm(RUNS)
            while rig.beat.fire():
                pass
            with _watching(worker.pid, servers.pid("postgres"), servers.pid("redis")) as found:
                left = _open(rig)
                eventually(lambda: _open(rig) == 0, 120, "all runs")
            done = max(1, left)
        finally:
            worker.terminate()
            worker.wait(30)
    own, postgres, redis = (each / done for each in found)
    idle_postgres, idle_redis = (
        max(0.0, with_it - without) / IDLE_SECONDS for with_it, without in zip(idle, alone, strict=True)
    )
    return (own, postgres, redis), (idle_postgres, idle_redis)


def _drained(rig: Rig, count: int) -> None:
    """The worker is there, and has run a few."""
    rig.arm(count)
    while rig.beat.fire():
        pass
    eventually(lambda: _open(rig) == 0, 120, "the first runs")


def _open(rig: Rig) -> int:
    with rig.sessions() as session:
        query = text(
            "SELECT count(*) FROM celery_task_runs WHERE state IN ('queued', 'running') AND task = :task"
        )
        return int(session.scalar(query, {"task": places.TASK}) or 0)
