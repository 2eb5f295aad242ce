"""Webhooks about the processes themselves, with real ones: who is silent, who is missing, and who is back."""

import json
import signal
from collections.abc import Iterator

import httpx
import pytest

from app.sealing import new_key
from app.settings import Settings
from support.api import client_of
from support.peer import Answer, Peer, Request, running_peer
from support.polling import eventually
from support.stack import Stack
from upbeat_sdk import verify_webhook

HOOK = "/hook"
PATIENCE = 40.0
# Short, and yet longer than a busy machine makes a living beat wait.
QUICK = {
    "UPBEAT_ALERT_LOOK_EVERY": "0.2",
    "UPBEAT_ALERT_BEAT_SILENT": "4",
    "UPBEAT_ALERT_QUEUE_PATIENCE": "1",
    "UPBEAT_WEBHOOK_LOOK_EVERY": "0.1",
    "UPBEAT_BEAT_HEARTBEAT_EVERY": "0.3",
    "UPBEAT_OUTBOUND_ALLOW": "127.0.0.1",
}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as running:
        running.answer(HOOK, Answer(204, b""))
        yield running


def test_a_silent_beat_and_a_queue_without_a_worker_are_told_and_so_is_their_return(
    stack: Stack, peer: Peer, settings: Settings
) -> None:
    stack.environment.update(QUICK, UPBEAT_SECRET_KEYS=new_key())
    beat, api = stack.beat(wait=False), stack.api()
    with client_of(api.url, settings) as client:
        secret = _webhook(client, f"{peer.url}{HOOK}")
        schedule = {
            "task_name": "often",
            "task_path": "scheduled_task.test_task",
            "schedule": {"type": "interval", "every": 1, "unit": "seconds"},
            "task_extra_config": {"queue": "priority_low", "overlap": "skip"},
        }
        assert client.post("/api/v1/scheduled-tasks", json=schedule).status_code == 201

        def told(kind: str) -> Request:
            found = [each for each in peer.asked(HOOK) if json.loads(each.body)["type"] == kind]
            assert found, [json.loads(each.body)["type"] for each in peer.asked(HOOK)]
            return found[0]

        missing = eventually(lambda: told("queue.unconsumed"), PATIENCE)
        assert verify_webhook(missing.body, missing.headers, secret).data["queue"] == "priority_low"
        stack.worker("-P", "solo", "-Q", "priority_low", wait=False)
        back = eventually(lambda: told("queue.recovered"), PATIENCE)
        assert verify_webhook(back.body, back.headers, secret).data == {"queue": "priority_low"}
        assert not [each for each in peer.asked(HOOK) if b"beat." in each.body], "it lived all the time"

        beat.signal_group(signal.SIGKILL)
        silent = eventually(lambda: told("beat.silent"), PATIENCE)
        assert verify_webhook(silent.body, silent.headers, secret).data["seconds"] >= 4
        opened = client.get("/api/v1/alerts", params={"standing": "open"}).json()["items"]
        assert "beat_silent" in {each["kind"] for each in opened}
        stack.beat(wait=False)
        heard = eventually(lambda: told("beat.recovered"), PATIENCE)
        verify_webhook(heard.body, heard.headers, secret)
        closed = client.get("/api/v1/alerts", params={"kind": "beat_silent"}).json()["items"]
        assert closed[0]["closed_at"] is not None
    ids = [each.headers["webhook-id"] for each in peer.asked(HOOK)]
    assert len(ids) == len(set(ids)), "each is told once"


def _webhook(client: httpx.Client, url: str) -> str:
    kinds = ["beat.silent", "beat.recovered", "queue.unconsumed", "queue.recovered"]
    made = client.post("/api/v1/webhooks", json={"name": "pager", "url": url, "event_types": kinds})
    assert made.status_code == 201, made.text
    return str(made.json()["secret"])
