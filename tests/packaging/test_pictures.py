# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The pictures of the documentation are small, shown on a page, and described by an alternative text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *DOCS.rglob("*.md")]
PICTURES = sorted(path for path in DOCS.rglob("*") if path.suffix in (".png", ".svg"))
#: Each shown image: the page, the alternative text and the path.
SHOWN = [
    (shown, alternative, (shown.parent / path).resolve())
    for shown in PAGES
    for alternative, path in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", shown.read_text(encoding="utf-8"))
]
MAX_PICTURE_BYTES = 150_000
MAX_TOTAL_BYTES = 2_000_000


def test_all_pictures_together_are_small() -> None:
    sizes = {path: path.stat().st_size for path in PICTURES}
    assert len(sizes) >= 14
    assert [path.name for path, size in sizes.items() if size > MAX_PICTURE_BYTES] == []
    assert sum(sizes.values()) <= MAX_TOTAL_BYTES


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_each_picture_has_an_alternative_text(picture: Path) -> None:
    texts = [alternative for _, alternative, path in SHOWN if path == picture]
    assert texts, "no page shows it"
    assert all(len(text) >= 30 for text in texts)
