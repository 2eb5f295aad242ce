"""Every resource of the client with its methods, runs, and the tree of errors."""

import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import upbeat_sdk
from docs.generate.markdown import joined
from upbeat_sdk import _errors
from upbeat_sdk._generated.resources import Resources

CLASSES = (upbeat_sdk.Upbeat, upbeat_sdk.AsyncUpbeat, upbeat_sdk.Run, upbeat_sdk.Page, upbeat_sdk.EventStream)


def page() -> str:
    """The sync form; the async one has the same methods, to be awaited."""
    errors = (_errors.__doc__ or "").partition("\n\n")[2]
    return joined(
        [
            "# Client",
            "Methods of `Upbeat`; those of `AsyncUpbeat` are the same, and are awaited.",
            *(part for each in CLASSES for part in _class(each)),
            "## Errors",
            f"```{{.text .picture}}\n{errors.rstrip()}\n```",
            *(part for name, kind in resources() for part in _resource(name, kind)),
        ]
    )


def resources() -> Iterator[tuple[str, type[Any]]]:
    """The attributes of a client, with their classes."""
    for name, member in inspect.getmembers(Resources):
        if isinstance(member, cached_property):
            yield name, inspect.get_annotations(member.func, eval_str=True)["return"]


def _class(kind: type[Any]) -> Iterator[str]:
    yield f"## `{kind.__name__}`"
    yield _words(kind)
    yield from _methods(kind, "")


def _resource(name: str, kind: type[Any]) -> Iterator[str]:
    yield f"## `client.{name}`"
    yield _words(kind)
    yield from _methods(kind, f"client.{name}.")


def _methods(kind: type[Any], prefix: str) -> Iterator[str]:
    for name, method in vars(kind).items():
        if inspect.isfunction(method) and not name.startswith(("_", "model_")):
            yield f"### `{prefix}{name}`"
            yield f"`{name}{_signature(method)}`"
            yield _words(method)


def _signature(method: Any) -> str:
    text = re.sub(
        r"\b(?:upbeat_sdk\._generated\.|upbeat_sdk\._\w+\.|uuid\.|datetime\.(?=datetime)|typing\.)",
        "",
        str(inspect.signature(method)),
    )
    return (
        text.replace("(self, /, ", "(")
        .replace("(self, /)", "()")
        .replace("(self, ", "(")
        .replace("(self)", "()")
    )


def _words(of: Any) -> str:
    """A docstring, its sections as lists."""
    text = inspect.getdoc(of) or ""
    text = re.sub(r"^(Args|Raises):\n", r"\n**\1**\n\n", text, flags=re.MULTILINE)
    return re.sub(r"^    (\S+): ", r"- `\1`: ", text, flags=re.MULTILINE).replace("``", "`")
