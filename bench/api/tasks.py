"""The task that both services enqueue; nobody runs it."""

from app.worker import app

NAME = "bench.send_mail"


@app.task(name=NAME)
def send_mail(recipient: str, attempts: int, urgent: bool = False) -> str:  # noqa: FBT001, FBT002
    """Stand for something that takes typed arguments."""
    return recipient
