"""Write the pages to `build/docs`; what was there before goes."""

import shutil

from docs.generate import ROOT, WRITTEN, pages

target = ROOT / "build" / "docs"
shutil.rmtree(target, ignore_errors=True)
for name, text in pages().items():
    file = target / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
for image in WRITTEN.glob("*.svg"):
    shutil.copy(image, target)
