"""The domain: what a schedule and a run are, when they are due, and what becomes of them.

Time is passed in or read from the database; nothing here knows HTTP or Celery.
"""
