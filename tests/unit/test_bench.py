"""What a benchmark prints, and the quantiles in it."""

import json
from pathlib import Path

import pytest

from bench import report
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
