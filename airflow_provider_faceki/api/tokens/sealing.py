# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Encryption of a token at rest: the file store and the shared store keep only what this returns."""

from __future__ import annotations

import base64
import hashlib
import json

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest

#: Largest sealed token in bytes that is read; a token of FACEKI takes about one kilobyte.
MAX_SEALED_BYTES = 64 * 1024


class UntrustedError(Exception):
    """A directory, file or object that this provider would not have made; the text names no secret."""


class TokenSeal:
    """Seals the tokens of one account with a key derived from its client secret.

    Without the secret the content is noise, and a rotated secret makes it void.

    :param account: Base URL, client id and flow give :attr:`name`; the secret gives the key.
    :param verified: Whether the server's certificate was checked. A token that was fetched without the check may
        come from anybody, so it has a name and a key of its own.
    """

    def __init__(self, account: TokenRequest, *, verified: bool = True) -> None:
        parts = [account.base_url, account.client_id, account.flow.value]
        if not verified:
            parts.append("unverified")
        #: Name of the token wherever it is kept; tells nothing about the account.
        self.name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]
        self._fernet = Fernet(_derive_key(account.client_secret, self.name))

    def seal(self, token: AccessToken) -> bytes:
        """Return ``token`` encrypted and authenticated."""
        document = {"value": token.value, "obtained_at": token.obtained_at, "lifetime": token.lifetime}
        return self._fernet.encrypt(json.dumps(document).encode())

    def unseal(self, sealed: bytes) -> AccessToken | None:
        """Return the token in ``sealed``; ``None`` if another secret sealed it or it is damaged.

        :raises UntrustedError: the content is of another version of this provider.
        """
        try:
            document = json.loads(self._fernet.decrypt(sealed))
            return AccessToken(
                str(document["value"]), float(document["obtained_at"]), float(document["lifetime"])
            )
        except InvalidToken:
            return None
        except (ValueError, TypeError, KeyError):
            raise UntrustedError("it holds a token of another version") from None


def _derive_key(secret: str, name: str) -> bytes:
    # The name is part of the derivation, so that a copied token is void under another account's name.
    info = b"airflow-provider-faceki token file 1\0" + name.encode()
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.encode())
    return base64.urlsafe_b64encode(derived)
