"""What can be declared, in code and in a file; and what would bring the stored schedules to it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from app.errors import InvalidInput
from app.scheduling.declarations import (
    Declaration,
    Owner,
    TaskSchedule,
    beside_task,
    cron,
    every,
    in_module,
    unique,
)
from app.scheduling.declared import FIELDS, Action, Prune, Stored, compare
from app.scheduling.schedule_file import FORM, parse

TASK = "auth.cleanup_old_sessions"
NIGHTLY = """
schedules:
  nightly:
    task_path: auth.cleanup_old_sessions
    schedule: {type: crontab, expression: "20 3 * * *", timezone: Europe/Berlin}
    task_kwargs: {days: 30}
"""


def refused(work: Callable[[], Any]) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        work()
    return {each.field: each.message for each in caught.value.errors}


def test_beside_a_task() -> None:
    typed = TaskSchedule(schedule=cron("0 6 * * *", "Europe/Berlin"), task_kwargs={"days": 3})
    plain = {
        "key": "often",
        "task_name": "Often",
        "schedule": every(timedelta(minutes=5)),
        "task_enabled": False,
    }
    first, second = beside_task(TASK, "Delete sessions.", [typed, plain])
    assert (first.owner, first.key, first.source) == (Owner.CODE, TASK, f"the task {TASK}")
    assert (first.body.task_path, first.body.task_name) == (TASK, "Delete sessions.")
    assert first.body.task_kwargs == {"days": 3}
    assert first.body.schedule == {
        "type": "crontab",
        "expression": "0 6 * * *",
        "timezone": "Europe/Berlin",
        "day_match": "or",
        "dst_gap": "run",
    }
    assert (second.key, second.body.task_name, second.body.task_enabled) == ("often", "Often", False)
    assert second.body.schedule == {"type": "interval", "every": 300, "unit": "seconds"}


def test_in_a_module() -> None:
    given = {"key": "a", "task_name": "A", "task_path": TASK, "task_crontab_hour": "3"}
    (only,) = in_module("reports.schedules", [given])
    assert (only.owner, only.key, only.source) == (Owner.CODE, "a", "reports.schedules: a")
    assert only.body.timing() == {
        "type": "crontab",
        "expression": "* 3 * * *",
        "timezone": "UTC",
        "day_match": "and",
    }
    assert given["key"] == "a"
    assert "reports.schedules: [0].key" in refused(lambda: list(in_module("reports.schedules", [{}])))


@pytest.mark.parametrize("seconds", [0, 0.5, 1.5, -1])
def test_an_interval_is_whole_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="whole number of seconds"):
        every(timedelta(seconds=seconds))


def test_what_json_has_no_form_of_is_refused_where_it_stands() -> None:
    given = {
        "task_kwargs": {"a": [1, timedelta(1)], "b": {1: "x"}, "c": float("nan")},
        "schedule": cron("* * * * *"),
    }
    found = refused(lambda: list(beside_task(TASK, "", [given])))
    assert set(found) == {
        f"the task {TASK}.task_kwargs.a[1]",
        f"the task {TASK}.task_kwargs.b",
        f"the task {TASK}.task_kwargs.c",
    }


def test_a_key_is_there_once() -> None:
    twice = [*beside_task(TASK, "", [{"schedule": cron("* * * * *")}, {"schedule": cron("1 * * * *")}])]
    assert refused(lambda: unique(twice)) == {
        f"the task {TASK}": f"The key {TASK} is also declared in the task {TASK}. Give one of them another `key`."
    }
    in_file = parse(NIGHTLY.replace("nightly", TASK), "a.yaml")
    assert len(unique([twice[0], *in_file])) == 2


def test_a_file_by_key_and_as_a_list() -> None:
    (by_key,) = parse(NIGHTLY, "a.yaml")
    assert (by_key.owner, by_key.key, by_key.source) == (Owner.FILE, "nightly", "a.yaml: schedules.nightly")
    assert (by_key.body.task_name, by_key.body.task_kwargs) == ("nightly", {"days": 30})
    (listed,) = parse(
        NIGHTLY.replace("  nightly:\n    task_path", "  - key: nightly\n    task_path"), "a.yaml"
    )
    assert listed == Declaration(Owner.FILE, "nightly", by_key.body, "a.yaml: schedules[0]")


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "schedules:\n", "schedules: []\n", "schedules: {}\n"]
)
def test_a_file_may_declare_nothing(text: str) -> None:
    assert parse(text, "a.yaml") == []


def test_a_file_is_read_as_people_mean_it() -> None:
    (only,) = parse(
        """
schedules:
  once:
    task_path: x
    task_name: &name Über
    task_crontab_minute: 0
    task_crontab_hour: '*/2'
    task_kwargs: {on_day: 2026-03-01, at: 2026-03-01T09:00:00Z, name: *name}
