"""The pages of the site that are made from the code, and the copying of those that are written: `make docs`.

`pages()` has them all, by their path below the site's root; `python -m docs.generate` writes them to `build/docs`, for
zensical.toml. Nothing of it is committed.
"""

from pathlib import Path

from docs.generate import api, command, reasons, sdk, settings

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = ROOT / "docs"


def pages() -> dict[str, str]:
    """Each page's text in Markdown."""
    found = {str(file.relative_to(WRITTEN)): file.read_text() for file in WRITTEN.rglob("*.md")}
    return found | {
        "howto/business-module.md": (ROOT / "examples" / "readings" / "README.md").read_text(),
        "sdk-guide.md": (ROOT / "sdk" / "README.md").read_text().replace("(../README.md)", "(index.md)"),
        "changes.md": (ROOT / "CHANGELOG.md").read_text(),
        "reference/api.md": api.page(ROOT / "openapi.json"),
        "reference/cli.md": command.page(),
        "reference/reasons.md": reasons.page(),
        "reference/sdk.md": sdk.page(),
        "reference/settings.md": settings.page(),
    }
