"""The recorded session of session.txt, typed again in a fresh checkout."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from support.checkout import STOP, Checkout, new_checkout
from support.polling import eventually
from support.processes import Processes
from support.terminal import all_match

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SESSION = Path(__file__).with_name("session.txt")
SLOWEST = 120.0
CTRL_C = "^C"


@dataclass
class Step:
    """One command: what is typed in answer, what comes out, how it ends."""

    command: str
    answer: str = ""
    output: list[str] = field(default_factory=list)
    status: int = 0
    interrupted: bool = False
    repeated: bool = False

    def matches(self, output: str) -> bool:
        return all_match(self.output, output.splitlines())


def steps() -> list[Step]:
    found: list[Step] = []
    for line in SESSION.read_text().splitlines():
        if line.startswith(("$ ", "$? ")):
            mark, _, command = line.partition(" ")
            found.append(Step(command, repeated=mark == "$?"))
        elif not found:
            continue
        elif line.startswith("> "):
            found[-1].answer += line[2:] + "\n"
        elif line.startswith("[exit "):
            found[-1].status = int(line[6:-1])
        elif line == CTRL_C:
            found[-1].interrupted = True
        else:
            found[-1].output.append(line)
    return found


@pytest.fixture
def checkout(tmp_path: Path, processes: Processes) -> Iterator[Checkout]:
    made = new_checkout(tmp_path, processes)
    for name, arguments in (("upbeat", "-m app.cli"), ("celery", "-m celery")):
        script = made.folder / ".venv" / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        script.chmod(0o755)
    yield made
    subprocess.run(["upbeat", "stop", "all"], env=environment(made), cwd=made.folder, check=False)
    made.end()


def environment(checkout: Checkout) -> dict[str, str]:
    path = f"{checkout.folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return checkout.environment(PATH=path, PYTHONPATH=str(checkout.folder), COLUMNS="200")


def run(step: Step, checkout: Checkout) -> bool:
    """True; fails when it went otherwise than recorded."""
    keyboard, terminal = os.openpty()
    os.write(keyboard, step.answer.encode() + b"\x04")
    try:
        return _run(step, checkout, terminal)
    finally:
        os.close(keyboard)
        os.close(terminal)


def _run(step: Step, checkout: Checkout, terminal: int) -> bool:
    with subprocess.Popen(
        ["bash", "-c", f"exec {step.command}" if step.interrupted else step.command],
        env=environment(checkout),
        cwd=checkout.folder,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        if step.interrupted:
            os.set_blocking(process.stdout.fileno(), False)
            written = b""

            def shown() -> bool:
                nonlocal written
                written += process.stdout.read() or b"" if process.stdout else b""
                return step.matches(written.decode())

            eventually(shown, 20, f"the output of {step.command}")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            return True
        output = process.communicate(timeout=SLOWEST)[0].decode()
    assert process.returncode == step.status, f"$ {step.command}\n{output}"
    assert step.matches(output), f"$ {step.command}\n{output}\n(recorded:)\n" + "\n".join(step.output)
    assert "Traceback" not in output
    return True


def test_the_session_can_be_typed_again(checkout: Checkout) -> None:
    replayed = steps()
    assert len(replayed) > 25
    for step in replayed:
        if step.repeated:
            eventually(partial(run, step, checkout), 30)
        else:
            run(step, checkout)
    eventually(lambda: not checkout.living(), STOP, "nothing is left of the stack")
