"""The statements of the hot paths, built once; whoever has a session executes them.

All instants are the database's: `(SELECT clock_timestamp())` is evaluated once and can be an index
condition, the bare call cannot. Limits are literals, because a generic plan guesses at a parameter.
"""

from sqlalchemy import TextClause, text

# One round trip tells an idle beat that nothing is due, and until when.
PEEK = text("""
SELECT clock_timestamp() AS now,
       (SELECT min(next_run_at) FROM celery_periodic_task_clocks WHERE next_run_at IS NOT NULL) AS next_run_at,
       (SELECT min(next_dispatch_at) FROM celery_task_runs WHERE next_dispatch_at IS NOT NULL) AS next_dispatch_at
""")


def claim(batch: int) -> TextClause:
    """Lock up to ``batch`` due clocks that no other beat holds, earliest first."""
    return text(f"""
SELECT schedule_id, next_run_at, run_count, clock_timestamp() AS now
FROM celery_periodic_task_clocks
WHERE next_run_at <= (SELECT clock_timestamp())
ORDER BY next_run_at
LIMIT {int(batch)}
FOR NO KEY UPDATE SKIP LOCKED
""")


CLAIM_ONE = text("""
SELECT schedule_id, next_run_at, run_count, clock_timestamp() AS now
FROM celery_periodic_task_clocks
WHERE schedule_id = :id AND next_run_at <= (SELECT clock_timestamp())
FOR NO KEY UPDATE SKIP LOCKED
""")

# Wakes sleeping beats: a clock was set, or a run is due sooner than they look again.
NOTIFY_BEATS = text("NOTIFY upbeat_schedules")

NOTIFY_BEATS_OF_RUN = text("""
SELECT pg_notify('upbeat_schedules', '')
FROM celery_task_runs
WHERE id = :id AND state = 'queued' AND next_dispatch_at < clock_timestamp() + make_interval(secs => :within)
""")

CONFIGS = text("""
SELECT id, state, task_path, schedule::text AS schedule, task_extra_config::text AS extra
FROM celery_periodic_task_configs
WHERE id = ANY(CAST(:ids AS uuid[]))
""")

ACTIVE = text("""
SELECT schedule_id, count(*) FILTER (WHERE blocked_by IS NULL) AS active, count(blocked_by) AS waiting
FROM celery_task_runs
WHERE schedule_id = ANY(CAST(:ids AS uuid[])) AND state IN ('queued', 'running') AND origin = 'schedule'
GROUP BY schedule_id
""")

# Each run names a draft: what is common to many. Answers the runs that were there already, of which there are none
# but when a clock was set back, so nothing is to be read in the common case.
INSERT_TICKS = text("""
WITH made AS (
    INSERT INTO celery_task_runs
        (id, state, reason, origin, task, queue, schedule_id, schedule_version, scheduled_for, due_at,
         start_deadline, next_dispatch_at, dispatches, finished_at, args, kwargs, options, blocked_by, settles)
    SELECT u.id, d.state, d.reason, 'schedule', d.task, d.queue, c.id, c.version, d.scheduled_for, d.due_at,
           d.start_deadline, d.next_dispatch_at, d.dispatches, d.finished_at, c.task_args, c.task_kwargs, d.options,
           u.blocked_by, d.settles
    FROM unnest(
        CAST(CAST(:id AS text) AS uuid[]), CAST(CAST(:schedule_id AS text) AS uuid[]),
        CAST(CAST(:draft AS text) AS int[]), CAST(CAST(:blocked_by AS text) AS uuid[])
    )
        AS u (id, schedule_id, draft, blocked_by)
    JOIN unnest(
        CAST(:scheduled_for AS timestamptz[]), CAST(:due_at AS timestamptz[]), CAST(:state AS text[]),
        CAST(:reason AS text[]), CAST(:task AS text[]), CAST(:queue AS text[]), CAST(:start_deadline AS timestamptz[]),
        CAST(:next_dispatch_at AS timestamptz[]), CAST(:dispatches AS int[]), CAST(:finished_at AS timestamptz[]),
        CAST(:options AS jsonb[]), CAST(:settles AS bool[])
    ) WITH ORDINALITY
        AS d (scheduled_for, due_at, state, reason, task, queue, start_deadline, next_dispatch_at, dispatches,
              finished_at, options, settles, number) ON d.number = u.draft
    JOIN celery_periodic_task_configs c ON c.id = u.schedule_id
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT u.id FROM unnest(CAST(CAST(:id AS text) AS uuid[])) AS u (id)
WHERE NOT EXISTS (SELECT FROM made WHERE made.id = u.id)
""")

