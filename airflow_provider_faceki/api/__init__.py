# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Python client library for FACEKI. It works without Airflow.

The file ``__init__.pyi`` lists the public names. Each name is imported on first use. Therefore the import of this
package in a DAG file does not load an HTTP library.
"""

from __future__ import annotations

from importlib import import_module


def _exports() -> dict[str, str]:
    """Read ``__init__.pyi`` and return the module of each public name."""
    stub = __spec__.loader.get_data(f"{__path__[0]}/__init__.pyi").decode()  # type: ignore[union-attr]
    imports = [line.split() for line in stub.splitlines() if line.startswith("from ")]
    return {name: module for _from, module, _import, name, *_ in imports}


_MODULES = _exports()

__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
