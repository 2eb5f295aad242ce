"""A purge cancels what waits in a queue, frees who waited for that, and leaves the rest; and what `inspect` sees of it."""

from uuid import UUID

import redis
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import inspecting, purging, runs
from app.scheduling.config import RunOptions
from app.scheduling.ids import new_id
from app.scheduling.messages import Kind, RunMessage
from app.scheduling.policies import Reason
from app.scheduling.states import Origin, RunState
from app.worker import celery_app
from app.worker.publisher import CeleryPublisher
from support.api import _broker as broker
from support.engine import DELAY, TASK, Engine


def submit(sync: sessionmaker[Session], queue: str, *, due_in: float = 0.0, **options: object) -> UUID:
    with sync.begin() as session:
        run_id = new_id()
        runs.submit(
            session,
            task=TASK,
            args=[1],
            kwargs={"a": "ö"},
            options=RunOptions.model_validate({"queue": queue, **options}),
            origin=Origin.SUBMIT,
            redispatch_delay=DELAY,
            due_in=due_in,
            run_id=run_id,
        )
    return run_id


def states(sync: sessionmaker[Session]) -> dict[tuple[str, str, str | None], int]:
    with sync() as session:
        rows = session.execute(
            text(
                "SELECT queue, state, reason, count(*) AS n FROM celery_task_runs GROUP BY queue, state, reason"
            )
        )
        return {(row.queue, row.state, row.reason): row.n for row in rows}


def test_a_purge_goes_through_a_long_queue_in_batches(engine: Engine, sync: sessionmaker[Session]) -> None:
    number = 2 * purging.BATCH + 7
    for _ in range(number - 1):
        submit(sync, "priority_low")
    submit(sync, "priority_low", due_in=3600)
    submit(sync, "system")
    running = submit(sync, "priority_low")
    assert engine.start(running) is not None
    dropped: list[str] = []
    assert purging.queued(sync, ["priority_low"]) == number
    ended = list(purging.purge(sync, ["priority_low"], discard=dropped.extend))
    assert ended == [purging.BATCH, purging.BATCH, 7]
    assert dropped == ["priority_low"]
    assert states(sync) == {
        ("priority_low", "cancelled", "purged"): number,
        ("priority_low", "running", None): 1,
        ("system", "queued", None): 1,
    }
    assert list(purging.purge(sync, ["priority_low"])) == []


def test_a_purge_settles_the_schedule_and_ends_a_line_of_waiting_runs(
    engine: Engine, sync: sessionmaker[Session]
) -> None:
    schedule = engine.create(overlap="buffer_all", max_runs=5)
    for _ in range(3):
        engine.passes(60)
    assert sum(purging.purge(sync)) == 3
    assert states(sync) == {("celery", "cancelled", "purged"): 3}
    # A run that never started does not count towards max_runs.
    engine.passes(60)
    with sync() as session:
        count = session.execute(
            text("SELECT run_count FROM celery_periodic_task_clocks WHERE schedule_id = :id"),
            {"id": schedule},
        ).scalar_one()
    assert count == 1


def test_what_locks_a_schedule_or_a_key_is_ended_alone(engine: Engine, sync: sessionmaker[Session]) -> None:
    plain = [submit(sync, "system", due_in=60 * due) for due in (3, 1, 2)]
    limited = [submit(sync, "system", concurrency_limit=1, concurrency_key=key) for key in "ab"]
    with sync() as session:
        together, *alone = purging.parts(purging.page(session, purging.those_of(session, ["system"])))
    assert together == plain, "by their ids, not by when they are due"
    assert sorted(alone) == [[run_id] for run_id in limited]
    assert sum(purging.purge(sync, ["system"])) == 5


def test_what_inspect_reads(engine: Engine, sync: sessionmaker[Session]) -> None:
    engine.create()
    waits, later, runs_now, gone = (
        submit(sync, "celery"), submit(sync, "celery", due_in=30), submit(sync, "system"), submit(sync, "priority_high"),
    )  # fmt: skip
    assert engine.start(runs_now) is not None
    with sync.begin() as session:
        assert runs.end_queued(session, gone, RunState.CANCELLED, Reason.CANCELLED_BY_USER)
    with sync() as session:
        (active,) = inspecting.active(session, 10)
        assert (active.id, active.args, active.kwargs, active.worker) == (runs_now, [1], {"a": "ö"}, "w@host")
        assert [(each.kind, each.id == later) for each in inspecting.upcoming(session, 10)] == [
            ("run", True),
            ("tick", False),
        ]
        assert [each.id for each in inspecting.waiting(session, 10)] == [waits]
        (revoked,) = inspecting.revoked(session, 10)
        assert (revoked.id, revoked.reason) == (gone, "cancelled_by_user")
        found = {each.queue: each for each in inspecting.queues(session)}
        assert list(found) == ["system", "priority_high", "priority_low", "celery"]
        celery = found["celery"]
        assert (celery.waiting, celery.later, celery.running, celery.workers) == (1, 1, 0, 1)
        assert (found["system"].running, found["system"].workers) == (1, 0)
        (worker,) = inspecting.workers(session)
        assert (worker.name, worker.running) == ("w@host", 1)


def test_dropping_wakeups_leaves_other_queues(redis_url: str) -> None:
    with broker(redis_url):
        publisher = CeleryPublisher(celery_app)
        publisher.publish(
            [RunMessage(new_id(), Kind(TASK.name, queue)) for queue in ("celery", "celery", "system")]
        )
        assert publisher.discard(["celery", "priority_low"]) == 2
        publisher.close()
    with redis.Redis.from_url(redis_url) as client:
        assert (client.llen("celery"), client.llen("system")) == (0, 1)
