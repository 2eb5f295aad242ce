"""Questions to whoever sits at the terminal. Where there is none, nothing waits for an answer."""

import sys

import typer


def ask(question: str, *, instead: str, secret: bool = False) -> str:
    """The answer, which may be empty; a ``secret`` is typed twice, unseen.

    Raises:
        typer.BadParameter: there is no terminal; it names the option that is given ``instead``.
    """
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"there is no terminal to ask on: give {instead}")
    answer: str = typer.prompt(
        question,
        default=None if secret else "",
        show_default=False,
        hide_input=secret,
        confirmation_prompt=secret,
    )
    return answer
