"""`docs/benchmarks.md` and its plots, from the lines of `build/bench.jsonl`: `python -m bench.page`. What a quick run
measured does not mix with the rest: its page is `build/benchmarks.md`.

Of lines of the same measure, size and peer the newest counts. Nothing here knows the measures: a part that reports new
ones finds them on the page. Where less is better the advantage is the peer's figure over ours, else ours over the
peer's: above 1 we are ahead.
"""

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt

from bench.report import QUICK_RESULTS, RESULTS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Of what units less is better; of other rates more is. Anything else is not compared.
LESS = re.compile(r"^(s|ms|µs|us|MB|kB|%.*|.*seconds?)$")
RATE = re.compile(r"/s\b")
LONGEST_CELL = 60

Line = dict[str, Any]


def newest(lines: Iterable[str]) -> list[Line]:
    """One line of each measure, size and peer, in the order of their first appearance."""
    found: dict[tuple[object, ...], Line] = {}
    for text in lines:
        line = json.loads(text)
        found[line["bench"], line["measure"], line["size"], line["peer"]] = line
    return list(found.values())


def advantage(line: Line) -> float | None:
    """How many times better than the peer; None where there is no peer, or no better and worse."""
    ours, theirs, unit = line["ours"], line.get("peer_value"), line["unit"]
    if not ours or not theirs:
        return None
    if LESS.search(unit):
        return float(theirs / ours)
    return float(ours / theirs) if RATE.search(unit) else None


def page(lines: Sequence[Line], machine: Sequence[str], at: datetime) -> str:
    """The page in Markdown."""
    told = [
        "# Benchmarks",
        "",
        f"Written by `make bench` from what it measured last ({at:%Y-%m-%d}). Trust ratios more than figures: contestants",
        "take turns on the same machine, so that a noisy minute falls on all of them, and each figure is the median of",
        "its rounds. **Advantage** is how many times better than the peer; below 1 the peer is ahead.",
        "",
        *(f"- {each}" for each in machine),
        "",
    ]
    for bench in dict.fromkeys(line["bench"] for line in lines):
        own = [line for line in lines if line["bench"] == bench]
        told += [f"## {bench}", ""]
        if any(advantage(line) for line in own):
            told += [f"![advantage over the peers](benchmarks-{bench}.svg)", ""]
        told += [
            "| advantage | measure | size | ours | peer | peer's | unit | rounds |",
            "| --: | --- | --: | --: | --- | --: | --- | --- |",
        ]
        told += [_row(line) for line in sorted(own, key=lambda line: (line["measure"], line["size"]))]
        told.append("")
    return "\n".join(told)


def _row(line: Line) -> str:
    better = advantage(line)
    peer = line["peer"] or ""
    theirs = "failed" if line.get("failed") else _number(line.get("peer_value"))
    if line.get("peer_extrapolated"):
        theirs += " (extrapolated)"
    cells = (
        "" if better is None else f"**{better:.3g}**",
        line["measure"],
        f"{line['size']:,}",
        _number(line["ours"]),
        peer,
        theirs,
        line["unit"],
        _rounds(line.get("rounds")),
    )
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _rounds(rounds: object) -> str:
    """How many there were, and between what they lie."""
    if isinstance(rounds, dict):
        told = "; ".join(f"{name}: {_rounds(each)}" for name, each in rounds.items())
    elif isinstance(rounds, list) and rounds and all(isinstance(each, int | float) for each in rounds):
        told = f"{len(rounds)} from {_number(min(rounds))} to {_number(max(rounds))}"
    else:
        return ""
    return told if len(told) <= LONGEST_CELL else told[: LONGEST_CELL - 1] + "…"


def plot(lines: Sequence[Line], bench: str, file: Path) -> bool:
    """Bars of the advantages, on a logarithmic scale; False when there are none."""
    bars = [
        (f"{line['measure']} {line['size']:,}\nvs {line['peer']}", better)
        for line in lines
        if line["bench"] == bench and (better := advantage(line)) is not None
    ]
    if not bars:
        return False
    height = 1.0 + 0.34 * len(bars)
    figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
    names, values = [name for name, _ in bars][::-1], [value for _, value in bars][::-1]
    colours = ["tab:blue" if value >= 1 else "tab:orange" for value in values]
    axes.barh(range(len(values)), [value - 1 for value in values], left=1, color=colours)
    axes.set_yticks(range(len(values)), names, fontsize=6)
    axes.set(xscale="log", xlabel="times better than the peer (orange: the peer is ahead)", title=bench)
    axes.axvline(1, color="black", linewidth=0.8)
    figure.savefig(file)
    plt.close(figure)
    return True


def machine() -> list[str]:
    """What the figures were measured on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = next(
        (int(line.split()[1]) for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")),
        0,
    )
    return [
        f"{os.cpu_count()} cores ({model}), {memory / 2**20:.0f} GB of memory, Linux {platform.release()}",
        f"Python {platform.python_version()}; PostgreSQL and Redis of the embedded extra, with durable settings, on the same machine",
    ]


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text() if file.exists() else ""


def main() -> int:
    """Write the page; answers the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="of a quick run, into build/")
    quick = parser.parse_args().quick
    results, folder = (QUICK_RESULTS, QUICK_RESULTS.parent) if quick else (RESULTS, DOCS)
    if not results.exists():
        print("There is nothing to show yet: run `make bench` first.", file=sys.stderr)
        return 1
    lines = newest(results.read_text().splitlines())
    for bench in dict.fromkeys(line["bench"] for line in lines):
        plot(lines, bench, folder / f"benchmarks-{bench}.svg")
    at = datetime.fromtimestamp(results.stat().st_mtime, UTC)
    (folder / "benchmarks.md").write_text(page(lines, machine(), at))
    print(f"{(folder / 'benchmarks.md').relative_to(ROOT)}: {len(lines)} measures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
