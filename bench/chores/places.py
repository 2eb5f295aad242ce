"""What all contestants agree on: names of tasks, and the queue on which messages wait for the start."""

QUEUE = "celery"
STAGED = "staged"
NOOP = "bench.noop"
NAP = "bench.nap"
QUERY = "bench.query"
NAP_SECONDS = 0.1
