"""`list-runs`: pages of a history of ten million runs, as the filters of the API ask for them."""

import json
import sys
from urllib.parse import urlencode

import httpx

from app.api.pagination import encode
from bench.api.history import RARE_TASK, fill, ids
from bench.api.load import Load, load
from bench.api.service import Ours, ours
from bench.report import report
from support.servers import Servers

SIZE = 10_000_000
CONNECTIONS = 1
# One of each kind: the others take as long.
QUICK = ("first", "deep", "failed", "schedule", "time", "all")
SCHEDULE = "00000000-0000-0000-0000-00000000002a"


def measure(servers: Servers, *, quick: bool) -> None:
    """Latencies of each kind of page over HTTP, one request after the other."""
    size, seconds = (SIZE // 20, 2.0) if quick else (SIZE, 4.0)
    with ours(servers) as service:
        took = fill(service.database_url, size)
        print(f"{size} runs filled in {took:.0f} s", file=sys.stderr)
        service.start()
        found = {}
        for name, query in _queries(service.database_url).items():
            if quick and name not in QUICK:
                continue
            print(name, file=sys.stderr)
            items = _first(service, query)
            path = f"/api/v1/runs?{urlencode(query)}"
            load(service.url, path, connections=CONNECTIONS, seconds=1, headers=service.headers)
            taken = load(service.url, path, connections=CONNECTIONS, seconds=seconds, headers=service.headers)
            found[name] = taken
            report("api", f"list-runs-{name}", size, taken.p99, "ms p99", **_more(taken), items=items)
    slowest = max(found, key=lambda name: found[name].p99)
    more = {"slowest": slowest, "kinds": len(found), "fill_s": round(took, 1), "connections": CONNECTIONS}
    report("api", "list-runs", size, found[slowest].p99, "ms p99", peer="target", peer_value=50.0, **more)


def _queries(url: str) -> dict[str, dict[str, str]]:
    """Each filter alone, those that find much and those that find next to nothing, and pages in the depths."""
    known = ids(url)
    cursor = encode(known["middle"]) or ""
    since, until = (known[name].isoformat() for name in ("since", "until"))
    return {
        "first": {},
        "deep": {"cursor": cursor},
        "succeeded": {"state": "succeeded"},
        "failed": {"state": "failed"},
        "failed-deep": {"state": "failed", "cursor": cursor},
        "exception": {"exception": "ValueError"},
        "exception-none": {"exception": "KeyError"},
        "queued": {"state": "queued"},
        "running-none": {"state": "running"},
        "skipped": {"state": "skipped"},
        "cancelled-none": {"state": "cancelled"},
        "task": {"task": "bench.task_7"},
        "task-rare": {"task": RARE_TASK},
        "task-none": {"task": "no.such"},
        "queue": {"queue": "priority_high"},
        "queue-none": {"queue": "system"},
        "schedule": {"schedule_id": SCHEDULE},
        "schedule-failed": {"schedule_id": SCHEDULE, "state": "failed"},
        "schedule-none": {"schedule_id": SCHEDULE, "state": "cancelled"},
        "time": {"since": since, "until": until},
        "time-failed": {"since": since, "until": until, "state": "failed"},
        "time-task-none": {"since": since, "until": until, "task": "no.such"},
        "all": {
            "since": since,
            "until": until,
            "task": "bench.task_3",
            "queue": "priority_low",
            "state": "failed",
        },
        "largest": {"limit": "200"},
    }


def _first(service: Ours, query: dict[str, str]) -> int:
    answer = httpx.get(f"{service.url}/api/v1/runs", params=query, headers=service.headers, timeout=60)
    if answer.status_code != 200:
        raise RuntimeError(f"{query}: {answer.status_code} {json.dumps(answer.json())}")
    return len(answer.json()["items"])


def _more(taken: Load) -> dict[str, float]:
    return {"p50_ms": round(taken.p50, 2), "worst_ms": round(taken.worst, 2), "rate": round(taken.rate)}
