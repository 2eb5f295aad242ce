"""The `upbeat` command, loaded once and forked for each call: for tests that type it dozens of times.

A call gets the caller's arguments, folder, environment and standard streams, and gives its exit status; nothing is kept
from one to the next. `python -m support.forking SOCKET` serves until it is ended; `client` is the program to call.
"""

import json
import os
import shlex
import signal
import socket
import sys
import traceback
from importlib import import_module
from pathlib import Path

LARGEST = 1 << 18
READY = "the command is loaded"
# Started anew for each call, so it imports next to nothing.
_CLIENT = """import json, os, socket, sys
call = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
call.connect({path!r})
words = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(call, [words], [0, 1, 2])
sys.exit(int(call.recv(16) or b"1"))
"""


def write_client(program: Path, path: Path) -> None:
    """A program that types its arguments into the server at this socket."""
    script = program.with_suffix(".py")
    script.write_text(_CLIENT.format(path=str(path)))
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-I", "-S", str(script)])} "$@"\n')
    program.chmod(0o755)


def serve(path: str) -> None:
    """Fork for each call; children are reaped by the kernel."""
    for name in ("commands", "deployment", "doctor", "inspection"):
        import_module(f"app.cli.{name}")
    import_module("upbeat_sdk")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(16)
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        while True:
            call, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(call)
            call.close()


def _answer(call: socket.socket) -> None:
    from app.cli import main

    words, streams, _, _ = socket.recv_fds(call, LARGEST, 3)
    arguments, folder, environment = json.loads(words)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        os.dup2(streams[number], number)
        # Those of the server know what it was started with: whether it can be sought in, and how it is buffered.
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["upbeat", *arguments]
    status: object = 1
    try:
        main()
    except SystemExit as done:
        status = done.code
    except Exception:  # noqa: BLE001 (told, as by a program of its own)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        call.send(str(status if isinstance(status, int) else int(status is not None)).encode())
        os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
