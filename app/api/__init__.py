"""HTTP: the only package, beside `app.main`, that knows it.

- schedules, runs, tasks, queues, workers, statistics, auth, health: the routers and their wire forms, one resource each
- dependencies: what handlers are given: services, the caller, and the rule who may do what
- problems, validation: every error as RFC 9457 problem details
- bodies: JSON bodies read strictly; pagination: opaque cursors
- methods: which methods a path takes
- middleware: request ids, the access log, and the last resort for what nobody handled
- docs, openapi: Swagger UI from local files, and the committed OpenAPI document
"""
