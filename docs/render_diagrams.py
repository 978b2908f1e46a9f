# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Render the diagrams in docs/diagrams to SVG with Mermaid in headless Chromium. `make diagrams` calls this module."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from demo.browser import CHROMIUM_OPTIONS, find_chromium

DIAGRAMS = Path(__file__).parent / "diagrams"
SETTINGS = {
    "startOnLoad": False,
    "htmlLabels": False,
    "theme": "neutral",
    # Text in a box of a diagram is wrapped at `wrappingWidth` pixels. With this value, the longest class name fits in
    # one line.
    "flowchart": {"htmlLabels": False, "wrappingWidth": 400, "nodeSpacing": 30, "rankSpacing": 40},
    "sequence": {
        "actorMargin": 40,
        "mirrorActors": False,
        "width": 110,
        "messageFontSize": 16,
        "actorFontSize": 16,
    },
}
RENDER = """async ([settings, text]) => {
    mermaid.initialize(settings);
    return (await mermaid.render("diagram", text)).svg;
}"""


def stamp(source: str) -> str:
    """Return an SVG comment with the hash of the diagram's text. By the hash, a test finds outdated SVG files."""
    return f"<!-- source {hashlib.sha256(source.encode()).hexdigest()} -->"


def render(page: Page, source: Path) -> None:
    """Render a diagram and write the SVG next to the file ``source``.

    :param page: A page in which Mermaid is loaded.
    :param source: The file with the text of the diagram.
    """
    text = source.read_text(encoding="utf-8")
    # The SVG gets a white background, because its dark lines are hard to see on a dark page.
    svg = str(page.evaluate(RENDER, [SETTINGS, text])).replace(
        'style="', 'style="background-color: white; ', 1
    )
    source.with_suffix(".svg").write_text(f"{svg}\n{stamp(text)}\n", encoding="utf-8")


def main(mermaid: str) -> None:
    """Render all diagrams.

    :param mermaid: Path of ``mermaid.min.js``.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_OPTIONS))
        page = browser.new_page()
        page.add_script_tag(path=mermaid)
        for source in sorted(DIAGRAMS.glob("*.mmd")):
            render(page, source)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
