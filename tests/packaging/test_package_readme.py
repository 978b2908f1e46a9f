# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The README in the package has no relative links or images, because they do not work on a package index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from hatch_build import for_package_index

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "without", "absolute"),
    [
        pytest.param("[a](docs/a.md)", "a", "[a](https://r/b/docs/a.md)", id="link"),
        pytest.param("[a](docs/a.md#b)", "a", "[a](https://r/b/docs/a.md#b)", id="link to a heading"),
        pytest.param("![a](docs/a.png)", "", "![a](https://r/raw/docs/a.png)", id="image"),
        pytest.param("[a](#b)", "[a](#b)", "[a](#b)", id="link within the page"),
        pytest.param("[a](https://x/y)", "[a](https://x/y)", "[a](https://x/y)", id="absolute link"),
        pytest.param("![a](https://x/y)", "![a](https://x/y)", "![a](https://x/y)", id="absolute image"),
    ],
)
def test_a_link_is_absolute_or_plain_text(text: str, without: str, absolute: str) -> None:
    assert for_package_index(text, "", "") == without
    assert for_package_index(text, "https://r/b/", "https://r/raw/") == absolute


def test_the_package_has_the_readme_without_relative_links() -> None:
    project = ProjectMetadata(str(ROOT), PluginManager())
    readme = project.core.readme
    assert readme.startswith("# airflow-provider-faceki\n")
    assert re.findall(r"\]\((?!https?://|#)[^)]*\)", readme) == []
