# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The bearer tokens that the sandbox issued."""

from __future__ import annotations

import secrets


class Tokens:
    """The valid tokens of one sandbox.

    Each token is a random text and not a JWT. FACEKI does not document the format of its tokens, so a client must not
    parse a token.
    """

    def __init__(self) -> None:
        self._valid_until: dict[str, float] = {}

    def issue(self, now: float, lifetime: float) -> str:
        # Expired tokens are removed, so that the memory of a sandbox that runs for days does not grow.
        self._valid_until = {token: end for token, end in self._valid_until.items() if end > now}
        token = "sbx-" + secrets.token_urlsafe(48)
        self._valid_until[token] = now + lifetime
        return token

    def is_valid(self, token: str, now: float) -> bool:
        return self._valid_until.get(token, 0.0) > now

    def revoke_all(self) -> int:
        """Revoke every token and return the number of revoked tokens."""
        revoked = len(self._valid_until)
        self._valid_until.clear()
        return revoked

    def count(self, now: float) -> int:
        return sum(end > now for end in self._valid_until.values())