INSERT_MISSED = text("""
INSERT INTO celery_task_missed_ranges (schedule_id, first, last, count, reason)
VALUES (:schedule_id, :first, :last, :count, :reason)
ON CONFLICT DO NOTHING
""")

# From now on the ends of these runs concern their schedule.
FOLLOW_ENDS = text("""
UPDATE celery_task_runs SET settles = true
WHERE schedule_id = :schedule_id AND state IN ('queued', 'running') AND origin = 'schedule' AND NOT settles
""")

# A schedule as its history keeps it; `schedules.VERSIONED` names the same columns.
VERSIONED = """jsonb_build_object(
    'task_name', task_name, 'task_path', task_path, 'task', task, 'task_type', task_type, 'state', state,
    'state_reason', state_reason, 'schedule', schedule, 'task_args', task_args, 'task_kwargs', task_kwargs,
    'task_extra_config', task_extra_config, 'description', description, 'pause_note', pause_note)"""

# What the product changes by itself is a version too.
SET_STATE = text(f"""
WITH changed AS (
    UPDATE celery_periodic_task_configs
    SET state = :state, state_reason = :reason, drifted = :drifted, version = version + 1,
        updated_at = clock_timestamp()
    WHERE id = :id
    RETURNING *
)
INSERT INTO celery_periodic_task_config_versions (schedule_id, version, action, changed_at, config, author)
SELECT id, version, :action, updated_at, {VERSIONED}, 'upbeat'
FROM changed
""")

FORGET_CHECKS = text("DELETE FROM celery_task_catalogues")

ADVANCE = text("""
UPDATE celery_periodic_task_clocks AS c
SET next_run_at = u.next_run_at, run_count = c.run_count + u.fired
FROM unnest(
    CAST(CAST(:ids AS text) AS uuid[]), CAST(CAST(:next_run_at AS text) AS timestamptz[]),
    CAST(CAST(:fired AS text) AS int[])
)
     AS u (id, next_run_at, fired)
WHERE c.schedule_id = u.id
""")

_LATE = "COALESCE(start_deadline <= (SELECT clock_timestamp()), false)"


def due_for_dispatch(batch: int) -> TextClause:
    """Lock up to ``batch`` queued runs whose (next) wake-up is due; ``apart`` ones end with their schedule or key locked."""
    return text(f"""
SELECT id, (settles OR limit_key IS NOT NULL) AND {_LATE} AS apart
FROM celery_task_runs
WHERE next_dispatch_at <= (SELECT clock_timestamp())
ORDER BY next_dispatch_at
LIMIT {int(batch)}
FOR NO KEY UPDATE SKIP LOCKED
""")


# Wakes again with a delay that doubles, or expires what nobody started in time; what ends apart is due again at once.
_EXPIRES = f"({_LATE} AND NOT settles AND limit_key IS NULL)"
REDISPATCH = text(f"""
UPDATE celery_task_runs
SET state = CASE WHEN {_EXPIRES} THEN 'expired' ELSE state END,
    reason = CASE WHEN {_EXPIRES} THEN 'deadline' ELSE reason END,
    finished_at = CASE WHEN {_EXPIRES} THEN clock_timestamp() END,
    dispatches = LEAST(dispatches + 1, 30000),
    next_dispatch_at = CASE WHEN NOT {_EXPIRES} THEN LEAST(
        clock_timestamp() + make_interval(secs => LEAST(
            CAST(:delay AS double precision) * power(2, LEAST(dispatches, 16)), :cap)),
        start_deadline) END
WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'queued' AND blocked_by IS NULL
RETURNING id, state, task, queue, attempt, options, traceparent
""")

# The broker was away: wake again as soon as it may be back, without waiting for the long delay. Not what it had taken
# all the same, and what waits for another attempt by now.
DISPATCH_SOON = text("""
UPDATE celery_task_runs
SET next_dispatch_at = LEAST(clock_timestamp() + make_interval(secs => :delay), start_deadline)
WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'queued' AND due_at <= clock_timestamp()
""")


