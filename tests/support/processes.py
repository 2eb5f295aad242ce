"""Processes under a test's control: each in a group of its own, signalled and ended by its id."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from support.polling import eventually

ROOT = Path(__file__).resolve().parents[2]
# What libfaketime shares between the threads of a process, and cannot remove when that is killed.
FAKED_TIME = ("faketime_shm_{}", "sem.faketime_sem_{}")


@dataclass
class Process:
    """One started program, and everything it starts in its group."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        """All that it wrote to stdout and stderr so far."""
        return self.log.read_text(errors="replace")

    def wait_for_output(self, text: str, deadline: float = 20.0) -> None:
        """Wait until it wrote ``text``; fails at once, with its output, when it ended before."""

        def written() -> bool:
            if text in self.output():
                return True
            if not self.alive:
                raise ProcessEnded(self, text)
            return False

        eventually(written, deadline, f"{text!r} in the output of {self.name}")

    def signal_main(self, number: signal.Signals) -> None:
        """Signal the main process only, as a supervisor's polite stop does."""
        if self.alive:
            os.kill(self.pid, number)

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the whole group, also when its leader has already ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def terminate(self) -> None:
        self.signal_main(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL the group, reap its leader, and return when nobody is left: even that takes a moment."""
        self.signal_group(signal.SIGKILL)
        self.popen.wait(10)
        eventually(lambda: not self.members(), 10, f"the end of {self.name}'s group")

    def freeze(self) -> None:
        self.signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal_group(signal.SIGCONT)

    def wait(self, deadline: float = 20.0) -> int:
        """Its exit status; fails when it is still there after ``deadline`` seconds."""
        try:
            return self.popen.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {deadline:g} s") from None

    def members(self) -> list[int]:
        """The ids of the group's processes that are alive."""
        return group_members(self.pid)


class ProcessEnded(Exception):
    """The process ended although something was awaited from it."""

    def __init__(self, process: Process, text: str) -> None:
        super().__init__(
            f"{process.name} ended with {process.popen.returncode} before it wrote {text!r}:\n"
            + process.output()[-4000:]
        )


def group_members(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] not in ("Z", "X"):
                found.append(int(entry.name))
    return found


@dataclass
class Processes:
    """All that one test started; `end` leaves none of them."""

    folder: Path
    started: list[Process] = field(default_factory=list)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> Process:
        """Start ``command`` with exactly ``env`` (default: this process's own environment)."""
        log = self.folder / f"{len(self.started):02}-{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [str(part) for part in command],
                env=dict(os.environ if env is None else env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = Process(name, popen, log)
        self.started.append(process)
        return process

    def end(self, patience: float = 5.0) -> None:
        """Ask all to stop, at once; what is left after ``patience`` seconds is killed."""
        for process in self.started:
            process.thaw()
            process.terminate()
        end = time.monotonic() + patience
        for process in self.started:
            with suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.0, end - time.monotonic()))
            process.kill()
            for name in FAKED_TIME:
                Path("/dev/shm", name.format(process.pid)).unlink(missing_ok=True)

    def report(self, characters: int = 6000) -> list[tuple[str, str]]:
        """(title, end of the output) of each process, for a failed test's report."""
        return [
            (
                f"{p.name} (pid {p.pid}, {'alive' if p.alive else p.popen.returncode})",
                p.output()[-characters:],
            )
            for p in self.started
        ]
