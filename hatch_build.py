# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Make the links of the README absolute when the package is built, or remove them.

The module is a plugin of the build tool Hatchling. Relative links do not work on a package index.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = r"\((?!\w+:|#)(?P<path>[^)\s]+)\)"
_IMAGE = re.compile(r"!\[(?P<text>[^\]]*)\]" + _RELATIVE)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]" + _RELATIVE)


class ReadmeHook(MetadataHookInterface):
    """Hatchling plugin that sets the field `readme` of the package. The plugin's settings are in pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README to the metadata of the package, with absolute links.

        As long as no address is configured, links become plain text, and images are removed.
        """
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = for_package_index(readme, self.config["links-url"], self.config["images-url"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def for_package_index(readme: str, links_url: str, images_url: str) -> str:
    """Return the README with absolute links.

    :param links_url: Address of the repository's pages, with a slash at the end. If it is empty, links become plain
        text.
    :param images_url: Address of the repository's files. If it is empty, images are removed.
    """
    readme = _IMAGE.sub(rf"![\g<text>]({images_url}\g<path>)" if images_url else "", readme)
    readme = _LINK.sub(rf"[\g<text>]({links_url}\g<path>)" if links_url else r"\g<text>", readme)
    return re.sub(r"\n{3,}", "\n\n", readme)
