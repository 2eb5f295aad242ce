"""The audit: each change leaves its line in the same transaction, and no line is ever changed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from app.api.dependencies import authorize
from app.api.guards import OPERATE, guarded
from app.api.routing import resource_router
from app.cli.people import add_person
from app.db.companions import Changes, accompanied, bring, present
from app.modules.audit.service import LONGEST_CHANGES, LONGEST_VALUE, presentable
from app.modules.auth.refusals import AT_ONCE, EVERY, Place, Refusal, Refusals
from app.settings import Settings
from support.api import connect, connected, log_in, serving
from support.people import PASSWORD, cheap_passwords, person, token_of
from support.polling import eventually_async
from support.servers import Database

AUDIT = "/api/v1/audit"
SCHEDULES = "/api/v1/scheduled-tasks"
BODY: dict[str, Any] = {
    "task_name": "audited",
    "task_path": "scheduled_task.test_task",
    "schedule": {"type": "interval", "every": 1, "unit": "hours"},
}
ELSEWHERE = resource_router("/elsewhere", "Runs")
HERE = Place("192.0.2.77", request_id="flood")


@ELSEWHERE.post("")
@guarded(OPERATE)
async def change_elsewhere() -> str:
    """As a route does that changes something in Redis only."""
    return "done"


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    with cheap_passwords():
        async with serving(settings) as app:
            app.include_router(ELSEWHERE, prefix="/api/v1", dependencies=[Depends(authorize)])
            yield app


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        yield client


async def entries(admin: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await admin.get(AUDIT, params={"limit": 200, **query})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_a_schedules_life(admin: httpx.AsyncClient) -> None:
    me = (await admin.get("/api/v1/auth/me")).json()
    before = datetime.now(UTC)
    made = (await admin.post(SCHEDULES, json=BODY, headers={"X-Request-ID": "made-1"})).json()
    path = f"{SCHEDULES}/{made['id']}"
    await admin.patch(path, json={"task_name": "renamed"}, headers={"If-Match": "*"})
    await admin.post(f"{path}/pause", json={"note": "why not"})
    await admin.post(f"{path}/run")
    await admin.delete(path, headers={"If-Match": "*"})
    found = await entries(admin, object_id=made["id"])
    assert [entry["action"] for entry in reversed(found)] == [
        "create_scheduled_task",
        "update_scheduled_task",
        "pause_scheduled_task",
        "run_scheduled_task",
        "delete_scheduled_task",
    ]
    created, renamed = found[-1], found[-2]
    assert (
        created.items()
        >= {
            "actor": "admin",
            "actor_id": me["id"],
            "means": "session",
            "outcome": "done",
            "object_type": "scheduled-tasks",
            "object_id": made["id"],
            "request_id": "made-1",
            "address": "127.0.0.1",
        }.items()
    )
    assert datetime.fromisoformat(created["at"]) >= before
    row = f"celery_periodic_task_configs/{made['id']}"
    assert created["changes"][row]["task_name"] == {"before": None, "after": "audited"}
    assert renamed["changes"][row]["task_name"] == {"before": "audited", "after": "renamed"}
    assert renamed["changes"][row]["version"] == {"before": 1, "after": 2}


async def test_what_is_refused_leaves_nothing(admin: httpx.AsyncClient) -> None:
    path = (await admin.post(SCHEDULES, json=BODY)).headers["Location"]
    before = len(await entries(admin))
    for answer in (
        await admin.post(SCHEDULES, json=BODY | {"task_path": "no.such"}),
        await admin.patch(path, json={"task_name": "x"}, headers={"If-Match": '"9"'}),
        await admin.patch(path, json={"task_name": "x"}),
        await admin.post(f"{path}/resume", json={}),
        await admin.get(path),
    ):
        assert answer.status_code in (200, 409, 412, 422, 428)
    assert len(await entries(admin)) == before


async def test_a_dry_run_leaves_nothing(admin: httpx.AsyncClient) -> None:
    path = (await admin.post(SCHEDULES, json=BODY)).headers["Location"]
    await admin.post(f"{path}/pause", json={"note": "why not"})
    before = len(await entries(admin))
    period = {"start": "2026-03-01T00:00:00Z", "end": "2026-03-01T02:00:00Z"}
    chosen = {"task": "scheduled_task.test_task"}
    for url, body in (
        (f"{path}/resume", {}),
        (f"{path}/backfill", period),
        ("/api/v1/runs/cancel", chosen),
        ("/api/v1/runs/replay", chosen),
    ):
        assert (await admin.post(url, json=body | {"dry_run": True})).json()["dry_run"] is True
    assert len(await entries(admin)) == before


async def test_a_change_that_cannot_be_recorded_is_not_made(api: FastAPI, admin: httpx.AsyncClient) -> None:
    path = (await admin.post(SCHEDULES, json=BODY)).headers["Location"]
    before = (await admin.get(path)).json()
    sessions = api.state.services.sessions
    async with sessions.begin() as session:
        refusal = "CHECK (action <> 'update_scheduled_task') NOT VALID"
        await session.execute(text(f"ALTER TABLE audit_log ADD CONSTRAINT refusal {refusal}"))
    try:
        answer = await admin.patch(path, json={"task_name": "unseen"}, headers={"If-Match": "*"})
        assert answer.status_code == 500
        assert (await admin.get(path)).json() == before
    finally:
        async with sessions.begin() as session:
            await session.execute(text("ALTER TABLE audit_log DROP CONSTRAINT refusal"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'somebody else'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ],
)
async def test_nothing_recorded_is_changed(api: FastAPI, admin: httpx.AsyncClient, statement: str) -> None:
    """Not even by the role that owns the table, as in these tests."""
    await admin.post(SCHEDULES, json=BODY)
    before = await entries(admin)
    with pytest.raises(ProgrammingError, match="append-only"):
        async with api.state.services.sessions.begin() as session:
            await session.execute(text(statement))
    assert await entries(admin) == before


async def test_logins_are_recorded_also_refused_ones(api: FastAPI, admin: httpx.AsyncClient) -> None:
    name = await person(api)
    await log_in(api, name, PASSWORD)
    async with connect(api) as client:
        form = {"username": name, "password": "wrong"}
        assert (await client.post("/api/v1/auth/login", data=form)).status_code == 401
        slip = {"username": "my secret passphrase", "password": "wrong"}
        assert (await client.post("/api/v1/auth/login", data=slip)).status_code == 401

    async def written() -> list[dict[str, Any]]:
        refused = await entries(admin, action="login", outcome="refused", actor=name)
        return refused and await entries(admin, action="login", outcome="refused", actor="(unknown)")

    assert await eventually_async(written, 10)
    done, refused = sorted(
        await entries(admin, action="login", actor=name), key=lambda entry: str(entry["outcome"])
    )
    assert (done["outcome"], refused["outcome"]) == ("done", "refused")
    assert (done["credential_id"] is None, refused["credential_id"]) == (False, None)
    assert "passphrase" not in str(await entries(admin)), "names are sometimes passwords in the wrong field"


async def test_refused_logins_do_not_fill_the_audit(
    api: FastAPI, admin: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A flood of unknown names has its first entries and a sum; a user who is tried meanwhile has entries of their own."""
    sessions = api.state.services.sessions
    name = await person(api)
    me = (await admin.get("/api/v1/users", params={"search": name})).json()["items"][0]["id"]
    now = 1000.0
    refusals = Refusals(sessions, clock=lambda: now)
    before = len(await entries(admin, action="login", actor="(unknown)"))

    async def told() -> list[Any]:
        found = await entries(admin, action="login", actor="(unknown)")
        return [entry["changes"] for entry in found[: len(found) - before]]

    def told_are(number: int) -> Callable[[], Awaitable[bool]]:
        async def holds() -> bool:
            return len(await told()) == number

        return holds

    keeping = asyncio.create_task(refusals.keep())
    with caplog.at_level("WARNING", logger="app.modules.auth.refusals"):
        for number in range(500):
            refusals.note(Refusal(f"guess {number}", None, HERE, "throttled"))
        refusals.note(Refusal(name, UUID(me), HERE, "refused"))
    lines = [each.getMessage() for each in caplog.records if each.name == "app.modules.auth.refusals"]
    assert len(lines) == 501
    assert "guess" not in str(lines), "an unknown name may be a password"
    assert name in lines[-1]
    assert HERE.address in lines[-1]
    await eventually_async(told_are(AT_ONCE), 10)
    (entry,) = await entries(admin, action="login", actor=name)
    assert (entry["outcome"], entry["address"], entry["actor_id"]) == ("refused", HERE.address, me)
    now += EVERY
    refusals.note(Refusal("again", None, HERE, "refused"))
    await eventually_async(told_are(AT_ONCE + 1), 10)
    refusals.note(Refusal("and again", None, HERE, "refused"))
    refusals.note(Refusal("and again", None, HERE, "refused"))
    keeping.cancel()
    await asyncio.wait({keeping})
    newest = await told()
    assert len(newest) == AT_ONCE + 2
    further = [changes["logins"]["further"]["after"] for changes in newest[:2]]
    assert further == [1, 500 - AT_ONCE], "the last words of a process count, too"


