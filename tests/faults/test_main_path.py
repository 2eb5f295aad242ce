"""The main path with real processes, and what becomes of it when they are killed."""

import os
import time

import redis

from support.polling import eventually
from support.stack import BOOT, Stack
from support.trial import FULL, QUICK, Report, Trial, soon

TICKING = float(os.environ.get("UPBEAT_TEST_TICKING", "8"))
FOUND = 45.0 if FULL else 30.0


def test_every_second_makes_one_run_a_second_though_one_of_two_beats_is_killed(
    stack: Stack, trial: Trial
) -> None:
    first, second = stack.beat(wait=False), stack.beat(wait=False)
    stack.worker("-P", "threads")
    for beat in (first, second):
        beat.wait_for_output("beat: Starting", BOOT)
    trial.tick(1)
    half = TICKING / 2
    eventually(lambda: len(trial.runs()) >= half, half + 10)
    first.kill()
    eventually(lambda: len(trial.runs()) >= TICKING, half + 10)
    trial.stop()
    runs = trial.settle(20)
    assert trial.verdict(runs, 2.0) == []
    assert {run.state for run in runs} == {"succeeded"}
    assert len(trial.ledger.starts()) == len(runs) >= TICKING


def test_a_worker_killed_in_mid_run_is_accounted_for(
    stack: Stack, trial: Trial, record_property: Report
) -> None:
    stack.environment.update(QUICK)
    stack.beat(wait=False)
    doomed = stack.worker()
    for policy in ("fail", "retry"):
        trial.create(
            soon(),
            "support.first_try_hangs",
            task_name=policy,
            task_extra_config={"on_worker_lost": policy},
        )
    eventually(lambda: len(trial.ledger.starts()) == 2, 15, "both runs to start")
    began = time.monotonic()
    doomed.kill()
    stack.worker(wait=False)
    runs = trial.settle(FOUND)
    seconds = time.monotonic() - began
    record_property("both accounted for after, s", seconds)
    ends = {run.schedule: (run.state, run.attempt) for run in runs}
    assert [ends[schedule] for schedule in trial.schedules] == [("lost", 1), ("succeeded", 2)]
    assert trial.verdict(runs) == []
    assert len(trial.ledger.starts()) == 3
    assert seconds < FOUND


def test_a_lost_message_is_sent_again(stack: Stack, trial: Trial) -> None:
    stack.environment.update(QUICK)
    stack.beat(wait=False)
    trial.create(soon(0.2))
    eventually(lambda: trial.waiting() == 1, 10, "the message")
    with redis.Redis.from_url(trial.redis_url) as client:
        client.delete("celery")
    stack.worker("-P", "threads")
    runs = trial.settle(45)
    assert trial.verdict(runs) == []
    assert [run.state for run in runs] == ["succeeded"]
    assert len(trial.ledger.starts()) == 1
