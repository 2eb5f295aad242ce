"""The database roles of the processes, for `upbeat grant`."""

from app.db.engines import sync_engine
from app.db.privileges import grant, statements
from app.modules import import_models
from app.settings import Settings


def grant_roles(settings: Settings, *, embedded_beat: bool, show: bool) -> list[str]:
    """Give each role what it needs, in one transaction; answers the SQL if it is only to be shown."""
    import_models()
    engine = sync_engine(settings.database, name="upbeat-grant")
    try:
        with engine.begin() as connection:
            if show:
                return statements(connection, embedded_beat=embedded_beat)
            grant(connection, embedded_beat=embedded_beat)
            return []
    finally:
        engine.dispose()
