"""The fake's schedules, which never fire by themselves."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from upbeat_sdk._generated import models
from upbeat_sdk.testing._blank import blank
from upbeat_sdk.testing._pages import page
from upbeat_sdk.testing._problems import Refusal, invalid, not_found
from upbeat_sdk.testing._runs import Record, Runs

if TYPE_CHECKING:
    from upbeat_sdk.testing._fake import Received

FLAT = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


class Schedules:
    """Schedules in the order of their creation."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._schedules: dict[str, Record] = {}
        self.handlers: Mapping[str, Callable[[Received], Any]] = {
            "create_scheduled_task": self._create,
            "list_scheduled_tasks": self._list,
            "get_scheduled_task": self._get,
            "update_scheduled_task": self._update,
            "delete_scheduled_task": self._delete,
            "enable_scheduled_task": lambda call: self._turned(call, state="active"),
            "disable_scheduled_task": lambda call: self._turned(call, state="disabled"),
            "pause_scheduled_task": self._pause,
            "run_scheduled_task": self._run,
        }

    def _create(self, call: "Received") -> Record:
        body = call.json
        for field in ("task_name", "task_path"):
            if field not in body:
                raise invalid(field, "Field required")
        schedule = {**blank(models.ScheduledTask), "task_type": "business", "state": "active"}
        self._write(schedule, body)
        self._schedules[schedule["id"]] = schedule
        return schedule

    def _list(self, call: "Received") -> Record:
        state, search = call.query.get("state"), call.query.get("search", "")
        return page(
            [
                each
                for each in self._schedules.values()
                if state in (None, each["state"]) and search.lower() in each["task_name"].lower()
            ],
            call.query,
        )

    def _get(self, call: "Received") -> Record:
        schedule_id = call.path["schedule_id"]
        if schedule_id not in self._schedules:
            raise not_found(f"The scheduled task {schedule_id}")
        return self._schedules[schedule_id]

    def _update(self, call: "Received") -> Record:
        schedule = self._get(call)
        self._seen(call, schedule)
        self._write(schedule, call.json)
        return schedule

    def _delete(self, call: "Received") -> None:
        schedule = self._get(call)
        self._seen(call, schedule)
        del self._schedules[schedule["id"]]

    def _turned(self, call: "Received", *, state: str) -> Record:
        schedule = self._get(call)
        self._write(schedule, {"task_enabled": state == "active"})
        return schedule

    def _pause(self, call: "Received") -> Record:
        schedule = self._get(call)
        if schedule["state"] != "active":
            raise Refusal(409, "conflict", f"It is {schedule['state']}.")
        now = datetime.now(UTC).isoformat()
        self._write(schedule, {})
        schedule |= {
            "state": "paused",
            "pause_note": call.json["note"],
            "paused_at": now,
            "paused_by": "fake",
        }
        return schedule

    def _run(self, call: "Received") -> Record:
        schedule = self._get(call)
        return self._runs.make(
            schedule["task"], schedule["task_args"], schedule["task_kwargs"], schedule=schedule
        )

    def _write(self, schedule: Record, changes: Record) -> None:
        path: str = changes.get("task_path") or schedule["task_path"]
        if not self._runs.knows(path):
            raise invalid("task_path", "No task has this name.")
        given = {key: value for key, value in changes.items() if not key.startswith("task_crontab_")}
        schedule |= given
        fields = [changes.get(f"task_crontab_{name}") for name in FLAT]
        if any(fields):
            expression = " ".join(field or "*" for field in fields)
            zone = changes.get("task_crontab_timezone") or "UTC"
            schedule["schedule"] = {"type": "crontab", "expression": expression, "timezone": zone}
        if not schedule.get("schedule"):
            raise invalid("schedule", "Say when it runs: schedule or task_crontab_*.")
        if "task_enabled" in changes:
            schedule["state"] = "active" if changes["task_enabled"] else "disabled"
        schedule["task"] = path
        schedule["task_enabled"] = schedule["state"] != "disabled"
        schedule["version"] += 1
        schedule["updated_at"] = datetime.now(UTC).isoformat()

    @staticmethod
    def _seen(call: "Received", schedule: Record) -> None:
        wanted = call.headers.get("If-Match", "*")
        if wanted not in ("*", f'"{schedule["version"]}"'):
            raise Refusal(412, "precondition_failed", f"It has version {schedule['version']} by now.")
