"""The growth of processes, and the page of a soak."""

import json
from pathlib import Path

import pytest

from bench.soak.page import growth, write
from support.soak import slope


def test_the_slope_is_that_of_the_line() -> None:
    assert slope([(float(x), 3 + 0.5 * x) for x in range(10)]) == pytest.approx(0.5)
    assert slope([(1.0, 2.0)]) == slope([]) == slope([(1.0, 2.0), (1.0, 5.0)]) == 0.0


def test_who_lived_long_is_told_with_its_growth_once_it_was_warm(tmp_path: Path) -> None:
    samples = [
        {
            "at": float(at),
            "lateness": 0.1,
            "start_lateness": None,
            "queued": 1,
            "running": 0,
            "messages": 0,
            "memory": {"beat-a 1": 100.0 + (50 if at >= 100 else 0) + at / 3600, "worker-b 2": 90.0}
            if at < 300
            else {"beat-a 1": 150.0 + at / 3600},
        }
        for at in range(0, 1200, 10)
    ]
    (found,) = growth(samples)
    name, minutes, first, _, rate = found
    assert name == "beat-a 1"
    assert (minutes, first, rate) == pytest.approx((19.8, 100.0, 1.0), abs=0.1)
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    (tmp_path / "injections.jsonl").write_text(json.dumps({"number": 1, "at": 60.0, "kind": "beat killed"}))
    (tmp_path / "verdict.txt").write_text("I1 to I6 hold\n")
    told = write(tmp_path).read_text()
    assert "| beat-a 1 | 20 |" in told
    assert (tmp_path / "soak.svg").exists()