async def test_a_wrong_current_password_is_a_refusal(api: FastAPI, admin: httpx.AsyncClient) -> None:
    name = await person(api)
    async with connect(api, await log_in(api, name, PASSWORD)) as client:
        body = {"current_password": "a guess of it", "new_password": "another password"}
        assert (await client.put("/api/v1/auth/password", json=body)).status_code == 422

    async def written() -> list[dict[str, Any]]:
        return await entries(admin, action="change_own_password", actor=name, outcome="refused")

    assert await eventually_async(written, 10)


async def test_secrets_are_not_recorded(api: FastAPI, admin: httpx.AsyncClient, database: Database) -> None:
    body = {"username": "grace", "password": "a secret of hers", "role": "viewer"}
    grace = (await admin.post("/api/v1/users", json=body)).json()
    path = f"/api/v1/users/{grace['id']}"
    change = {"password": "another secret", "role": "operator"}
    await admin.patch(path, json=change, headers={"If-Match": "*"})
    key = (await admin.post("/api/v1/api-keys", json={"name": "k", "scopes": ["read"]})).json()
    with psycopg.connect(database.url) as connection:
        dump = str(connection.execute("SELECT string_agg(a::text, '') FROM audit_log a").fetchone())
        hashes = connection.execute("SELECT password_hash FROM users").fetchall()
    for secret in ("a secret of hers", "another secret", key["secret"], *(row[0] for row in hashes)):
        assert secret not in dump
    for made in (grace, key):
        assert [entry["outcome"] for entry in await entries(admin, object_id=made["id"])][-1] == "done"
    (changed,) = await entries(admin, action="update_user", object_id=grace["id"])
    assert changed["changes"][f"users/{grace['id']}"] == {
        "role": {"before": "viewer", "after": "operator"},
        "version": {"before": 1, "after": 2},
        "password_hash": {"before": "(secret)", "after": "(secret)"},
    }


