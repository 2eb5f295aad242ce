"""What people send: cron expressions by the thousand, and bodies without end."""

import http.client
import random
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.scheduling.timing import TimingError, parse
from app.settings import Settings
from support.api import client_of
from support.stack import Api, Stack
from support.trial import FULL, Report

SCHEDULES = "/api/v1/scheduled-tasks"
PIECES = (
    *("*", "0", "7", "59", "60", "-1", "*/5", "*/0", "1-5", "5-1", "1,2", ",", "L", "#", "5#3", "5L", "MON"),
    *(
        "JAN",
        "?",
        "W",
        "@hourly",
        "@",
        "\t",
        "\n",
        "\0",
        "é",
        "٣",
        "💥",
        "9" * 40,
        "1/2/3",
        "1--2",
        "''",
        "%s",
    ),
)
GOOD = ("0 0 * * *", "*/15 9-17 * * MON-FRI", "0 0 L * *", "30 2 1,15 * *", "0 12 * * 5#2", "@daily")


def mutated(generator: random.Random) -> str:
    """A good expression, spoilt in a few places, or one of random pieces."""
    if generator.random() < 0.3:
        return " ".join(generator.choices(PIECES, k=generator.randint(0, 8)))
    text = list(generator.choice(GOOD))
    for _ in range(generator.randint(1, 4)):
        at = generator.randint(0, len(text))
        text[at : at + generator.randint(0, 2)] = generator.choice(PIECES)
    return "".join(text)


@pytest.fixture(scope="module")
def api(shared_stack: Stack) -> Api:
    return shared_stack.api()


def test_ten_thousand_malformed_crons(
    api: Api, settings: Settings, seed: int, record_property: Report
) -> None:
    """Each is refused with a reason, or was good after all; a sample goes over HTTP."""
    generator = random.Random(seed)
    expressions = [mutated(generator) for _ in range(10_000)]
    refused = []
    for expression in expressions:
        try:
            parse({"type": "crontab", "expression": expression})
        except TimingError:
            refused.append(expression)
    record_property("refused of 10,000", len(refused))
    assert len(refused) > 7_000
    sample = generator.sample(refused, 7_000 if FULL else 300)
    with client_of(api.url, settings) as client:
        assert {_status(client, expression) for expression in sample} == {422}


def _status(client: httpx.Client, expression: str) -> int:
    schedule = {"type": "crontab", "expression": expression}
    body = {"task_name": "x", "task_path": "support.instant", "schedule": schedule}
    return client.post(SCHEDULES, json=body).status_code


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "plain"])
@pytest.mark.parametrize("megabytes", [2, 100])
def test_a_body_that_is_too_large(
    api: Api, settings: Settings, megabytes: int, *, chunked: bool, record_property: Report
) -> None:
    """It is refused, and never held."""
    with client_of(api.url, settings) as client:
        assert client.get(SCHEDULES).status_code == 200
        with suppress(OSError):
            # What it held before does not hide what it holds now.
            Path(f"/proc/{api.process.pid}/clear_refs").write_text("5")
        before = _most_memory(api)
        assert _send(api, client.headers["Authorization"], megabytes, chunked=chunked) == 413
        grown = _most_memory(api) - before
        record_property("memory grew by, MB", grown)
        assert grown < 16
        assert client.get(SCHEDULES).status_code == 200


def _most_memory(api: Api) -> float:
    """The most that the process ever held, in MB."""
    (line,) = [
        line
        for line in Path(f"/proc/{api.process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) / 1024


def _send(api: Api, authorization: str, megabytes: int, *, chunked: bool) -> int:
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=30)
    connection.putrequest("POST", SCHEDULES)
    connection.putheader("Authorization", authorization)
    connection.putheader("Content-Type", "application/json")
    connection.putheader(
        *(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(megabytes * 2**20)))
    )
    connection.endheaders()
    piece = b" " * 2**16
    # The server may answer, and stop reading, before everything was sent.
    with suppress(ConnectionError):
        for _ in range(megabytes * 16):
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.send(b"0\r\n\r\n")
    status = connection.getresponse().status
    connection.close()
    return status
