# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The Chromium of this machine, and its options for tests and pictures."""

from __future__ import annotations

import os
import shutil

#: The first option is needed for Chromium as root. The others stop its requests to servers of its maker.
CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: The time limit for one step in a browser. An idle machine needs one or two hundred milliseconds.
TIMEOUT_MILLISECONDS = 60_000


def find_chromium() -> str | None:
    """Return the path of a Chromium: the command in CHROMIUM, `chromium` or `google-chrome`."""
    found = (shutil.which(name) for name in (os.environ.get("CHROMIUM", "chromium"), "google-chrome"))
    return next((path for path in found if path), None)
