"""Examples of the OpenAPI document."""

from typing import Any

CREATE_EXAMPLES: dict[str, Any] = {
    "on_call": {
        "summary": "Whoever is on call",
        "value": {
            "name": "on call",
            "url": "https://hooks.example.com/upbeat",
            "event_types": [
                "run.failed",
                "schedule.late",
                "schedule.recovered",
                "beat.silent",
                "queue.unconsumed",
            ],
        },
    },
    "one_team": {
        "summary": "What concerns one team's schedules",
        "value": {
            "name": "reports team",
            "url": "https://chat.example.com/hooks/7f3a",
            "description": "The channel of the reports team.",
            "event_types": ["run.failed", "schedule.missed", "schedule.paused", "schedule.invalid"],
            "tags": ["team:reports"],
        },
    },
}

UPDATE_EXAMPLES: dict[str, Any] = {
    "disable": {"summary": "Tell nothing for now", "value": {"enabled": False}},
    "types": {
        "summary": "Other events, of all schedules",
        "value": {"event_types": ["run.failed"], "tags": None},
    },
}

WEBHOOK_EXAMPLE: dict[str, Any] = {
    "id": "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1",
    "version": 1,
    "name": "on call",
    "url": "https://hooks.example.com/upbeat",
    "description": None,
    "enabled": True,
    "event_types": ["run.failed", "schedule.late", "schedule.recovered"],
    "schedule_ids": None,
    "tasks": None,
    "tags": None,
    "secret_set_at": "2026-03-01T09:00:00Z",
    "previous_secret_until": None,
    "created_at": "2026-03-01T09:00:00Z",
    "updated_at": "2026-03-01T09:00:00Z",
}

NEW_WEBHOOK_EXAMPLE: dict[str, Any] = WEBHOOK_EXAMPLE | {"secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}

DELIVERY_EXAMPLE: dict[str, Any] = {
    "id": "0199d0c3-1111-7a51-9c66-3f0c5f3ad4b1",
    "webhook_id": "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1",
    "type": "run.failed",
    "state": "pending",
    "attempts": 2,
    "status": 503,
    "error": "Answered 503, which is not 2xx.",
    "duration": 0.041,
    "created_at": "2026-03-01T09:10:00Z",
    "last_attempt_at": "2026-03-01T09:10:06Z",
    "next_attempt_at": "2026-03-01T09:10:26Z",
    "delivered_at": None,
}

# What a receiver gets, shown in the description of the resource.
RECEIVED = """\
A delivery is a POST of JSON, `{"type": "run.failed", "timestamp": "2026-03-01T09:10:00Z", "data": {…}}`, signed as the
Standard Webhooks specification says:

- `webhook-id` is the same for every attempt: keep those of the last minutes, and ignore what you have seen.
- `webhook-timestamp` is the time of the attempt in seconds; refuse what is more than 5 minutes off.
- `webhook-signature` holds one or more `v1,` signatures, separated by spaces: base64 of the HMAC-SHA256 of
  `{id}.{timestamp}.{body}` with the secret (base64 after `whsec_`). One that fits is enough.

`upbeat_sdk.verify_webhook(body, headers, secret)` does this. Any 2xx counts as received; everything else is tried
again, up to 10 times over about a day, each pause four times as long, at most 6 hours, `Retry-After` heeded. Order is
not promised."""
