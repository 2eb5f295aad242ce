"""One started stack, driven over HTTP only, as its users drive it."""

import os
import signal
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from support.checkout import Checkout, new_checkout
from support.polling import eventually, holds_throughout
from support.processes import Process, Processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PASSWORD = "correct horse battery"
SCHEDULES = "/api/v1/scheduled-tasks"
ANY = {"If-Match": "*"}
RUNS = "/api/v1/runs"
TASKS = "/api/v1/tasks"

# As celery-integration.zh.md gives it.
EXAMPLE = """
{
    "task_name": "清理过期会话",
    "task_path": "src.apps.auth.tasks.cleanup_expired_sessions_task",
    "task_type": "system",
    "task_enabled": true,
    "task_crontab_minute": "0",
    "task_crontab_hour": "*/2",
    "task_extra_config": {
        "queue": "system"
    }
}
"""
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, shared_processes: Processes) -> Iterator[Checkout]:
    made = new_checkout(tmp_path_factory.mktemp("e2e"), shared_processes)
    yield made
    made.end()


@pytest.fixture(scope="module")
def up(checkout: Checkout) -> Process:
    return checkout.started(UPBEAT_ADMIN_USERNAME="operator", UPBEAT_ADMIN_PASSWORD=PASSWORD)


@pytest.fixture(scope="module")
def client(checkout: Checkout, up: Process) -> Iterator[httpx.Client]:
    headers = checkout.login(PASSWORD, "operator")
    with httpx.Client(base_url=checkout.url, headers=headers, timeout=20) as client:
        yield client


@pytest.fixture
def every_second(client: httpx.Client) -> Iterator[dict[str, Any]]:
    """A schedule whose ticks run side by side; it is gone afterwards."""
    body = {
        "task_name": "every second",
        "task_path": "scheduled_task.test_task",
        "task_kwargs": {"message": "tick"},
        "schedule": {"type": "interval", "every": 1, "unit": "seconds"},
        "task_extra_config": {"overlap": "allow_all", "queue": "priority_high"},
    }
    answer = client.post(SCHEDULES, json=body)
    assert answer.status_code == 201, answer.text
    yield answer.json()
    client.delete(f"{SCHEDULES}/{answer.json()['id']}", headers=ANY)


