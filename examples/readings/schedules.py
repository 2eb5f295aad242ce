"""The schedules that come with this module's tasks; an operator enables them."""

from typing import Any, Final

DEFAULT_SCHEDULES: Final[list[dict[str, Any]]] = [
    {
        "key": "readings.add_up",
        "task_name": "Add up the readings of yesterday",
        "task_path": "readings.add_up",
        "task_enabled": False,
        "schedule": {"type": "crontab", "expression": "15 0 * * *"},
        "task_extra_config": {"overlap": "skip", "catch_up": "all", "catchup_window": 604800},
        "description": "Daily, a quarter past midnight UTC; days missed within a week are made up for.",
    },
]
