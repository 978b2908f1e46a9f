# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Rows of a manifest, and the keys under which the journal stores their states."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One row of a manifest.

    :param number: Number of the row in the manifest, starting at 1. A header and blank lines are not counted.
    :param values: Text by column, without surrounding whitespace. Empty values are omitted.
    :param problem: Reason why the row cannot be read. If it is set, ``values`` is empty.
    :param content_hash: Hash of the content of a row that cannot be read. It is empty if the content is unknown.
    """

    number: int
    values: Mapping[str, str]
    problem: str | None = None
    content_hash: str = ""


def row_key(number: int, identifier: str | None) -> str:
    """Return the key of a row. It contains the identifier, or the row number if ``identifier`` is ``None``."""
    return f"id {identifier}" if identifier is not None else f"row {number}"


def invalid_row_key(row: Row, code: str) -> str:
    """Return the journal key of a row that cannot be processed.

    The key contains a hash of the row. So two different rows have different keys, even if they have the same number in
    two manifests of the same batch.

    :param code: Error code of the row.
    """
    content = json.dumps([row.problem, row.content_hash, sorted(row.values.items())])
    return f"row {row.number} {code} {short_hash(content)}"


def short_hash(content: str | bytes) -> str:
    """Return a short hash of a row's content. Two rows with different contents almost always have different hashes."""
    # The hash is so short that many contents have the same hash. Therefore nobody can find out the content by trying
    # all possible contents.
    data = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=4).hexdigest()
