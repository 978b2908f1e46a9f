# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Encryption of access tokens that are stored in a file, or in a storage that several hosts share."""

from __future__ import annotations

import base64
import hashlib
import json

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest

#: Maximum number of bytes that are read from a stored token or lock. A token has about one kilobyte (assumption).
MAX_SEALED_BYTES = 64 * 1024


class UntrustedError(Exception):
    """Error: a directory, file or stored object is not trusted, so it is not used. The message contains no secret.

    Examples are a directory that another user owns, and a token file in an unknown format.
    """


class TokenSeal:
    """Encryption and decryption of the access tokens of one account.

    The encrypted token is stored under :attr:`name`. The encryption key is derived from the client secret and this
    name. After a change of the client secret, the stored token cannot be decrypted any more, so a new token is fetched.

    :param request: The request that fetches a token of the account. :attr:`name` is derived from three fields of this
        request: ``base_url``, ``client_id`` and ``flow`` (the form of the request).
    :param verified: Whether the server's certificate is checked. A token that was fetched without this check is
        possibly forged. Therefore it is stored under another name and with another key.
    """

    def __init__(self, request: TokenRequest, *, verified: bool = True) -> None:
        parts = [request.base_url, request.client_id, request.flow.value]
        if not verified:
            parts.append("unverified")
        #: In each store, the names of the token and of its locks begin with this text. It is a hash, so it does not
        #: reveal the account.
        self.name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]
        self._fernet = Fernet(_derive_key(request.client_secret, self.name))

    def seal(self, token: AccessToken) -> bytes:
        """Return the encrypted and authenticated form of ``token``."""
        document = {"value": token.value, "obtained_at": token.obtained_at, "lifetime": token.lifetime}
        return self._fernet.encrypt(json.dumps(document).encode())

    def unseal(self, sealed: bytes) -> AccessToken | None:
        """Decrypt ``sealed`` and return the token. Return ``None`` if another key encrypted it, or if it is corrupt.

        :raises UntrustedError: if the decrypted content has another format, because another version of this provider
            wrote it.
        """
        try:
            document = json.loads(self._fernet.decrypt(sealed))
            return AccessToken(
                str(document["value"]), float(document["obtained_at"]), float(document["lifetime"])
            )
        except InvalidToken:
            return None
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise UntrustedError("it contains a token of another version") from None


def _derive_key(secret: str, name: str) -> bytes:
    # The encryption key is derived from the client secret and from the name under which the token is stored. If the
    # encrypted token is copied to the name of another account, it cannot be decrypted there.
    info = b"airflow-provider-faceki token file 1\0" + name.encode()
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.encode())
    return base64.urlsafe_b64encode(derived)
