"""The words that verbs take, apart from what the verbs do: completion and `--help` load nothing else."""

from enum import StrEnum

LOOPBACK = "127.0.0.1"  # where everything of this host is


class Service(StrEnum):
    """A service of this folder's stack; `all` is all three."""

    WORKER = "worker"
    BEAT = "beat"
    API = "api"
    ALL = "all"


class Subject(StrEnum):
    """What can be inspected, by Celery's words."""

    ACTIVE = "active"
    SCHEDULED = "scheduled"
    RESERVED = "reserved"
    REGISTERED = "registered"
    STATS = "stats"
    PING = "ping"
    QUEUES = "queues"
    REVOKED = "revoked"


DEFAULT = (Service.WORKER, Service.BEAT)


class Level(StrEnum):
    """How much an API key may do."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"
