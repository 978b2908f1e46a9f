# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Text and bytes whose ``repr`` shows nothing, for values that stand in local variables while an error is raised.

Debuggers, error trackers and Airflow's own test run print the local variables of each frame of a traceback.
"""

from __future__ import annotations


class SecretText(str):
    """Text that works as any other and shows only its length in ``repr``. What is derived from it is plain text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<secret text of {len(self)} characters>"


class SecretBytes(bytes):
    """The same for bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"
