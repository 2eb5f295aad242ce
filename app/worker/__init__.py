"""The only package that knows Celery; `celery -A app.worker worker|beat|inspect` starts from here.

`app` is Celery's application, to be imported by every `tasks.py`; `progress` is for their bodies. Importing
them connects nowhere.
"""

import gc

# What is imported stays: to look for garbage in it again and again is a fifth of the time until a worker is there.
_collecting = gc.isenabled()
gc.disable()
try:
    from app.worker.app import app, catalogue
    from app.worker.progress import progress
finally:
    if _collecting:
        gc.enable()

celery_app = app

__all__ = ["app", "catalogue", "celery_app", "progress"]
