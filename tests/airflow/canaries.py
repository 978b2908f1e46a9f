# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Canaries for leak tests: planted secrets, tokens, links and personal data, and a search for them in all output."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

SECRET = "Canary/secret+7f3a9c51e2d04b68"
OTHER_SECRET = "Canary/other+91b7e2a04f6d3c58"
PROXY_PASSWORD = "canary-proxy-55d2e8c1"
CLIENT_ID = "canary-client-40c1de77"
PERSON = {"first_name": "Quirinazze", "last_name": "Zzyzxdottir", "document_number": "QZ7700991"}
#: Pattern of the sandbox's tokens, which are different in each run.
TOKEN = re.compile(rb"sbx-[A-Za-z0-9_-]{40,}")


@dataclass(frozen=True)
class Canaries:
    """Values that must not be found, by name."""

    words: Mapping[str, str]
    patterns: Mapping[str, re.Pattern[bytes]] = field(default_factory=dict)

    def found_in(self, content: bytes) -> set[str]:
        """Return the names of the canaries that the content contains, in plain form or in a common encoding."""
        lower = content.lower()
        names = {
            name for name, word in self.words.items() if any(form in lower for form in _encoded_forms(word))
        }
        return names | {name for name, pattern in self.patterns.items() if pattern.search(content)}

    def lines_in(self, content: bytes) -> Iterator[tuple[str, str]]:
        """Yield the canary name and the line of each hit, to make a failure easy to analyse."""
        for line in content.splitlines():
            for name in sorted(self.found_in(line)):
                yield name, line.decode(errors="replace")


def _encoded_forms(word: str) -> set[bytes]:
    """Return the encoded forms of a word, in lower case.

    The search ignores upper and lower case, because the machine-readable zone of a document has names in capitals.
    """
    plain = word.encode()
    forms = {plain, quote(word, safe="").encode(), json.dumps(word)[1:-1].encode(), repr(word)[1:-1].encode()}
    # In the Base64 form of a longer text, a word has one of three forms. The characters at both ends of this form also
    # depend on the neighbours of the word, so they are cut off.
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + plain)
        forms.add(coded[4 if shift else 0 : len(coded) - 4])
    return {form.lower() for form in forms}


#: Canaries that must not be found in any place.
NOWHERE = Canaries(
    {"secret": SECRET, "other secret": OTHER_SECRET, "proxy password": PROXY_PASSWORD, **PERSON},
    {"token": TOKEN},
)


def logs_clean_of(links: Iterable[str]) -> Canaries:
    """Return the canaries that no log must contain: those of NOWHERE, the links, and the client id.

    The client id is included because it is half of the credentials.
    """
    named = {f"link {name}": name for name in links}
    return Canaries({**NOWHERE.words, "client id": CLIENT_ID, **named}, NOWHERE.patterns)


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of every file; compressed files are decompressed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            yield str(path), gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def rows_of(database: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the table name and content of every row in every table."""
    opened = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=300)
    try:
        names = [name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            for row in opened.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - a name from the database
                yield (
                    name,
                    b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in row),
                )
    finally:
        opened.close()
