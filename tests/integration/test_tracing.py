"""Traces from a request through publishing to the run, over real HTTP to a collector."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from app.modules.auth import service
from app.settings import Settings, TracingSettings
from support.api import ADMIN, serving
from support.collector import Collector, Span, collecting
from support.polling import eventually
from support.processes import ROOT
from support.stack import Stack


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.mark.usefixtures("sync")
async def test_a_run_belongs_to_the_request_that_asked_for_it(
    stack: Stack, settings: Settings, collector: Collector
) -> None:
    async with serving(settings) as app:
        await service.ensure_admin(app.state.services.sessions, *ADMIN)
    stack.environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "UPBEAT_TASK_MODULES": "support.tasks,support.talkative",
    }
    worker = stack.worker(wait=False)
    stack.beat(wait=False)
    api = stack.api()
    worker.wait_for_output(" ready.", 40)
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
        login = {"username": ADMIN[0], "password": ADMIN[1]}
        token = (await client.post("/api/v1/auth/login", data=login)).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        path = "/api/v1/tasks/talkative.fetch/runs"
        await client.post(path, json={"args": [f"{collector.url}/elsewhere"]})
        await client.post(path, json={"args": [f"{collector.url}/elsewhere"], "countdown": 0.3})

    def whole() -> list[Span]:
        runs = collector.named("run/talkative.fetch")
        assert len(runs) == 2
        assert len(collector.named("run/support.instant")) == 2
        assert len([span for span in collector.named("POST") if span.service == "upbeat-worker"]) == 2
        return runs

    runs = eventually(whole, 20)
    requests = [span for span in collector.named("POST /api/v1/tasks") if span.service == "upbeat-api"]
    assert {span.parent for span in requests} == {""}
    # The second was woken by a beat, long after its request had been answered.
    assert {(run.trace, run.parent) for run in runs} == {(each.trace, each.id) for each in requests}
    assert {run.service for run in runs} == {"upbeat-worker"}
    by_run = {run.id: run for run in runs}
    for inner in ("POST", "run/support.instant"):
        found = [span for span in collector.named(inner) if span.parent in by_run]
        assert len(found) == 2, inner
    statements = [span for span in collector.spans if span.parent in {each.id for each in requests}]
    assert any(span.name.startswith("INSERT") for span in statements), "SQLAlchemy's instrumentation works"
    assert any(span.name == "LPUSH" for span in statements), "Redis's instrumentation works"
    roots = {span.name for span in collector.spans if not span.parent}
    assert all(name.startswith(("POST ", "GET ")) for name in roots), "nobody asked for those"


def test_without_its_packages_it_says_what_to_do() -> None:
    code = "import sys; sys.modules['opentelemetry.sdk'] = None; import app.main"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"OTEL_TRACES_EXPORTER": "otlp", "PATH": "/usr/bin"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    assert "pip install 'upbeat[otel]'" in ended.stderr


@pytest.mark.parametrize(
    ("variables", "enabled"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
    ],
)
def test_its_own_variables_switch_it_on(
    monkeypatch: pytest.MonkeyPatch, *, variables: dict[str, str], enabled: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert TracingSettings().enabled is enabled
