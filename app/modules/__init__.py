"""Business modules, one folder each: models, service, tasks, routes. A folder with a tasks.py is found by itself."""

from importlib import import_module
from pkgutil import iter_modules


def import_models() -> None:
    """Let the metadata know the tables of each module that has some."""
    for module in iter_modules(__path__):
        name = f"{__name__}.{module.name}.models"
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