async def test_the_means_are_told(api: FastAPI, admin: httpx.AsyncClient, settings: Settings) -> None:
    made = (await admin.post("/api/v1/api-keys", json={"name": "k", "scopes": ["operate"]})).json()
    async with connect(api, made["secret"]) as program:
        assert (await program.post(SCHEDULES, json=BODY)).status_code == 201
    entry = (await entries(admin, action="create_scheduled_task"))[0]
    assert (entry["means"], entry["credential_id"]) == ("api_key", made["id"])


def test_the_command_line_is_recorded(settings: Settings, database: Database) -> None:
    add_person(settings, "made by hand", PASSWORD, "viewer")
    with psycopg.connect(database.url) as connection:
        found = connection.execute(
            "SELECT means, action, object_type, u.username, actor <> '' FROM audit_log"
            " JOIN users u ON u.id::text = object_id WHERE means = 'cli'"
        ).fetchall()
    assert found == [("cli", "create_user", "users", "made by hand", True)]


async def test_what_changes_nothing_in_the_database_is_recorded_too(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/api/v1/elsewhere")).status_code == 200
    (entry,) = await entries(admin, action="change_elsewhere")
    assert (entry["object_type"], entry["object_id"], entry["changes"]) == ("elsewhere", None, {})


async def test_pages_and_filters(api: FastAPI, admin: httpx.AsyncClient) -> None:
    async with connect(api, await token_of(api, "operator")) as other:
        for _ in range(5):
            await other.post(SCHEDULES, json=BODY)
        name = (await other.get("/api/v1/auth/me")).json()["username"]
        assert (await other.get(AUDIT)).status_code == 403
    listed: list[str] = []
    query: dict[str, Any] = {"actor": name, "action": "create_scheduled_task", "limit": 2}
    while True:
        page = (await admin.get(AUDIT, params=query)).json()
        listed += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert listed == sorted(listed, reverse=True)
    assert len(listed) == 5
    whole = await entries(admin, actor=name)
    middle = whole[2]["at"]
    later, earlier = (
        await entries(admin, actor=name, since=middle),
        await entries(admin, actor=name, until=middle),
    )
    assert later + earlier == whole
    assert len(later) == 3


@pytest.mark.parametrize("instant", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01"])
async def test_times_that_make_no_sense(admin: httpx.AsyncClient, instant: str) -> None:
    for name in ("since", "until"):
        answer = await admin.get(AUDIT, params={name: instant})
        assert [error["field"] for error in answer.json()["errors"]] == [name]


@dataclass
class Guest:
    """A companion that only remembers."""

    waiting: bool = True
    results: list[object] = field(default_factory=list)

    def join(self, session: Session, result: object, changes: Changes) -> None:
        self.results.append(result)

    @classmethod
    def join_many(cls, session: Session, calls: Sequence[tuple[Any, object]]) -> None:
        for guest, result in calls:
            guest.results.append(result)

    def joined(self) -> None:
        self.waiting = False


async def test_work_for_many_calls_at_once_is_accompanied_by_all(api: FastAPI) -> None:
    """As a batch of submissions does: each caller's companion joins the one transaction, once."""
    guests, sessions = [Guest(), Guest()], api.state.services.sessions
    with accompanied(guests[0]):
        assert present() is guests[0]
    async with sessions() as session:
        bring(session, guests[0], "lost")
        await session.execute(text("CREATE TEMPORARY TABLE t ()"))
        await session.rollback()
    for _ in range(2):
        async with sessions.begin() as session:
            for number, guest in enumerate(guests):
                bring(session, guest, number)
            await session.execute(text("CREATE TEMPORARY TABLE t () ON COMMIT DROP"))
    assert [guest.results for guest in guests] == [[0], [1]]


def test_changes_are_bounded() -> None:
    long = presentable({"t/1": {"args": {"before": ["x" * LONGEST_VALUE], "after": b"\0"}}})
    assert long["t/1"]["args"]["before"].startswith("sha256:")
    assert long["t/1"]["args"]["after"] == "(bytes)"
    many = presentable({f"t/{n}": {"name": {"before": None, "after": "y" * 500}} for n in range(1000)})
    assert set(many) == {"digest", "objects"}
    assert len(str(many)) < LONGEST_CHANGES
