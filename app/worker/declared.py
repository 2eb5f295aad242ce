"""Where schedules are declared: beside tasks, in modules' `DEFAULT_SCHEDULES`, and in the file of schedules."""

import importlib
import importlib.util
from collections.abc import Iterator

from app.errors import ConfigurationError
from app.scheduling import schedule_file
from app.scheduling.declarations import Declaration, Declared, Owner, beside_task, in_module, unique
from app.settings import Settings
from app.worker.app import app, catalogue
from app.worker.config import task_modules

ATTRIBUTE = "DEFAULT_SCHEDULES"


def declared(settings: Settings) -> Declared:
    """All declared schedules of this installation.

    Without `UPBEAT_SCHEDULES_FILE` nothing is said about those of a file: a process that does not know it must not
    take them for orphans.

    Raises:
        InvalidInput: a declaration is not valid.
        ConfigurationError: the file cannot be read.
    """
    found, owners = [*_in_code()], {Owner.CODE}
    if settings.schedules.file is not None:
        found += _in_file(settings)
        owners.add(Owner.FILE)
    return Declared(frozenset(owners), unique(found))


def _in_code() -> Iterator[Declaration]:
    for spec in catalogue():
        yield from beside_task(spec.name, spec.description, app.tasks[spec.name].schedules)
    for name in task_modules():
        package = name.rpartition(".")[0]
        beside = f"{package}.schedules"
        for module in (name, beside) if package and importlib.util.find_spec(beside) else (name,):
            yield from in_module(module, getattr(importlib.import_module(module), ATTRIBUTE, ()))


def _in_file(settings: Settings) -> list[Declaration]:
    file = settings.schedules.file
    if file is None:
        return []
    try:
        return schedule_file.parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigurationError(
            f"The file of schedules {file} cannot be read: {why}. Correct UPBEAT_SCHEDULES_FILE, or unset it."
        ) from None
