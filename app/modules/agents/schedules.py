"""The schedules that come with this module's tasks; an operator enables them."""

from typing import Any, Final

DEFAULT_SCHEDULES: Final[list[dict[str, Any]]] = [
    {
        "key": "agents.execute_agent_periodic_task",
        "task_name": "Ask an agent every morning",
        "task_path": "execute_agent_periodic_task",
        "task_type": "agent",
        "task_enabled": False,
        "schedule": {"type": "crontab", "expression": "0 8 * * 1-5"},
        "task_kwargs": {"agent": "example", "variables": {}},
        "task_extra_config": {"max_attempts": 3, "retry_base": 30.0},
        "description": "On working days at eight; let it name an agent of yours before you enable it.",
    },
    {
        "key": "agents.periodic_agent_health_check",
        "task_name": "Check the health of agents",
        "task_path": "periodic_agent_health_check",
        "task_type": "system",
        "task_enabled": False,
        "schedule": {"type": "interval", "every": 5, "unit": "minutes"},
        "description": "Every five minutes; pauses and resumes the schedules of agents.",
    },
    {
        "key": "agents.forget_old_calls",
        "task_name": "Forget old calls of agents",
        "task_path": "agents.forget_old_calls",
        "task_type": "system",
        "task_enabled": False,
        "schedule": {"type": "crontab", "expression": "10 4 * * *"},
        "task_kwargs": {"days": 90},
        "description": "Daily; deletes requests and replies that are older than 90 days.",
    },
]
