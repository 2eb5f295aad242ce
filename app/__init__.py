"""Upbeat: the schedule-and-run service for Celery.

    main.py       create_app(): wiring; the uvicorn target
    settings.py   the only reader of the environment
    errors.py     the error tree
    failpoints.py where fault tests kill or freeze a process; inert
    db/           engines, base, migration: the only package that connects to PostgreSQL
    outbound.py   connections to addresses that users name, checked
    sealing.py    secrets at rest, encrypted
    scheduling/   the domain; knows neither HTTP nor Celery
    worker/       the only package that knows Celery: worker, beat, publisher, results
    api/          the only package that knows HTTP
    modules/      business modules, one folder each
    cli/          the `upbeat` command

Imports point one way: settings, errors, failpoints <- db, outbound, sealing <- scheduling <- worker <- modules
<- api, cli <- main.
"""
