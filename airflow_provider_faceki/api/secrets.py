# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Text and bytes with a ``repr`` that hides the content.

They are used for secrets in local variables. Debuggers, error trackers and ``airflow dags test`` print the local
variables of each frame of a traceback.
"""

from __future__ import annotations


class SecretText(str):
    """A ``str`` with a ``repr`` that shows only the length. Its slices and joins are ordinary ``str`` objects."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<secret text of {len(self)} characters>"


class SecretBytes(bytes):
    """A ``bytes`` object with a ``repr`` that shows only the length."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"
