"""The `upbeat` command.

- commands, daemons, choices: the verbs, by typer   - up, foreground, banner: `upbeat up`
- services, keeper, startup: `upbeat start|stop|restart|status`   - logfiles: `upbeat logs`
- inspection: `upbeat inspect|purge`   - tables: how rows are shown
- supervision: the stack under supervisord   - embedded, launch: PostgreSQL and Redis of our own
- client, arguments, runs, queues, workers, schedule_verbs, transfer: the verbs that speak to the service, through the SDK
- schedules, deployment: declared schedules, and the check of all schedules
- state, leftovers: the folder `.upbeat/`    - prepare, reach: before the services start

Exit status: 0 done; 1 not done, a line on stderr says why; 2 wrong usage, and of `schedules plan` and `check`:
something would change, or does not fit; 3 of `status`: a service does not run, of `doctor`: a check failed;
4 of `--wait`: the run did not succeed; 130 stopped by Ctrl-C.
"""

import io
import sys


def main() -> None:
    """Run the command; a user's mistake is one line on stderr, never a stack trace."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or pipe of another encoding shows what it has no sign for as JSON would write it.
            stream.reconfigure(errors="backslashreplace")
    try:
        from app.cli.commands import run

        status = run()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
