"""The database's clock jumps an hour ahead, and an hour back, while runs are running; clocks of hosts are wrong."""

from datetime import timedelta

from support import checker
from support.clock import ShiftedClock
from support.polling import eventually, holds_throughout
from support.soak.members import skewed_by
from support.stack import BOOT, Stack
from support.trial import EVERY_SECOND, FULL, QUICK, Report, Trial, soon

LEASE = 30.0 if FULL else 3.0
HOUR = timedelta(hours=1)


def test_the_clock_jumps_while_runs_are_running(stack: Stack, trial: Trial, record_property: Report) -> None:
    """Nothing is doubled and nothing reaped; ticks go on when the clock has come to them."""
    clock = ShiftedClock(trial.url)
    stack.environment.update(QUICK)
    beats = [stack.beat(wait=False) for _ in range(2)]
    worker = stack.worker("-P", "threads", "-c", "6", wait=False)
    for beat in beats:
        beat.wait_for_output("beat: Starting", BOOT)
    worker.wait_for_output(" ready.", BOOT)
    # The last of the ticks that an hour made late is fired, the others are a range.
    trial.create(EVERY_SECOND, task_extra_config={"overlap": "allow_all"})
    trial.create(
        soon(1),
        "support.block",
        count=2,
        task_args=[4 * LEASE + 3],
        task_extra_config={"on_worker_lost": "retry", "time_limit": 600},
    )
    eventually(lambda: _running(trial) == 2 and trial.ledger.ends(), 20, "runs to start")

    clock.shift(HOUR)
    record_property("ahead: recovery, s", trial.recovery(20))
    ticked = len(trial.ledger.starts())
    holds_throughout(lambda: _running(trial) == 2, 1.5 * LEASE, "runs go on though leases looked expired")
    assert len(trial.ledger.starts()) > ticked

    clock.shift(timedelta(0))
    holds_throughout(lambda: _running(trial) == 2, 1.5 * LEASE, "runs go on though leases are long")
    trial.stop()
    runs = trial.settle(3 * LEASE + 30)
    assert checker.check_starts(trial.ledger.entries(), runs) == []
    ticks = [(run.schedule, run.scheduled_for) for run in runs]
    assert len(ticks) == len(set(ticks)) > LEASE
    assert {(run.state, run.attempt) for run in runs} == {("succeeded", 1)}
    assert checker.check_unchanged(runs, trial.runs()) == []


def test_hosts_whose_clocks_are_wrong(stack: Stack, trial: Trial, record_property: Report) -> None:
    """By hours, in both directions: nothing is doubled, early, late, or taken for lost."""
    stack.environment.update(QUICK)
    beats = [stack.beat(wait=False, env=skewed_by(seconds)) for seconds in (7200, -7200)]
    workers = [
        stack.worker("-P", "threads", "-c", "3", wait=False, env=skewed_by(seconds))
        for seconds in (5400, -5400)
    ]
    for beat in beats:
        beat.wait_for_output("beat: Starting", BOOT)
    for worker in workers:
        worker.wait_for_output(" ready.", BOOT)
    trial.tick()
    again = {"on_worker_lost": "retry", "time_limit": 600}
    trial.create(soon(1), "support.block", count=4, task_args=[1.5 * LEASE], task_extra_config=again)
    trial.go_on(2 * LEASE)
    trial.stop()
    runs = trial.settle()
    record_property("latest tick, s", trial.lateness())
    assert trial.verdict(runs, 2.0) == []
    assert {(run.state, run.attempt) for run in runs} == {("succeeded", 1)}
    hosts = {entry.wall - trial.now().timestamp() > 0 for entry in trial.ledger.starts()}
    assert hosts == {True, False}, "both hosts ran something"


def _running(trial: Trial) -> int:
    blocks = {entry.run for entry in trial.ledger.starts() if entry.task == "support.block"}
    return sum(run.state == "running" for run in trial.runs() if run.id in blocks)
