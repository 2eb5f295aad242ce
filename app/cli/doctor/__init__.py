"""`upbeat doctor`: what is wrong, and what to do about it, from the virtual environment to a run's last hop.

- findings: what a check says        - examination: which checks there are, and in which order
- packages, servers, services, errors: the checks   - canary: runs sent through every hop
- hops: where a canary that did not come back has stopped (pure)
"""

from app.cli.doctor.examination import examine, exit_status
from app.cli.doctor.findings import Finding, Verdict

__all__ = ["Finding", "Verdict", "examine", "exit_status"]
