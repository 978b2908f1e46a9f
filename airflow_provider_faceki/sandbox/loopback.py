# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Which hosts are this machine and nobody else?"""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Names but one are not believed: somebody's DNS may point theirs anywhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
