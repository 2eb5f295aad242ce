"""Prometheus metrics: the API's of the whole, and those of worker and beat processes at their own ports."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.cli.embedded import LOOPBACK, free_port
from app.scheduling import liveness, runs
from app.scheduling.ids import new_id
from app.scheduling.messages import Kind, RunMessage
from app.settings import MetricsSettings, Settings
from app.worker import celery_app
from support.api import connect, connected, serving
from support.calling import calling, sent, unsent
from support.polling import eventually
from support.stack import Stack
from support.tasks import fail, instant, nap

TOKEN = "scrape-me-please"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(exposition: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    changed = settings.model_copy(update={"metrics": MetricsSettings(token=SecretStr(TOKEN))})
    async with serving(changed) as app:
        yield app


async def scrape(app: FastAPI) -> Samples:
    async with connect(app, TOKEN) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return parse(answer.text)


async def test_the_whole_is_closed_but_for_its_token_and_a_login(api: FastAPI) -> None:
    for token in (None, "", "wrong", TOKEN + "x", "é"):
        headers = {} if token is None else {b"authorization": b"Bearer " + token.encode()}
        async with connect(api) as client:
            assert (await client.get("/metrics", headers=headers)).status_code == 401, token
    async with connected(api, "viewer") as client:
        assert (await client.get("/metrics")).status_code == 200
    assert value(await scrape(api), "upbeat_database_up") == 1


async def test_no_token_is_set_by_default(settings: Settings) -> None:
    async with serving(settings) as app, connect(app, "") as client:
        assert (await client.get("/metrics")).status_code == 401


async def test_what_waits_and_who_is_there(
    api: FastAPI, settings: Settings, sync: sessionmaker[Session]
) -> None:
    worker = new_id()
    with sync.begin() as session:
        liveness.register_worker(session, worker, name="w@h", pid=1, queues=["celery"], lease=60)
        liveness.heartbeat(session, new_id(), name="b", pid=2)
    with calling(settings):
        running, first, second = [unsent(task=instant.name, concurrency_limit=1) for _ in range(3)]
        unsent(task=instant.name)
        unsent(task=instant.name, due_in=600)
        napping = sent(task=nap.name, queue="system")
        with sync.begin() as session:
            for run_id in (running, first, second):
                runs.start(session, run_id, attempt=1, worker_id=worker, worker="w@h", token=new_id())
            session.execute(
                text("UPDATE celery_task_runs SET due_at = due_at - interval '50 s' WHERE state = 'queued'")
            )
    found = await scrape(api)
    task = instant.name

    def active(state: str, queue: str = "celery", task: str = task) -> float:
        return value(found, "upbeat_active_runs", task=task, queue=queue, state=state)

    assert [active(state) for state in ("running", "held", "queued", "delayed")] == [1, 2, 1, 1]
    assert active("queued", "system", nap.name) == 1
    assert value(found, "upbeat_queue_length", queue="system") == 1
    assert value(found, "upbeat_queue_length", queue="celery") == 0
    assert 50 <= value(found, "upbeat_queue_oldest_age_seconds", queue="celery") < 110
    assert value(found, "upbeat_workers", state="starting") == 1
    assert 0 <= value(found, "upbeat_beat_last_pass_age_seconds") < 60
    assert value(found, "upbeat_broker_up") == 1
    before = value(found, "upbeat_runs_total", task=nap.name, queue="system", state="cancelled")
    with sync.begin() as session:
        assert runs.cancel(session, napping) is runs.RunState.CANCELLED
    api.state.services.scrapes._at = 0.0
    after = value(await scrape(api), "upbeat_runs_total", task=nap.name, queue="system", state="cancelled")
    assert after == before + 1, "what this process itself has done"
    with calling(settings):
        celery_app.broker_client.use(lambda client: client.flushdb())


def at(port: int) -> Samples:
    return parse(httpx.get(f"http://{LOOPBACK}:{port}/metrics", timeout=5).text)


@pytest.mark.usefixtures("sync")
def test_workers_and_beats_count_what_happens(stack: Stack, settings: Settings) -> None:
    ports = free_port(), free_port()
    # Children that are replaced all the time: what they counted must not go with them.
    stack.worker("--max-tasks-per-child", "2", env={"UPBEAT_METRICS_PORT": str(ports[0])}, wait=False)
    stack.beat(env={"UPBEAT_METRICS_PORT": str(ports[1])})
    with calling(settings):
        for _ in range(5):
            sent(task=instant.name)
        again = sent("no", task=fail.name, max_attempts=2, retry_base=0.1)
        stack.processes.started[0].wait_for_output(" ready.", 40)
        duplicate = RunMessage(again, Kind(fail.name, "celery"))
        celery_app.broker_client.use(lambda client: client.lpush("celery", "rubbish"))
        eventually(lambda: len(stack.ledger.ends()) == 7, 30)
        celery_app.publisher.publish([duplicate])

    def counted() -> Samples:
        found = at(ports[0])
        assert value(found, "upbeat_runs_total", task=instant.name, queue="celery", state="succeeded") == 5
        assert value(found, "upbeat_runs_total", task=fail.name, queue="celery", state="failed") == 1
        assert value(found, "upbeat_messages_suppressed_total") == 1
        assert value(found, "upbeat_active_runs") == 0
        return found

    found = eventually(counted)
    assert (
        value(found, "upbeat_attempts_requeued_total", task=fail.name, queue="celery", outcome="failed") == 1
    )
    assert value(found, "upbeat_run_duration_seconds_count", task=instant.name) == 5
    assert value(found, "upbeat_start_lateness_seconds_count", queue="celery") == 7
    assert value(found, "upbeat_dispatch_lateness_seconds_count", queue="celery") == 7
    assert value(found, "upbeat_messages_refused_total", problem="not JSON") == 1
    beat = at(ports[1])
    assert value(beat, "upbeat_beat_passes_total", outcome="done") >= 1
    assert value(beat, "upbeat_runs_dispatched_total") >= 1
    assert 0 <= value(beat, "upbeat_beat_last_pass_age_seconds") < 30
