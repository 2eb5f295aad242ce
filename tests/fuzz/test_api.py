"""schemathesis against the running stack: all its checks, valid and broken data, one by one and in sequences.

`make api-fuzz REQUESTS=50000` goes on until that many were answered; `REQUESTS=0` sends some of each kind.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet

from app.settings import Settings
from fuzz import ledger
from fuzz.caller import KEY, Caller
from support.api import ADMIN, client_of
from support.processes import Processes
from support.servers import Database
from support.stack import Api, Stack

FOLDER = Path(__file__).parent
WANTED = int(os.environ.get("UPBEAT_TEST_API_REQUESTS", "0"))
KINDS = ("admin", "operator", "viewer", KEY)
SEED = int(os.environ.get("UPBEAT_TEST_SEED", "0")) or time.time_ns() % 2**31
LONGEST = 400.0
WITHOUT_LIMITS = {
    "UPBEAT_RATE_LIMIT": "",
    "UPBEAT_RATE_REFUSED": "",
    "UPBEAT_LOGIN_ATTEMPTS": "1000000",
    "UPBEAT_LOGIN_ATTEMPTS_PER_ADDRESS": "1000000",
    "UPBEAT_LOG_FORMAT": "json",
}


@pytest.fixture(scope="module")
def api(shared_stack: Stack) -> Api:
    """The whole stack: schedules that are made fire, and runs run."""
    shared_stack.environment["UPBEAT_SECRET_KEYS"] = Fernet.generate_key().decode()
    shared_stack.worker()
    shared_stack.beat()
    return shared_stack.api(env=WITHOUT_LIMITS)


@pytest.fixture(scope="module")
def admin(api: Api, settings: Settings) -> Iterator[httpx.Client]:
    with client_of(api.url, settings) as client:
        yield client


def make_callers(admin: httpx.Client, database: Database) -> list[Caller]:
    """One of each kind, none of whom can be removed by the others."""
    key = admin.post("/api/v1/api-keys", json={"name": "fuzz", "scopes": ["admin"]}).raise_for_status().json()
    users = {kind: [_user(admin, f"{kind} {number}", kind) for number in (1, 2)] for kind in KINDS}
    me = admin.get("/api/v1/auth/me").raise_for_status().json()["id"]
    keep = ",".join([me, key["id"], *(each for pair in users.values() for each in pair)])
    return [
        Caller(kind, database.url, user, spare, keep, key["secret"] if kind == KEY else None)
        for kind, (user, spare) in users.items()
    ]


def _user(admin: httpx.Client, name: str, kind: str) -> str:
    body = {"username": name, "password": ADMIN[1], "role": "admin" if kind == KEY else kind}
    return str(admin.post("/api/v1/users", json=body).raise_for_status().json()["id"])


def fuzz(api: Api, processes: Processes, who: Caller, written: Path, *options: str) -> tuple[int, str]:
    """One run of schemathesis: its exit status, and what it says."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(FOLDER / "schemathesis.toml")),
        *("run", f"{api.url}/openapi.json", "--no-color", *options),
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("UPBEAT_")},
        **who.environment,
        "UPBEAT_TEST_FUZZ_LEDGER": str(written),
        "SCHEMATHESIS_HOOKS": "fuzz.hooks",
        "PYTHONPATH": f"{FOLDER.parent}:{FOLDER.parents[1]}",
    }
    process = processes.start(f"schemathesis-{who.kind}", command, environment, cwd=written.parent)
    return process.wait(LONGEST), process.output()


def answered(api: Api) -> Counter[int]:
    """How many requests the API itself says that it answered, by status."""
    found: Counter[int] = Counter()
    for line in api.process.output().splitlines():
        if '"action": "request"' in line:
            found[json.loads(line)["status"]] += 1
    return found


def judge(api: Api, admin: httpx.Client, written: Path, outcomes: list[tuple[int, str]]) -> None:
    """No check failed, nothing was answered with 5xx, and what was written is there."""
    for status, said in outcomes:
        assert status == 0, said[said.find("= FAILURES =") :][:20_000]
    assert not [status for status in answered(api) if status >= 500]
    assert '"action": "unhandled"' not in api.process.output()
    assert list(ledger.lost(admin, ledger.read(written))) == []


@pytest.mark.fuzz
@pytest.mark.timeout(560 + WANTED // 20)
def test_many_requests(
    api: Api,
    admin: httpx.Client,
    database: Database,
    settings: Settings,
    shared_processes: Processes,
    tmp_path: Path,
) -> None:
    """As each kind of caller in turn, until enough were answered."""
    callers = make_callers(admin, database)
    written, outcomes = tmp_path / "ledger.jsonl", []
    for number in count():
        who = callers[number % len(callers)]
        outcomes.append(fuzz(api, shared_processes, who, written, *options(number)))
        total = answered(api)
        if number + 1 >= len(callers) and total.total() >= WANTED:
            break
    print(f"seed {SEED}: {total.total()} requests, by status {dict(sorted(total.items()))}")  # noqa: T201
    # Somebody may have ended the administrator's session meanwhile.
    with client_of(api.url, settings) as judging:
        judge(api, judging, written, outcomes)


def options(number: int) -> tuple[str, ...]:
    """What the n-th run does."""
    seed = ("--seed", str(SEED + number))
    if not WANTED:
        return (*seed, "--phases", "fuzzing", "-n", "1")
    return (*seed, "-n", "20", "--max-time", "100")
