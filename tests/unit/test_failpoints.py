"""Failpoints: inert by default, and they do what they are armed for."""

import os
import signal
import subprocess
import sys
import time
import timeit
from pathlib import Path

import pytest

from app import failpoints
from app.errors import ConfigurationError
from app.failpoints import Armed, parse


def test_what_a_variable_arms() -> None:
    assert parse("") == {}
    assert parse("beat.fired=kill@3, publish.pushed=freeze") == {
        "beat.fired": Armed(signal.SIGKILL, 3),
        "publish.pushed": Armed(signal.SIGSTOP, 1),
    }


@pytest.mark.parametrize("text", ["beat.fired", "nowhere=kill", "beat.fired=sing", "beat.fired=kill@soon"])
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="UPBEAT_FAILPOINTS"):
        parse(text)


def test_a_point_that_is_not_armed_costs_next_to_nothing() -> None:
    failpoints.reach("beat.fired")
    taken = timeit.timeit(lambda: failpoints.reach("beat.fired"), number=10_000, timer=time.process_time)
    assert taken / 10_000 < 20e-6


def test_an_armed_point_kills_the_process_at_the_time_given() -> None:
    script = (
        "from app.failpoints import reach\nfor n in range(5):\n print(n, flush=True)\n reach('beat.fired')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"UPBEAT_FAILPOINTS": "beat.fired=kill@3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])


def test_a_file_arms_a_process_that_runs_and_is_obeyed_once(tmp_path: Path) -> None:
    file = tmp_path / "armed"
    script = (
        "import pathlib, sys\nfrom app.failpoints import reach\nfor n in range(5):\n print(n, flush=True)\n"
        " reach('beat.fired')\n if n == 1: pathlib.Path(sys.argv[1]).write_text('beat.fired=kill')"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script, str(file)],
            env=os.environ | {"UPBEAT_FAILPOINTS": f"@{file}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])
        assert not file.exists()
