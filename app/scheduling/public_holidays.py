"""Public holidays of countries and their subdivisions, by ISO 3166 code, from the library `holidays`.

The library knows the past and what has been announced; later dates that follow the moon or a government are its
estimates, and change with its releases.
"""

import difflib
import threading
import warnings
from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache
from types import ModuleType

from app.errors import FieldError, InvalidInput

_QUIET = threading.Lock()


def check(country: str, subdivision: str | None, field: str) -> None:
    """Raises InvalidInput, with near codes, unless the holidays of this place are known."""
    known = _library().list_supported_countries(include_aliases=False)
    if country not in known:
        raise InvalidInput(
            FieldError(f"{field}.country", f"No such country code. {_suggest(country, known, 'DE or CN')}")
        )
    if subdivision is not None and subdivision not in known[country]:
        problem = f"{country} has no such subdivision. {_suggest(subdivision, known[country], 'null')}"
        raise InvalidInput(FieldError(f"{field}.subdivision", problem))


@lru_cache(maxsize=2048)
def holidays_of(country: str, subdivision: str | None, year: int) -> Mapping[date, str]:
    """The public holidays of one year with their names, in English where the library has them."""
    with _QUIET, warnings.catch_warnings():
        # Some countries warn of years that are not announced yet; the filters belong to the whole process.
        warnings.simplefilter("ignore")
        found = _library().country_holidays(
            country, subdiv=subdivision, years=year, expand=False, language="en_US"
        )
    return dict(sorted(found.items()))


def _suggest(code: str, known: Iterable[str], otherwise: str) -> str:
    codes = list(known)
    near = difflib.get_close_matches(code.upper()[:10], codes, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Use one of {', '.join(sorted(codes))}." if len(codes) <= 60 and codes else f"Use {otherwise}."


def _library() -> ModuleType:
    # Loaded when a calendar first needs it: it costs every other process 11 MB and 40 ms.
    import holidays  # noqa: PLC0415

    return holidays
