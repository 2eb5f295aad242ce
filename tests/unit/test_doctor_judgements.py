"""What the doctor makes of what it sees, without servers."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.cli.doctor.errors import recent_errors
from app.cli.doctor.findings import Finding, Verdict, fail, ok, skipped, warn
from app.cli.doctor.hops import Journey, Surroundings, arrived, not_fired, stopped
from app.cli.doctor.packages import compare, pins
from app.cli.doctor.report import report
from app.cli.doctor.servers import clock, judge_redis
from app.cli.doctor.services import judge_beats
from app.scheduling.inspecting import KnownBeat

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
WELL = {"redis_version": "7.0.1", "role": "master", "maxmemory_policy": "noeviction", "aof_enabled": 1}


def journey(state: str = "queued", **more: Any) -> Journey:
    values: dict[str, Any] = {
        "queue": "celery",
        "state": state,
        "reason": None,
        "error": None,
        "created_at": NOW,
        "published_at": None,
        "started_at": None,
        "finished_at": None,
        "worker": None,
    }
    return Journey(**values | more)


def around(**more: Any) -> Surroundings:
    values: dict[str, Any] = {
        "patience": 10.0,
        "refused": None,
        "length": 1,
        "listening": ["w@h"],
        "answering": ["w@h"],
        "busy": 2,
    }
    return Surroundings(**values | more)


@pytest.mark.parametrize(
    ("run", "seen", "hop", "word"),
    [
        (journey(), around(paused="moving house", listening=[]), "worker", "is paused: moving house"),
        (journey(), around(refused="OOM"), "broker", "OOM"),
        (journey(), around(length=None), "broker", "does not answer"),
        (journey(), around(listening=[]), "worker", "no living worker"),
        (journey(), around(answering=[]), "worker", "another Redis"),
        (journey(), around(length=0), "worker", "another database"),
        (journey(), around(), "worker", "2 runs keep it busy"),
        (journey("running", worker="w@h"), around(), "task", "has not ended it"),
        (journey("failed", reason="task_not_registered"), around(), "worker", "other code"),
        (journey("failed", error="no space left"), around(), "task", "no space left"),
        (journey("lost", reason="worker_lost"), around(), "task", "worker_lost"),
    ],
)
def test_the_hop_where_a_canary_stopped(run: Journey, seen: Surroundings, hop: str, word: str) -> None:
    found = stopped("canary to celery", run, seen)
    assert found.verdict is Verdict.FAIL
    assert found.found.startswith(f"hop {hop}: ")
    assert word in f"{found.found} {found.remedy}"


def test_a_tick_that_nobody_fired() -> None:
    assert "no beat is alive" in not_fired("canary through beat", 10, beats=0).found
    assert "2 beats are alive" in not_fired("canary through beat", 10, beats=2).found


def test_a_canary_that_came_back_tells_its_times() -> None:
    at = [NOW + timedelta(milliseconds=number) for number in (5, 7, 10, 14)]
    run = journey(
        "succeeded",
        created_at=at[0],
        published_at=at[1],
        started_at=at[2],
        finished_at=at[3],
        worker="w",
        fired_for=NOW,
    )
    assert arrived("x", run).found == (
        "14 ms in all: beat fired it 5 ms after its time, sent after 2 ms, started by w after 3 ms,"
        " ran and was recorded in 4 ms"
    )


@pytest.mark.parametrize(
    ("info", "saves", "check", "verdict"),
    [
        ({}, "", "redis", Verdict.OK),
        ({"redis_version": "6.0.20"}, "", "redis", Verdict.FAIL),
        ({"role": "slave"}, "", "redis", Verdict.FAIL),
        ({"maxmemory_policy": "volatile-lru"}, "", "redis eviction", Verdict.FAIL),
        ({"aof_enabled": 0}, "", "redis persistence", Verdict.WARN),
        ({"aof_enabled": 0}, "900 1", "redis persistence", Verdict.OK),
        ({"aof_enabled": 0}, None, "redis persistence", Verdict.SKIPPED),
        ({"rdb_last_bgsave_status": "err"}, "", "redis persistence", Verdict.FAIL),
        ({"used_memory": 95, "maxmemory": 100}, "", "redis memory", Verdict.FAIL),
    ],
)
def test_how_redis_is_set_up(info: dict[str, Any], saves: str | None, check: str, verdict: Verdict) -> None:
    found = {each.check: each for each in judge_redis(WELL | info, saves)}
    assert found[check].verdict is verdict
    assert [
        each.check for each in found.values() if each.verdict is Verdict.FAIL and each.check != check
    ] == []


@pytest.mark.parametrize(
    ("seconds", "verdict", "word"),
    [(0.5, Verdict.OK, "500 ms"), (5, Verdict.WARN, "ahead of"), (-5, Verdict.WARN, "behind")],
)
def test_the_clocks(seconds: float, verdict: Verdict, word: str) -> None:
    found = clock(NOW + timedelta(seconds=seconds), NOW, NOW)
    assert (found.verdict, word in found.found) == (verdict, True)


def test_beats() -> None:
    alive, dead = (KnownBeat("b", 1, NOW, age) for age in (1.0, 60.0))
    assert judge_beats([alive, dead], 15).found.startswith("1 alive")
    assert judge_beats([dead], 15).verdict is Verdict.FAIL
    assert judge_beats([], 15).verdict is Verdict.FAIL


def test_the_lock_beside_what_is_installed() -> None:
    pinned = pins("a==1.0 \\\n    --hash=sha256:00\nb-c==2\nd==3 ; python_version < '3'\n# e==4\n")
    assert pinned == {"a": "1.0", "b-c": "2"}
    assert compare(pinned, {"a": "1.0", "b-c": "2"}, "l").verdict is Verdict.OK
    assert compare(pinned, {"a": "1.0", "b-c": "3"}, "l").verdict is Verdict.WARN
    assert compare(pinned, {"a": None, "b-c": "3"}, "l").found == "missing: a"


def test_errors_of_either_format_with_their_causes() -> None:
    lines = [
        "2026-12-30T11:00:00+00:00 ERROR   w: too old",
        "2027-01-01T11:00:00.000+00:00 INFO    w: fine",
        "2027-01-01T11:00:01.000+00:00 ERROR   w: failed",
        "Traceback (most recent call last):",
        '  File "x.py", line 1',
        "ValueError: no",
        "2027-01-01T11:00:02.000000Z [error    ] of the API  [app]",
        json.dumps({"time": "2027-01-01T11:00:03+00:00", "level": "critical", "message": "in JSON"}),
        json.dumps({"time": "2027-01-01T11:00:04+00:00", "level": "info", "message": "fine"}),
        "{not JSON",
    ]
    found = recent_errors(lines, NOW - timedelta(days=1))
    assert [words for _, words in found] == ["w: failed (ValueError: no)", "of the API  [app]", "in JSON"]


def test_findings_are_shown_with_their_remedies() -> None:
    found = [
        ok("a", "well"),
        warn("b", "odd", "mend it"),
        fail("c", "[broken]", "replace it"),
        skipped("d", "no"),
    ]
    out = io.StringIO()
    report(found, as_json=False, file=out)
    lines = [line.split(maxsplit=2) for line in out.getvalue().splitlines()]
    assert lines[0] == ["ok", "a", "well"]
    assert lines[3] == ["fail", "c", "[broken]"]
    assert lines[4] == ["->", "replace", "it"]
    assert out.getvalue().endswith("1 ok, 1 warn, 1 fail, 1 skipped\n")
    out = io.StringIO()
    report(found, as_json=True, file=out)
    assert [
        Finding(**{**each, "verdict": Verdict(each["verdict"])}) for each in json.loads(out.getvalue())
    ] == found
