"""The schedules that come with the modules' tasks are valid and fit them; only history is forgotten unasked."""

import importlib.util
import inspect
import pkgutil
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from app import modules
from app.scheduling import timing
from app.scheduling.config import ScheduleCreate
from app.worker import app, catalogue

THE_USERS = {
    "auth.cleanup_expired_sessions": "src.apps.auth.tasks.cleanup_expired_sessions",
    "auth.cleanup_old_sessions": "src.apps.auth.tasks.cleanup_old_sessions",
    "auth.session_statistics": "src.apps.auth.tasks.session_statistics",
    "scheduled_task.test_task": "src.apps.scheduled_task.tasks.test_task",
    "scheduled_task.cleanup_old_logs": "src.apps.scheduled_task.tasks.cleanup_old_logs",
    "execute_agent_periodic_task": "src.apps.agent.tasks.execute_agent_periodic_task",
    "periodic_agent_health_check": "src.apps.agent.tasks.periodic_agent_health_check",
}


def _declared() -> list[dict[str, Any]]:
    names = [f"app.modules.{module.name}.schedules" for module in pkgutil.iter_modules(modules.__path__)]
    found = [importlib.import_module(name) for name in names if importlib.util.find_spec(name)]
    return [schedule for module in found for schedule in module.DEFAULT_SCHEDULES]


DECLARED = _declared()
HISTORY = "scheduled_task.cleanup_old_logs"


def _create(declared: dict[str, Any]) -> ScheduleCreate:
    return ScheduleCreate.model_validate({name: value for name, value in declared.items() if name != "key"})


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: str(declared["key"]))
def test_a_declared_schedule_is_valid_and_fits_its_task(declared: dict[str, Any]) -> None:
    schedule = _create(declared)
    assert schedule.task_enabled is (schedule.task_path == HISTORY)
    assert schedule.description
    spec = catalogue().schedulable(schedule.task_path, "task_path")
    task = app.tasks[spec.name]
    function = inspect.unwrap(task.run)
    assert inspect.iscoroutinefunction(function)
    bound = ["self"] if inspect.ismethod(task.run) else []
    inspect.signature(function).bind(*bound, *schedule.task_args, **schedule.task_kwargs)
    stated = schedule.timing()
    assert stated is not None
    assert timing.parse(stated).next_after(datetime.now(UTC)) is not None


def test_keys_are_stable_and_each_is_there_once() -> None:
    assert set(Counter(declared["key"] for declared in DECLARED).values()) == {1}


@pytest.mark.parametrize("name", THE_USERS)
def test_each_task_of_the_users_description_is_found_by_all_its_names_and_has_a_schedule(name: str) -> None:
    known = catalogue()
    for path in (name, THE_USERS[name]):
        found = known.find(path)
        assert found is not None, path
        assert found.name == name
        assert found.description
    assert name in {known.named(_create(declared).task_path).name for declared in DECLARED}
