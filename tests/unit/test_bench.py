"""What a benchmark prints, and the quantiles in it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench import page, report
from bench.figures import quantile, weighted_quantile
from bench.report import Figure


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "build" / "bench.jsonl"
    monkeypatch.setattr(report, "RESULTS", path)
    return path


def test_a_line_for_each_peer_on_the_terminal_and_in_the_file(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = {"slow": Figure(4.0, {"p99": 9}), "broken": None}
    report.compare("engine", "burst", 1000, "fires/s", ours=Figure(10.0, {"p99": 3}), peers=peers)
    shared = {"bench": "engine", "measure": "burst", "size": 1000, "ours": 10.0, "unit": "fires/s", "p99": 3}
    expected = [
        {**shared, "peer": "slow", "peer_value": 4.0, "ratio": 2.5, "peer_p99": 9},
        {**shared, "peer": "broken", "peer_value": None, "ratio": None, "failed": True},
    ]
    printed = capsys.readouterr().out
    assert [json.loads(line) for line in printed.splitlines()] == expected
    assert results.read_text() == printed


def test_alone_it_is_one_line_without_peer(results: Path) -> None:
    report.compare("engine", "idle", 10, "%", ours=Figure(0.25), peers={})
    report.report("engine", "idle", 10, 0.5, "%", note="added to the same file")
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(line["ours"], line["peer"], line["ratio"]) for line in lines] == [
        (0.25, None, None),
        (0.5, None, None),
    ]


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert quantile([7.0], 0.5) == 7.0


def test_weighted_quantiles_count_each_message() -> None:
    curve = [(0.3, 1), (0.1, 98), (0.2, 1)]
    assert [weighted_quantile(curve, share) for share in (0.5, 0.98, 0.99, 1.0)] == [0.1, 0.1, 0.2, 0.3]


def _lines() -> list[str]:
    made = [
        report.line("engine", "burst", 1000, 5.0, "fires/s", peer="slow", peer_value=1.0),
        report.line(
            "engine", "burst", 1000, 10.0, "fires/s", peer="slow", peer_value=4.0, rounds=[9, 10, 11]
        ),
        report.line("engine", "startup", 1000, 0.5, "s", peer="slow", peer_value=1.0),
        report.line("engine", "two-beats", 1000, 100, "messages", peer="slow", peer_value=200),
        report.line("api", "enqueue", 64, 300.0, "requests/s"),
    ]
    return [json.dumps(each) for each in made]


def test_the_page_has_the_newest_line_of_each_measure_and_its_advantage(tmp_path: Path) -> None:
    lines = page.newest(_lines())
    assert [page.advantage(line) for line in lines] == [2.5, 2.0, None, None]
    assert page.advantage(report.line("e", "idle", 1, 0.5, "% of a core", peer="p", peer_value=0.0)) == 0.0
    assert page.advantage(report.line("s", "call", 1, 2.0, "us/call", peer="p", peer_value=3.0)) == 1.5
    assert page.advantage(report.line("a", "list", 1, 10.0, "ms p99", peer="p", peer_value=50.0)) == 5.0
    told = page.page(lines, ["two cores"], datetime(2026, 3, 1, tzinfo=UTC))
    assert "| **2.5** | burst | 1,000 | 10 | slow | 4 | fires/s | 3 from 9 to 11 |" in told
    assert "| engine burst | slow | **2.5** (1,000) |" in told
    assert "- `burst`: 5,000 schedules due at one instant" in told
    assert "- RedBeat: schedules in Redis" in told
    assert "|  | enqueue | 64 | 300 |  |  | requests/s |  |" in told
    assert "benchmarks-engine.svg" in told
    assert "benchmarks-api.svg" not in told
    assert page.plot(lines, "engine", tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
    assert not page.plot(lines, "api", tmp_path / "none.svg")