def read(client: httpx.Client, path: str, **query: object) -> Any:
    answer = client.get(path, params={name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    return answer.json()


def run_of(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """The run that was accepted with 202, when it has succeeded."""
    assert answer.status_code == 202, answer.text
    path = answer.headers["Location"]
    assert path == f"{RUNS}/{answer.json()['id']}"

    def ended() -> dict[str, Any]:
        run: dict[str, Any] = read(client, path)
        assert run["state"] == "succeeded", run
        return run

    return eventually(ended, 30, "the run to succeed")


def succeeded(client: httpx.Client, schedule: str, number: int) -> list[dict[str, Any]]:
    def enough() -> list[dict[str, Any]]:
        found = read(client, RUNS, schedule_id=schedule, state="succeeded")["items"]
        return found if len(found) >= number else []

    return eventually(enough, 40, f"{number} runs to succeed")


def whole(client: httpx.Client, path: str, limit: int, **query: object) -> list[dict[str, Any]]:
    """All items, page by page."""
    items: list[dict[str, Any]] = []
    page = read(client, path, limit=limit, **query)
    while True:
        assert len(page["items"]) <= limit
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        page = read(client, path, limit=limit, cursor=page["next_cursor"], **query)


def test_nothing_but_health_and_login_is_open(checkout: Checkout, up: Process) -> None:
    paths = httpx.get(f"{checkout.url}/openapi.json").json()["paths"]
    with httpx.Client(base_url=checkout.url) as stranger:
        open_paths = {
            path
            for path, operations in paths.items()
            for method in operations
            if stranger.request(method, path).status_code != 401
        }
    assert open_paths == {"/livez", "/readyz", "/api/v1/auth/login", "/api/v1/auth/browser"}
    wrong = {"username": "operator", "password": "wrong"}
    assert httpx.post(f"{checkout.url}/api/v1/auth/login", data=wrong).status_code == 401
    assert httpx.get(f"{checkout.url}/readyz").json()["status"] == "ready"


def test_the_authorize_button_of_the_documentation(checkout: Checkout, up: Process) -> None:
    document = httpx.get(f"{checkout.url}/openapi.json").json()
    scheme = document["components"]["securitySchemes"]["Password"]
    token_url = urljoin(f"{checkout.url}/docs", scheme["flows"]["password"]["tokenUrl"])
    # What Swagger UI sends when the client's fields are left empty.
    form = {"grant_type": "password", "username": "operator", "password": PASSWORD}
    answer = httpx.post(token_url, data=form, headers={"Authorization": "Basic Og=="})
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "bearer"
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert httpx.get(checkout.url + RUNS, headers=headers).status_code == 200


def test_the_given_administrator_is_told_to_nobody(checkout: Checkout, up: Process) -> None:
    assert PASSWORD not in up.output()
    env = checkout.folder / ".upbeat" / "env"
    assert env.stat().st_mode & 0o777 == 0o600


def test_an_agents_credential_is_kept_with_the_key_that_the_start_made(
    checkout: Checkout, client: httpx.Client
) -> None:
    body = {"name": "kept", "kind": "webhook", "url": "https://hooks.example.com/"}
    made = client.post("/api/v1/agents", json=body)
    assert made.status_code == 201, made.text
    path = f"/api/v1/agents/{made.json()['id']}"
    answer = client.put(f"{path}/credential", json={"credential": "the-key-of-the-service"}, headers=ANY)
    assert answer.status_code == 200, answer.text
    assert client.delete(path, headers=ANY).status_code == 204
    keys = checkout.folder / ".upbeat" / "secret_keys"
    assert keys.stat().st_mode & 0o777 == 0o600
    assert keys.read_text().strip() in (checkout.folder / ".upbeat" / "env").read_text()


def test_a_command_started_by_hand_finds_the_stack(checkout: Checkout, up: Process) -> None:
    inspect = checkout.processes.start(
        "inspect",
        (sys.executable, "-m", "celery", "-A", "app.worker", "inspect", "ping"),
        checkout.environment(),
        checkout.folder,
    )
    assert inspect.wait(60) == 0, inspect.output()
    assert "pong" in inspect.output()


def test_the_example_of_the_description_is_created(client: httpx.Client) -> None:
    answer = client.post(SCHEDULES, content=EXAMPLE.encode(), headers=JSON)
    assert answer.status_code == 201, answer.text
    created = answer.json()
    assert client.get(answer.headers["Location"]).json() == created
    now = datetime.fromisoformat(created["created_at"])
    last = now.replace(hour=now.hour - now.hour % 2, minute=0, second=0, microsecond=0)
    assert datetime.fromisoformat(created["next_run_at"]) == last + timedelta(hours=2)
    assert abs(now - parsedate_to_datetime(answer.headers["Date"])) < timedelta(seconds=30)
    assert created["task"] == "auth.cleanup_expired_sessions"
    assert created["task_extra_config"]["queue"] == "system"
    run = run_of(client, client.post(f"{answer.headers['Location']}/run"))
    assert (run["queue"], run["origin"], run["scheduled_for"]) == ("system", "manual", None)
    assert client.delete(answer.headers["Location"], headers=ANY).status_code == 204


def test_from_creation_to_deletion(client: httpx.Client, every_second: dict[str, Any]) -> None:
    path = f"{SCHEDULES}/{every_second['id']}"
    runs = succeeded(client, every_second["id"], 3)[:3]
    newest, *older = [datetime.fromisoformat(run["scheduled_for"]) for run in runs]
    assert older == [newest - timedelta(seconds=1), newest - timedelta(seconds=2)]
    run = read(client, f"{RUNS}/{runs[0]['id']}")
    assert run == runs[0]
    assert (run["queue"], run["attempt"], run["celery_state"]) == ("priority_high", 1, "SUCCESS")
    assert run["result"].items() >= {"message": "tick", "run_id": run["id"], "attempt": 1}.items()
    assert datetime.fromisoformat(run["started_at"]) >= datetime.fromisoformat(run["scheduled_for"])

    change = {"task_kwargs": {"message": "changed"}, "task_name": "每秒一次"}
    updated = client.patch(path, json=change, headers=ANY).json()
    assert (updated["version"], updated["task_name"]) == (every_second["version"] + 1, "每秒一次")
    eventually(
        lambda: succeeded(client, every_second["id"], 1)[0]["result"]["message"] == "changed",
        20,
        "a run with the new argument",
    )

    disabled = client.post(f"{path}/disable").json()
    assert (disabled["task_enabled"], disabled["state"]) == (False, "disabled")
    assert disabled["next_run_at"] is None
    number = len(whole(client, RUNS, 200, schedule_id=every_second["id"]))
    holds_throughout(
        lambda: len(read(client, RUNS, schedule_id=every_second["id"], limit=200)["items"]) == number,
        1.5,
        "nothing fires while it is disabled",
    )
    manual = run_of(client, client.post(f"{path}/run"))
    assert (manual["schedule_id"], manual["result"]["message"]) == (every_second["id"], "changed")
    assert client.post(f"{path}/enable").json()["next_run_at"] is not None
    succeeded(client, every_second["id"], number + 2)

    assert client.delete(path, headers=ANY).status_code == 204
    assert client.get(path).status_code == 404
    assert read(client, RUNS, schedule_id=every_second["id"])["items"], "its history stays"


def test_a_task_is_run_on_demand(client: httpx.Client) -> None:
    body = {"kwargs": {"message": "now"}, "options": {"queue": "priority_low"}}
    run = run_of(client, client.post(f"{TASKS}/scheduled_task.test_task/runs", json=body))
    assert (run["queue"], run["origin"], run["result"]["message"]) == ("priority_low", "submit", "now")
    alias = "src.apps.scheduled_task.tasks.test_task"
    late = run_of(client, client.post(f"{TASKS}/{alias}/runs", json={"args": ["later"], "countdown": 1}))
    waited = datetime.fromisoformat(late["started_at"]) - datetime.fromisoformat(late["created_at"])
    assert waited >= timedelta(seconds=1)
    missing = client.post(f"{TASKS}/no.such.task/runs", json={})
    assert (missing.status_code, missing.json()["type"]) == (404, "/problems/not_found")


def test_pages_hold_everything_once(client: httpx.Client) -> None:
    body = {"task_path": "scheduled_task.test_task", "task_enabled": False}
    body |= {"schedule": {"type": "crontab", "expression": "@daily", "timezone": "Asia/Shanghai"}}
    made = [client.post(SCHEDULES, json=body | {"task_name": f"page {n}"}).json() for n in range(7)]
    runs = [client.post(f"{SCHEDULES}/{made[0]['id']}/run").json()["id"] for _ in range(7)]
    assert [each["id"] for each in whole(client, SCHEDULES, 3, search="page ")] == [
        each["id"] for each in made
    ]
    assert [each["id"] for each in whole(client, RUNS, 3, schedule_id=made[0]["id"])] == runs[::-1]
    names = [task["name"] for task in whole(client, TASKS, 2)]
    assert names == sorted(set(names))
    for each in made:
        assert client.delete(f"{SCHEDULES}/{each['id']}", headers=ANY).status_code == 204


def test_a_second_start_beside_the_first_is_refused(checkout: Checkout, up: Process) -> None:
    living = checkout.living()
    assert "already running in this folder" in checkout.refused()
    assert checkout.living() == living
    assert up.alive


def test_a_killed_service_is_restarted_and_the_terminal_says_so(checkout: Checkout, up: Process) -> None:
    pid = int((checkout.folder / ".upbeat" / "run" / "beat.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    up.wait_for_output("beat was restarted", 20)
