"""Every write that was answered with 2xx is still there: what the answers said, against what can be read afterwards."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

# What the service itself changes, whoever asks; the rest of an object is as its last writer was told.
MOVES = frozenset(
    {
        *("state", "state_reason", "task_enabled", "next_run_at", "updated_at", "version"),
        *("paused_at", "paused_by", "pause_note", "last_login_at", "last_used_at", "revoked_at", "secret"),
        *("health", "consecutive_failures", "last_error", "last_checked_at", "exhausted_on", "usage_day"),
        *("calls_used", "tokens_used", "secret_set_at", "previous_secret_until"),
    }
)
# A run goes on by itself; these never change.
OF_A_RUN = frozenset({"id", "origin", "task", "schedule_id", "args", "kwargs", "replay_of", "created_at"})


@dataclass(frozen=True, slots=True)
class Written:
    """One answer with 2xx to a change."""

    operation: str
    method: str
    path: str
    status: int
    location: str | None
    body: Any


def read(path: Path) -> list[Written]:
    """The ledger, in the order of the answers."""
    return [Written(**json.loads(line)) for line in path.read_text().splitlines()]


def standing(ledger: list[Written]) -> dict[str, Any]:
    """By path, what each object's last writer was told; None for one that was deleted."""
    found: dict[str, Any] = {}
    for each in ledger:
        if each.location is not None:
            found[each.location] = each.body
        elif each.method == "DELETE" and each.operation.startswith("delete_"):
            found[each.path] = None
        elif each.method in ("PATCH", "PUT") and each.path in found:
            found[each.path] = each.body
    return found


def lost(client: httpx.Client, ledger: list[Written]) -> Iterator[str]:
    """What is not as the last answer said."""
    for path, told in standing(ledger).items():
        answer = client.get(path)
        if told is None:
            if answer.status_code != 404:
                yield f"{path} was deleted, and answers {answer.status_code}"
        elif answer.status_code != 200:
            yield f"{path} was written, and answers {answer.status_code}"
        else:
            yield from _differences(path, told, answer.json())


def _differences(path: str, told: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    kept = OF_A_RUN if path.startswith("/api/v1/runs/") else told.keys() - MOVES
    for name in sorted(kept & told.keys()):
        if told[name] != now.get(name):
            yield f"{path}: {name} was {told[name]!r}, and is {now.get(name)!r}"
