"""Processes that are killed, frozen, stopped politely, or die inside a window."""

import os
import signal
from contextlib import suppress

from support.polling import DeadlinePassed, eventually
from support.soak.field import Field
from support.soak.kinds import kind
from support.soak.members import Member

# Enough for a point that is reached at every second's ticks.
REACHED = 2.5
PAST_A_TRANSACTION = (6.0, 8.0)


def _end(field: Field, *roles: str, number: signal.Signals = signal.SIGKILL) -> bool:
    member = field.pick(*roles, mortal=True)
    if member is None:
        return False
    member.end(number)
    return True


@kind("beat killed", 0.6)
def beat_killed(field: Field) -> bool:
    return _end(field, "beat")


@kind("worker group killed", 0.6)
def worker_killed(field: Field) -> bool:
    return _end(field, "worker")


@kind("API killed", 0.4)
def api_killed(field: Field) -> bool:
    return _end(field, "api")


@kind("beat stopped (SIGTERM)", 0.4)
def beat_stopped(field: Field) -> bool:
    return _end(field, "beat", number=signal.SIGTERM)


@kind("worker stopped (SIGTERM)", 0.4)
def worker_stopped(field: Field) -> bool:
    return _end(field, "worker", number=signal.SIGTERM)


@kind("API stopped (SIGTERM)", 0.3)
def api_stopped(field: Field) -> bool:
    return _end(field, "api", number=signal.SIGTERM)


@kind("worker child killed", 2.0)
def child_killed(field: Field) -> bool:
    children = [pid for member in field.of("worker") for pid in member.children()]
    if not children:
        return False
    with suppress(ProcessLookupError):
        os.kill(field.chance.choice(children), signal.SIGKILL)
        return True
    return False


@kind("worker child frozen", 1.0)
def child_frozen(field: Field) -> bool:
    children = [pid for member in field.of("worker") for pid in member.children()]
    if not children:
        return False
    pid = field.chance.choice(children)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        field.later(field.chance.uniform(0.5, 3), lambda: _continue(pid))
        return True
    return False


def _continue(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _frozen(field: Field, role: str, longest: float) -> bool:
    member = field.pick(role)
    if member is None:
        return False
    member.process.freeze()
    field.later(field.chance.uniform(0.2, longest), member.process.thaw)
    return True


@kind("beat frozen", 1.0)
def beat_frozen(field: Field) -> bool:
    return _frozen(field, "beat", 6)


@kind("worker frozen", 1.0)
def worker_frozen(field: Field) -> bool:
    return _frozen(field, "worker", 6)


@kind("API frozen", 0.6)
def api_frozen(field: Field) -> bool:
    return _frozen(field, "api", 2)


@kind("worker frozen past its lease", 0.15)
def worker_frozen_past_its_lease(field: Field) -> bool:
    member = field.pick("worker", mortal=True)
    if member is None:
        return False
    member.process.freeze()
    lease = float(field.stack.environment.get("UPBEAT_WORKER_LEASE", "30"))
    field.later(1.3 * lease, member.process.thaw)
    return True


def _reached(field: Field, role: str, point: str, what: str) -> Member | None:
    """Arm the point in all that may end, and disarm the others when one has reached it; that one, if there was one."""
    armed = field.of(role, mortal=True)
    for member in armed:
        arming = member.failpoints.with_suffix(".arming")
        arming.write_text(f"{point}={what}")
        arming.rename(member.failpoints)
    found: list[Member] = []
    with suppress(DeadlinePassed):
        found = eventually(lambda: [member for member in armed if not member.failpoints.exists()], REACHED)
    for member in armed:
        if not member.failpoints.exists() and member not in found:
            found.append(member)
        member.failpoints.unlink(missing_ok=True)
    for member in found:
        member.expected_to_end = True
    if what == "freeze":
        for member in found[1:]:
            member.process.thaw()
    return found[0] if found else None


def _killed_at(field: Field, role: str, point: str) -> bool:
    return _reached(field, role, point, "kill") is not None


@kind("beat killed in its transaction", 0.4)
def beat_killed_before_commit(field: Field) -> bool:
    return _killed_at(field, "beat", "beat.fired")


@kind("beat killed after its commit", 0.4)
def beat_killed_after_commit(field: Field) -> bool:
    return _killed_at(field, "beat", "beat.committed")


@kind("beat killed when it had published", 0.3)
def beat_killed_after_publishing(field: Field) -> bool:
    return _killed_at(field, "beat", "publish.pushed")


@kind("beat frozen in its transaction", 0.5)
def beat_frozen_in_its_transaction(field: Field) -> bool:
    member = _reached(field, "beat", "beat.fired", "freeze")
    if member is None:
        return False
    field.later(field.chance.uniform(*PAST_A_TRANSACTION), member.process.thaw)
    return True


@kind("worker killed after the commit of a start", 0.4)
def worker_killed_after_a_start(field: Field) -> bool:
    return _killed_at(field, "worker", "start.committed")


@kind("worker killed in the transaction of an end", 0.4)
def worker_killed_in_an_end(field: Field) -> bool:
    return _killed_at(field, "worker", "finish.written")


@kind("worker killed after the commit of an end", 0.4)
def worker_killed_after_an_end(field: Field) -> bool:
    return _killed_at(field, "worker", "finish.committed")
