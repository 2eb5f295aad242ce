"""wrk: many clients that each send the next request when the last one is answered."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

INSTALL = "The measures of the API are taken with wrk. Install it (Debian, Ubuntu: apt-get install wrk)."
# Latencies are in microseconds; the fields are those that `summary` and `latency` of wrk's own scripts have.
SCRIPT = """
wrk.method, wrk.body = %(method)s, %(body)s
%(headers)s
local paths, at = {%(paths)s}, 0
function request()
    at = at %% #paths + 1
    return wrk.format(nil, paths[at])
end
function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('{"requests":%%d,"microseconds":%%d,"failed":%%d,"broken":%%d,"p50":%%f,"p99":%%f,"worst":%%f}',
        summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
        latency:percentile(50), latency:percentile(99), latency.max))
end
"""


class NoWrk(Exception):
    """It is not installed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a service answered within a period: in all, a second, and in milliseconds."""

    answers: int
    rate: float
    p50: float
    p99: float
    worst: float


def require() -> None:
    """Raises NoWrk when it is missing; the message says what to install."""
    if shutil.which("wrk") is None:
        raise NoWrk(INSTALL)


def load(
    url: str,
    *paths: str,
    connections: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    body: object = None,
) -> Load:
    """Send requests for a while, the paths in turn; POST if there is a body.

    Raises:
        RuntimeError: an answer was an error, or there was none.
    """
    given = dict(headers or {}) | ({} if body is None else {"Content-Type": "application/json"})
    script = SCRIPT % {
        "method": _quoted("GET" if body is None else "POST"),
        "body": "nil" if body is None else _quoted(json.dumps(body)),
        "headers": "\n".join(
            f"wrk.headers[{_quoted(name)}] = {_quoted(text)}" for name, text in given.items()
        ),
        "paths": ", ".join(map(_quoted, paths)),
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "load.lua"
        file.write_text(script)
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(file), url],
            capture_output=True,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout[done.stdout.rindex("{") :])
    if found["failed"] or found["broken"]:
        raise RuntimeError(f"{found['failed']} answers were errors, {found['broken']} did not come")
    return Load(
        answers=found["requests"],
        rate=found["requests"] / found["microseconds"] * 1e6,
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        worst=found["worst"] / 1000,
    )


def _quoted(text: str) -> str:
    """As Lua reads it, which has the escapes of JSON that occur here."""
    return json.dumps(text)
