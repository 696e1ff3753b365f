"""The leaderboard's page as pictures, with what does not fit, what moves and what axe-core finds; not a test.

    python tests/scripts/look_at_leaderboard.py leaderboard/index.html FOLDER [--axe node_modules/axe-core/axe.min.js]

Widths 1 440, 1 280 and 390 pixels, light and dark. playwright drives the system's Chromium; `npm install axe-core` has
the file for --axe. The exit code is 1 where something does not fit, moves, or is a serious or critical fault.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZES = ((1440, 900), (1280, 900), (390, 844))
HEIGHT = "document.documentElement.scrollHeight"
DRAW = """() => {
    document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; });
    document.querySelectorAll('details').forEach(box => { box.open = false; });
    return Promise.all([...document.images].map(image => image.decode()));
}"""
WIDER = """[...document.querySelectorAll('main .scroll')].filter(box => box.scrollWidth > box.clientWidth)
    .map(box => box.getAttribute('aria-label') + ': ' + box.scrollWidth + ' > ' + box.clientWidth)"""


def look(page, name: str, folder: Path, axe: str | None) -> list[str]:
    """Pictures of a page that is open; returns what is wrong."""
    width = page.viewport_size["width"]
    before = page.evaluate(HEIGHT)
    page.evaluate(DRAW)
    after = page.evaluate(HEIGHT)
    page.screenshot(path=folder / f"{name}.png")
    page.screenshot(path=folder / f"{name}-full.png", full_page=True)
    faults = [f"the page grows from {before} to {after} pixels while plots are drawn"] if after != before else []
    if page.evaluate("document.documentElement.scrollWidth") > width:
        faults.append(f"the page is wider than {width} pixels")
    if width > 1000:
        faults += page.evaluate(WIDER)
    if axe:
        page.evaluate(axe)
        for found in page.evaluate("axe.run()")["violations"]:
            place = found["nodes"][0]["target"]
            words = f"axe: {found['impact']}: {found['id']}: {found['help']} ({len(found['nodes'])} places, {place})"
            if found["impact"] in ("serious", "critical"):
                faults.append(words)
            else:
                print(f"{name}: {words}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--axe", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    axe = asked.axe.read_text(encoding="utf-8") if asked.axe else None
    wrong = 0
    with sync_playwright() as driver:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for width, height in SIZES:
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.goto(asked.page.resolve().as_uri())
                faults = look(page, f"{width}-{scheme}", asked.folder, axe)
                wrong += len(faults)
                print(f"{width} {scheme}: {'; '.join(faults) or 'nothing is wrong'}")
                page.close()
        browser.close()
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
