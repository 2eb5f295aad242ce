"""Signature drift: schedules that do not fit their tasks any more are found before their hour comes."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.errors import Conflict
from app.scheduling import drift, on_demand
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.dispatch import Dispatcher
from app.scheduling.drift import Change, Drift
from app.scheduling.ids import new_id
from app.scheduling.parameters import Parameters
from support.engine import CATALOGUE, EVERY_MINUTE, Engine, checked


def narrower(count: int, *, a: str) -> None: ...


def changed(count: int, *, region: str) -> None: ...


def _catalogue(function: Any, **more: Any) -> Catalogue:
    known = Parameters(function)
    return Catalogue(
        [
            TaskSpec(
                name="module.task", path="module.tasks.task", aliases=("old.task",), parameters=known, **more
            )
        ]
    )


FITS, CHANGED = _catalogue(narrower), _catalogue(changed)
GONE, FORBIDDEN = Catalogue([TaskSpec(name="other", path="other")]), _catalogue(narrower, schedulable=False)


def _check(engine: Engine, catalogue: Catalogue, **how: Any) -> Drift:
    return checked(engine.sync, catalogue, **how)


def _use(engine: Engine, catalogue: Catalogue) -> None:
    """From now on beats have this code."""
    engine.beat = Dispatcher(engine.sync, engine.wakeups, catalogue, engine.settings, name="beat")


def _counts(found: Drift) -> dict[str, int]:
    return {str(change): count for change, count in found.counts.items() if count}


def _words(engine: Engine, schedule: UUID) -> tuple[str, str | None]:
    row = engine.row(schedule)
    return row.state, row.state_reason


@pytest.mark.parametrize(
    ("catalogue", "reason"),
    [
        (GONE, "task_path: No task has this name. GET /api/v1/tasks lists the registered names."),
        (FORBIDDEN, "task_path: This task may not be scheduled (schedulable=False)."),
        (
            CHANGED,
            (
                "task_kwargs.a: The task has no parameter of this name. It takes count, region.;"
                " task_kwargs.region: Is missing: the task needs it."
            ),
        ),
    ],
)
def test_what_fits_no_longer_is_invalid_and_what_fits_again_is_active(
    engine: Engine, catalogue: Catalogue, reason: str
) -> None:
    schedule = engine.create()
    found = _check(engine, catalogue)
    assert (found.checked, _counts(found)) == (1, {"invalidated": 1})
    (finding,) = found.findings
    assert (finding.schedule_id, finding.change, finding.reason) == (schedule, Change.INVALIDATED, reason)
    assert _words(engine, schedule) == ("invalid", reason)
    assert engine.next_run_at(schedule) is None
    _use(engine, catalogue)
    engine.passes(120)
    assert engine.states(schedule) == []
    again = _check(engine, catalogue)
    assert (again.checked, _counts(again)) == (1, {"reported": 1})
    assert _counts(_check(engine, FITS)) == {"restored": 1}
    assert _words(engine, schedule) == ("active", None)
    assert engine.next_run_at(schedule) == engine.clock.now + timedelta(minutes=1)
    _use(engine, FITS)
    assert engine.actions(schedule) == [("create", "me"), ("invalidate", "upbeat"), ("restore", "upbeat")]
    engine.passes(60)
    assert engine.states(schedule) == ["queued"]
    assert _counts(_check(engine, FITS)) == {}


def test_ticks_that_were_due_are_recorded(engine: Engine) -> None:
    schedule = engine.create()
    engine.clock.advance(150)
    _check(engine, CHANGED)
    (gap,) = engine.missed(schedule)
    assert gap[2:] == (2, "invalid_arguments")
    engine.clock.advance(600)
    _check(engine, FITS)
    _use(engine, FITS)
    engine.passes()
    assert engine.states(schedule) == []


def test_what_a_person_stopped_is_told_of_and_left_alone(engine: Engine) -> None:
    paused, disabled = engine.create(), engine.create()
    engine.pause(paused)
    engine.update(disabled, task_enabled=False)
    before = [engine.actions(each) for each in (paused, disabled)]
    found = _check(engine, CHANGED)
    assert _counts(found) == {"reported": 2}
    assert [(each.schedule_id, each.state) for each in found.findings] == [
        (paused, "paused"),
        (disabled, "disabled"),
    ]
    assert [engine.actions(each) for each in (paused, disabled)] == before


def test_what_a_beat_or_a_person_left_invalid_is_theirs(engine: Engine) -> None:
    broken, completed = engine.create(), engine.create()
    engine.execute_sql(
        'UPDATE celery_periodic_task_configs SET schedule = \'{"type": "none"}\' WHERE id = :id', id=broken
    )
    engine.passes(60)
    engine.execute_sql(
        "UPDATE celery_periodic_task_configs SET state = 'completed' WHERE id = :id", id=completed
    )
    state, reason = _words(engine, broken)
    assert state == "invalid"
    assert _check(engine, FITS).checked == 0
    assert _check(engine, GONE).checked == 0
    assert _words(engine, broken) == ("invalid", reason)


def test_what_cannot_be_read_stays_invalid_when_it_fits_again(engine: Engine) -> None:
    schedule = engine.create()
    _check(engine, GONE)
    engine.execute_sql('UPDATE celery_periodic_task_configs SET schedule = \'{"type": "none"}\'')
    assert _counts(_check(engine, FITS)) == {}
    assert engine.row(schedule).state == "invalid"


def test_a_task_that_a_beat_did_not_find_is_mended_when_it_is_there(engine: Engine) -> None:
    schedule = engine.create()
    with engine.sync.begin() as session:
        drift.remember(session, GONE)
    _use(engine, GONE)
    engine.passes(60)
    assert engine.row(schedule).state == "invalid"
    assert _counts(_check(engine, CATALOGUE)) == {"restored": 1}


def test_a_one_off_whose_instant_passed_meanwhile_is_completed(engine: Engine) -> None:
    at = engine.clock.now + timedelta(minutes=5)
    schedule = engine.create({"type": "one_off", "at": at.isoformat()})
    _check(engine, CHANGED)
    engine.clock.advance(600)
    assert _counts(_check(engine, FITS)) == {"completed": 1}
    assert _words(engine, schedule) == ("completed", drift.ALL_PASSED)
    assert engine.actions(schedule)[-1] == ("complete", "upbeat")


def test_an_edit_of_the_arguments_mends_it(engine: Engine) -> None:
    schedule = engine.create()
    _check(engine, CHANGED)
    engine.update(schedule, description="still wrong")
    assert engine.row(schedule).state == "invalid"
    engine.update(schedule, task_kwargs={"region": "eu"})
    assert _words(engine, schedule) == ("active", None)
    assert engine.next_run_at(schedule) is not None
    assert _counts(_check(engine, CHANGED)) == {}


def test_nothing_goes_on_that_does_not_fit(engine: Engine) -> None:
    schedule = engine.create()
    with engine.sync.begin() as session, pytest.raises(Conflict, match=r"task_kwargs\.region: Is missing"):
        on_demand.run_now(
            session, CHANGED, schedule, actor="me", run_id=new_id(), redispatch_delay=30, overlap=None
        )
    assert engine.states(schedule) == []


def test_a_beat_checks_page_by_page_once_for_each_set_of_tasks(engine: Engine) -> None:
    schedules = [engine.create() for _ in range(3)]
    engine.execute_sql(
        "UPDATE celery_periodic_task_configs SET task_args = '[\"x\"]' WHERE id = :id", id=schedules[2]
    )
    watch = drift.Watch(FITS)
    assert watch.step(engine.sync) is False
    assert [engine.row(each).state for each in schedules] == ["active", "active", "invalid"]
    engine.execute_sql("UPDATE celery_periodic_task_configs SET task_args = '[\"x\"]'")
    assert drift.Watch(FITS).step(engine.sync) is False
    assert engine.row(schedules[0]).state == "active"
    _use(engine, CHANGED)
    engine.passes()
    assert {engine.row(each).state for each in schedules} == {"invalid"}


def test_pages_go_through_all_of_many(engine: Engine) -> None:
    model = engine.create()
    engine.execute_sql(
        """
        INSERT INTO celery_periodic_task_configs (id, version, task_name, task_path, task, task_type, state, schedule,
                                                  task_args, task_kwargs, task_extra_config)
        SELECT gen_random_uuid(), 1, task_name, task_path, task, task_type, state, schedule, task_args,
               CASE WHEN n % 10 = 0 THEN '{"b": 1}'::jsonb ELSE task_kwargs END, task_extra_config
        FROM celery_periodic_task_configs, generate_series(1, 1199) n WHERE id = :id
        """,
        id=model,
    )
    engine.execute_sql(
        "INSERT INTO celery_periodic_task_clocks (schedule_id, next_run_at)"
        " SELECT id, clock_timestamp() + interval '1 hour' FROM celery_periodic_task_configs WHERE id <> :id",
        id=model,
    )
    first = _check(engine, FITS, pages=1)
    assert (first.checked, first.next is None) == (drift.PAGE, False)
    assert first.next is not None
    rest = _check(engine, FITS, after=first.next)
    assert (first.checked + rest.checked, rest.next) == (1200, None)
    first.add(rest)
    assert _counts(first) == {"invalidated": 119}
    assert len(first.findings) == 119
    with engine.sync() as session:
        marked = session.scalar(text("SELECT count(*) FROM celery_periodic_task_configs WHERE drifted"))
        versions = session.scalar(
            text("SELECT count(*) FROM celery_periodic_task_config_versions WHERE action = 'invalidate'")
        )
    assert (marked, versions) == (119, 119)


def test_the_timing_of_what_fits_is_not_touched(engine: Engine) -> None:
    schedule = engine.create(EVERY_MINUTE)
    before = engine.clock_row(schedule).next_run_at
    engine.clock.advance(30)
    _check(engine, FITS)
    assert engine.clock_row(schedule).next_run_at == before
    assert engine.row(schedule).version == 1
