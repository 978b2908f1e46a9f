# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Which bearer tokens are good right now?"""

from __future__ import annotations

import secrets


class Tokens:
    """Opaque and all different. Whether they are JWTs is not documented, so nothing may rely on it."""

    def __init__(self) -> None:
        self._good_until: dict[str, float] = {}

    def issue(self, now: float, lifetime: float) -> str:
        # A service that runs for days forgets what has expired.
        self._good_until = {token: end for token, end in self._good_until.items() if end > now}
        token = "sbx-" + secrets.token_urlsafe(48)
        self._good_until[token] = now + lifetime
        return token

    def good(self, token: str, now: float) -> bool:
        return self._good_until.get(token, 0.0) > now

    def revoke_all(self) -> int:
        revoked = len(self._good_until)
        self._good_until.clear()
        return revoked

    def count(self, now: float) -> int:
        return sum(end > now for end in self._good_until.values())
