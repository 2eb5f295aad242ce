"""Declared schedules: planned, applied and pruned, on a real database; read-only for people."""

import threading
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.errors import Conflict, InvalidInput
from app.scheduling import declared, pausing, schedules
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.config import ScheduleUpdate
from app.scheduling.declarations import Declared, Owner, read
from app.scheduling.declared import Action, Prune, Step
from app.scheduling.models import ScheduleRow
from app.scheduling.parameters import Parameters
from support.engine import EVERY_MINUTE, Engine

CODE = frozenset({Owner.CODE})


def _task(days: int = 1) -> None: ...


TASKS = Catalogue([TaskSpec(name="clean", path="p.clean", aliases=("old",), parameters=Parameters(_task))])


def _declare(
    owners: frozenset[Owner] = CODE, owner: Owner = Owner.CODE, **by_key: dict[str, Any]
) -> Declared:
    given = {"task_path": "clean", "schedule": EVERY_MINUTE}
    each = [
        read(owner, key, {"task_name": key} | given | changes, f"here: {key}")
        for key, changes in by_key.items()
    ]
    return Declared(owners, tuple(each))


def _apply(engine: Engine, given: Declared, *, prune: Prune | None = None) -> list[tuple[str, Action]]:
    told: list[tuple[int, int | None]] = []
    with engine.sync.begin() as session:
        steps = declared.synchronise(
            session, TASKS, given, actor="deploy", prune=prune, told=lambda *far: told.append(far)
        )
    assert told == [(number, len(steps)) for number in range(1, len(steps) + 1)]
    return [(step.key, step.action) for step in steps]


def _plan(engine: Engine, given: Declared, *, prune: Prune | None = None) -> list[Step]:
    with engine.sync() as session:
        steps = declared.synchronise(session, TASKS, given, actor="deploy", prune=prune)
        session.rollback()
    return steps


def _owned(engine: Engine) -> dict[str, ScheduleRow]:
    with engine.sync() as session:
        rows = session.scalars(select(ScheduleRow).where(ScheduleRow.owner.is_not(None)))
        return {str(row.owner_key): row for row in rows}


def _id(engine: Engine, key: str) -> UUID:
    return _owned(engine)[key].id


def test_applying_creates_updates_and_leaves_alone(engine: Engine) -> None:
    first = _declare(a={}, b={"task_kwargs": {"days": 3}}, c={"task_enabled": False})
    assert [(step.key, step.action, step.changing) for step in _plan(engine, first)] == [
        (key, Action.CREATE, True) for key in "abc"
    ]
    assert _owned(engine) == {}
    assert _apply(engine, first) == [(key, Action.CREATE) for key in "abc"]
    before = _owned(engine)
    assert [before[key].state for key in "abc"] == ["active", "active", "disabled"]
    assert engine.next_run_at(before["a"].id) is not None
    assert _apply(engine, first) == [(key, Action.UNCHANGED) for key in "abc"]
    assert {key: row.version for key, row in _owned(engine).items()} == {"a": 1, "b": 1, "c": 1}
    hourly = {"type": "crontab", "expression": "0 * * * *"}
    second = _declare(a={"schedule": hourly, "description": "new"}, b={"task_kwargs": {}}, c={})
    steps = {step.key: step for step in _plan(engine, second)}
    assert steps["b"].changes == {"task_kwargs": ({"days": 3}, {})}
    assert set(steps["a"].changes) == {"schedule", "description"}
    assert _apply(engine, second) == [("a", Action.UPDATE), ("b", Action.UPDATE), ("c", Action.UNCHANGED)]
    after = _owned(engine)
    assert after["a"].schedule["expression"] == "0 * * * *"
    assert (after["a"].id, after["b"].task_kwargs) == (before["a"].id, {})
    assert engine.actions(after["a"].id) == [("create", "deploy"), ("update", "deploy")]
    assert _apply(engine, second) == [(key, Action.UNCHANGED) for key in "abc"]


def test_a_description_that_is_gone_is_cleared(engine: Engine) -> None:
    _apply(engine, _declare(a={"description": "long"}))
    _apply(engine, _declare(a={}))
    assert _owned(engine)["a"].description is None


def test_what_operators_chose_outlives_a_deployment(engine: Engine) -> None:
    given = _declare(a={"task_enabled": False}, b={}, c={})
    _apply(engine, given)
    for key, enabled in (("a", True), ("b", False)):
        with engine.sync.begin() as session:
            body = ScheduleUpdate(task_enabled=enabled)
            schedules.update(session, TASKS, _id(engine, key), body, "me")
    engine.pause(_id(engine, "c"))
    assert {action for _, action in _apply(engine, given)} == {Action.UNCHANGED}
    changed = {"description": "changed"}
    _apply(engine, _declare(a=changed, b=changed, c=changed))
    assert {key: row.state for key, row in _owned(engine).items()} == {
        "a": "active",
        "b": "disabled",
        "c": "paused",
    }
    assert _owned(engine)["c"].pause_note == "because"


