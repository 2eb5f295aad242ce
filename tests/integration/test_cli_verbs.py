"""The verbs that speak to the service: from making a user and a key to the history of a schedule, each typed once."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli.commands import app, explanation
from app.settings import get_settings
from support.polling import eventually
from support.stack import Stack

TASK = "scheduled_task.test_task"


class Terminal:
    """Types commands, in a thread of its own as in a process of its own."""

    def type(self, *arguments: str, status: int = 0, given: str | None = None) -> str:
        with ThreadPoolExecutor(1) as aside:
            done: Result = aside.submit(CliRunner().invoke, app, list(arguments), input=given).result()  # type: ignore[assignment]
        assert done.exit_code == status, f"{done.output}\n{done.exception!r}"
        return done.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.type(*arguments, "--json"))

    def refused(self, *arguments: str) -> str:
        """What the user is told."""
        with ThreadPoolExecutor(1) as aside:
            done = aside.submit(CliRunner().invoke, app, list(arguments)).result()
        assert isinstance(done.exception, Exception), done.output
        return explanation(done.exception) or "a trace"


@pytest.fixture(scope="module")
def terminal(shared_stack: Stack) -> Iterator[Terminal]:
    api = shared_stack.api(wait=False)
    worker, _ = shared_stack.worker(wait=False), shared_stack.beat(wait=False)
    names = ("DATABASE_URL", "CELERY_DATABASE_NAME", "REDIS_URL")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, shared_stack.environment[name])
        patch.setenv("UPBEAT_URL", api.url)
        get_settings.cache_clear()
        terminal = Terminal()
        terminal.type(
            "users", "create", "ops", "--role", "admin", "--password-stdin", given="a long password it is\n"
        )
        patch.setenv(
            "UPBEAT_TOKEN", terminal.type("api-keys", "create", "ops", "tests", "--scope", "admin").strip()
        )
        get_settings.cache_clear()
        worker.wait_for_output(" ready.", 40)
        eventually(lambda: "ops" in str(terminal_answers(terminal)), 40, "the API answers")
        yield terminal
    get_settings.cache_clear()


def terminal_answers(terminal: Terminal) -> object:
    with ThreadPoolExecutor(1) as aside:
        done = aside.submit(CliRunner().invoke, app, ["tasks", "list"]).result()
    return "ops" if done.exit_code == 0 else None


def test_tasks_and_their_runs(terminal: Terminal) -> None:
    assert TASK in terminal.type("tasks", "list")
    assert terminal.json("tasks", "show", TASK)["queue"] == "celery"
    said = terminal.type("tasks", "run", TASK, "--kwargs", '{"message": "hé"}', "--queue", "system", "--wait")
    assert "is succeeded: {" in said
    assert '"message": "hé"' in said
    run_id = said.split()[0]
    assert terminal.json("runs", "show", run_id)["queue"] == "system"
    assert run_id in terminal.type("runs", "list", "--task", TASK, "--state", "succeeded")
    assert "hé" in terminal.type("runs", "logs", run_id)
    assert "hé" in terminal.type("runs", "logs", run_id, "-f")
    again = terminal.json("runs", "replay", run_id, "--kwargs", '{"message": "again"}', "--wait")
    assert (again["state"], again["result"]["message"]) == ("succeeded", "again")
    later = terminal.json("tasks", "run", TASK, "--countdown", "60")
    assert "is cancelled" in terminal.type("runs", "cancel", str(later["id"]), "--reason", "not needed")


def test_a_run_that_fails_has_its_own_status(terminal: Terminal) -> None:
    said = terminal.type(
        "tasks", "run", "scheduled_task.cleanup_old_logs", "--kwargs", '{"days": 0}', "--wait", status=4
    )
    assert "is failed: days must be" in said
    shown = terminal.type("runs", "show", said.split()[0])
    assert "error.traceback\n  Traceback" in shown


def test_many_runs_at_once(terminal: Terminal) -> None:
    named = "scheduled_task.cleanup_old_logs"
    for _ in range(2):
        terminal.type("tasks", "run", TASK, "--countdown", "60", "--queue", "priority_low")
    terminal.type("tasks", "run", named, "--kwargs", '{"days": 0}', "--wait", status=4)
    waiting = ("--queue", "priority_low", "--state", "queued")
    assert "2 runs would be cancelled" in terminal.type("runs", "act", "cancel", *waiting, "--dry-run")
    assert terminal.json("runs", "act", "cancel", *waiting)["changed"] == 2
    assert "0 of 0 runs" in terminal.type("runs", "act", "cancel", *waiting)
    failed = ("--task", named, "--since", "2026-01-01")
    number = terminal.json("runs", "act", "replay", *failed, "--dry-run")["matched"]
    assert number >= 1
    assert f"{number} of {number} runs were replayed" in terminal.type("runs", "act", "replay", *failed)
    assert "say which runs" in terminal.type("runs", "act", "replay", status=2)


def test_a_schedule_from_its_making_to_its_history(terminal: Terminal) -> None:
    made = terminal.type(
        "schedules", "create", "Every hour", TASK, "--every", "1h", "--kwargs", '{"message": "x"}'
    )
    assert "“Every hour” is active" in made
    name = "Every hour"
    assert name in terminal.type("schedules", "list", "--search", "hour")
    assert terminal.json("schedules", "show", name)["schedule"]["unit"] == "hours"
    assert len(terminal.json("schedules", "preview", name, "-n", "3")) == 3
    assert "succeeded" in terminal.type("schedules", "simulate", name, "--hours", "5")
    assert "Asia/Shanghai" in str(
        [terminal.type("schedules", "edit", name, "--cron", "0 3 * * *", "--timezone", "Asia/Shanghai"),
         terminal.json("schedules", "show", name)]
    )  # fmt: skip
    assert " 03:00:00+08:00  " in terminal.type("schedules", "preview", name)
    assert "is paused" in terminal.type("schedules", "pause", name, "--note", "to see it")
    assert "ticks passed" in terminal.type("schedules", "resume", name, "--dry-run")
    assert "Next: 20" in terminal.type("schedules", "resume", name)
    assert "is succeeded" in terminal.type("schedules", "run", name, "--wait")
    now = datetime.now(UTC)
    period = ("--start", (now - timedelta(days=3)).isoformat(), "--end", now.isoformat())
    assert "of 3 ticks would get a run" in terminal.type("schedules", "backfill", name, *period, "--dry-run")
    assert "3 of 3 ticks get a run" in terminal.type("schedules", "backfill", name, *period)
    assert "before_creation" in terminal.type("schedules", "why", name, "--at", "2020-01-01T00:00:00+00:00")
    actions = [each["action"] for each in terminal.json("schedules", "history", name)]
    assert actions[-1] == "create"
    assert len(actions) == 4


def test_workers_and_queues(terminal: Terminal) -> None:
    (worker,) = terminal.json("workers")
    assert worker["alive"]
    assert worker["pool"] == "prefork"
    assert "priority_low" in terminal.type("workers")
    assert [each["workers"] for each in terminal.json("queues")] == [1, 1, 1, 1]
    assert "is ready" in terminal.type("workers", "resize", worker["name"], "--by", "1")
    assert "It answers." in terminal.type("workers", "activity", worker["id"])
    assert "No living worker is called" in terminal.refused("workers", "drain", "nobody@host")
    assert "moving house" in terminal.type("queues", "pause", "priority_low", "--note", "moving house")
    run = terminal.json("tasks", "run", TASK, "--queue", "priority_low")
    assert "queue_paused" in terminal.type("runs", "why", run["id"])
    assert [each["paused"] for each in terminal.json("queues")] == [None, None, "moving house", None]
    assert "1 runs would be cancelled" in terminal.type(
        "queues", "purge", "priority_low", "--confirm", "", "--dry-run"
    )
    assert "give --confirm" in terminal.type("queues", "purge", "priority_low", status=2)
    assert "give --yes" in terminal.type("purge", "priority_low", status=2)
    assert "1 runs were cancelled" in terminal.type(
        "queues", "purge", "priority_low", "--confirm", "priority_low"
    )
    assert "is open" in terminal.type("queues", "resume", "priority_low")


def test_schedules_go_out_and_in_again(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("schedules", "create", "Out 1", TASK, "--every", "1h")
    terminal.type("schedules", "create", "Out 2", TASK, "--every", "2h")
    file = tmp_path / "schedules.yaml"
    assert "2 schedules" in terminal.type("schedules", "export", str(file), "--search", "Out")
    assert "unchanged" in terminal.type("schedules", "import", str(file), "--dry-run")
    assert "2 would be changed" in terminal.type(
        "schedules", "act", "pause", "--search", "Out", "--note", "x", "--dry-run"
    )
    assert "2 changed" in terminal.type("schedules", "act", "delete", "--search", "Out")
    terminal.type("schedules", "import", str(file), "--dry-run", status=2)
    done = terminal.json("schedules", "import", str(file), "--reason", "back")
    assert [each["action"] for each in done] == ["create", "create"]
    file.write_text(file.read_text().replace("every: 2", "every: 3"))
    assert "schedule" in terminal.type("schedules", "import", str(file))
    assert [each["field"] for each in terminal.json("schedules", "diff", "Out 2", "2")] == ["schedule"]
    assert "Next" in terminal.type("schedules", "restore", "Out 2", "1", "--reason", "was right")
    assert terminal.json("schedules", "show", "Out 2")["schedule"]["every"] == 2
    assert json.loads(terminal.type("schedules", "export", "--search", "Out", "--json"))[
        "schedules"
    ].keys() == {
        "Out 1",
        "Out 2",
    }
    file.write_text("schedules: {x: {task_path: no.such, schedule: {type: interval, every: 1, unit: hours}}}")
    assert "body: schedules.x.task_path" in terminal.refused("schedules", "import", str(file))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("schedules", "show", "Nobody's"), "No schedule is called Nobody's"),
        (("tasks", "run", "no.such.task"), "No task has this name"),
        (("schedules", "create", "x", TASK, "--cron", "61 * * * *"), "schedule"),
        (("schedules", "create", "x", TASK, "--every", "soon"), "--every: must be a number and a unit"),
        (("tasks", "run", TASK, "--kwargs", "{"), "--kwargs: must be JSON"),
        (("api-keys", "create", "nobody", "x"), "no active user nobody"),
    ],
)
def test_a_mistake_is_one_line(terminal: Terminal, arguments: tuple[str, ...], told: str) -> None:
    said = terminal.refused(*arguments)
    assert told in said
    assert "\n" not in said


def test_without_a_key_and_without_a_service(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("", "upb_wrong"):
        monkeypatch.setenv("UPBEAT_TOKEN", token)
        get_settings.cache_clear()
        assert "upbeat api-keys create" in terminal.refused("workers")
    monkeypatch.setenv("UPBEAT_URL", "http://127.0.0.1:1")
    get_settings.cache_clear()
    assert "upbeat start api" in terminal.refused("workers")
    monkeypatch.undo()
    get_settings.cache_clear()


def test_a_list_is_cut_or_whole(terminal: Terminal) -> None:
    for number in range(3):
        terminal.type("schedules", "create", f"walked {number}", TASK, "--every", "1d", "--disabled")
    assert len(terminal.json("schedules", "list", "--search", "walked", "--limit", "2")) == 2
    assert len(terminal.json("schedules", "list", "--search", "walked", "--limit", "2", "--all")) == 3
    assert len(terminal.json("runs", "list", "--limit", "1")) == 1
    assert len(terminal.json("runs", "list", "--limit", "1", "--all")) > 1
