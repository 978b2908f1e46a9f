# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Find the Chromium of this machine, and define its options for tests and screenshots."""

from __future__ import annotations

import os
import shutil

#: The command-line options of Chromium. Without `--no-sandbox`, Chromium does not start as root. Most other options
#: prevent requests to Google's servers.
CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: The time limit for one step in a browser. On an idle machine, a step takes 100 to 200 milliseconds.
TIMEOUT_MILLISECONDS = 60_000


def find_chromium() -> str | None:
    """Return the path of a Chromium, or `None` if there is none.

    The command in the environment variable CHROMIUM (default: `chromium`) is searched first. If this command does not
    exist, `google-chrome` is searched.
    """
    found = (shutil.which(name) for name in (os.environ.get("CHROMIUM", "chromium"), "google-chrome"))
    return next((path for path in found if path), None)
