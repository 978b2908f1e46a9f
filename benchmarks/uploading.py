# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Upload seven image files over TLS with our client, with other clients, and with a bare socket.

``python -m benchmarks.uploading NAME URL CERTIFICATE SMALL LARGE`` runs one of these clients in a process of its
own. ``NAME`` is the name of the client; see :func:`candidates`. ``URL`` is the address of the server, and
``CERTIFICATE`` is the file with its TLS certificate. ``SMALL`` and ``LARGE`` are folders with images. The process first
uploads ``SMALL`` and then ``LARGE``. It prints the peak growth of its memory during the second upload, in MiB.
"""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from benchmarks import clients, memory, peers
from benchmarks.loopback import RECORDS_PATH, trusting

OURS, BASELINE = "ours", "64 KiB at a time, read and sent"
FILES, HTTP, TOOLBELT = "requests, files=", "http provider, files=", "requests-toolbelt"
IMAGES = ("selfie", *(f"document_{number}_{side}" for number in (1, 2, 3) for side in ("front", "back")))
FIELDS = {"workflowId": "benchmark", "record_identifier": "case-0001"}

_CHUNK = 64 * 1024
_TIMEOUT = 60.0

Upload = Callable[[Path], object]


def candidates(url: str, certificate: Path) -> dict[str, Callable[[], Upload]]:
    """Return a dictionary of the candidates, which are the ways of uploading that are compared.

    Each key is the name of a candidate. Each value is a function without arguments that creates the upload function of
    the candidate. Candidates that are not installed are omitted.
    """
    makers: dict[str, Callable[[], Upload]] = {
        BASELINE: lambda: _baseline(url, certificate),
        OURS: _ours,
        FILES: lambda: _files(url, certificate),
    }
    if peers.available():
        makers[HTTP] = lambda: _http_provider(url, certificate)
        makers[TOOLBELT] = lambda: _toolbelt(url, certificate)
    return makers


def _ours() -> Upload:
    from airflow_provider_faceki import api, storage

    hook = clients.hook()

    def upload(folder: Path) -> None:
        limit = hook.settings.max_image_bytes
        selfie, *sides = (storage.image(name, folder / f"{name}.jpg", limit) for name in IMAGES)
        documents = [api.Document(*pair) for pair in zip(sides[::2], sides[1::2], strict=True)]
        made = hook.call(
            api.PerformKycVerification(
                workflow_id=FIELDS["workflowId"],
                selfie=selfie,
                documents=documents,
                record_identifier=FIELDS["record_identifier"],
            )
        )
        assert made.decision is api.Decision.ACCEPTED

    return upload


def _baseline(url: str, certificate: Path) -> Upload:
    """Return the upload function that does the least work. It is the baseline for our client.

    The upload function sends the head of a request through a bare socket. Then the function reads and sends each file
    in chunks.
    """
    token = _token(url, certificate)
    parts = urlsplit(url)
    assert parts.hostname is not None
    plain = socket.create_connection((parts.hostname, parts.port or 443), _TIMEOUT)
    connection = trusting(certificate).wrap_socket(plain, server_hostname=parts.hostname)

    def upload(folder: Path) -> None:
        files = [folder / f"{name}.jpg" for name in IMAGES]
        length = sum(file.stat().st_size for file in files)
        head = f"POST {RECORDS_PATH} HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        for file in files:
            with file.open("rb", buffering=0) as source:
                while chunk := source.read(_CHUNK):
                    connection.sendall(chunk)
        assert connection.recv(_CHUNK).startswith(b"HTTP/1.1 200 ")

    return upload


def _files(url: str, certificate: Path) -> Upload:
    session, headers = _session(certificate), _headers(url, certificate)

    def upload(folder: Path) -> None:
        with _opened(folder) as files:
            _check(
                session.post(url + RECORDS_PATH, data=FIELDS, files=files, headers=headers, timeout=_TIMEOUT)
            )

    return upload


def _http_provider(url: str, certificate: Path) -> Upload:
    hook, headers = clients.http_provider("POST"), _headers(url, certificate)

    def upload(folder: Path) -> None:
        with _opened(folder) as files:
            _check(hook.run(RECORDS_PATH, data=FIELDS, headers=headers, files=files))

    return upload


def _toolbelt(url: str, certificate: Path) -> Upload:
    # The package ``requests_toolbelt`` is loaded by ``import_module``, because this project does not depend on it.
    # If the package is not installed, the type checker reports an import statement as an error.
    encoder: Any = import_module("requests_toolbelt").MultipartEncoder
    session, headers = _session(certificate), _headers(url, certificate)

    def upload(folder: Path) -> None:
        with _opened(folder) as files:
            body = encoder({**FIELDS, **files})
            typed = {**headers, "content-type": body.content_type}
            _check(session.post(url + RECORDS_PATH, data=body, headers=typed, timeout=_TIMEOUT))

    return upload


def _session(certificate: Path) -> requests.Session:
    session = requests.Session()
    session.verify = str(certificate)
    return session


def _token(url: str, certificate: Path) -> str:
    with _session(certificate) as session:
        return clients.fetch_token(session, base_url=url)


def _headers(url: str, certificate: Path) -> Mapping[str, str]:
    return {"authorization": f"Bearer {_token(url, certificate)}"}


@contextmanager
def _opened(folder: Path) -> Iterator[dict[str, tuple[str, Any, str]]]:
    with ExitStack() as stack:
        yield {
            name: (f"{name}.jpg", stack.enter_context((folder / f"{name}.jpg").open("rb")), "image/jpeg")
            for name in IMAGES
        }


def _check(answer: requests.Response) -> None:
    answer.raise_for_status()
    assert answer.json()["result"]["decision"] == "ACCEPTED"


def _growth(upload: Upload, small: Path, large: Path) -> float:
    """Return the peak growth of this process's memory in MiB while it uploads the folder ``large``.

    The process first uploads the folder ``small``, so that imports and caches are not part of the measurement.
    """
    upload(small)
    gc.collect()
    before = memory.resident()
    memory.forget_peak()
    upload(large)
    return max(0.0, memory.peak() - before)


if __name__ == "__main__":
    _name, _url, _certificate, _small, _large = sys.argv[1:]
    print(_growth(candidates(_url, Path(_certificate))[_name](), Path(_small), Path(_large)))
