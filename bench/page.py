"""`docs/benchmarks.md` and its plots, from the lines of `build/bench.jsonl`: `python -m bench.page`. What a quick run
measured does not mix with the rest: its page is `build/benchmarks.md`.

Of lines of the same measure, size and peer the newest counts. Nothing here knows the measures: a part that reports new
ones finds them on the page, and what they are is told by the docstring of the module that takes them, if it begins with
the measure's name in backticks. Where less is better the advantage is the peer's figure over ours, else ours over the
peer's: above 1 we are ahead.
"""

import argparse
import ast
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

from bench import peers
from bench.report import QUICK_RESULTS, RESULTS

# The same figures make the same file.
mpl.rcParams["svg.hashsalt"] = "upbeat"
BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
DOCS = ROOT / "docs"
# Of what units less is better; of other rates more is. Anything else is not compared.
LESS = re.compile(r"^(s|ms|µs|us|MB|kB)\b|^%|seconds?$")
RATE = re.compile(r"/s\b")
PEERS = ("celery", "celery-redbeat", "django-celery-beat", "sqlalchemy-celery-beat", "psycopg", "redis")
# Who is compared, and how it is set up, is told by the docstrings of these.
CONTESTANTS = {"engine": "beats/*_beat.py", "worker": "chores/stock.py", "api": "api/bare.py"}
NOT_SHOWN = """
Everything runs on one machine: contestants, PostgreSQL, Redis and whoever measures share its cores, and no network lies
between them. What one contestant takes from its own servers is part of its figure.

`startup` begins when a process has imported what it needs; how long that takes is not in it. `idle` is the processor
time of the beat alone: what PostgreSQL and Redis do for it is not in it. Both are in favour of whoever imports much and
asks a database, as ours does.

A peer that is slow is watched for some seconds, once, and the rest is extrapolated from its rate, which is said beside
its figure. Ours is never extrapolated.

`io100ms` compares 200 slots of one process with the two that two children have: what many write today beside what one
process can carry, not two engines at the same concurrency.
""".strip().split("\n\n")

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
    if not ours or theirs is None or not (theirs or LESS.search(unit)):
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
        "its rounds. **Advantage** is how many times better than the peer; below 1 the peer is ahead, and 0 is a peer that",
        "takes nothing at all.",
        "",
        *(f"- {each}" for each in machine),
        f"- The peers: {', '.join(f'{name} {version}' for name, version in peers.versions().items() if name in PEERS)}",
        "",
        "## At a glance",
        "",
        "A sign ≈ says that the peer's figure is extrapolated.",
        "",
        "| measure | beside | advantage (at which size) |",
        "| --- | --- | --- |",
        *_glance(lines),
        "",
        "## What is not shown",
        "",
        *(f"- {' '.join(each.split())}" for each in NOT_SHOWN),
        "",
    ]
    for bench in dict.fromkeys(line["bench"] for line in lines):
        own = [line for line in lines if line["bench"] == bench]
        told += [f"## {bench}", "", *_explained(bench), ""]
        if any(advantage(line) for line in own):
            told += [f"![advantage over the peers](benchmarks-{bench}.svg)", ""]
        told += [
            "| advantage | measure | size | ours | peer | peer's | unit | rounds |",
            "| --: | --- | --: | --: | --- | --: | --- | --- |",
        ]
        told += [_row(line) for line in sorted(own, key=lambda line: (line["measure"], line["size"]))]
        told.append("")
    return "\n".join(told)


def _glance(lines: Sequence[Line]) -> list[str]:
    """A row for each measure and peer, with its advantages from the smallest size to the largest."""
    found: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for line in lines:
        if (better := advantage(line)) is not None:
            key = (line["bench"], line["measure"], line["peer"])
            about = "≈ " * bool(line.get("peer_extrapolated"))
            found.setdefault(key, []).append(
                (line["size"], f"{about}**{_times(better)}** ({line['size']:,})")
            )
    return [
        f"| {bench} {measure} | {peer} | {', '.join(told for _, told in sorted(cells))} |"
        for (bench, measure, peer), cells in found.items()
    ]


def _explained(bench: str) -> list[str]:
    """What is measured, and who the contestants are, in the words of the modules that do it."""
    folder = BENCH / bench
    if not folder.is_dir():
        return [_docstring(folder.with_suffix(".py"))]
    measures = [text for file in sorted(folder.glob("*.py")) if (text := _docstring(file)).startswith("`")]
    contestants = [_docstring(file) for file in sorted(BENCH.glob(CONTESTANTS[bench]))]
    return [_docstring(folder / "__init__.py"), "", *(f"- {each}" for each in (*measures, *contestants))]


def _docstring(file: Path) -> str:
    """In one line."""
    return " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split())


def _row(line: Line) -> str:
    better = advantage(line)
    peer = line["peer"] or ""
    theirs = "failed" if line.get("failed") else _number(line.get("peer_value"))
    if line.get("peer_extrapolated"):
        theirs += " (extrapolated)"
    cells = (
        "" if better is None else f"**{_times(better)}**",
        line["measure"],
        f"{line['size']:,}",
        _number(line["ours"]),
        peer,
        theirs,
        line["unit"],
        "; peer ".join(filter(None, (_rounds(line.get("rounds")), _rounds(line.get("peer_rounds"))))),
    )
    return f"| {' | '.join(cells)} |"


def _times(better: float) -> str:
    return f"{better:,.0f}" if better >= 100 else f"{better:.3g}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _rounds(rounds: object) -> str:
    """How many there were, and between what they lie."""
    if isinstance(rounds, dict):
        return "; ".join(f"{name}: {_rounds(each)}" for name, each in rounds.items())
    if isinstance(rounds, list) and rounds and all(isinstance(each, int | float) for each in rounds):
        return f"{len(rounds)} from {_number(min(rounds))} to {_number(max(rounds))}"
    return ""


def plot(lines: Sequence[Line], bench: str, file: Path) -> bool:
    """Bars of the advantages, on a logarithmic scale; False when there are none."""
    bars = [
        (f"{line['measure']} {line['size']:,}\nvs {line['peer']}", better)
        for line in lines
        if line["bench"] == bench and (better := advantage(line))
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
    figure.savefig(file, metadata={"Date": None})
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
