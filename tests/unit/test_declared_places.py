"""Where declared schedules are looked for."""

from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.scheduling.declarations import Owner
from app.settings import ScheduleSettings, Settings
from app.worker import app, catalogue
from app.worker.declared import declared


def _settings(file: Path | None) -> Settings:
    return Settings(schedules=ScheduleSettings(file=file))


def test_without_a_file_nothing_is_said_about_files() -> None:
    assert declared(_settings(None)).owners == {Owner.CODE}


def test_an_empty_file_declares_that_there_is_none(tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.touch()
    found = declared(_settings(file))
    assert found.owners == {Owner.CODE, Owner.FILE}
    assert {each.owner for each in found.declarations} <= {Owner.CODE}


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "schedules.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="UPBEAT_SCHEDULES_FILE"):
        declared(_settings(file))


def test_beside_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    task = app.tasks["auth.cleanup_old_sessions"]
    schedule = {"type": "interval", "every": 1, "unit": "hours"}
    monkeypatch.setattr(task, "schedules", [{"key": "test.hourly", "schedule": schedule}], raising=False)
    (found,) = [each for each in declared(_settings(None)).declarations if each.key == "test.hourly"]
    assert (found.owner, found.body.task_path, found.body.schedule) == (
        Owner.CODE,
        "auth.cleanup_old_sessions",
        schedule,
    )
    assert found.body.task_name == catalogue().named("auth.cleanup_old_sessions").description


def test_the_default_schedules_of_modules_are_declared_and_all_but_one_wait_for_an_operator() -> None:
    found = {each.key: each for each in declared(_settings(None)).declarations}
    assert {"auth.session_statistics", "scheduled_task.test_task", "periodic_agent_health_check"} <= {
        each.body.task_path for each in found.values()
    }
    enabled = [each.body.task_path for each in found.values() if each.body.task_enabled]
    assert enabled == ["scheduled_task.cleanup_old_logs"]
