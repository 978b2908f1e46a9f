# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Names of the hosts: the names of the workers, and the function for `[core] hostname_callable` of the cluster."""

from __future__ import annotations

import os

WORKERS = ("worker-1", "worker-2")


def name() -> str:
    """Return the name that the cluster gave to this process."""
    return os.environ.get("CLUSTER_HOST", "host-of-commands")
