"""The access log has the form that structlog gives to all other lines."""

import asyncio
import json
import logging
import re
from typing import Any

import pytest
import structlog

from app import logs as app_logs
from app.api import access, logs
from app.settings import LogSettings

SCOPE: dict[str, Any] = {"method": "GET", "client": ("127.0.0.1", 5)}


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers of this test run come back."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))


async def written(scope: dict[str, Any], status: int | None, seconds: float) -> None:
    access.write(scope, status, seconds)
    await asyncio.sleep(0)


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("path", ["/api/v1/runs", "/a b", "/x='y'", '/"', "/é"])
@pytest.mark.parametrize("status", [200, None])
async def test_a_line_is_as_structlog_writes_it(
    capsys: pytest.CaptureFixture[str], form: str, path: str, status: int | None
) -> None:
    logs.configure(LogSettings(format=form))
    app_logs.enter(request_id="r-1", user="ann b")
    try:
        await written(SCOPE | {"path": path}, status, 0.01234)
        structlog.get_logger("app.others").info(
            "request",
            action="request",
            method="GET",
            path=path,
            status=status,
            milliseconds=12.3,
            client="127.0.0.1",
        )
    finally:
        app_logs.leave()
    lines = capsys.readouterr().err.splitlines(keepends=True)
    middle = len(lines) // 2
    ours, theirs = "".join(lines[:middle]), "".join(lines[middle:])
    time = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")
    assert time.search(ours)
    if form == "json":
        assert json.loads(ours)["message"] == "request"
    assert time.sub("", ours) == time.sub("", theirs).replace("app.others", access.LOGGER)


async def test_probes_are_quiet_unless_they_fail(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings())
    await written(SCOPE | {"path": "/livez"}, 200, 0.001)
    assert capsys.readouterr().err == ""
    await written(SCOPE | {"path": "/readyz"}, 503, 0.001)
    assert "path=/readyz" in capsys.readouterr().err
    logs.configure(LogSettings(level="WARNING"))
    await written(SCOPE | {"path": "/api/v1/runs"}, 200, 0.001)
    assert capsys.readouterr().err == ""


async def test_a_path_cannot_speak_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings())
    await written(SCOPE | {"path": "/a\x1b[31mé"}, 404, 0.001)
    assert r"path='/a\x1b[31mé'" in capsys.readouterr().err


@pytest.mark.parametrize("sign", ["\n", "\x1b", "\x85", "\x9b", "\u2028", "\u202e"])
async def test_no_sign_of_a_path_ends_a_line_or_turns_it(
    capsys: pytest.CaptureFixture[str], sign: str
) -> None:
    for form in ("console", "json"):
        logs.configure(LogSettings(format=form))
        await written(SCOPE | {"path": f"/a{sign}é"}, 404, 0.001)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.isprintable()
    assert json.loads(line)["path"] == f"/a{sign}é"


async def test_those_of_one_turn_are_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings())
    for number in range(3):
        app_logs.enter(request_id=f"r-{number}")
        access.write(SCOPE | {"path": "/api/v1/runs"}, 200, 0.001)
    app_logs.leave()
    assert capsys.readouterr().err == ""
    await asyncio.sleep(0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == [
        "request_id=r-0",
        "request_id=r-1",
        "request_id=r-2",
    ]


def test_a_loop_that_ends_in_mid_turn_takes_no_line_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings())
    loop = asyncio.new_event_loop()

    async def cut_off() -> None:
        access.write(SCOPE | {"path": "/api/v1/first"}, 200, 0.001)
        loop.stop()

    loop.run_until_complete(cut_off())
    loop.close()
    asyncio.run(written(SCOPE | {"path": "/api/v1/second"}, 200, 0.001))
    assert [line.split("path=")[1].split(" ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "/api/v1/first",
        "/api/v1/second",
    ]
