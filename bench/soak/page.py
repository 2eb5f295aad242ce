"""`build/soak/`: plots of what was sampled, with the instants of the faults, and the growth of each process."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt

from support.soak import slope

# A process must have lived so long for its growth to mean something, and had so long to warm up before.
LONG_ENOUGH = 600.0
WARM = 180.0
MINUTE = 60.0


def write(folder: Path) -> Path:
    """Make `soak.svg` and `soak.md` from what a soak left in ``folder``; answers the page."""
    samples, injections = list(_lines(folder / "samples.jsonl")), list(_lines(folder / "injections.jsonl"))
    _plot(samples, injections, folder / "soak.svg")
    page = folder / "soak.md"
    verdict = (folder / "verdict.txt").read_text()
    page.write_text(f"# Soak\n\n```\n{verdict}```\n\n![what was sampled](soak.svg)\n\n{_growth(samples)}\n")
    return page


def growth(samples: Sequence[dict[str, Any]]) -> Iterator[tuple[str, float, float, float, float]]:
    """Of each process that lived long: name, minutes, first and last MB, and MB an hour once it was warm."""
    for name, points in _memory(samples).items():
        warm = [point for point in points if point[0] >= points[0][0] + WARM]
        if points[-1][0] - points[0][0] >= LONG_ENOUGH:
            yield (
                name,
                (points[-1][0] - points[0][0]) / MINUTE,
                points[0][1],
                points[-1][1],
                3600 * slope(warm),
            )


def _growth(samples: Sequence[dict[str, Any]]) -> str:
    rows = [
        f"| {name} | {minutes:.0f} | {first:.1f} | {last:.1f} | {rate:+.1f} |"
        for name, minutes, first, last, rate in growth(samples)
    ]
    head = "| process | minutes | first MB | last MB | MB per hour after 3 minutes |\n| --- | --: | --: | --: | --: |"
    return "\n".join([head, *rows])


def _memory(samples: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        for name, size in sample["memory"].items():
            found[name].append((sample["at"], size))
    return found


def _plot(samples: Sequence[dict[str, Any]], injections: Sequence[dict[str, Any]], file: Path) -> None:
    figure, (late, deep, memory) = plt.subplots(3, 1, sharex=True, figsize=(11, 9), layout="constrained")
    minutes = [sample["at"] / MINUTE for sample in samples]
    for name, words in (
        ("lateness", "a run is made after its tick"),
        ("start_lateness", "a run starts after it is due"),
    ):
        late.plot(minutes, [max(sample[name] or 0, 1e-3) for sample in samples], label=words, linewidth=0.8)
    late.set(
        yscale="log",
        ylabel="at most, s (ticks of 10 s)",
        title="Lateness, depth and memory while everything fails",
    )
    for name, words in (
        ("messages", "messages in the queues"),
        ("queued", "runs queued"),
        ("running", "runs running"),
    ):
        deep.plot(minutes, [sample[name] for sample in samples], label=words, linewidth=0.8)
    deep.set(ylabel="number")
    for name, points in _memory(samples).items():
        lived = points[-1][0] - points[0][0] >= LONG_ENOUGH
        memory.plot(
            [at / MINUTE for at, _ in points],
            [size for _, size in points],
            label=name if lived else None,
            linewidth=1.2 if lived else 0.5,
            color=None if lived else "0.7",
        )
    memory.set(ylabel="resident MB (grey: short-lived)", xlabel="minutes")
    for axes in (late, deep, memory):
        bottom, top = axes.get_ylim()
        marks = [injection["at"] / MINUTE for injection in injections]
        axes.vlines(marks, bottom, top, color="tab:red", alpha=0.08, linewidth=0.5, rasterized=True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="x-small", loc="upper left", ncols=2)
    figure.savefig(file)
    plt.close(figure)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text().splitlines():
        yield json.loads(line)
