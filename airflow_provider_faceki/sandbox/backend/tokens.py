# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The bearer tokens that the sandbox issued, and which of them are valid."""

from __future__ import annotations

import secrets


class Tokens:
    """Opaque, distinct tokens. Whether FACEKI's are JWTs is not documented, so no client may rely on it."""

    def __init__(self) -> None:
        self._valid_until: dict[str, float] = {}

    def issue(self, now: float, lifetime: float) -> str:
        # A sandbox that runs for days drops expired tokens.
        self._valid_until = {token: end for token, end in self._valid_until.items() if end > now}
        token = "sbx-" + secrets.token_urlsafe(48)
        self._valid_until[token] = now + lifetime
        return token

    def is_valid(self, token: str, now: float) -> bool:
        return self._valid_until.get(token, 0.0) > now

    def revoke_all(self) -> int:
        """Revoke every token. Returns how many there were."""
        revoked = len(self._valid_until)
        self._valid_until.clear()
        return revoked

    def count(self, now: float) -> int:
        return sum(end > now for end in self._valid_until.values())
