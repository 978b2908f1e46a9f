# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Subclasses of ``str`` and ``bytes`` for secrets. Their ``repr`` hides the content.

Debuggers, error trackers and ``airflow dags test`` print the local variables of each frame of a traceback. With these
classes, the printed text does not contain the secret.
"""

from __future__ import annotations


class SecretText(str):
    """A ``str`` with a ``repr`` that shows only the length.

    Slicing, formatting and joining return an ordinary ``str``, whose ``repr`` shows the content.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<secret text of {len(self)} characters>"


class SecretBytes(bytes):
    """A ``bytes`` object with a ``repr`` that shows only the length."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"
