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
    "fixed_delay": {
        "summary": "Ten minutes after each run has ended, during 2099",
        "value": {
            "task_name": "Poll a slow service",
            "task_path": "scheduled_task.test_task",
            "schedule": {"type": "interval", "every": 10, "unit": "minutes", "fixed_delay": True},
            "task_extra_config": {
                "starts_at": "2099-01-01T00:00:00Z",
                "ends_at": "2099-12-31T23:59:59Z",
                "jitter": "10%",
            },
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

CANCEL_EXAMPLES: dict[str, Example] = {
    "politely": {"summary": "Let it clean up", "value": {"reason": "Started with the wrong month."}},
    "at_once": {"summary": "At once", "value": {"force": True}},
}

REPLAY_EXAMPLES: dict[str, Example] = {
    "same": {"summary": "As it was", "value": {}},
    "other": {"summary": "With other arguments", "value": {"args": [], "kwargs": {"message": "Once more."}}},
}

BULK_CANCEL_EXAMPLES: dict[str, Example] = {
    "count": {"summary": "How many wait here?", "value": {"queue": "priority_low", "dry_run": True}},
    "queue": {
        "summary": "All that wait in a queue",
        "value": {"queue": "priority_low", "states": ["queued"], "reason": "The report is not needed."},
    },
}

BULK_REPLAY_EXAMPLES: dict[str, Example] = {
    "failed": {
        "summary": "What failed on a day because a host was away",
        "value": {
            "exception": "ConnectError",
            "since": "2026-03-01T00:00:00Z",
            "until": "2026-03-02T00:00:00Z",
            "limit": 100,
        },
    }
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
    "owner": None,
    "owner_key": None,
    "paused_at": None,
    "paused_by": None,
    "pause_note": None,
    "next_run_at": "2026-03-01T10:00:00Z",
    "created_at": "2026-03-01T08:41:12.345678Z",
    "updated_at": "2026-03-01T08:41:12.345678Z",
}

TASK_EXAMPLE: dict[str, Any] = {
    "name": "auth.cleanup_old_sessions",
    "path": "app.modules.auth.tasks.cleanup_old_sessions",
    "aliases": ["src.apps.auth.tasks.cleanup_old_sessions_task"],
    "description": "Delete login sessions that ended more than `days` days ago.",
    "schedulable": True,
    "queue": "system",
    "soft_time_limit": None,
    "time_limit": None,
    "max_attempts": 1,
    "on_worker_lost": "fail",
    "concurrency_key": None,
    "concurrency_limit": None,
    "rate_limit": None,
    "parameters": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"days": {"type": "integer", "default": 30}},
        "required": [],
        "additionalProperties": False,
        "description": "Delete login sessions that ended more than `days` days ago.",
    },
    "positional_parameters": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "array",
        "prefixItems": [{"title": "days", "type": "integer", "default": 30}],
        "items": False,
        "minItems": 0,
    },
}

CALENDAR_EXAMPLES: dict[str, Example] = {
    "holidays": {
        "summary": "Public holidays of Bavaria, and two days of the company's own",
        "value": {
            "name": "munich-office",
            "description": "When nobody is there.",
            "dates": ["2026-12-24", "2026-12-31"],
            "holidays": {"country": "DE", "subdivision": "BY"},
        },
    },
    "dates": {"summary": "Dates only", "value": {"name": "freeze", "dates": ["2027-01-01"]}},
}

CALENDAR_UPDATE_EXAMPLES: dict[str, Example] = {
    "dates": {"summary": "Other dates", "value": {"dates": ["2027-12-24", "2027-12-31"]}},
    "no_holidays": {"summary": "Without public holidays", "value": {"holidays": None}},
}

CALENDAR_EXAMPLE: dict[str, Any] = {
    "id": "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b2",
    "name": "munich-office",
    "version": 1,
    "description": "When nobody is there.",
    "dates": ["2026-12-24", "2026-12-31"],
    "holidays": {"country": "DE", "subdivision": "BY"},
    "created_at": "2026-03-01T08:41:12.345678Z",
    "updated_at": "2026-03-01T08:41:12.345678Z",
}

DRAFT_EXAMPLES: dict[str, Example] = {
    "gap": {
        "summary": "Mondays at half past two, Berlin time",
        "value": {
            "schedule": {"type": "crontab", "expression": "30 2 * * MON", "timezone": "Europe/Berlin"},
            "task_extra_config": {"jitter": "5%", "ends_at": "2099-12-31T23:59:59Z"},
        },
    },
    "flat": {"summary": "In flat crontab fields", "value": {"task_crontab_hour": "*/2"}},
}

PREVIEW_EXAMPLE: dict[str, Any] = {
    "description": "At 02:30, Europe/Berlin; a time that the clock skips runs at the end of the gap",
    "timezone": "Europe/Berlin",
    "after": "2027-03-27T12:00:00Z",
    "items": [
        {
            "scheduled_for": "2027-03-28T01:00:00Z",
            "due_at": "2027-03-28T01:00:00Z",
            "local_time": "2027-03-28T03:00:00+02:00",
            "dst": "gap",
            "skipped_local_time": "2027-03-28T02:30:00",
            "offset_change": 3600.0,
            "excluded_by": None,
            "estimated": False,
        }
    ],
}

