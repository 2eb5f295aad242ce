"""Two processes that have nothing to do with the beat beside them, but work as a beat and its session do: by turns.

Each makes small objects, about a megabyte of them, and then waits for the other.
"""

import json
import os
import socket

DOCUMENT = json.dumps({str(number): [number] * 5 for number in range(1_500)})


def main() -> None:
    one, other = socket.socketpair()
    mine = one if os.fork() else other
    if mine is one:
        print(json.dumps({"event": "ready"}), flush=True)
        mine.send(b".")
    # Until the other one is gone.
    while mine.recv(1):
        json.loads(DOCUMENT)
        mine.send(b".")


main()