@pytest.mark.parametrize("prune", [Prune.DELETE, Prune.DISABLE])
def test_pruning_is_for_what_lost_its_declaration(engine: Engine, prune: Prune) -> None:
    _apply(engine, _declare(a={}, b={}))
    _apply(engine, _declare(CODE | {Owner.FILE}, Owner.FILE, f={}))
    people = engine.create()
    gone = _declare(a={})
    assert dict(_apply(engine, gone))["b"] is Action.ORPHANED
    assert _owned(engine)["b"].state == "active"
    pruned = _id(engine, "b")
    assert dict(_apply(engine, gone, prune=prune)) == {"a": Action.UNCHANGED, "b": Action(prune)}
    left = {key: row.state for key, row in _owned(engine).items()}
    assert left == {"a": "active", "f": "active"} | ({} if prune is Prune.DELETE else {"b": "disabled"})
    assert engine.actions(pruned)[-1] == ("delete" if prune is Prune.DELETE else "update", "deploy")
    assert engine.row(people).owner is None


def test_all_or_nothing_and_every_error_is_told(engine: Engine) -> None:
    wrong = _declare(
        a={},
        b={"task_path": "cleen"},
        c={"task_kwargs": {"day": 1}},
        d={"schedule": {"type": "crontab", "expression": "x"}},
        e={"schedule": None},
    )
    with pytest.raises(InvalidInput) as refused:
        _apply(engine, wrong)
    messages = {each.field: each.message for each in refused.value.errors}
    assert "Did you mean clean" in messages["here: b.task_path"]
    assert "It takes days." in messages["here: c.task_kwargs.day"]
    assert set(messages) == {
        "here: b.task_path",
        "here: c.task_kwargs.day",
        "here: d.schedule.expression",
        "here: e.schedule",
    }
    past = _declare(a={}, z={"schedule": {"type": "one_off", "at": "2001-01-01T00:00:00Z"}})
    with pytest.raises(InvalidInput) as refused:
        _apply(engine, past)
    assert [each.field for each in refused.value.errors] == ["here: z.schedule.at"]
    assert _owned(engine) == {}


def test_a_one_off_that_is_over_stays_as_it_is(engine: Engine) -> None:
    at = engine.clock.now.replace(hour=13).isoformat()
    given = _declare(a={"schedule": {"type": "one_off", "at": at}})
    _apply(engine, given)
    engine.clock.advance(7200)
    engine.execute_sql("UPDATE celery_periodic_task_configs SET state = 'completed'")
    assert _apply(engine, given) == [("a", Action.UNCHANGED)]


def test_an_alias_that_stands_for_another_task_is_an_update(engine: Engine) -> None:
    given = _declare(a={"task_path": "old"})
    _apply(engine, given)
    engine.execute_sql("UPDATE celery_periodic_task_configs SET task = 'before'")
    (step,) = _plan(engine, given)
    assert step.changes == {"task": ("before", "clean")}
    _apply(engine, given)
    assert _owned(engine)["a"].task == "clean"


def test_people_do_not_change_what_is_declared(engine: Engine) -> None:
    _apply(engine, _declare(a={}))
    schedule = _id(engine, "a")
    for body in (ScheduleUpdate(task_name="mine"), ScheduleUpdate(task_name="mine", task_enabled=False)):
        with engine.sync.begin() as session, pytest.raises(Conflict, match="upbeat schedules apply"):
            schedules.update(session, TASKS, schedule, body, "me")
    with engine.sync.begin() as session, pytest.raises(Conflict, match="--prune"):
        schedules.remove(session, schedule, "me")
    assert _owned(engine)["a"].version == 1
    with engine.sync.begin() as session:
        pausing.pause(session, schedule, note="maintenance", author="me")
    assert _owned(engine)["a"].state == "paused"


def test_two_deployments_at_once_make_one_schedule(engine: Engine) -> None:
    found: list[list[tuple[str, Action]]] = []
    given = _declare(a={}, b={})
    threads = [threading.Thread(target=lambda: found.append(_apply(engine, given))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted({action for steps in found for _, action in steps}) == [Action.CREATE, Action.UNCHANGED]
    assert sum(action is Action.CREATE for steps in found for _, action in steps) == 2
    with engine.sync() as session:
        assert session.scalar(text("SELECT count(*) FROM celery_periodic_task_configs")) == 2
