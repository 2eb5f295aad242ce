"""Every command and program of the documentation is run as it stands, page by page, against a running service."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.embedded import find_postgres
from app.settings import Settings
from support import forking, pages
from support.api import client_of
from support.processes import ROOT
from support.servers import Database
from support.stack import Stack
from support.terminal import all_match

pytestmark = pytest.mark.slow

DOCS = pages.written(ROOT / "docs")
PATHS = os.pathsep.join(str(ROOT / each) for each in (".", "tests", "sdk/src"))
BLOCKS = {name: pages.blocks(text) for name, text in DOCS.items()}
RUN = {name: found for name, found in BLOCKS.items() if any(each.kind in pages.RUN for each in found)}


@pytest.fixture(scope="module")
def environment(
    shared_stack: Stack, settings: Settings, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """That of somebody who has set it up as the first page says."""
    worker, _ = shared_stack.worker("-P", "threads", wait=False), shared_stack.beat(wait=False)
    api = shared_stack.api()
    with client_of(api.url, settings) as client:
        token = client.post("/api/v1/api-keys", json={"name": "docs", "scopes": ["admin"]}).json()["secret"]
    programs = tmp_path_factory.mktemp("programs")
    (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (programs / "python").chmod(0o755)
    forking.write_client(programs / "upbeat", programs / "s")
    command = [sys.executable, "-m", "support.forking", str(programs / "s")]
    loaded = shared_stack.processes.start(
        "command", command, shared_stack.environment | {"PYTHONPATH": PATHS}
    )
    path = (str(programs), str(find_postgres()), os.environ["PATH"])
    worker.wait_for_output(" ready.", 40)
    loaded.wait_for_output(forking.READY, 40)
    return shared_stack.environment | {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": PATHS,
        "UPBEAT_URL": api.url,
        "UPBEAT_TOKEN": token,
        "UPBEAT_PORT": api.url.rpartition(":")[2],
        "PRODUCT_URL": database.url,
        "COLUMNS": "200",
    }


@pytest.mark.parametrize("name", RUN)
def test_a_page_can_be_typed(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    blocks = RUN[name]
    done = subprocess.run(
        ["bash", "-c", pages.script(blocks)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout
    shown = pages.outputs(done.stdout)
    for number, block in enumerate(blocks):
        if block.kind == "text":
            output = shown[number - 1].strip().splitlines()
            assert all_match(block.text.strip().splitlines(), output), (block.text, output)


def test_the_doctors_checks_are_all_explained(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        ["upbeat", "doctor", "--json", "--no-canary"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    checks = {
        re.sub(r"(worker of|canary to) \w+", r"\1 QUEUE", each["check"]) for each in json.loads(done.stdout)
    }
    rows = [line.split("|")[1] for line in DOCS["troubleshooting.md"].splitlines() if line.startswith("| `")]
    explained = set(re.findall(r"`([^`]+)`", " ".join(rows)))
    assert checks - explained == set()
    assert len(checks) > 12
