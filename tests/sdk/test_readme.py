"""Every program in the SDK's README runs, as it stands there, against a running stack."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from support.api import ADMIN, connected, log_in, serving
from support.stack import Stack

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
README = (ROOT / "sdk" / "README.md").read_text()
PROGRAMS: list[str] = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
OUTPUT = [
    ["queued Hello"],
    ["queued Hello"],
    ["paused"],
    ["2 True", "3"],
    ["404 not_found True", "['task_path']", "days must be from 1 to 36500"],
    ["ok"],
    [],
]


@pytest.fixture(scope="module")
async def environment(shared_stack: Stack, settings: Settings) -> dict[str, str]:
    """Where the programs find the service, and as whom they come."""
    shared_stack.worker(wait=False)
    async with serving(settings) as app, connected(app):
        token = await log_in(app, *ADMIN)
    return os.environ | {
        "UPBEAT_URL": shared_stack.api().url,
        "UPBEAT_TOKEN": token,
        "PYTHONPATH": str(ROOT / "sdk" / "src"),
    }


def test_each_program_is_known() -> None:
    assert len(PROGRAMS) == len(OUTPUT)


@pytest.mark.parametrize(("program", "output"), list(zip(PROGRAMS, OUTPUT, strict=False)))
def test_each_program_runs(program: str, output: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, output), done.stderr
