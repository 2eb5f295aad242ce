"""Ordinary Celery code on a real worker: delays, retries, canvas, results."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord, group
from celery.canvas import StampingVisitor
from celery.exceptions import ChordError, MaxRetriesExceededError, TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult, GroupResult
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from app.scheduling import canvas
from app.scheduling.models import AttemptRow, ChordRow, RunRow
from app.settings import Settings
from app.worker import celery_app, codec
from support import calls
from support.calling import calling
from support.ledger import Ledger
from support.polling import eventually
from support.processes import ROOT
from support.servers import Database, Servers
from support.stack import Stack, stack_environment

PATIENCE = 20.0
QUICK = {
    "UPBEAT_TASK_MODULES": "support.tasks,support.calls",
    "UPBEAT_BEAT_SWEEP_EVERY": "0.3",
    "UPBEAT_BEAT_MAX_SLEEP": "1",
}


@pytest.fixture(scope="module")
def running(shared_stack: Stack, settings: Settings) -> Iterator[Ledger]:
    """A beat, a worker of two processes, and this process as their client."""
    shared_stack.environment.update(QUICK)
    shared_stack.beat(wait=False)
    shared_stack.worker("--without-mingle")
    with calling(settings):
        yield shared_stack.ledger


@pytest.fixture(scope="module")
def sessions(settings: Settings) -> Iterator[sessionmaker[Session]]:
    engine = sync_engine(settings.database, name="test")
    yield sync_sessions(engine)
    engine.dispose()


pytestmark = pytest.mark.usefixtures("running")


def _row(sessions: sessionmaker[Session], task_id: str) -> RunRow:
    with sessions() as session:
        return canvas.read_many(session, [task_id])[task_id]


def _attempts(sessions: sessionmaker[Session], task_id: str) -> list[AttemptRow]:
    run = _row(sessions, task_id)
    with sessions() as session:
        query = select(AttemptRow).where(AttemptRow.run_id == run.id).order_by(AttemptRow.attempt)
        return list(session.scalars(query))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# -- delays


def test_countdown_and_eta_are_kept_in_the_database(sessions: sessionmaker[Session]) -> None:
    before = datetime.now(UTC)
    later = calls.add.apply_async((1, 2), countdown=0.8)
    at = calls.add.apply_async((3, 4), eta=before + timedelta(seconds=0.8))
    naive = calls.add.apply_async((5, 6), eta=(before + timedelta(seconds=0.8)).replace(tzinfo=None))
    assert [each.get(PATIENCE) for each in (later, at, naive)] == [3, 7, 11]
    for each in (later, at, naive):
        row = _row(sessions, each.id)
        assert row.started_at is not None
        assert row.started_at >= row.due_at >= before + timedelta(seconds=0.7)


def test_what_expires_before_it_is_due_never_runs(sessions: sessionmaker[Session]) -> None:
    result = calls.add.apply_async((1, 2), countdown=60, expires=0.2)
    with pytest.raises(TaskRevokedError, match="deadline"):
        result.get(PATIENCE)
    row = _row(sessions, result.id)
    assert (row.state, row.reason, row.started_at) == ("expired", "deadline", None)


# -- retries


def test_retry_with_its_countdown_and_its_history(sessions: sessionmaker[Session]) -> None:
    result = calls.retry_until.delay(3)
    assert result.get(PATIENCE) == [2, 3]
    history = _attempts(sessions, result.id)
    assert [(row.attempt, row.outcome) for row in history] == [(1, "failed"), (2, "failed")]
    assert history[0].error is not None
    assert history[0].error["type"].endswith("Flaky")
    assert history[0].worker is not None
    row = _row(sessions, result.id)
    assert (row.state, row.attempt, row.error) == ("succeeded", 3, None)


def test_retry_with_other_arguments() -> None:
    assert calls.retry_with.delay(1).get(PATIENCE) == [2, "given"]


def test_retry_gives_up_at_max_retries(running: Ledger, sessions: sessionmaker[Session]) -> None:
    result = calls.retry_never_ending.delay()
    with pytest.raises(MaxRetriesExceededError):
        result.get(PATIENCE)
    assert len([entry for entry in running.starts() if entry.run == result.id]) == 3
    assert _row(sessions, result.id).attempt == 3


def test_autoretry_of_plain_and_async_bodies(running: Ledger) -> None:
    plain, coroutine, failing = calls.auto.delay(2), calls.auto_async.delay(2), calls.auto_async.delay(9)
    assert plain.get(PATIENCE) == 1
    assert coroutine.get(PATIENCE) == 1
    with pytest.raises(calls.Flaky, match="not yet"):
        failing.get(PATIENCE)
    assert len([entry for entry in running.starts() if entry.run == failing.id]) == 2


def test_an_ignored_result_is_not_kept(tmp_path: Path, sessions: sessionmaker[Session]) -> None:
    result = calls.ignored.delay(str(tmp_path / "made"))
    assert result.get(PATIENCE) is None
    eventually((tmp_path / "made").exists, PATIENCE)
    eventually(lambda: _row(sessions, result.id).state == "succeeded", PATIENCE)
    assert _row(sessions, result.id).result is None


def test_eager_calls_stay_in_this_process() -> None:
    celery_app.conf.task_always_eager = True
    try:
        assert (calls.add.s(1, 2) | calls.add.s(3)).delay().get() == 6
    finally:
        celery_app.conf.task_always_eager = False


# -- results


def test_what_a_result_says(sessions: sessionmaker[Session]) -> None:
    result = calls.break_down.delay(message="on purpose")
    with pytest.raises(ValueError, match="on purpose"):
        result.get(PATIENCE)
    assert (result.state, result.failed(), result.successful(), result.ready()) == (
        "FAILURE",
        True,
        False,
        True,
    )
    assert "on purpose" in result.traceback
    done = calls.add.delay(1, 2)
    assert done.get(PATIENCE) == 3
    assert AsyncResult(done.id).successful()
    done.forget()
    assert AsyncResult(done.id).result is None
    assert _row(sessions, done.id).state == "succeeded"


def test_children_are_known(sessions: sessionmaker[Session]) -> None:
    result = calls.parent.delay(1)
    child = result.get(PATIENCE)
    assert [each.id for each in AsyncResult(result.id).children] == [child]
    assert AsyncResult(child).get(PATIENCE) == 2
    assert (_row(sessions, child).canvas or {})["parent_id"] == result.id


def test_a_task_id_that_the_caller_made() -> None:
    foreign, word = str(uuid4()), f"word-{uuid4()}"
    assert calls.who.apply_async(task_id=foreign).get(PATIENCE)[0] == foreign
    frozen = calls.add.s(1, 2)
    promised = frozen.freeze()
    frozen.apply_async()
    assert promised.get(PATIENCE) == 3
    assert celery_app.send_task("calls.add", (1, 2), task_id=word).id == word
    assert AsyncResult(word).get(PATIENCE) == 3


def test_a_class_based_task() -> None:
    assert calls.classy.delay(4).get(PATIENCE) == 8


def test_a_state_of_the_tasks_own(tmp_path: Path) -> None:
    result = calls.own_state.delay(str(tmp_path / "seen"))
    eventually(lambda: result.state == "HALFWAY", PATIENCE)
    assert result.info == {"done": 1, "total": 2}
    (tmp_path / "seen").touch()
    assert result.get(PATIENCE) == "done"
    assert result.state == "SUCCESS"


def test_a_result_that_is_too_large_fails_and_starts_nothing(tmp_path: Path) -> None:
    result = calls.large.apply_async((300_000,), link=calls.note.si(str(tmp_path / "notes"), "never"))
    with pytest.raises(Exception, match="more than the 262144 that UPBEAT_WORKER_MAX_RESULT_BYTES allows"):
        result.get(PATIENCE)
    assert result.state == "FAILURE"
    assert calls.large.delay(200_000).get(PATIENCE) == "x" * 200_000
    assert _lines(tmp_path / "notes") == []


# -- canvas


def test_chain_and_its_parents(sessions: sessionmaker[Session]) -> None:
    result = chain(calls.add.s(1, 2), calls.add.s(3), calls.add.s(4)).apply_async()
    assert result.get(PATIENCE) == 10
    assert (result.parent.get(PATIENCE), result.parent.parent.get(PATIENCE)) == (6, 3)
    first = result.parent.parent.id
    last = _row(sessions, result.id).canvas or {}
    assert (last["root_id"], last["parent_id"]) == (first, result.parent.id)


def test_a_failing_chain_fails_what_follows(tmp_path: Path, sessions: sessionmaker[Session]) -> None:
    path = str(tmp_path / "notes")
    result = chain(
        calls.add.s(1, 2),
        calls.break_down.s(message="middle"),
        calls.add.s(1),
    ).apply_async(link_error=calls.on_error.s(path=path))
    with pytest.raises(ValueError, match="middle"):
        result.get(PATIENCE)
    row = _row(sessions, result.id)
    assert (row.state, row.reason, row.started_at) == ("failed", "upstream_failed", None)
    eventually(lambda: _lines(tmp_path / "notes") == [f"id {result.parent.id}"], PATIENCE)


class _Stamps(StampingVisitor):  # type: ignore[misc]
    """Stamps each signature with the name of its place, and callbacks too."""

    def on_signature(self, sig: Any, **_: Any) -> dict[str, Any]:
        return {"ticket": "T-1", "sla": [1, "zwei"], "stamped_headers": ["ticket", "sla"]}


STAMPED = [["sla", "ticket"], {"ticket": "T-1", "sla": [1, "zwei"]}]


def test_a_chain_whose_first_step_cannot_hand_on_its_result_ends() -> None:
    result = chain(calls.opaque.s(), calls.add.s(3)).apply_async()
    with pytest.raises(Exception, match="cannot be written as JSON"):
        result.parent.get(PATIENCE)
    with pytest.raises(Exception, match="cannot be written as JSON"):
        result.get(PATIENCE)


def test_stamps_reach_their_task_also_after_a_retry() -> None:
    sig = calls.stamped.s(attempts=3)
    sig.stamp(_Stamps())
    expected = celery_app.amqp.as_task_v2("id", sig.task, (), {}, **sig.options).headers
    assert [sorted(expected["stamped_headers"]), expected["stamps"]] == STAMPED, "as a stock message has them"
    assert sig.apply_async().get(PATIENCE) == [STAMPED]
    assert calls.stamped.apply_async(ticket="T-2", stamped_headers=["ticket"]).get(PATIENCE) == [
        [["ticket"], {"ticket": "T-2"}]
    ]
    assert calls.stamped.delay().get(PATIENCE) == [[[], {}]]


def test_stamps_survive_a_canvas() -> None:
    chained = chain(calls.stamped.s(), calls.stamped.s(attempts=2), calls.stamped.s())
    chained.stamp(_Stamps())
    assert chained.apply_async().get(PATIENCE) == [STAMPED] * 3
    parts = chord([calls.stamped.s(), calls.stamped.s()], calls.stamped.s())
    parts.stamp(_Stamps())
    assert parts.apply_async().get(PATIENCE) == [[STAMPED], [STAMPED], STAMPED]


def test_group_save_restore_and_join() -> None:
    result = group(calls.add.s(n, n) for n in range(5)).apply_async()
    result.save()
    assert result.join_native(PATIENCE) == [0, 2, 4, 6, 8]
    restored = GroupResult.restore(result.id)
    assert restored is not None
    assert restored.get(PATIENCE) == [0, 2, 4, 6, 8]
    assert restored.successful()
    restored.delete()
    assert GroupResult.restore(result.id) is None


def test_chord(sessions: sessionmaker[Session]) -> None:
    result = chord([calls.add.s(n, n) for n in range(6)], calls.total.s()).apply_async()
    assert result.get(PATIENCE) == 30
    with sessions() as session:
        row = session.scalars(select(ChordRow).where(ChordRow.group_id == result.parent.id)).one()
    assert (row.size, row.counted) == (6, 6)
    assert row.fired_at is not None


def test_a_complete_chord_that_nobody_fired_is_found(sessions: sessionmaker[Session]) -> None:
    parts = [calls.add.delay(n, n) for n in (1, 2)]
    assert [part.get(PATIENCE) for part in parts] == [2, 4]
    body, group_id = calls.total.s(), str(uuid4())
    promised = body.freeze()
    # Its id is too long to be kept, and that is its own affair.
    refused, too_long = str(uuid4()), calls.total.s().set(task_id="".join(uuid4().hex for _ in range(300)))
    with sessions.begin() as session:
        header = [[[part.id, None], None] for part in parts]
        for identifier, each in ((refused, too_long), (group_id, body)):
            canvas.add_chord(session, canvas.Chord(identifier, codec.to_stored(dict(each)), header))
        found = update(ChordRow).where(ChordRow.group_id.in_([refused, group_id]))
        session.execute(found.values(size=2, counted=2))
    assert promised.get(PATIENCE) == 6


def test_a_chord_grows_before_its_size_is_told(sessions: sessionmaker[Session]) -> None:
    group_id = str(uuid4())
    with sessions.begin() as session:
        canvas.add_chord(session, canvas.Chord(group_id, {}, []))
        canvas.grow_chord(session, group_id, [["added", None], None])
        canvas.set_chord_size(session, group_id, 2)
        assert [canvas.count_part(session, group_id) for _ in range(2)] == [None, None]
        complete = canvas.count_part(session, group_id)
        assert complete is not None
        assert complete.header == [[["added", None], None]]
        session.execute(delete(ChordRow).where(ChordRow.group_id == group_id))


def test_chords_in_chains_and_chains_in_chords() -> None:
    result = (
        calls.add.s(1, 1)
        | group(calls.add.s(1), calls.add.s(2) | calls.add.s(3))
        | calls.total.s()
        | calls.add.s(100)
    ).apply_async()
    assert result.get(PATIENCE) == 3 + 7 + 100
    inner = chord([calls.add.s(1, 1), calls.add.s(2, 2)], calls.total.s())
    assert chord([inner, calls.add.s(3, 3)], calls.total.s()).apply_async().get(PATIENCE) == 12
    grown = chord([calls.adds_a_part.s(1), calls.add.s(1, 1)], calls.total.s()).apply_async()
    assert grown.get(PATIENCE) == 1 + 2 + 101
    empty = chord([], calls.total.s()).apply_async()
    assert empty.get(PATIENCE) == 0


def test_a_failing_chord_tells_its_body_and_what_follows(tmp_path: Path) -> None:
    path = str(tmp_path / "notes")
    body = calls.total.s().on_error(calls.on_exception.s(path=path))
    result = (
        chord([calls.add.s(1, 1), calls.break_down.s(message="a part")], body) | calls.add.s(1)
    ).apply_async()
    # While it waits, Celery's get raises what a parent failed with, if it sees that first.
    with pytest.raises((ChordError, ValueError), match="a part"):
        result.get(PATIENCE)
    eventually(lambda: len(_lines(tmp_path / "notes")) == 1, PATIENCE)
    assert "ChordError" in _lines(tmp_path / "notes")[0]


def test_links(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    good = calls.add.apply_async(
        (1, 2), link=[calls.note.si(str(path), "one"), calls.note.si(str(path), "two")]
    )
    assert good.get(PATIENCE) == 3
    eventually(lambda: sorted(_lines(path)) == ["one", "two"], PATIENCE)
    bad = calls.break_down.apply_async(
        link=calls.note.si(str(path), "never"),
        link_error=[calls.on_error.s(path=str(path)), calls.on_exception.s(path=str(path))],
    )
    with pytest.raises(ValueError, match="broken"):
        bad.get(PATIENCE)
    told = {f"id {bad.id}", f"exception {bad.id} ValueError broken"}
    eventually(lambda: set(_lines(path)) == {"one", "two"} | told, PATIENCE)


def test_replace() -> None:
    assert calls.replaced.delay(1).get(PATIENCE) == 11
    assert calls.replaced_by_group.delay(1).get(PATIENCE) == 4
    assert (calls.replaced.s(1) | calls.add.s(5)).apply_async().get(PATIENCE) == 16
    in_chord = chord([calls.replaced.s(1), calls.add.s(1, 1)], calls.total.s()).apply_async()
    assert in_chord.get(PATIENCE) == 13


def test_map_starmap_and_chunks() -> None:
    assert calls.identity.map([1, 2, 3]).apply_async().get(PATIENCE) == [1, 2, 3]
    assert calls.add.starmap([(1, 2), (3, 4)]).apply_async().get(PATIENCE) == [3, 7]
    assert calls.add.chunks(zip(range(6), range(6), strict=True), 2).apply_async().get(PATIENCE) == [
        [0, 2],
        [4, 6],
        [8, 10],
    ]


# -- waiting


def test_get_gives_up_in_time() -> None:
    result = calls.nap.delay(2.0)
    begun = time.monotonic()
    with pytest.raises(CeleryTimeout):
        result.get(timeout=0.2)
    assert time.monotonic() - begun < 2.0
    assert result.get(PATIENCE) == 2.0


def test_many_threads_wait_on_one_connection(sessions: sessionmaker[Session]) -> None:
    results = [calls.nap.delay(0.3) for _ in range(8)]
    values: list[Any] = []
    threads = [threading.Thread(target=lambda r=each: values.append(r.get(PATIENCE))) for each in results]
    for thread in threads:
        thread.start()
    with sessions() as session:
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'upbeat-results-listen'"
        listening = session.connection().exec_driver_sql(
            count + " AND pid <> pg_backend_pid() AND datname = current_database()"
        )
        assert listening.scalar() == 1
    for thread in threads:
        thread.join()
    assert values == [0.3] * 8


def test_a_waiter_outlives_its_connection(sessions: sessionmaker[Session]) -> None:
    result = calls.nap.delay(1.0)
    values: list[Any] = []
    thread = threading.Thread(target=lambda: values.append(result.get(PATIENCE)))
    thread.start()
    ended = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'upbeat-results-listen' AND datname = current_database()"
    )

    def end() -> bool:
        with sessions.begin() as session:
            return session.execute(ended).first() is not None

    eventually(end, PATIENCE, "a connection to end")
    thread.join(PATIENCE)
    assert values == [1.0]


FORKED = """
import os, sys
from support import calls
assert calls.nap.delay(0.05).get(20) == 0.05
child = os.fork()
value = calls.nap.delay(0.2 if child else 0.1).get(20)
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert value == 0.2 and calls.nap.delay(0.05).get(20) == 0.05
else:
    os._exit(0 if value == 0.1 else 1)
"""


def test_a_forked_process_waits_by_itself(
    servers: Servers, database: Database, redis_url: str, tmp_path: Path
) -> None:
    environment = stack_environment(servers.postgres.url, database.name, redis_url, tmp_path / "ledger")
    done = subprocess.run([sys.executable, "-c", FORKED], env=environment, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0


def test_an_errback_that_cannot_be_called_does_not_keep_a_run_from_failing() -> None:
    failing = calls.break_down.apply_async(link_error=calls.without_arguments.s())
    with pytest.raises(Exception, match="broken"):
        failing.get(timeout=PATIENCE)
    waiting = calls.break_down.apply_async(countdown=600, link_error=calls.without_arguments.s())
    waiting.revoke()
    # The sweep meets it, and goes on with what others owe.
    chained = chain(calls.break_down.s(), calls.identity.s()).apply_async()
    with pytest.raises(Exception, match="broken"):
        chained.parent.get(timeout=PATIENCE)
    with pytest.raises(TaskRevokedError):
        waiting.get(timeout=PATIENCE)
