"""Start one program of the stack: ``python launch.py [options] -- COMMAND…``.

It replaces itself with the command, so the supervisor's process id is the program's own. Before
that it

- asks the kernel for a signal when the parent dies, so that a killed supervisor leaves nothing;
- notes the process id and its start in a file, by which a later start recognises leftovers;
- says in the log that the program starts, with what, and where;
- leaves root where the program must not have it (PostgreSQL), keeping a single capability, the
  right to pass folders that are closed to others: no parent folder's permissions are opened, and
  no system user is added.

Standard library only and run by path: it is on the way of every program's start.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522


def start_time(pid: int) -> str | None:
    """The kernel's start time of a process, which tells a reused id; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def die_with_parent(number: int) -> None:
    """Have the kernel send ``number`` when the parent ends; nothing happens where it cannot."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process ended during the start")


def leave_root(uid: int, gid: int) -> None:
    """Become another user; keep the right to read and enter closed folders where that is allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    linux = sys.platform.startswith("linux")
    if linux:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if linux:
        # The weaker right first; container engines often grant only the stronger.
        _ = _keep(libc, CAP_DAC_READ_SEARCH) or _keep(libc, CAP_DAC_OVERRIDE)


def _keep(libc: ctypes.CDLL, capability: int) -> bool:
    mask = 1 << capability
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if libc.capset(header, data) != 0:
        return False
    return bool(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0)


def announce(name: str) -> None:
    """A line in the program's log; what follows it belongs to this start."""
    kind = "virtual environment" if sys.prefix != sys.base_prefix else "Python"
    text = f"{name} starts: pid {os.getpid()}, Python {sys.version.split()[0]}, {kind} {sys.prefix}, in {Path.cwd()}"
    at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    if os.environ.get("UPBEAT_LOG_FORMAT") == "json":
        text = json.dumps({"time": at, "level": "info", "logger": "upbeat", "message": text})
    else:
        text = f"{at} INFO    upbeat: {text}"
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="launch.py")
    parser.add_argument("--pid-file", type=Path)
    parser.add_argument("--death-signal", default="TERM")
    parser.add_argument("--as-user", metavar="UID:GID")
    parser.add_argument("--announce", metavar="NAME")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.pid_file is not None:
        options.pid_file.write_text(f"{os.getpid()} {start_time(os.getpid())}\n")
    if options.announce:
        announce(options.announce)
    if options.as_user:
        uid, gid = options.as_user.split(":")
        leave_root(int(uid), int(gid))
    # After the change of user, which clears it.
    die_with_parent(signal.Signals[f"SIG{options.death_signal}"])
    try:
        os.execvp(options.command[0], options.command)
    except OSError as error:
        sys.exit(f"{options.command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
