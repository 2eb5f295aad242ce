"""The fake's tasks and runs."""

import inspect
import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from datetime import UTC, datetime
from json import dumps
from typing import TYPE_CHECKING, Any

from upbeat_sdk._generated import models
from upbeat_sdk._logs import LEVELS
from upbeat_sdk.testing._blank import blank
from upbeat_sdk.testing._pages import page
from upbeat_sdk.testing._problems import Refusal, not_found

if TYPE_CHECKING:
    from upbeat_sdk.testing._fake import Received

Record = dict[str, Any]


class Runs:
    """Tasks, and the runs of them, newest first."""

    def __init__(self) -> None:
        self._tasks: dict[str, Callable[..., Any]] = {}
        self._queues: dict[str, str] = {}
        self._runs: dict[str, Record] = {}
        self._lines: dict[str, list[Record]] = {}
        self.handlers: Mapping[str, Callable[[Received], Any]] = {
            "list_tasks": lambda call: page([self._task(name) for name in sorted(self._tasks)], call.query),
            "get_task": lambda call: self._task(call.path["name"]),
            "run_task": self._run_task,
            "list_runs": self._list,
            "get_run": lambda call: self._looked_at(call.path["run_id"]),
            "cancel_run": self._cancel,
            "replay_run": self._replay,
            "get_run_logs": self._logs,
        }

    def register(self, name: str, function: Callable[..., Any], queue: str) -> None:
        """Make a task of a function."""
        self._tasks[name] = function
        self._queues[name] = queue

    def knows(self, name: str) -> bool:
        """Whether there is such a task."""
        return name in self._tasks

    def make(self, task: str, args: list[Any], kwargs: Record, *, schedule: Record | None = None) -> Record:
        """A new run, which waits until somebody looks."""
        run: Record = {
            **blank(models.Run),
            "state": "queued",
            "celery_state": "PENDING",
            "origin": "submit" if schedule is None else "manual",
            "task": task,
            "queue": self._queues[task],
            "schedule_id": schedule and schedule["id"],
            "schedule_version": schedule and schedule["version"],
            "attempt": 1,
            "args": args,
            "kwargs": kwargs,
            "requested_by": "fake",
        }
        self._runs = {run["id"]: run, **self._runs}
        self._lines[run["id"]] = []
        return dict(run)

    def stream(self, call: "Received") -> str:
        """The events of a run, which executes if it has not."""
        run = self._looked_at(call.path["run_id"])
        after = call.headers.get("Last-Event-ID", "0-0").partition("-")
        place = (int(after[0]), int(after[2]))
        text = "retry: 2000\n\n"
        for line in self._lines[run["id"]]:
            if (line["attempt"], line["number"]) > place:
                text += f"id: {line['attempt']}-{line['number']}\nevent: log\ndata: {dumps(line)}\n\n"
        return text + f"event: end\ndata: {dumps({'state': run['state']})}\n\n"

    def _run_task(self, call: "Received") -> Record:
        name = self._task(call.path["name"])["name"]
        return self.make(name, call.json.get("args", []), call.json.get("kwargs", {}))

    def _list(self, call: "Received") -> Record:
        wanted = {key: value for key, value in call.query.items() if key not in ("limit", "cursor")}
        runs = [self._looked_at(run_id) for run_id in list(self._runs)]
        return page(
            [run for run in runs if all(str(run.get(key)) == value for key, value in wanted.items())],
            call.query,
        )

    def _cancel(self, call: "Received") -> Record:
        run = self._run(call.path["run_id"])
        if run["state"] != "queued":
            raise Refusal(409, "conflict", f"The run is {run['state']}.")
        now = datetime.now(UTC).isoformat()
        run |= {"state": "cancelled", "celery_state": "REVOKED", "reason": "cancelled_by_user"}
        run |= {"cancel_requested_at": now, "finished_at": now}
        note = (call.json or {}).get("reason")
        said = f"Cancelled by fake: {note}" if note else "Cancelled by fake."
        run["error"] = {"type": "Cancelled", "message": said}
        return run

    def _replay(self, call: "Received") -> Record:
        run, body = self._run(call.path["run_id"]), call.json or {}
        args, kwargs = body.get("args"), body.get("kwargs")
        return self.make(
            run["task"], run["args"] if args is None else args, run["kwargs"] if kwargs is None else kwargs
        )

    def _logs(self, call: "Received") -> Record:
        lines = self._lines[self._looked_at(call.path["run_id"])["id"]]
        least = LEVELS.index(call.query.get("level", LEVELS[0]))
        return page([line for line in lines if LEVELS.index(line["level"]) >= least], call.query)

    def _task(self, name: str) -> Record:
        if name not in self._tasks:
            raise not_found(f"The task {name}")
        function = self._tasks[name]
        return {
            **blank(models.Task),
            "name": name,
            "path": f"{function.__module__}.{function.__qualname__}",
            "description": inspect.getdoc(function) or "",
            "schedulable": True,
            "queue": self._queues[name],
            "max_attempts": 1,
            "on_worker_lost": "fail",
        }

    def _run(self, run_id: str) -> Record:
        if run_id not in self._runs:
            raise not_found(f"The run {run_id}")
        return self._runs[run_id]

    def _looked_at(self, run_id: str) -> Record:
        run = self._run(run_id)
        if run["state"] == "queued":
            self._execute(run)
        return run

    def _execute(self, run: Record) -> None:
        run |= {"started_at": datetime.now(UTC).isoformat(), "worker": "fake@localhost"}
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                result = self._tasks[run["task"]](*run["args"], **run["kwargs"])
            run |= {"state": "succeeded", "celery_state": "SUCCESS", "result": result}
        except Exception as error:  # noqa: BLE001 - whatever a task raises is its outcome
            kind = type(error)
            told = {"type": kind.__qualname__, "module": kind.__module__, "message": str(error)}
            run |= {"state": "failed", "celery_state": "FAILURE", "error": told}
        now = datetime.now(UTC).isoformat()
        run["finished_at"] = now
        self._lines[run["id"]] = [
            {
                "attempt": 1,
                "number": number,
                "logged_at": now,
                "level": "info",
                "logger": "stdout",
                "message": text,
            }
            for number, text in enumerate(printed.getvalue().splitlines(), 1)
        ]
