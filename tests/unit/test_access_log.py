"""The access log has the form that structlog gives to all other lines."""

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


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("path", ["/api/v1/runs", "/a b", "/x='y'", '/"', "/é"])
@pytest.mark.parametrize("status", [200, None])
def test_a_line_is_as_structlog_writes_it(
    capsys: pytest.CaptureFixture[str], form: str, path: str, status: int | None
) -> None:
    logs.configure(LogSettings(format=form))
    app_logs.enter(request_id="r-1", user="ann b")
    try:
        access.write(SCOPE | {"path": path}, status, 0.01234)
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
    written = capsys.readouterr().err.splitlines(keepends=True)
    middle = len(written) // 2
    ours, theirs = "".join(written[:middle]), "".join(written[middle:])
    time = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")
    assert time.search(ours)
    if form == "json":
        assert json.loads(ours)["message"] == "request"
    assert time.sub("", ours) == time.sub("", theirs).replace("app.others", access.LOGGER)


def test_probes_are_quiet_unless_they_fail(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings())
    access.write(SCOPE | {"path": "/livez"}, 200, 0.001)
    assert capsys.readouterr().err == ""
    access.write(SCOPE | {"path": "/readyz"}, 503, 0.001)
    assert "path=/readyz" in capsys.readouterr().err
    logs.configure(LogSettings(level="WARNING"))
    access.write(SCOPE | {"path": "/api/v1/runs"}, 200, 0.001)
    assert capsys.readouterr().err == ""


def test_a_path_cannot_speak_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings())
    access.write(SCOPE | {"path": "/a\x1b[31mé"}, 404, 0.001)
    assert r"path='/a\x1b[31mé'" in capsys.readouterr().err
