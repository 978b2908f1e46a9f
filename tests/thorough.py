# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The switch between the fast form of a test and its form with larger numbers."""

from __future__ import annotations

import os

#: Whether `make test-thorough` runs the tests.
THOROUGH = os.environ.get("FACEKI_TESTS_THOROUGH") == "1"
