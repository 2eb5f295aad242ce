"""`guard`: what one round trip for the start and one for the end of a run cost, and where the time goes.

One connection, as a pool's child has it, and no other work: the round trips, the part of them that waits for the log
to be on disk (the same without that wait), and the processor time of both sides.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import event, text

from app.db import execute_alone, sync_engine, sync_sessions
from app.scheduling import runs
from app.scheduling.ids import new_id
from app.scheduling.liveness import register_worker
from bench.chores import places
from bench.contestants import process_clock
from bench.report import report
from bench.worker.crew import INSERT
from support.servers import Servers, settings_for

PID = text("SELECT pg_backend_pid() AS pid")
SUCCEEDED = runs.Outcome(runs.RunState.SUCCEEDED, result=1)


def measure(servers: Servers, folder: Path, *, quick: bool) -> None:
    """Both with and without waiting for the disk, in turns."""
    count, rounds = (500, 2) if quick else (2_000, 5)
    settings = settings_for(servers.postgres.url, servers.new_database(), servers.new_redis_url())
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with_session = sync_sessions(sync_engine(settings.database, name="bench"))
    engines = {durable: sync_engine(settings.database, name="bench-guard") for durable in found}
    event.listen(engines[False], "connect", _do_not_wait)
    worker = new_id()
    with with_session.begin() as session:
        register_worker(session, worker, name="bench", pid=1, queues=[], lease=3600)
    for _ in range(rounds):
        for durable, engine in engines.items():
            ids = [new_id() for _ in range(count)]
            with with_session.begin() as session:
                session.execute(INSERT, {"task": places.NOOP, "ids": ids})
            found[durable].append(_pass(partial(execute_alone, engine), worker, ids))
    waited, relaxed = (
        {key: median(each[key] for each in found[kind]) for key in found[kind][0]} for kind in (True, False)
    )
    report(
        "worker",
        "guard",
        count,
        waited["start"] + waited["finish"],
        "µs a task",
        microseconds={key: round(value) for key, value in waited.items()},
        without_waiting_for_the_disk={key: round(value) for key, value in relaxed.items()},
    )


def _do_not_wait(connection: Any, _: object) -> None:
    connection.execute("SET synchronous_commit = off")
    connection.commit()


def _pass(single: Callable[..., Any], worker: Any, ids: list[Any]) -> dict[str, float]:
    backend = process_clock(single(PID, {})[0])
    began = time.process_time(), time.clock_gettime(backend)
    starts, ends = 0.0, 0.0
    for run_id in ids:
        first = time.perf_counter()
        claim: runs.Claim = {"attempt": 1, "worker_id": worker, "worker": "bench@host", "token": new_id()}
        started = runs.start_alone(single, run_id, **claim)
        second = time.perf_counter()
        ended = runs.finish_alone(single, run_id, attempt=1, outcome=SUCCEEDED, worker_id=worker)
        ends += time.perf_counter() - second
        starts += second - first
        if started is None or not ended:
            raise RuntimeError(f"run {run_id} was not executed")
    own, database = time.process_time() - began[0], time.clock_gettime(backend) - began[1]
    parts = {"start": starts, "finish": ends, "cpu of the worker": own, "cpu of the database": database}
    return {key: 1e6 * seconds / len(ids) for key, seconds in parts.items()}
