"""Which methods a path takes. A path of its own, such as /runs/cancel, is not one of /runs/{run_id}.

The framework asks each route by itself, so a GET of the former would reach the latter and be told that `cancel` is no
UUID, or that `If-Match` is missing, instead of 405.
"""

from collections.abc import Sequence

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute


def methods_of(routes: Sequence[BaseRoute], path: str) -> set[str]:
    """The methods that ``path`` takes; empty when nothing is served there."""
    literal = literal_paths(routes).get(path)
    if literal is not None:
        return literal
    served: set[str] = set()
    for context in iter_route_contexts(routes):
        pattern = getattr(context, "path_regex", None)
        if pattern is not None and pattern.match(path):
            served |= context.methods or set()
    return served


def literal_paths(routes: Sequence[BaseRoute]) -> dict[str, set[str]]:
    """The paths without parameters, and the methods of each."""
    found: dict[str, set[str]] = {}
    for context in iter_route_contexts(routes):
        path = str(getattr(context, "path", ""))
        if path and "{" not in path and context.methods:
            found.setdefault(path, set()).update(context.methods)
    return found
