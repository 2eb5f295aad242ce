"""Readings of meters: an example of a business module. README.md says how to make it yours.

- models: the two tables   - service: what can be done with them   - tasks, schedules: what runs by itself
- routes: `/api/v1/readings`   - migrations: its own line of revisions   - tests: `make test ARGS=app/modules/readings`
"""
