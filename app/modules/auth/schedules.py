"""The schedules that come with this module's tasks; an operator enables them."""

from typing import Any, Final

DEFAULT_SCHEDULES: Final[list[dict[str, Any]]] = [
    {
        "key": "auth.cleanup_expired_sessions",
        "task_name": "Delete expired login sessions",
        "task_path": "auth.cleanup_expired_sessions",
        "task_type": "system",
        "task_enabled": False,
        "schedule": {"type": "crontab", "expression": "0 */2 * * *"},
        "description": "Every two hours.",
    },
    {
        "key": "auth.cleanup_old_sessions",
        "task_name": "Delete login sessions that ended long ago",
        "task_path": "auth.cleanup_old_sessions",
        "task_type": "system",
        "task_enabled": False,
        "schedule": {"type": "crontab", "expression": "20 3 * * *"},
        "task_kwargs": {"days": 30},
        "description": "Daily; also those that were revoked and have not expired yet.",
    },
    {
        "key": "auth.session_statistics",
        "task_name": "Count login sessions",
        "task_path": "auth.session_statistics",
        "task_type": "system",
        "task_enabled": False,
        "schedule": {"type": "crontab", "expression": "50 23 * * *"},
        "description": "Daily, shortly before midnight UTC; the counts are kept by day.",
    },
]
