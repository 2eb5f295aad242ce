"""Webhooks: over HTTP, and what a real receiver gets of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.db import async_engine, async_sessions
from app.modules.alerts.service import FactType
from app.modules.webhooks import deliveries
from app.modules.webhooks.config import WebhookCreate, WebhookUpdate
from app.modules.webhooks.courier import Courier
from app.modules.webhooks.models import DeliveryRow
from app.modules.webhooks.service import NewSecret, Webhooks
from app.outbound import OutboundPolicy
from app.scheduling.rounds import Rounds
from app.sealing import Sealer, new_key
from app.settings import AlertSettings, Settings, WebhookSettings
from support.agents import LOOPBACK_ALLOWED, with_agents
from support.api import connected, serving
from support.peer import Answer, Peer, running_peer
from support.polling import eventually_async
from upbeat_sdk import WebhookRefused, verify_webhook

WEBHOOKS = "/api/v1/webhooks"
NOBODY = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"
HOOK = "/hook"
QUICK = WebhookSettings(retry_base=1e-9, retry_cap=1e-9, attempts=3, timeout=5, look_every=0.02)
KEY = new_key()


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with running_peer() as running:
        yield running


@dataclass
class House:
    """Webhooks and couriers on an empty database."""

    sessions: Any
    settings: Settings
    peer: Peer

    def webhooks(self, **changes: Any) -> Webhooks:
        given: dict[str, Any] = {"sealer": Sealer([KEY]), "outbound": LOOPBACK_ALLOWED} | changes
        return Webhooks(self.sessions, self.settings.webhook, **given)

    def courier(self, outbound: OutboundPolicy = LOOPBACK_ALLOWED, **webhook: Any) -> Courier:
        changed = self.settings.webhook.model_copy(update=webhook)
        settings = self.settings.model_copy(update={"webhook": changed})
        return Courier(self.sessions, settings, sealer=Sealer([KEY]), outbound=outbound)

    async def add(self, *types: FactType, path: str = HOOK, **body: Any) -> NewSecret:
        stated = {"name": path, "url": f"{self.peer.url}{path}", "event_types": types or tuple(FactType)}
        return await self.webhooks().create(WebhookCreate.model_validate(stated | body))

    async def happen(self, kind: str, **columns: Any) -> None:
        """A fact, as a trigger would write it."""
        values = {"type": kind, "schedule_id": None, "task": None, "tags": []} | columns
        statement = (
            "INSERT INTO facts (type, schedule_id, task, tags, data) VALUES (:type, :schedule_id, :task, :tags,"
            " jsonb_build_object('schedule_id', CAST(:schedule_id AS uuid), 'reason', 'ünlesbar'))"
        )
        async with self.sessions.begin() as session:
            await session.execute(text(statement), values)

    async def rounds(self, courier: Courier, number: int = 1) -> None:
        for _ in range(number):
            await courier.step()
            await courier.settle()

    async def log(self, webhook_id: UUID) -> list[DeliveryRow]:
        return await self.webhooks().deliveries(webhook_id, limit=100)


@pytest.fixture
async def house(settings: Settings, peer: Peer) -> AsyncIterator[House]:
    engine = async_engine(settings.database, name="test")
    sessions = async_sessions(engine)
    async with sessions.begin() as session:
        await session.execute(text("TRUNCATE facts, alerts, webhooks, webhook_deliveries CASCADE"))
    peer.forget()
    peer.answer(HOOK, Answer(204, b""))
    quiet = AlertSettings(look_every=3600)
    yield House(sessions, settings.model_copy(update={"webhook": QUICK, "alert": quiet}), peer)
    await engine.dispose()


async def test_a_fact_is_delivered_once_signed_and_logged(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    made = await house.add()
    schedule = UUID(NOBODY)
    await house.happen("schedule.invalid", schedule_id=schedule, task="a.b")
    with caplog.at_level("INFO"):
        await house.rounds(house.courier(), 3)
    assert HOOK not in caplog.text, "whoever knows the address of a chat's hook may write there"
    (request,) = house.peer.asked(HOOK)
    event = verify_webhook(request.body, request.headers, made.secret)
    (row,) = await house.log(made.row.id)
    assert (event.id, event.type) == (str(row.id), "schedule.invalid")
    assert event.data == {"schedule_id": NOBODY, "reason": "ünlesbar"}
    assert (row.state, row.status, row.attempts, row.error, row.next_attempt_at) == (
        "delivered",
        204,
        1,
        None,
        None,
    )
    assert row.delivered_at is not None
    assert request.headers["content-type"] == "application/json"
    with pytest.raises(WebhookRefused, match="No signature fits"):
        verify_webhook(request.body + b" ", request.headers, made.secret)
    with pytest.raises(WebhookRefused, match="off"):
        verify_webhook(request.body, request.headers, made.secret, now=event.timestamp.timestamp() + 3600)


async def test_several_processes_deliver_each_fact_once(house: House) -> None:
    made = await house.add()
    for _ in range(60):
        await house.happen("beat.silent")
    house.peer.answer(HOOK, Answer(200, b"{}", delay=0.01))
    couriers = [house.courier(at_once=2) for _ in range(3)]

    async def all_delivered() -> bool:
        for courier in couriers:
            await courier.step()
        return {row.state for row in await house.log(made.row.id)} == {"delivered"}

    await eventually_async(all_delivered, 20)
    for courier in couriers:
        await courier.settle()
    ids = [request.headers["webhook-id"] for request in house.peer.asked(HOOK)]
    assert len(ids) == len(set(ids)) == 60
    assert {row.attempts for row in await house.log(made.row.id)} == {1}


async def test_only_what_was_chosen(house: House) -> None:
    ours, other = UUID(NOBODY), UUID(int=7)
    wanted = {
        "types": await house.add(FactType.BEAT_SILENT, path="/types"),
        "schedule": await house.add(path="/schedule", schedule_ids=[ours]),
        "task": await house.add(path="/task", tasks=["a.b"]),
        "tag": await house.add(path="/tag", tags=["red", "blue"]),
        "off": await house.add(path="/off", enabled=False),
    }
    await house.happen("run.failed", schedule_id=ours, task="a.b", tags=["blue"])
    await house.happen("run.failed", schedule_id=other, task="c.d", tags=["green"])
    await house.happen("beat.silent")
    await house.rounds(house.courier())
    counts = {name: len(await house.log(made.row.id)) for name, made in wanted.items()}
    assert counts == {"types": 1, "schedule": 1, "task": 1, "tag": 1, "off": 0}


async def test_failures_are_repeated_with_the_same_id_and_then_given_up(house: House) -> None:
    made = await house.add()
    house.peer.answer(HOOK, Answer(500))
    await house.happen("beat.silent")
    courier = house.courier()
    await house.rounds(courier)
    house.peer.answer(HOOK, Answer(302, headers={"Location": house.peer.url}))
    await house.rounds(courier)
    (row,) = await house.log(made.row.id)
    assert (row.state, row.status, row.attempts) == ("pending", 302, 2)
    house.peer.answer(HOOK, Answer(404))
    await house.rounds(courier, 3)
    (row,) = await house.log(made.row.id)
    assert (row.state, row.status, row.attempts, row.next_attempt_at) == ("failed", 404, 3, None)
    requests = house.peer.asked(HOOK)
    assert [request.headers["upbeat-attempt"] for request in requests] == ["1", "2", "3"]
    assert {request.headers["webhook-id"] for request in requests} == {str(row.id)}
    assert len(house.peer.requests) == 3
    house.peer.answer(HOOK, Answer())
    again = await house.webhooks().redeliver(made.row.id, row.id)
    assert (again.state, again.attempts) == ("pending", 3)
    await house.rounds(courier)
    (row,) = await house.log(made.row.id)
    assert (row.state, row.attempts, house.peer.asked(HOOK)[-1].headers["webhook-id"]) == (
        "delivered",
        4,
        str(row.id),
    )


async def test_pauses_grow_and_the_receivers_own_is_heeded(house: House) -> None:
    made = await house.add()
    asked = ("1000", format_datetime(datetime.now(UTC) + timedelta(seconds=1000), usegmt=True), None, None)
    seen = []
    await house.happen("beat.silent")
    for header in asked:
        house.peer.answer(HOOK, Answer(503, headers={} if header is None else {"Retry-After": header}))
        async with house.sessions.begin() as session:
            await session.execute(
                text("UPDATE webhook_deliveries SET next_attempt_at = now() - interval '1 s'")
            )
        base = 0.001 if header else 10.0
        await house.rounds(house.courier(attempts=10, retry_base=base, retry_cap=1e6))
        seen.append(await _pause(house, made.row.id))
    assert 999 < seen[0] < 1060
    assert 900 < seen[1] < 1060
    assert 128 <= seen[2] <= 252
    assert 512 <= seen[3] <= 828


async def test_a_receiver_that_never_answers_keeps_no_other_from_its_own(house: House) -> None:
    stuck, well = await house.add(path="/stuck"), await house.add()
    house.peer.answer("/stuck", Answer(delay=30))
    for _ in range(30):
        await house.happen("beat.silent")
    courier = house.courier(at_once=8)

    async def delivered() -> bool:
        await courier.step()
        return [row.state for row in await house.log(well.row.id)] == ["delivered"] * 30

    await eventually_async(delivered, 20)
    assert len(house.peer.asked("/stuck")) <= QUICK.at_once_each
    assert {row.state for row in await house.log(stuck.row.id)} == {"pending"}
    house.peer.release()
    await courier.settle()


async def test_several_that_never_answer_keep_no_other_out(house: House) -> None:
    for number in range(5):
        await house.add(path=f"/stuck/{number}")
    well = await house.add()
    for _ in range(10):
        await house.happen("beat.silent")
    async with house.sessions.begin() as session:
        await session.run_sync(deliveries.make, 3)
        places: dict[str, Any] = {"limit": QUICK.at_once, "busy": {}}
        claimed = await session.run_sync(lambda each: deliveries.claim(each, QUICK, **places))
    assert len(claimed) == QUICK.at_once == 20
    assert sum(each.webhook_id == well.row.id for each in claimed) >= 3


async def test_a_delivery_that_is_repeated_begins_anew_with_its_pauses(house: House) -> None:
    made = await house.add()
    house.peer.answer(HOOK, Answer(500))
    await house.happen("beat.silent")
    await house.rounds(house.courier(), 3)
    (row,) = await house.log(made.row.id)
    assert (row.state, row.attempts) == ("failed", 3)
    await house.webhooks().redeliver(made.row.id, row.id)
    await house.rounds(house.courier(retry_base=100.0, retry_cap=1e6))
    assert 80 <= await _pause(house, made.row.id) <= 121


async def test_an_attempt_of_a_process_that_died_is_made_by_another(house: House) -> None:
    made = await house.add()
    house.peer.answer(HOOK, Answer(delay=30))
    await house.happen("beat.silent")
    dying, other = house.courier(), house.courier()
    await dying.step()
    await eventually_async(lambda: _asked(house, 1))
    for attempt in dying._attempts:
        attempt.cancel()
    await other.step()
    assert not other._attempts
    async with house.sessions.begin() as session:
        # The lease of the claim has run out.
        await session.execute(text("UPDATE webhook_deliveries SET next_attempt_at = now()"))
    house.peer.answer(HOOK, Answer())
    await house.rounds(other)
    (row,) = await house.log(made.row.id)
    assert (row.state, row.attempts) == ("delivered", 2)
    assert len({request.headers["webhook-id"] for request in house.peer.asked(HOOK)}) == 1
    house.peer.release()


async def _pause(house: House, webhook_id: UUID) -> float:
    """How long its one delivery is left alone."""
    (row,) = await house.log(webhook_id)
    assert row.next_attempt_at is not None
    assert row.last_attempt_at is not None
    return (row.next_attempt_at - row.last_attempt_at).total_seconds()


async def _asked(house: House, number: int) -> bool:
    return len(house.peer.asked(HOOK)) == number


async def test_both_secrets_sign_after_a_rotation_and_keys_may_change(house: House) -> None:
    made = await house.add()
    new = await house.webhooks().rotate_secret(made.row.id)
    newest = new_key()
    assert await house.webhooks(sealer=Sealer([newest, KEY])).reseal() == 1
    assert await house.webhooks(sealer=Sealer([KEY, newest])).reseal() == 1
    await house.happen("beat.silent")
    await house.rounds(house.courier())
    (request,) = house.peer.asked(HOOK)
    for secret in (made.secret, new.secret):
        assert verify_webhook(request.body, request.headers, secret).type == "beat.silent"
    async with house.sessions.begin() as session:
        await session.execute(text("UPDATE webhooks SET previous_until = now()"))
    await house.happen("beat.silent")
    await house.rounds(house.courier())
    request = house.peer.asked(HOOK)[-1]
    with pytest.raises(WebhookRefused):
        verify_webhook(request.body, request.headers, made.secret)
    assert new.secret not in str(request.headers) + request.body.decode()


async def test_nothing_inside_the_network_is_reached(house: House) -> None:
    made = await house.add()
    await house.happen("beat.silent")
    await house.rounds(house.courier(outbound=OutboundPolicy()), 4)
    (row,) = await house.log(made.row.id)
    assert (row.state, row.attempts, row.status) == ("failed", 3, None)
    assert row.error is not None
    assert "inside the network" in row.error
    assert house.peer.requests == []


async def test_disabling_gives_up_what_is_on_its_way(house: House) -> None:
    made = await house.add()
    house.peer.answer(HOOK, Answer(500))
    await house.happen("beat.silent")
    courier = house.courier(retry_base=100.0, retry_cap=100.0)
    await house.rounds(courier)
    await house.webhooks().update(made.row.id, WebhookUpdate(enabled=False))
    (row,) = await house.log(made.row.id)
    assert (row.state, row.next_attempt_at) == ("failed", None)


async def test_nothing_is_made_for_one_that_is_being_disabled(house: House) -> None:
    made = await house.add()
    await house.happen("beat.silent")

    async def make() -> None:
        async with house.sessions.begin() as session:
            await session.run_sync(deliveries.make, 3)

    async with house.sessions.begin() as session:
        await session.execute(text("UPDATE webhooks SET enabled = false"))
        making = asyncio.create_task(make())

        async def waits() -> bool:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            return making.done() or bool(await session.scalar(text(waiting)))

        await eventually_async(waits, 10)
    await making
    assert await house.log(made.row.id) == []


async def test_old_facts_go_with_their_deliveries(house: House) -> None:
    made = await house.add()
    await house.happen("beat.silent")
    await house.rounds(house.courier())
    courier = house.courier(keep_days=30)
    courier._rounds = Rounds(look=0.0, forget=0.0)
    await house.rounds(courier)
    assert len(await house.log(made.row.id)) == 1
    async with house.sessions.begin() as session:
        await session.execute(text("UPDATE facts SET at = at - interval '31 days'"))
    (row,) = await house.log(made.row.id)
    again = await house.webhooks().redeliver(made.row.id, row.id)
    await courier._forget()
    assert [each.id for each in await house.log(made.row.id)] == [again.id], "it is on its way once more"
    await house.rounds(courier)
    courier._rounds = Rounds(look=0.0, forget=0.0)
    await house.rounds(courier)
    assert await house.log(made.row.id) == []


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    changed = with_agents(settings, KEY).model_copy(update={"webhook": QUICK})
    async with serving(changed) as app:
        yield app


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        client.headers["If-Match"] = "*"
        yield client


async def test_from_creation_to_deletion_over_http(admin: httpx.AsyncClient, peer: Peer) -> None:
    peer.answer("/whole", Answer())
    body = {"name": "whole", "url": f"{peer.url}/whole", "event_types": ["run.failed"], "tags": ["a"]}
    answer = await admin.post(WEBHOOKS, json=body)
    assert answer.status_code == 201, answer.text
    created = answer.json()
    secret, one = created.pop("secret"), f"{WEBHOOKS}/{created['id']}"
    assert secret.startswith("whsec_")
    assert (answer.headers["Location"], answer.headers["Cache-Control"]) == (one, "no-store")
    (entry,) = (await admin.get("/api/v1/audit", params={"action": "create_webhook"})).json()["items"]
    assert (entry["object_type"], entry["object_id"]) == ("webhooks", created["id"])
    computed = ("id", "version", "created_at", "updated_at", "secret_set_at")
    assert {key: value for key, value in created.items() if key not in computed} == body | {
        "description": None,
        "enabled": True,
        "schedule_ids": None,
        "tasks": None,
        "previous_secret_until": None,
    }
    read = await admin.get(one)
    assert (read.json(), read.headers["ETag"], answer.headers["ETag"]) == (created, '"1"', '"1"')
    listed = (await admin.get(WEBHOOKS, params={"event_type": "run.failed", "search": "who"})).json()
    assert [each["id"] for each in listed["items"]] == [created["id"]]
    assert (await admin.get(WEBHOOKS, params={"event_type": "beat.silent", "search": "who"})).json()[
        "items"
    ] == []
    changed = (await admin.patch(one, json={"tags": None, "event_types": ["beat.silent"]})).json()
    assert (changed["tags"], changed["event_types"], changed["version"]) == (None, ["beat.silent"], 2)
    for method in ("PATCH", "DELETE"):
        late = await admin.request(method, one, json={"name": "x"}, headers={"If-Match": '"1"'})
        assert late.status_code == 412
    tested = await admin.post(f"{one}/test")
    assert (tested.status_code, tested.json()["state"]) == (202, "pending")

    async def delivered() -> dict[str, Any] | None:
        (found,) = (await admin.get(f"{one}/deliveries")).json()["items"]
        return found if found["state"] == "delivered" else None

    found = await eventually_async(delivered)
    assert found is not None
    event = verify_webhook(peer.asked("/whole")[0].body, peer.asked("/whole")[0].headers, secret)
    assert (event.id, event.type, event.data["requested_by"]) == (found["id"], "webhook.test", "admin")
    again = await admin.post(f"{one}/deliveries/{found['id']}/redeliver")
    assert again.status_code == 202
    await eventually_async(delivered)
    rotated = (await admin.post(f"{one}/rotate-secret")).json()
    assert rotated["secret"] != secret
    assert rotated["previous_secret_until"] is not None
    audit = (await admin.get("/api/v1/audit", params={"object_type": "webhooks"})).text
    assert '"update_webhook"' in audit
    assert secret not in audit
    assert (await admin.delete(one)).status_code == 204
    for answer in (
        await admin.get(one),
        await admin.patch(one, json={"enabled": True}),
        await admin.delete(one),
        await admin.post(f"{one}/test"),
        await admin.post(f"{one}/rotate-secret"),
        await admin.get(f"{one}/deliveries"),
        await admin.post(f"{one}/deliveries/{found['id']}/redeliver"),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not_found")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "http://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "https://user:password@example.com/"}, "url"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["run.exploded"]}, "event_types.0"),
        ({"tags": []}, "tags"),
        ({"tasks": ["a\0b"]}, "tasks.0"),
        ({"secret": "whsec_mine"}, "secret"),
    ],
)
async def test_bad_input_is_named_and_changes_nothing(
    admin: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    body = {"name": "bad", "url": "https://hooks.example.com/", "event_types": ["run.failed"]} | change
    answer = await admin.post(WEBHOOKS, json=body)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert (await admin.get(WEBHOOKS, params={"search": "bad"})).json()["items"] == []


async def test_names_are_unique(admin: httpx.AsyncClient) -> None:
    bodies = [
        {"name": name, "url": "https://hooks.example.com/", "event_types": ["run.failed"]}
        for name in ("one", "two")
    ]
    ids = [(await admin.post(WEBHOOKS, json=body)).json()["id"] for body in bodies]
    for answer in (
        await admin.post(WEBHOOKS, json=bodies[0]),
        await admin.patch(f"{WEBHOOKS}/{ids[1]}", json={"name": "one"}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/conflict")


async def test_a_name_that_somebody_else_takes_at_the_same_time(
    api: FastAPI, admin: httpx.AsyncClient
) -> None:
    body = {"name": "late", "url": "https://hooks.example.com/", "event_types": ["run.failed"]}
    made = (await admin.post(WEBHOOKS, json=body)).json()
    sessions = api.state.services.sessions

    async def waits() -> bool:
        query = text("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')")
        async with sessions() as session:
            return bool(await session.scalar(query)) or answering.done()

    async with sessions.begin() as session:
        await session.execute(
            text(
                "INSERT INTO webhooks (id, name, url, event_types, secret)"
                " SELECT gen_random_uuid(), 'taken', url, event_types, secret FROM webhooks WHERE id = :id"
            ),
            {"id": made["id"]},
        )
        change = admin.patch(f"{WEBHOOKS}/{made['id']}", json={"name": "taken"})
        answering = asyncio.create_task(change)
        await eventually_async(waits)
    answer = await answering
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/conflict")


async def test_an_alert_over_http(api: FastAPI, admin: httpx.AsyncClient) -> None:
    async with api.state.services.sessions.begin() as session:
        await session.execute(
            text("INSERT INTO facts (type, schedule_id, data) VALUES ('schedule.invalid', :id, '{}')"),
            {"id": UUID(NOBODY)},
        )

    async def opened() -> Any:
        query = {"standing": "open", "kind": "schedule_invalid"}
        items = (await admin.get("/api/v1/alerts", params=query)).json()["items"]
        return items[0] if items else None

    alert = await eventually_async(opened)
    one = f"/api/v1/alerts/{alert['id']}"
    assert (await admin.get(one)).json() == alert
    seen = (await admin.post(f"{one}/acknowledge", json={"note": "I look."})).json()
    assert (seen["acknowledged_by"], seen["note"], seen["closed_at"]) == ("admin", "I look.", None)
    assert await opened() is None
    listed = (await admin.get("/api/v1/alerts", params={"standing": "acknowledged"})).json()["items"]
    assert [each["id"] for each in listed] == [alert["id"]]
    async with api.state.services.sessions.begin() as session:
        await session.execute(text("UPDATE alerts SET closed_at = now()"))
    refused = await admin.post(f"{one}/acknowledge", json={})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/conflict")
    assert (await admin.get(f"/api/v1/alerts/{NOBODY}")).status_code == 404
    assert (await admin.post(f"/api/v1/alerts/{NOBODY}/acknowledge", json={})).status_code == 404
