"""The file of schedules (YAML): a list with a `key` in each, or a mapping by key, under `schedules`.

    schedules:
      nightly-cleanup:
        task_path: auth.cleanup_old_sessions
        schedule: {type: crontab, expression: "20 3 * * *", timezone: Europe/Berlin}
        task_kwargs: {days: 30}

The fields are those of `POST /api/v1/scheduled-tasks`; `task_name` is the key when it is absent. Read strictly: a
key that is there twice is refused, and dates stay text.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import yaml
from yaml._yaml import CParser
from yaml.composer import Composer
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.resolver import Resolver

from app.errors import FieldError, InvalidInput
from app.scheduling.declarations import Declaration, Owner, read

FORM = "Write `schedules:` and below it a mapping of keys to schedules, or a list of schedules that have a `key`."


# Few bytes of aliases of aliases can stand for more than a machine has memory.
LARGEST = 1_000_000
# 64 bits in binary, and some underscores.
LONGEST_INTEGER = 100
_INTEGER = "tag:yaml.org,2002:int"


class _Loader(Composer, CParser, SafeConstructor, Resolver):
    """YAML's safe types without timestamps, which JSON does not have.

    Read by libyaml, in a fraction of the time; composed in Python, where a document that is nested too deeply is an
    exception: libyaml's own composer would end the process.
    """

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        text = super().construct_scalar(node)
        if "\0" in text:
            raise ConstructorError(None, None, "text must not have NUL characters", node.start_mark)
        if node.tag == _INTEGER and len(text) > LONGEST_INTEGER:
            raise ConstructorError(None, None, "the number is too long; put it in quotes", node.start_mark)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise ConstructorError(
                        None, None, f"the key {key} is there twice; remove one", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in Resolver.yaml_implicit_resolvers.items()
}


def parse(text: str, name: str) -> list[Declaration]:
    """The schedules that a file declares; ``name`` is the file's, for messages.

    Raises:
        InvalidInput: it is not YAML, or not of this form; fields start with the file's name and the path in it.
    """
    return declarations(entries(load(text, name), name))


def load(text: str, name: str) -> Any:
    """The document, whatever its form; raises InvalidInput when it is not YAML, or a trap for those who read it."""
    try:
        document = yaml.load(text, _Loader)  # type: ignore[arg-type] # noqa: S506 - its constructor is the safe one
        size = _size(document, {})
    except RecursionError:
        raise InvalidInput(FieldError(name, "Is nested too deeply, or contains itself.")) from None
    except yaml.YAMLError as error:
        raise InvalidInput(FieldError(name, _explain(error))) from None
    except (ValueError, LookupError, AttributeError):
        # What the safe constructor does with `!!int x`, `!!bool x` and `!!timestamp x`.
        problem = "Has a value that does not fit its `!!` tag. Correct it, or leave the tag out."
        raise InvalidInput(FieldError(name, problem)) from None
    if size > LARGEST:
        problem = f"Has more than {LARGEST} values, when each alias is read as what it stands for."
        raise InvalidInput(FieldError(name, problem))
    return {"schedules": []} if document is None else document


def _size(value: object, known: dict[int, int]) -> int:
    """How many values there are, each alias counted as all of what it stands for, without going through it again."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(value)]


def declarations(given: Iterable[tuple[str, dict[str, Any], str]]) -> list[Declaration]:
    """The schedules of these `entries`; raises InvalidInput."""
    found: list[Declaration] = []
    wrong: list[FieldError] = []
    for key, fields, source in given:
        try:
            found.append(read(Owner.FILE, key, {"task_name": key} | fields, source))
        except InvalidInput as error:
            wrong.extend(error.errors)
    if wrong:
        raise InvalidInput(wrong)
    return found


def entries(document: Any, name: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each schedule's key, fields and place; raises InvalidInput when the document is not of this form."""
    if not isinstance(document, dict) or set(document) != {"schedules"}:
        raise InvalidInput(FieldError(name, FORM))
    yield from _entries(document["schedules"], name)


def _entries(schedules: Any, name: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    if schedules is None:
        return
    if not isinstance(schedules, (dict, list)):
        raise InvalidInput(FieldError(f"{name}: schedules", FORM))
    by_key = isinstance(schedules, dict)
    places: Iterable[tuple[Any, Any]] = (
        schedules.items() if isinstance(schedules, dict) else enumerate(schedules)
    )
    for place, given in places:
        source = f"{name}: schedules{f'.{place}' if by_key else f'[{place}]'}"
        if not isinstance(given, dict) or not all(isinstance(part, str) for part in given):
            raise InvalidInput(FieldError(source, f"Must be a mapping of a schedule's fields. {FORM}"))
        key = place if by_key else given.get("key")
        if not isinstance(key, str):
            raise InvalidInput(
                FieldError(f"{source}.key", "Must be text that stays the same; put it in quotes.")
            )
        rest = given if by_key else {part: value for part, value in given.items() if part != "key"}
        yield key, rest, source


def _explain(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
    problem = getattr(error, "problem", None) or "it cannot be read"
    return f"Is not YAML that can be used{place}: {problem}."
