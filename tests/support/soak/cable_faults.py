"""What networks do between one process and one server."""

from collections.abc import Mapping
from functools import partial

from support.proxy import COMMITS, Mode
from support.soak.field import Field
from support.soak.kinds import kind

ROLES = ("beat", "worker", "api")
LONGEST = {Mode.REFUSE: 2.0, Mode.BLACKHOLE: 4.0, Mode.HALF_OPEN: 3.0, Mode.SLOW: 4.0}
WORDS = {
    Mode.REFUSE: "connections to {} are reset and refused",
    Mode.BLACKHOLE: "nothing passes to or from {}",
    Mode.HALF_OPEN: "connections to {} are half open",
    Mode.SLOW: "each piece to or from {} takes 50 ms",
}
SERVERS = {"postgres": "PostgreSQL", "redis": "Redis"}


def _cut(field: Field, end: str, mode: Mode) -> bool:
    member = field.pick(*ROLES)
    if member is None:
        return False
    proxy = member.cables[end]
    proxy.set(mode)
    field.later(field.chance.uniform(0.1, LONGEST[mode]), partial(proxy.set, Mode.PASS))
    return True


for _end, _name in SERVERS.items():
    for _mode, _words in WORDS.items():
        kind(_words.format(_name), 1.2)(partial(_cut, end=_end, mode=_mode))


def _lose(field: Field, end: str, to: Mapping[str, bytes]) -> bool:
    """For a while, what is asked is done, and the answer is lost with its connection; ``to`` is by role."""
    member = field.pick(*to)
    if member is None:
        return False
    proxy = member.cables[end]
    proxy.lose_replies(to[member.role], 0.5, field.chance.randrange(2**32))
    field.later(field.chance.uniform(0.5, 3), lambda: proxy.lose_replies(b"", 0, 0))
    return True


@kind("answers to commits are lost", 2.0)
def commits(field: Field) -> bool:
    return _lose(field, "postgres", COMMITS)


@kind("answers to pushes are lost", 1.0)
def pushes(field: Field) -> bool:
    return _lose(field, "redis", {"beat": b"LPUSH", "api": b"LPUSH"})


@kind("messages are lost on their way to a worker", 1.0)
def pops(field: Field) -> bool:
    return _lose(field, "redis", {"worker": b"BRPOP"})
