"""Every reason why a tick or a run did not execute."""

import ast
import inspect

from app.scheduling import policies
from docs.generate.markdown import joined, table


def page() -> str:
    """The members of `Reason`, with what is written below each."""
    tree = ast.parse(inspect.getsource(policies))
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Reason")
    rows = []
    for member, words in zip(found.body, found.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(words, ast.Expr):
            rows.append([f"`{ast.literal_eval(member.value)}`", str(ast.literal_eval(words.value))])
    return joined(["# Reasons", inspect.getdoc(policies.Reason) or "", table(["reason", "meaning"], rows)])
