"""The statements of `watching` and `service`, built once. All instants are the database's."""

from sqlalchemy import text

# Facts come from triggers, too; these are what only a look at the clock can tell.
EMIT = text("""
INSERT INTO facts (type, at, schedule_id, run_id, task, tags, data)
SELECT CAST(:type AS text), clock_timestamp(), CAST(:schedule_id AS uuid), CAST(:run_id AS uuid), c.task,
       COALESCE((SELECT array_agg(tag) FROM jsonb_array_elements_text(
           CASE WHEN jsonb_typeof(c.task_extra_config -> 'tags') = 'array'
                THEN c.task_extra_config -> 'tags' ELSE '[]' END) AS tag), '{}'),
       CAST(:data AS jsonb) || CASE WHEN c.id IS NULL THEN '{}' ELSE jsonb_build_object(
           'schedule_id', c.id, 'schedule', c.task_name, 'task', c.task) END
FROM (SELECT 1) AS one LEFT JOIN celery_periodic_task_configs c ON c.id = CAST(:schedule_id AS uuid)
""")

TAKE = text("""
SELECT id, type, at, schedule_id, run_id, task, tags, data
FROM facts WHERE taken_at IS NULL
ORDER BY id LIMIT :limit
FOR UPDATE SKIP LOCKED
""")

TAKEN = text("UPDATE facts SET taken_at = clock_timestamp() WHERE id = ANY(CAST(:ids AS bigint[]))")

# A row if it was opened now; what is open already counts once more, and tells nobody again.
OPEN = text("""
INSERT INTO alerts AS a (id, kind, subject, schedule_id, run_id, message, opened_at, last_at)
SELECT CAST(:id AS uuid), CAST(:kind AS text), CAST(:subject AS text), CAST(:schedule_id AS uuid),
       CAST(:run_id AS uuid), CAST(:message AS text), seen.at, seen.at
FROM (SELECT COALESCE(CAST(:at AS timestamptz), clock_timestamp()) AS at) AS seen
ON CONFLICT (kind, subject) WHERE closed_at IS NULL
DO UPDATE SET count = a.count + 1, last_at = GREATEST(a.last_at, EXCLUDED.last_at), message = EXCLUDED.message,
              run_id = EXCLUDED.run_id
RETURNING id = CAST(:id AS uuid) AS opened
""")

CLOSE = text("""
UPDATE alerts SET closed_at = clock_timestamp() WHERE id = ANY(CAST(:ids AS uuid[])) AND closed_at IS NULL
""")

# Ticks whose run is not over when their schedule's grace has passed: those of an open alert are known already. A schedule
# is completed when its last run is made, not when that has ended.
LATE = text("""
WITH graced AS (
    SELECT c.id, c.task_name, (c.task_extra_config ->> 'grace')::float AS grace
    FROM celery_periodic_task_configs c
    WHERE c.task_extra_config ? 'grace' AND c.task_extra_config ->> 'grace' IS NOT NULL
      AND c.state IN ('active', 'completed')
      AND NOT EXISTS (SELECT FROM alerts a WHERE a.kind = 'schedule_late' AND a.closed_at IS NULL
                                             AND a.subject = c.id::text)
), ticks AS (
    SELECT g.id AS schedule_id, g.task_name, g.grace, r.id AS run_id, r.scheduled_for,
           CASE r.state WHEN 'running' THEN 'not_finished' ELSE 'not_started' END AS standing
    FROM graced g JOIN celery_task_runs r ON r.schedule_id = g.id
    WHERE r.state IN ('queued', 'running') AND r.origin = 'schedule'
      AND r.scheduled_for + make_interval(secs => g.grace) <= (SELECT clock_timestamp())
    UNION ALL
    SELECT g.id, g.task_name, g.grace, NULL, k.next_run_at, 'not_decided'
    FROM graced g JOIN celery_periodic_task_clocks k ON k.schedule_id = g.id
    WHERE k.next_run_at + make_interval(secs => g.grace) <= (SELECT clock_timestamp())
)
SELECT DISTINCT ON (schedule_id) schedule_id, task_name, grace, run_id, scheduled_for, standing
FROM ticks ORDER BY schedule_id, scheduled_for LIMIT 200
""")

