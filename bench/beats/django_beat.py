"""django-celery-beat: Django's ORM on the same PostgreSQL."""

import time
from datetime import UTC, datetime

import django
from celery import Celery
from celery.beat import Service
from django.conf import settings
from django.core.management import call_command

from bench.beats import places

_user, _, _server = places.database().partition("://")[2].rpartition("@")
_host, _, _name = _server.partition("/")
settings.configure(
    INSTALLED_APPS=["django_celery_beat"],
    USE_TZ=True,
    TIME_ZONE="UTC",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _name,
            "USER": _user.partition(":")[0],
            "PASSWORD": _user.partition(":")[2],
            "HOST": _host.rpartition(":")[0],
            "PORT": _host.rpartition(":")[2],
            "CONN_MAX_AGE": None,
        }
    },
)
django.setup()

from django_celery_beat.models import IntervalSchedule, PeriodicTask  # noqa: E402 - after the set-up
from django_celery_beat.schedulers import DatabaseScheduler  # noqa: E402

app = Celery("bench", broker=places.broker(), set_as_current=True)
app.conf.result_expires = None


def fill(count: int) -> None:
    """Insert in bulk."""
    call_command("migrate", verbosity=0)
    daily, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.DAYS)
    now = datetime.now(UTC)
    PeriodicTask.objects.bulk_create(
        (
            PeriodicTask(
                name=f"schedule {n}",
                task=places.TASK,
                interval=daily,
                kwargs=f'{{"n": {n}}}',
                last_run_at=now,
            )
            for n in range(count)
        ),
        batch_size=2000,
    )


def arm(due: int, at: float) -> None:
    """One update of those that rest, one of those that are due."""
    names = [f"schedule {n}" for n in range(places.MOST)]
    PeriodicTask.objects.filter(name__in=names).update(last_run_at=datetime.now(UTC))
    PeriodicTask.objects.filter(name__in=names[:due]).update(last_run_at=places.last_run_for(at))


def service() -> Service:
    """As `celery beat --scheduler django` makes it."""
    return Service(app, scheduler_cls=DatabaseScheduler)


def prepare_edits() -> None:
    """Connect."""
    PeriodicTask.objects.exists()


def edit(number: int) -> float:
    """Save one model, as the admin page does; its signal tells the beat."""
    task = PeriodicTask.objects.get(name=f"schedule {number}")
    task.last_run_at = places.last_run_for(time.time() - 1)
    task.save()
    return time.time()
