"""Beats that are killed or frozen in the middle of their work, beside others."""

import signal
from pathlib import Path

import pytest

from support.polling import eventually
from support.processes import Process
from support.stack import BOOT, Stack
from support.trial import FULL, QUICK, Report, Trial, soon


def _died(process: Process) -> bool:
    return process.popen.poll() == -signal.SIGKILL


@pytest.fixture(autouse=True)
def quick(stack: Stack) -> None:
    stack.environment.update(QUICK)


def test_beats_killed_around_their_commit(stack: Stack, trial: Trial, record_property: Report) -> None:
    """One dies before each second commit of a firing, one after it; another goes on within 2 s."""
    survivor = stack.beat(wait=False)
    worker = stack.worker("-P", "threads", wait=False)
    survivor.wait_for_output("beat: Starting", BOOT)
    worker.wait_for_output(" ready.", BOOT)
    trial.tick()
    rounds = 20 if FULL else 1
    for _ in range(rounds):
        doomed = [
            stack.beat(wait=False, env={"UPBEAT_FAILPOINTS": f"{point}=kill@2"})
            for point in ("beat.fired", "beat.committed")
        ]
        for beat in doomed:
            eventually(lambda beat=beat: _died(beat), BOOT, "the beat to be killed")  # type: ignore[misc]
    trial.go_on(2)
    trial.stop()
    runs = trial.settle()
    record_property("kills", 2 * rounds)
    record_property("latest tick, s", trial.lateness())
    assert trial.verdict(runs, 2.0) == []
    assert {run.state for run in runs} == {"succeeded"}


@pytest.mark.full
def test_a_beat_killed_in_mid_publish(stack: Stack, trial: Trial, record_property: Report) -> None:
    """Of 700 wake-ups 500 were sent; the others are sent by another beat."""
    doomed = stack.beat(env={"UPBEAT_BEAT_BATCH": "1000", "UPBEAT_FAILPOINTS": "publish.pushed=kill"})
    trial.create(soon(4), count=700)
    eventually(lambda: _died(doomed), 15, "the beat to be killed")
    assert trial.waiting() == 500
    assert len(trial.runs()) == 700
    stack.beat(wait=False)
    stack.worker("-P", "threads", "-c", "8", wait=False)
    runs = trial.settle()
    record_property("latest tick, s", trial.lateness())
    assert trial.verdict(runs) == []
    assert len(trial.ledger.starts()) == len(runs) == 700


def test_a_beat_killed_between_publishing_one_batch_and_claiming_another(
    stack: Stack, trial: Trial, record_property: Report
) -> None:
    """While a batch is sent the next is committed: what was not sent, and what was not claimed, others see to."""
    doomed = stack.beat(env={"UPBEAT_BEAT_BATCH": "50", "UPBEAT_FAILPOINTS": "publish.pushed=kill@2"})
    trial.create(soon(3), count=250)
    eventually(lambda: _died(doomed), 15, "the beat to be killed")
    assert trial.waiting() == 100
    assert len(trial.runs()) in {100, 150}
    stack.beat(wait=False)
    stack.worker("-P", "threads", "-c", "8", wait=False)
    eventually(lambda: len(trial.runs()) == 250, BOOT, "the rest to be claimed")
    runs = trial.settle()
    record_property("latest tick, s", trial.lateness())
    assert trial.verdict(runs) == []
    assert len(trial.ledger.starts()) == len(runs) == 250


def test_a_beat_stopped_in_mid_burst(stack: Stack, trial: Trial) -> None:
    """Whatever it had claimed by then is sent; another beat claims the rest."""
    stopped = stack.beat(env={"UPBEAT_BEAT_BATCH": "10"})
    trial.create(soon(3), count=250)
    eventually(lambda: trial.waiting() > 0, 15, "the first messages")
    stopped.terminate()
    assert stopped.wait() == 0
    assert trial.waiting() == len(trial.runs())
    stack.beat(wait=False)
    stack.worker("-P", "threads", "-c", "8", wait=False)
    eventually(lambda: len(trial.runs()) == 250, BOOT, "the rest to be claimed")
    runs = trial.settle()
    assert trial.verdict(runs) == []
    assert len(trial.ledger.starts()) == len(runs) == 250


@pytest.mark.parametrize("others", [1, pytest.param(2, marks=pytest.mark.full)], ids=["of two", "of three"])
def test_a_beat_frozen_inside_its_transaction(
    stack: Stack, trial: Trial, others: int, record_property: Report
) -> None:
    """Its rows are free within 6 s; when it goes on, it doubles nothing."""
    survivor, *_ = [stack.beat(wait=False) for _ in range(others)]
    worker = stack.worker("-P", "threads", wait=False)
    survivor.wait_for_output("beat: Starting", BOOT)
    worker.wait_for_output(" ready.", BOOT)
    frozen = stack.beat(env={"UPBEAT_FAILPOINTS": "beat.fired=freeze"})
    trial.tick()
    eventually(lambda: _is_stopped(frozen), 20, "the beat to freeze")
    record_property("recovery, s", trial.recovery(15))
    trial.go_on(1)
    frozen.thaw()
    trial.go_on(3)
    trial.stop()
    runs = trial.settle()
    record_property("latest tick, s", trial.lateness())
    assert frozen.alive
    assert trial.verdict(runs, 6.0 if FULL else 6.5) == []
    assert {run.state for run in runs} == {"succeeded"}


def _is_stopped(process: Process) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
