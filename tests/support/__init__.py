"""What the tests stand on: real servers, real processes, a ledger that the product cannot forge.

- servers: PostgreSQL and Redis of the test session, a database for each module
- processes: start, signal and end groups of processes by id
- stack: worker, beat and API as a user starts them by hand
- tasks: the tasks that such a worker runs; they write the ledger
- ledger, checker: what really ran, matched to what the schedules named
- polling: the only place that waits
"""