# People may pause a queue: then nothing of it starts, whoever has a wake-up. An array is made once; a correlated
# query would be set up for every partition.
NOT_PAUSED = "queue <> ALL (ARRAY(SELECT p.queue FROM celery_queue_pauses p))"


def _start(*, limited: bool) -> TextClause:
    free, cleared = (
        ("limit_key IS NOT NULL", ", reason = NULL, limit_slot_at = NULL")
        if limited
        else ("limit_key IS NULL", "")
    )
    return text(f"""
UPDATE celery_task_runs
SET state = 'running', started_at = clock_timestamp(), next_dispatch_at = NULL,
    worker = :worker, worker_id = :worker_id, start_token = :token,
    published_at = COALESCE(:published_at, published_at){cleared}
WHERE id = :id AND attempt = :attempt AND (CAST(:task AS text) IS NULL OR task = :task)
  AND (state = 'queued' AND blocked_by IS NULL AND {free} AND due_at <= clock_timestamp()
           AND {NOT_PAUSED}
           AND (start_deadline IS NULL OR start_deadline > clock_timestamp())
       OR state = 'running' AND start_token = :token)
  AND EXISTS (SELECT 1 FROM celery_workers w
              WHERE w.id = :worker_id AND w.lease_expires_at > clock_timestamp())
RETURNING args, kwargs, attempt, options, schedule_id, scheduled_for, canvas, task, queue,
    EXTRACT(EPOCH FROM started_at - due_at)::float AS start_lateness,
    EXTRACT(EPOCH FROM published_at - due_at)::float AS dispatch_lateness, traceparent, settles,
    request_id
""")


# The guarded start. A repeat of the same start (its reply was lost) carries the same token.
START = _start(limited=False)
# Of a run with a limit, whose key is held: see `app.scheduling.limiting`.
START_LIMITED = _start(limited=True)

# What is told of a run that has just become terminal.
ENDED = "task, queue, EXTRACT(EPOCH FROM finished_at - started_at)::float AS seconds, id, schedule_id, origin, state, attempt, started_at, finished_at, blocked_by, settles, limit_key, streamed_until"

# Without ``settling`` a run whose end concerns its schedule or its limit is left alone: that is locked first.
FINISH = text(f"""
UPDATE celery_task_runs
SET state = :state, reason = :reason, finished_at = clock_timestamp(),
    result = CAST(:result AS jsonb), error = CAST(:error AS jsonb)
WHERE id = :id AND attempt = :attempt AND state = 'running'
  AND (CAST(:worker_id AS uuid) IS NULL OR worker_id = :worker_id)
  AND (:settling OR NOT settles AND limit_key IS NULL)
RETURNING {ENDED}
""")

# ``late`` ends it only if its start deadline has passed.
END_QUEUED = text(f"""
UPDATE celery_task_runs
SET state = :state, reason = :reason, error = COALESCE(CAST(:error AS jsonb), error),
    finished_at = clock_timestamp(), next_dispatch_at = NULL
WHERE id = :id AND state = 'queued'
  AND (CAST(:attempt AS int) IS NULL OR attempt = :attempt)
  AND (CAST(:task AS text) IS NULL OR task = :task)
  AND (NOT :late OR start_deadline <= clock_timestamp())
  AND (:settling OR NOT settles AND limit_key IS NULL)
RETURNING {ENDED}
""")

# An end that concerns nobody else, and that nobody follows, as a transaction of its own. Unless ``awaited`` its
# commit does not wait for the disk; the setting ends with the transaction.
FINISH_ALONE = text("""
UPDATE celery_task_runs
SET state = :state, reason = :reason, finished_at = clock_timestamp(),
    result = CAST(:result AS jsonb), error = CAST(:error AS jsonb)
WHERE id = :id AND attempt = :attempt AND state = 'running' AND worker_id = :worker_id
  AND NOT settles AND limit_key IS NULL AND streamed_until IS NULL
RETURNING task, queue, state, EXTRACT(EPOCH FROM finished_at - started_at)::float AS seconds,
    CASE WHEN NOT :awaited THEN set_config('synchronous_commit', 'off', true) END
""")

REQUEST_CANCEL = text("""
UPDATE celery_task_runs
SET cancel_requested_at = COALESCE(cancel_requested_at, clock_timestamp()),
    cancel_reason = COALESCE(cancel_reason, :reason), settles = settles OR :settles
WHERE id = :id AND state = 'running'
RETURNING id
""")