# Whose alerts a success closes: so many schedules, from one id on.
FAILING = text("""
SELECT DISTINCT schedule_id FROM alerts
WHERE closed_at IS NULL AND kind = ANY(CAST(:kinds AS text[])) AND schedule_id > CAST(:after AS uuid)
ORDER BY schedule_id LIMIT :limit
""")

# A success among the newest runs that ended after what the alert tells of; a late run's own is one, whenever it ended.
# What is late stays so until it is over, whatever succeeds beside it.
RECOVERED = text("""
SELECT a.id, a.kind, a.schedule_id, s.id AS run_id
FROM alerts a
CROSS JOIN LATERAL (
    SELECT r.id FROM (
        SELECT id, state, finished_at FROM celery_task_runs
        WHERE schedule_id = a.schedule_id ORDER BY id DESC LIMIT 200
    ) AS r
    WHERE r.state = 'succeeded' AND (r.finished_at > a.last_at OR r.id = a.run_id)
    ORDER BY r.finished_at LIMIT 1
) AS s
WHERE a.closed_at IS NULL AND a.kind = ANY(CAST(:kinds AS text[])) AND a.schedule_id = ANY(CAST(:schedules AS uuid[]))
  AND NOT (a.kind = 'schedule_late' AND (
      EXISTS (SELECT FROM celery_task_runs late WHERE late.id = a.run_id AND late.state IN ('queued', 'running'))
      OR EXISTS (SELECT FROM celery_periodic_task_clocks k
                 WHERE k.schedule_id = a.schedule_id AND k.next_run_at <= a.opened_at)))
""")

# Nobody waits for a success of what is gone or disabled; paused and invalid are over when the state is.
OVER = text("""
SELECT a.id
FROM alerts a LEFT JOIN celery_periodic_task_configs c ON c.id = a.schedule_id
WHERE a.closed_at IS NULL AND a.schedule_id IS NOT NULL
  AND (c.id IS NULL OR c.state = 'disabled'
       OR a.kind = 'schedule_paused' AND c.state <> 'paused' OR a.kind = 'schedule_invalid' AND c.state <> 'invalid')
""")

# Seconds since the last pass of any beat (NULL: there never was one); whether anything would fire; what is open.
BEATS = text("""
SELECT (SELECT EXTRACT(EPOCH FROM clock_timestamp() - max(last_pass_at))::float FROM celery_beats) AS age,
       EXISTS (SELECT FROM celery_periodic_task_clocks WHERE next_run_at IS NOT NULL) AS needed,
       (SELECT id FROM alerts WHERE kind = 'beat_silent' AND closed_at IS NULL) AS alert
""")

# For how many seconds no worker has taken from a queue; not above 0 while one does.
CONSUMERS = text("""
SELECT named.queue, EXTRACT(EPOCH FROM (SELECT clock_timestamp()) - max(w.lease_expires_at))::float AS without
FROM celery_workers w CROSS JOIN LATERAL jsonb_array_elements_text(w.queues) AS named (queue)
GROUP BY named.queue
""")

# Looked at only for queues from which nobody takes, so it costs nothing as long as all is well. A paused queue waits on
# purpose.
WAITING = text("""
SELECT queue, EXTRACT(EPOCH FROM (SELECT clock_timestamp()) - min(due_at))::float AS waited
FROM celery_task_runs r
WHERE next_dispatch_at IS NOT NULL AND state = 'queued' AND queue = ANY(CAST(:queues AS text[]))
  AND NOT EXISTS (SELECT FROM celery_queue_pauses p WHERE p.queue = r.queue)
  AND due_at <= (SELECT clock_timestamp())
GROUP BY queue
""")

OPEN_QUEUES = text("SELECT id, subject FROM alerts WHERE kind = 'queue_unconsumed' AND closed_at IS NULL")
