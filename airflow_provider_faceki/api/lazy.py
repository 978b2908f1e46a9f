# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Attributes that are computed on first access."""

from __future__ import annotations

import functools
from typing import Any, TypeVar, overload

T = TypeVar("T")


class lazy_property(functools.cached_property[T]):  # noqa: TID251 - a decorator; only this class uses it
    """``functools.cached_property`` without its lock, as in Python 3.12.

    In Python 3.11, all instances of a class share one lock for each property. This lock causes two problems:

    * While one instance computes its value, all other instances have to wait.
    * If another thread forks the process during the computation, the lock is never released in the child process.

    Without the lock, several threads can compute the value of one instance at the same time. All these threads get the
    value that was stored first.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> lazy_property[T]: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...

    def __get__(self, instance: object, owner: type[Any] | None = None) -> lazy_property[T] | T:
        if instance is None:
            return self
        value: T = instance.__dict__.setdefault(str(self.attrname), self.func(instance))
        return value
