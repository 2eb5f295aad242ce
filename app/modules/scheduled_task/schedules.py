"""The schedules that come with this module's tasks: history is forgotten after 90 days, the test is off."""

from typing import Any, Final

DEFAULT_SCHEDULES: Final[list[dict[str, Any]]] = [
    {
        "key": "scheduled_task.test_task",
        "task_name": "Test",
        "task_path": "scheduled_task.test_task",
        "task_type": "system",
        "task_enabled": False,
        "schedule": {"type": "interval", "every": 1, "unit": "minutes"},
        "description": "Shows that schedules run.",
    },
    {
        "key": "scheduled_task.cleanup_old_logs",
        "task_name": "Forget old history",
        "task_path": "scheduled_task.cleanup_old_logs",
        "task_type": "system",
        "schedule": {"type": "crontab", "expression": "40 3 * * *"},
        "task_kwargs": {"days": 90},
        "description": "Daily; drops the months of runs and log lines that are older than 90 days.",
    },
]
