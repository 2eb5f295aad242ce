"""Examples of the OpenAPI document."""

from typing import Any

CREATE_EXAMPLES: dict[str, Any] = {
    "chat": {
        "summary": "A chat completion API",
        "value": {
            "name": "summariser",
            "kind": "chat",
            "url": "https://models.example.com/v1",
            "model": "small",
            "system_prompt": "You write short summaries.",
            "prompt_template": "Summarise $topic in $sentences sentences.",
            "max_tokens": 500,
            "time_limit": 120,
            "daily_calls": 200,
            "daily_tokens": 100000,
        },
    },
    "webhook": {
        "summary": "A plain webhook",
        "value": {
            "name": "deployer",
            "kind": "webhook",
            "url": "https://hooks.example.com/deploy",
            "credential_header": "X-Api-Key",
        },
    },
}

UPDATE_EXAMPLES: dict[str, Any] = {
    "budget": {"summary": "Another budget", "value": {"daily_calls": 500, "daily_tokens": None}},
    "disable": {"summary": "Take no more calls", "value": {"enabled": False}},
}

CREDENTIAL_EXAMPLES: dict[str, Any] = {
    "set": {"summary": "Set", "value": {"credential": "the-key-of-the-service"}},
    "remove": {"summary": "Remove", "value": {"credential": None}},
}

RUN_EXAMPLES: dict[str, Any] = {
    "variables": {
        "summary": "With the agent's template",
        "value": {"variables": {"topic": "the news of today", "sentences": 3}},
    },
    "prompt": {"summary": "With a prompt of its own", "value": {"prompt": "Say hello."}},
}

AGENT_EXAMPLE: dict[str, Any] = {
    "id": "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b2",
    "name": "summariser",
    "version": 1,
    "kind": "chat",
    "url": "https://models.example.com/v1",
    "health_url": None,
    "description": None,
    "enabled": True,
    "model": "small",
    "system_prompt": "You write short summaries.",
    "prompt_template": "Summarise $topic in $sentences sentences.",
    "max_tokens": 500,
    "time_limit": 120.0,
    "credential_header": "Authorization",
    "credential_set_at": "2026-03-01T08:41:12.345678Z",
    "daily_calls": 200,
    "daily_tokens": 100000,
    "failures_allowed": 3,
    "health": "healthy",
    "consecutive_failures": 0,
    "last_error": None,
    "last_checked_at": "2026-03-01T09:40:00.123456Z",
    "exhausted_on": None,
    "usage_day": "2026-03-01",
    "calls_used": 17,
    "tokens_used": 5120,
    "created_at": "2026-03-01T08:40:12.345678Z",
    "updated_at": "2026-03-01T08:40:12.345678Z",
}

CALL_EXAMPLE: dict[str, Any] = {
    "id": "0199d0c4-1c3d-7a51-9c66-3f0c5f3ad4b3",
    "run_id": "0199d0c4-1b00-7a51-9c66-3f0c5f3ad4b4",
    "attempt": 1,
    "state": "succeeded",
    "status": 200,
    "error": None,
    "request": "Summarise the news of today in 3 sentences.",
    "reply": "First. Second. Third.",
    "prompt_tokens": 21,
    "completion_tokens": 12,
    "duration": 1.204,
    "called_at": "2026-03-01T09:40:12.345678Z",
}
