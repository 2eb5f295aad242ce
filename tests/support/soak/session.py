"""One soak from its first tick to the verdict."""

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from app.settings import Settings
from support import checker
from support.api import client_of
from support.polling import eventually
from support.soak.field import Field
from support.soak.judgement import Verdict, judge
from support.soak.kinds import Kind
from support.soak.load import Load
from support.soak.storm import Injection, Storm
from support.soak.watch import Watch
from support.trial import EVERY_SECOND, EVERY_TICK_COUNTS

READINGS_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``counts`` is how often each kind was done."""

    seed: int
    counts: dict[str, int]
    verdict: Verdict
    storm: Storm
    load: Load
    watch: Watch

    def lines(self) -> list[str]:
        """For people."""
        done = sorted(self.counts.items(), key=lambda each: -each[1])
        subject = self.storm.subject
        ended = dict(subject.ended_by_themselves)
        cables = [proxy for member in subject.members for proxy in member.cables.values()]
        return [
            f"seed {self.seed}: {sum(self.counts.values())} injections of {sum(map(bool, self.counts.values()))} kinds",
            *(f"  {number:4} × {name}" for name, number in done),
            f"processes on hosts with a wrong clock: {subject.skewed}; ended by themselves: {ended or 'none'}",
            f"answers that were lost on their way: {sum(proxy.lost_replies for proxy in cables)}",
            f"requests: {dict(self.load.answers)}; {len(self.load.promised)} runs promised",
            *self.verdict.lines(),
        ]


def soak(
    subject: Field,
    settings: Settings,
    kinds: Mapping[str, Kind],
    seed: int,
    folder: Path,
    *,
    injections: int | None = None,
    seconds: float | None = None,
    pause: float = 0.5,
    rate: float = 4.0,
    ticking: int = 4,
    told: Callable[[Injection], None] = lambda injection: None,
) -> Outcome:
    """Break ``subject`` for so long or so often, then let it settle and judge it; ``folder`` gets what was seen.

    ``pause`` is the mean time between injections, ``rate`` requests a second, ``ticking`` schedules of a tick a second.
    """
    _work(subject, ticking)
    api = next(member for member in subject.members if member.role == "api")
    with client_of(api.url, settings) as client:
        subject.authorization = client.headers["Authorization"]
    load, watch = Load(subject, rate), Watch(subject, folder / "samples.jsonl")
    readings: list[list[checker.RunRow]] = []
    with (folder / "injections.jsonl").open("w") as file:

        def tell(injection: Injection) -> None:
            file.write(json.dumps(asdict(injection)) + "\n")
            file.flush()
            told(injection)

        storm = Storm(subject, dict(kinds), pause, tell)
        stop = threading.Event()
        reader = threading.Thread(target=_read, args=(subject, readings, stop), name="reader")
        with watch.running():
            with load.running(seed):
                reader.start()
                try:
                    storm.rage(injections=injections, seconds=seconds)
                finally:
                    stop.set()
                    reader.join()
            subject.calm()
            verdict = judge(subject, load, readings)
    if verdict.violations:
        for process in subject.stack.processes.started:
            (folder / f"{process.log.name}").write_text(process.output())
    for name, words in subject.last_words.items():
        (folder / f"{name.replace(' ', '_')}.log").write_text(words)
    return Outcome(seed, storm.counts(), verdict, storm, load, watch)


def _work(subject: Field, ticking: int) -> None:
    """Schedules of a tick a second, of which each tick counts; some of them last, and some may be started again."""
    trial = subject.trial
    trial.tick(ticking)
    trial.create(EVERY_SECOND, "support.nap", task_args=[0.3], task_extra_config=EVERY_TICK_COUNTS)
    again = EVERY_TICK_COUNTS | {"on_worker_lost": "retry", "max_attempts": 5}
    trial.create(EVERY_SECOND, "support.block", task_args=[0.2], task_extra_config=again)
    eventually(trial.ledger.ends, 30, "the first runs")


def _read(subject: Field, readings: list[list[checker.RunRow]], stop: threading.Event) -> None:
    """What is terminal now and then, to be compared in the end."""
    while not stop.wait(READINGS_EVERY):
        with suppress(psycopg.Error):
            found = checker.read_runs(subject.trial.url)
            readings.append([run for run in found if run.state in checker.TERMINAL][-2000:])
