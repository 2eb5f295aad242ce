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


class Role(StrEnum):
    """What a person may do; each may do what the former may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class ScheduleState(StrEnum):
    """How a schedule stands."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"
    INVALID = "invalid"
    COMPLETED = "completed"


class CatchUp(StrEnum):
    """Which ticks that passed are run after all."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class Reprocess(StrEnum):
    """Which ticks that have a run get another one."""

    NONE = "none"
    FAILED = "failed"
    COMPLETED = "completed"


class ScheduleAct(StrEnum):
    """What can be done to many schedules."""

    ENABLE = "enable"
    DISABLE = "disable"
    PAUSE = "pause"
    RESUME = "resume"
    RUN = "run"
    DELETE = "delete"


class Level(StrEnum):
    """How much an API key may do."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"