SIMULATION_EXAMPLES: dict[str, Example] = {
    "day": {
        "summary": "A day, if each run took five minutes",
        "value": {"start": "2027-03-28T00:00:00Z", "end": "2027-03-29T00:00:00Z", "duration": 300},
    },
    "from_now": {
        "summary": "From now on, the first hundred ticks",
        "value": {"end": "2099-01-01T00:00:00Z", "duration": 60, "limit": 100},
    },
}

SIMULATION_EXAMPLE: dict[str, Any] = {
    "description": "Every hour, counted from 1970-01-01 00:00 UTC",
    "start": "2027-03-28T00:30:00Z",
    "end": "2027-03-28T02:00:00Z",
    "counts": {"succeeded": 1, "cancelled": 0, "skipped": 1},
    "complete": True,
    "items": [
        {
            "scheduled_for": "2027-03-28T01:00:00Z",
            "due_at": "2027-03-28T01:00:00Z",
            "state": "succeeded",
            "reason": None,
            "started_at": "2027-03-28T01:00:00Z",
            "ended_at": "2027-03-28T02:30:00Z",
            "waited": 0.0,
        },
        {
            "scheduled_for": "2027-03-28T02:00:00Z",
            "due_at": "2027-03-28T02:00:00Z",
            "state": "skipped",
            "reason": "overlap",
            "started_at": None,
            "ended_at": None,
            "waited": 0.0,
        },
    ],
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

QUEUE_PAUSE_EXAMPLES: dict[str, Example] = {
    "maintenance": {"summary": "With the reason", "value": {"note": "The mail server is being moved."}}
}

PURGE_EXAMPLES: dict[str, Example] = {
    "dry_run": {"summary": "How many runs wait?", "value": {"dry_run": True}},
    "purge": {"summary": "Cancel what waits in celery", "value": {"confirm": "celery"}},
}

QUEUE_EXAMPLE: dict[str, Any] = {
    "name": "priority_low",
    "depth": 12,
    "oldest_age": 340.5,
    "held": 0,
    "delayed": 3,
    "blocked": 0,
    "running": 2,
    "messages": 12,
    "consumers": [
        {
            "id": "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b2",
            "name": "worker@host",
            "state": "ready",
            "concurrency": 4,
        }
    ],
    "paused": False,
    "paused_at": None,
    "paused_by": None,
    "pause_note": None,
}

RESIZE_EXAMPLES: dict[str, Example] = {
    "grow": {"summary": "Two more slots", "value": {"change": 2}},
    "shrink": {"summary": "One slot fewer", "value": {"change": -1}},
}

REVOKE_EXAMPLES: dict[str, Example] = {
    "ask": {
        "summary": "Ask a run to stop",
        "value": {"run_id": "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b2", "reason": "It reads the wrong file."},
    },
    "terminate": {
        "summary": "Stop it without grace",
        "value": {"run_id": "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b2", "force": True},
    },
}

_SPREAD: dict[str, Any] = {"count": 119, "p50": 0.0042, "p95": 0.0181, "p99": 0.0403}
_STATISTICS: dict[str, Any] = {
    "total": 120,
    "states": {"succeeded": 117, "failed": 2, "skipped": 1},
    "failures": 2,
    "failure_rate": 0.016807,
    "lateness": _SPREAD,
    "duration": _SPREAD,
}

STATISTICS_EXAMPLE: dict[str, Any] = {
    "since": "2026-03-01T09:00:00Z",
    "until": "2026-03-01T10:00:00Z",
    "interval": 3600,
    "items": [{"start": "2026-03-01T09:00:00Z", **_STATISTICS}],
    "all": _STATISTICS,
}

RESTORE_EXAMPLES: dict[str, Example] = {
    "reason": {"summary": "With the reason", "value": {"reason": "The new hour collides with the backup."}}
}

BULK_EXAMPLES: dict[str, Example] = {
    "dry_run": {
        "summary": "How many would be paused?",
        "value": {
            "action": "pause",
            "filter": {"queue": "priority_low", "state": "active"},
            "note": "Database maintenance until Sunday.",
            "dry_run": True,
        },
    },
    "disable": {
        "summary": "Disable those of one task",
        "value": {
            "action": "disable",
            "filter": {"task": "scheduled_task.test_task", "owner": "people"},
            "reason": "Not needed any more.",
        },
    },
}

_ENTRIES: dict[str, Any] = {
    "Nightly clean-up": {
        "task_path": "auth.cleanup_old_sessions",
        "schedule": {"type": "crontab", "expression": "20 3 * * *", "timezone": "Europe/Berlin"},
        "task_kwargs": {"days": 30},
    }
}

EXPORT_EXAMPLE: dict[str, Any] = {"schedules": _ENTRIES, "next_cursor": None}

IMPORT_EXAMPLES: dict[str, Example] = {
    "dry_run": {"summary": "What would change?", "value": {"schedules": _ENTRIES, "dry_run": True}},
    "yaml": {
        "summary": "A document in YAML",
        "value": {
            "yaml": "schedules:\n  Imported check:\n    task_path: scheduled_task.test_task\n"
            "    schedule: {type: interval, every: 1, unit: hours}\n",
        },
    },
}