""",
        "a.yaml",
    )
    assert only.body.task_crontab_minute == "0"
    assert only.body.task_kwargs == {"on_day": "2026-03-01", "at": "2026-03-01T09:00:00Z", "name": "Über"}


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("a: [", "a.yaml", "line 2, column 1"),
        ("schedules:\n  a: {}\n  a: {}\n", "a.yaml", "line 3, column 3: the key a is there twice"),
        ("- a\n", "a.yaml", FORM),
        ("schedule: {}\n", "a.yaml", FORM),
        ("schedules: 5\n", "a.yaml: schedules", FORM),
        ("schedules: {a: 5}\n", "a.yaml: schedules.a", "Must be a mapping"),
        ("schedules: [{task_path: x}]\n", "a.yaml: schedules[0].key", "Must be text"),
        ("schedules: {5: {task_path: x}}\n", "a.yaml: schedules.5.key", "put it in quotes"),
        ("schedules: {a: {}}\n", "a.yaml: schedules.a.task_path", "This field is required."),
        ("schedules: {a: {task_pat: x}}\n", "a.yaml: schedules.a.task_pat", "Did you mean task_path?"),
        (
            "schedules: {a: {task_path: x, task_extra_config: {overlapp: skip}}}\n",
            "a.yaml: schedules.a.task_extra_config.overlapp",
            "Did you mean overlap?",
        ),
        (
            "schedules: {a: {task_path: x, task_extra_config: {queue: nowhere}}}\n",
            "a.yaml: schedules.a.task_extra_config.queue",
            "Must be one of 'system'",
        ),
        (
            "schedules: {a: {task_path: x, task_kwargs: {b: !!binary aGk=}}}\n",
            "a.yaml: schedules.a.task_kwargs.b",
            "Must be what JSON has",
        ),
        ("schedules: {a: !!python/object:os.system {}}\n", "a.yaml", "could not determine a constructor"),
        (
            'schedules: {a: {task_path: x, description: "a\\0b"}}\n',
            "a.yaml",
            "column 44: text must not have NUL",
        ),
        ('schedules: {"a\\0": {task_path: x}}\n', "a.yaml", "NUL"),
        ('schedules: {a: {task_path: x, description: "\\ud800"}}\n', "a.yaml", "line 1"),
        ("schedules: {a: {task_path: x, task_args: [!!int x]}}\n", "a.yaml", "leave the tag out"),
        ("schedules: {a: {task_path: x, task_args: [!!bool x]}}\n", "a.yaml", "leave the tag out"),
        ("schedules: {a: {task_path: x, task_args: [!!timestamp x]}}\n", "a.yaml", "leave the tag out"),
        (f"schedules: {{a: {{task_path: x, task_args: [{'9' * 5000}]}}}}\n", "a.yaml", "put it in quotes"),
        (f"schedules: {{a: {{task_crontab_hour: 0x{'f' * 5000}}}}}\n", "a.yaml", "put it in quotes"),
        ("- " * 200_000, "a.yaml", "nested too deeply"),
        (
            "schedules: {a: {task_path: x, task_kwargs: {b: .nan}}}\n",
            "a.yaml: schedules.a.task_kwargs.b",
            "Must be",
        ),
    ],
)
def test_an_error_in_a_file_names_file_path_and_remedy(text: str, field: str, message: str) -> None:
    found = refused(lambda: parse(text, "a.yaml"))
    assert field in found, found
    assert message in found[field]


def test_all_errors_of_a_file_are_told_at_once() -> None:
    text = "schedules: {a: {task_pat: x, task_path: y}, b: {}, c: {task_path: x, task_enabled: 7}}\n"
    assert set(refused(lambda: parse(text, "a.yaml"))) == {
        "a.yaml: schedules.a.task_pat",
        "a.yaml: schedules.b.task_path",
        "a.yaml: schedules.c.task_enabled",
    }


def values(**changes: Any) -> dict[str, Any]:
    return dict.fromkeys(FIELDS) | {"task_kwargs": {"a": 1}, "task_enabled": True} | changes


def stored(**changes: Any) -> Stored:
    return Stored(UUID(int=1), "active", values(**changes))


CODE_A, CODE_B, FILE_A = (Owner.CODE, "a"), (Owner.CODE, "b"), (Owner.FILE, "a")


def test_the_difference() -> None:
    steps = compare(
        {CODE_A: values(), FILE_A: values(task_kwargs={"a": True}), CODE_B: values()},
        {CODE_A: stored(task_enabled=False), FILE_A: stored()},
    )
    assert [(step.owner, step.key, step.action) for step in steps] == [
        ("code", "a", Action.UNCHANGED),
        ("code", "b", Action.CREATE),
        ("file", "a", Action.UPDATE),
    ]
    assert steps[2].changes == {"task_kwargs": ({"a": 1}, {"a": True})}
    assert [step.changing for step in steps] == [False, True, True]


@pytest.mark.parametrize(
    ("prune", "state", "action"),
    [
        (None, "active", Action.ORPHANED),
        (Prune.DELETE, "active", Action.DELETE),
        (Prune.DISABLE, "active", Action.DISABLE),
        (Prune.DISABLE, "disabled", Action.ORPHANED),
    ],
)
def test_what_lost_its_declaration(prune: Prune | None, state: str, action: Action) -> None:
    (step,) = compare({}, {CODE_A: Stored(UUID(int=1), state, values())}, prune)
    assert (step.action, step.schedule_id) == (action, UUID(int=1))


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"a": [1, 2.0]}, {"a": [1.0, 2]}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": [True]}, {"a": [1]}, False),
        ([1, 2], [1], False),
        ({"a": None}, {}, False),
        ("1", 1, False),
        (None, None, True),
    ],
)
def test_values_are_compared_as_json(before: Any, after: Any, same: bool) -> None:  # noqa: FBT001
    (step,) = compare({CODE_A: values(description=after)}, {CODE_A: stored(description=before)})
    assert (step.action is Action.UNCHANGED) == same
