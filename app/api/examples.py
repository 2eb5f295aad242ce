"""Examples of the OpenAPI document. The first is the one of the user's own description, verbatim."""

from typing import Any

from fastapi.openapi.models import Example

CREATE_EXAMPLES: dict[str, Example] = {
    "crontab_fields": {
        "summary": "Every two hours, in flat crontab fields",
        "value": {
            "task_name": "清理过期会话",
            "task_path": "src.apps.auth.tasks.cleanup_expired_sessions_task",
            "task_type": "system",
            "task_enabled": True,
            "task_crontab_minute": "0",
            "task_crontab_hour": "*/2",
            "task_extra_config": {"queue": "system"},
        },
    },
    "crontab": {
        "summary": "Working days at nine, Shanghai time",
        "value": {
            "task_name": "Morning check",
            "task_path": "scheduled_task.test_task",
            "schedule": {"type": "crontab", "expression": "0 9 * * 1-5", "timezone": "Asia/Shanghai"},
        },
    },
    "interval": {
        "summary": "Every thirty seconds, ticks side by side",
        "value": {
            "task_name": "Heartbeat",
            "task_path": "scheduled_task.test_task",
            "schedule": {"type": "interval", "every": 30, "unit": "seconds"},
            "task_extra_config": {"overlap": "allow_all"},
        },
    },
    "one_off": {
        "summary": "Once",
        "value": {
            "task_name": "New year's clean-up",
            "task_path": "scheduled_task.cleanup_old_logs",
            "schedule": {"type": "one_off", "at": "2099-01-01T00:00:00+08:00"},
        },
    },
}

UPDATE_EXAMPLES: dict[str, Example] = {
    "timing": {
        "summary": "Another time",
        "value": {"schedule": {"type": "crontab", "expression": "30 6 * * *", "timezone": "UTC"}},
    },
    "queue": {"summary": "Another queue", "value": {"task_extra_config": {"queue": "priority_high"}}},
}

PAUSE_EXAMPLES: dict[str, Example] = {
    "maintenance": {"summary": "With the reason", "value": {"note": "Database maintenance until Sunday."}}
}

RESUME_EXAMPLES: dict[str, Example] = {
    "plain": {"summary": "From now on", "value": {}},
    "dry_run": {"summary": "How much was missed?", "value": {"catch_up": "all", "dry_run": True}},
}

BACKFILL_EXAMPLES: dict[str, Example] = {
    "dry_run": {
        "summary": "What would be done for a day?",
        "value": {"start": "2026-03-01T00:00:00Z", "end": "2026-03-02T00:00:00Z", "dry_run": True},
    },
    "failed": {
        "summary": "What failed, again, four at a time",
        "value": {
            "start": "2026-03-01T00:00:00Z",
            "end": "2026-03-02T00:00:00Z",
            "reprocess": "failed",
            "max_concurrent": 4,
        },
    },
}

RUN_NOW_EXAMPLES: dict[str, Example] = {
    "plain": {"summary": "As its own overlap policy has it", "value": {}},
    "beside": {"summary": "Also while another run is active", "value": {"overlap": "allow_all"}},
}

RUN_REQUEST_EXAMPLES: dict[str, Example] = {
    "plain": {"summary": "With the task's own options", "value": {"args": [], "kwargs": {}}},
    "options": {
        "summary": "On another queue, in a minute",
        "value": {"args": [], "kwargs": {}, "options": {"queue": "priority_high"}, "countdown": 60},
    },
}

SCHEDULE_EXAMPLE: dict[str, Any] = {
    "id": "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1",
    "version": 1,
    "task_name": "清理过期会话",
    "task_path": "src.apps.auth.tasks.cleanup_expired_sessions_task",
    "task": "auth.cleanup_expired_sessions",
    "task_type": "system",
    "task_enabled": True,
    "state": "active",
    "state_reason": None,
    "schedule": {"type": "crontab", "expression": "0 */2 * * *", "timezone": "UTC", "day_match": "and"},
    "task_args": [],
    "task_kwargs": {},
    "task_extra_config": {"queue": "system"},
    "description": None,
    "paused_at": None,
    "paused_by": None,
    "pause_note": None,
    "next_run_at": "2026-03-01T10:00:00Z",
    "created_at": "2026-03-01T08:41:12.345678Z",
    "updated_at": "2026-03-01T08:41:12.345678Z",
}

PASSWORD_EXAMPLES: dict[str, Example] = {
    "change": {
        "summary": "A new password",
        "value": {"current_password": "the old one", "new_password": "correct horse battery staple"},
    }
}

USER_CREATE_EXAMPLES: dict[str, Example] = {
    "operator": {
        "summary": "Somebody who may change schedules",
        "value": {"username": "ada", "password": "correct horse battery staple", "role": "operator"},
    }
}

USER_UPDATE_EXAMPLES: dict[str, Example] = {
    "role": {"summary": "Another role", "value": {"role": "viewer"}},
    "leaver": {"summary": "Somebody who left", "value": {"active": False}},
}

API_KEY_EXAMPLES: dict[str, Example] = {
    "ci": {
        "summary": "A build that runs tasks, and sees what became of them",
        "value": {"name": "build", "scopes": ["tasks:operate", "runs:read"]},
    },
    "reader": {
        "summary": "Reads everything until the end of the century",
        "value": {"name": "report", "scopes": ["read"], "expires_at": "2099-12-31T00:00:00Z"},
    },
}
