"""A paused queue in the engine: nothing of it starts, wake-ups do not pile up, and what waited goes on."""

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from app.scheduling import explaining
from app.scheduling.models import QueuePauseRow
from app.scheduling.runs import RunState
from support.engine import Engine


def pause(engine: Engine, queue: str = "celery") -> None:
    with engine.sync.begin() as session:
        session.execute(insert(QueuePauseRow).values(queue=queue, paused_by="me", note="moving house"))


def resume(engine: Engine) -> None:
    with engine.sync.begin() as session:
        session.execute(delete(QueuePauseRow))


def test_no_run_of_a_paused_queue_starts(engine: Engine) -> None:
    held = engine.create()
    limited = engine.create(concurrency_limit=1)
    free = engine.create(queue="system")
    pause(engine)
    engine.passes(60)
    runs = {schedule: engine.rows(schedule)[0] for schedule in (held, limited, free)}
    assert engine.start(runs[held].id) is None
    assert engine.start(runs[limited].id) is None
    assert engine.start(runs[free].id) is not None
    assert {engine.rows(each)[0].state for each in (held, limited)} == {RunState.QUEUED}
    resume(engine)
    engine.execute(runs[held].id)
    engine.execute(runs[limited].id)


def test_a_beat_sends_no_wake_up_twice_while_it_is_paused(engine: Engine) -> None:
    schedule = engine.create({"type": "crontab", "expression": "0 13 * * *"}, start_deadline=None)
    engine.passes(3600)
    (run,) = engine.rows(schedule)
    pause(engine)
    engine.wakeups.sent.clear()
    # The broker has none of them: they were taken, and found the queue paused.
    engine.wakeups.lengths["celery"] = 0
    for _ in range(20):
        engine.passes(300)
    assert engine.wakeups.sent == []
    resume(engine)
    engine.passes(5)
    engine.passes(0.001)
    assert [each.run_id for each in engine.wakeups.sent] == [run.id]


def test_the_ledger_says_why_it_waits(engine: Engine) -> None:
    schedule = engine.create()
    pause(engine)
    engine.passes(60)
    (run,) = engine.rows(schedule)

    def why(session: Session) -> explaining.Explanation:
        assert run.scheduled_for is not None
        return explaining.explain(session, schedule, run.scheduled_for)

    with engine.sync() as session:
        found = why(session)
    assert (found.verdict, found.reason) == ("queued", "queue_paused")
    assert "paused by me" in found.explanation
    assert "moving house" in found.explanation
