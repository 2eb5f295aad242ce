"""The `upbeat` command.

- commands: the verbs, by typer          - up, foreground, banner: `upbeat up`
- supervision: the stack under supervisord   - embedded, launch: PostgreSQL and Redis of our own
- schedules, deployment: declared schedules, and the check of all schedules
- state, leftovers: the folder `.upbeat/`    - prepare, reach: before the services start
"""

import sys


def main() -> None:
    """Run the command; a user's mistake is one line on stderr, never a stack trace."""
    try:
        from app.cli.commands import run

        status = run()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
