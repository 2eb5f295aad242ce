"""The only package that knows Celery; `celery -A app.worker worker|beat|inspect` starts from here.

`app` is Celery's application, to be imported by every `tasks.py`; `progress` is for their bodies. Importing
them connects nowhere.
"""

from app.worker.app import app, catalogue
from app.worker.progress import progress

celery_app = app

__all__ = ["app", "catalogue", "celery_app", "progress"]
