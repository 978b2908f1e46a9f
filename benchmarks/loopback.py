# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run the HTTP server of the benchmarks in a separate process. It serves plain HTTP and TLS on loopback."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import ipaddress
import json
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.server_process import server_process

CLIENT_ID = "benchmark-client"
CLIENT_SECRET = "benchmark-secret-that-guards-nothing"
RECORDS_PATH = "/api/v3/kyc_verification"
TOKEN_PATH = "/auth/api/generate-token"

_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Loopback:
    """A running HTTP server of the benchmarks.

    :param plain: The base URL for plain HTTP.
    :param tls: The base URL for TLS.
    :param certificate: File with the certificate that the clients must trust.
    """

    plain: str
    tls: str
    certificate: Path

    def counters(self) -> dict[str, int]:
        """Return the numbers of token requests, of answered calls and of rejected calls since the last reset."""
        found: dict[str, int] = json.loads(self._request("GET", "/-/counters"))
        return found

    def revoke(self) -> None:
        """Revoke all tokens that the server has issued."""
        self._request("POST", "/-/revoke")

    def reset(self) -> None:
        """Set the counters of requests to 0 and revoke all tokens."""
        self._request("POST", "/-/reset")

    def connection(self, *, tls: bool = False, shared_file: bool = False, **extra: object) -> str:
        """Return a JSON text for an environment variable that defines an Airflow Connection to this server.

        :param tls: Whether the Connection uses TLS.
        :param shared_file: Whether the hook stores its token in a file that processes share.
        :param extra: Further fields of the Connection's ``extra``.
        """
        return json.dumps(
            {
                "conn_type": "faceki",
                "host": self.tls if tls else self.plain,
                "login": CLIENT_ID,
                "password": CLIENT_SECRET,
                "extra": {
                    "token_store": "file" if shared_file else "memory",
                    **({"verify": str(self.certificate)} if tls else {}),
                    **extra,
                },
            }
        )

    def http_connection(self, *, tls: bool = False) -> str:
        """Return a Connection to this server for Airflow's http provider, as JSON."""
        scheme, _, authority = (self.tls if tls else self.plain).partition("://")
        host, _, port = authority.partition(":")
        extra = {"verify": str(self.certificate)} if tls else {}
        return json.dumps(
            {"conn_type": "http", "schema": scheme, "host": host, "port": int(port), "extra": extra}
        )

    def _request(self, method: str, path: str) -> bytes:
        host = self.plain.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path)
            return connection.getresponse().read()


@contextlib.contextmanager
def loopback(directory: Path, latency: float = 0.0) -> Iterator[Loopback]:
    """Run a server during the ``with`` block.

    :param directory: Directory for the certificate of the server.
    :param latency: Time in seconds that the server waits before each answer.
    """
    certificate, key = make_certificate(directory)
    with server_process("server", str(certificate), str(key), str(latency)) as printed:
        ports = json.loads(printed)
        yield Loopback(f"http://127.0.0.1:{ports['plain']}", f"https://127.0.0.1:{ports['tls']}", certificate)


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for the loopback address and its private key. Return the paths of both files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "certificate.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return certificate_file, key_file


def trusting(certificate: Path) -> ssl.SSLContext:
    """Return a TLS context that trusts the server's certificate."""
    return ssl.create_default_context(cafile=str(certificate))