# The worker that executes the run listens.
NOTIFY_CANCEL = text("SELECT pg_notify('upbeat_cancels', CAST(CAST(:id AS uuid) AS text))")

LOCK_CLOCK_OF = text("""
SELECT c.schedule_id
FROM celery_periodic_task_clocks c
WHERE c.schedule_id = (SELECT r.schedule_id FROM celery_task_runs r WHERE r.id = :id)
FOR NO KEY UPDATE
""")

ATTEMPT = text("""
SELECT options, worker, started_at, cancel_reason
FROM celery_task_runs
WHERE id = :id AND attempt = :attempt AND state = 'running'
  AND (CAST(:worker_id AS uuid) IS NULL OR worker_id = :worker_id)
""")

KEEP_ATTEMPT = text("""
INSERT INTO celery_task_run_attempts (run_id, attempt, outcome, worker, started_at, finished_at, error)
VALUES (:id, :attempt, :outcome, :worker, :started_at, clock_timestamp(), CAST(:error AS jsonb))
""")

# One reading of the clock: a wake-up must not come before the run is due.
REQUEUE = text("""
UPDATE celery_task_runs
SET state = 'queued', attempt = attempt + 1, dispatches = 0,
    due_at = statement_timestamp() + make_interval(secs => :delay),
    next_dispatch_at = statement_timestamp() + make_interval(secs => :delay),
    start_deadline = statement_timestamp() + make_interval(secs => :delay) + (start_deadline - due_at),
    worker = NULL, worker_id = NULL, start_token = NULL, started_at = NULL, error = CAST(:error AS jsonb)
WHERE id = :id AND attempt = :attempt AND state = 'running' AND cancel_requested_at IS NULL
  AND (CAST(:worker_id AS uuid) IS NULL OR worker_id = :worker_id)
RETURNING task, queue
""")

# Runs whose worker has no lease any more, wherever it is.
LOST = text("""
SELECT r.id, r.attempt
FROM celery_task_runs r
WHERE r.state = 'running'
  AND NOT EXISTS (SELECT 1 FROM celery_workers w
                  WHERE w.id = r.worker_id AND w.lease_expires_at > (SELECT clock_timestamp()))
ORDER BY r.id
LIMIT 500
""")

# Workers end such runs themselves; this is for those that could not.
OVERDUE = text("""
SELECT r.id, r.attempt
FROM celery_task_runs r
WHERE r.state = 'running' AND (r.options ->> 'time_limit') IS NOT NULL
  AND r.started_at + make_interval(secs => CAST(r.options ->> 'time_limit' AS double precision) + :grace)
      < (SELECT clock_timestamp())
ORDER BY r.id
LIMIT 500
""")

REGISTER_WORKER = text("""
INSERT INTO celery_workers (id, name, pid, queues, state, lease_expires_at)
VALUES (:id, :name, :pid, CAST(:queues AS jsonb), 'starting', clock_timestamp() + make_interval(secs => :lease))
ON CONFLICT (id) DO UPDATE SET lease_expires_at = EXCLUDED.lease_expires_at
""")

RENEW_LEASE = text("""
UPDATE celery_workers
SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease)
WHERE id = :id AND stopped_at IS NULL
""")

# Nothing unless it has run out, so that a message without a run to start costs no write.
RENEW_EXPIRED_LEASE = text("""
UPDATE celery_workers
SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease)
WHERE id = :id AND stopped_at IS NULL AND lease_expires_at <= (SELECT clock_timestamp())
""")

RETIRE_WORKER = text("""
UPDATE celery_workers SET state = 'stopped', stopped_at = clock_timestamp(), lease_expires_at = clock_timestamp()
WHERE id = :id
""")

BEAT_HEARTBEAT = text("""
INSERT INTO celery_beats (id, name, pid, last_pass_at, version)
VALUES (:id, :name, :pid, clock_timestamp(), :version)
ON CONFLICT (id) DO UPDATE SET last_pass_at = EXCLUDED.last_pass_at
""")

FORGET_DEAD = text("""
WITH limits AS (DELETE FROM celery_task_limits WHERE next_free_at < clock_timestamp() - interval '1 day'),
     beats AS (DELETE FROM celery_beats WHERE last_pass_at < clock_timestamp() - interval '1 day')
DELETE FROM celery_workers w
WHERE w.lease_expires_at < clock_timestamp() - interval '7 days'
""")
