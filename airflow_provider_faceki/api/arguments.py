# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Checks of arguments. They run before any request is sent.

The value of an argument is possibly a link, or personal data such as the number of an identity card. Therefore most
error messages contain only the name of the argument. The messages of :func:`check_bool`, :func:`check_one_of` and
:func:`check_seconds` contain the value as well, because these three functions check settings. The check of identifiers
is :func:`airflow_provider_faceki.api.values.check_identifier`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from urllib.parse import quote, unquote, urlsplit

from airflow_provider_faceki.api.errors import ValidationError

#: After FACEKI's answer to a verification was lost, the record of the verification is looked up for this number of
#: seconds. By default, the call itself waits at most two minutes for the answer, like FACEKI's own apps. FACEKI usually
#: finishes the verification within these two minutes. Therefore the record usually appears within the next 60 seconds.
#: The verification operator has the same default. The constant is defined in this module, so that parsing a DAG file
#: does not import the code of the verification call.
DEFAULT_LOOKUP_TIMEOUT_SECONDS = 60.0
#: Maximum length of a URL or path in characters. The length is limited, because many servers refuse a longer URL with
#: HTTP 414.
MAX_URL_CHARACTERS = 8000
#: If an error message names a key of a mapping, it shows at most this number of characters of the key.
MAX_SHOWN_CHARACTERS = 100

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def check_method(name: str, value: object) -> None:
    """Raise an error if ``value`` is not one of the usual HTTP methods, such as ``"POST"``."""
    if not isinstance(value, str) or value.upper() not in _METHODS:
        raise ValidationError(f"{name} must be one of {', '.join(_METHODS)}")


def check_bool(name: str, value: object) -> None:
    """Raise an error if ``value`` is not a boolean. For example, the text ``"False"`` is refused."""
    if not isinstance(value, bool):
        raise ValidationError(f"{name} must be True or False, not {value!r}")


def check_one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise an error if ``value`` is not one of the allowed texts."""
    if value not in allowed:
        raise ValidationError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def check_not_link(name: str, value: object) -> None:
    """Raise an error if the value of an id is the URL of a link, or the output of a link task.

    The text of the error contains no value.
    """
    found = None
    if isinstance(value, Mapping) and "link" in value:
        found = "the output of a link task"
    elif isinstance(value, str) and "://" in value:
        found = "a URL"
    if found is not None:
        raise ValidationError(f"{name} is {found}, not an id; pass it as link=, if there is this parameter")


def check_exactly_one(**values: object) -> str:
    """Check that exactly one argument has a value other than ``None``, and return the name of this argument.

    :raises ValidationError: if no argument, or more than one argument, has a value other than ``None``.
    """
    given = [name for name, value in values.items() if value is not None]
    if len(given) != 1:
        *names, last = values
        found = " and ".join(given) or "none"
        raise ValidationError(f"give exactly one of {', '.join(names)} and {last}; found {found}")
    return given[0]


def check_choice(name: str, value: object) -> None:
    """Raise an error if ``value`` is neither a boolean nor ``None``."""
    # ``value`` is an option that allows the client to send a call twice. A text is refused, because Python treats even
    # the text "False" as true. The text would then allow the second call, which FACEKI possibly charges again.
    if value is not None and not isinstance(value, bool):
        raise ValidationError(f"{name} must be True, False or None, not {type(value).__name__}")


def check_scalars(name: str, mapping: object) -> None:
    """Raise an error if ``mapping`` cannot be sent as query parameters or form fields.

    Each key must be text. Each value must be text, a finite number, a boolean or ``None``. The argument ``mapping``
    itself can be ``None`` too.
    """
    if mapping is None:
        return
    if not isinstance(mapping, Mapping):
        raise ValidationError(f"{name} must be a mapping or None, not {type(mapping).__name__}")
    for key, value in mapping.items():
        if not isinstance(key, str) or not _is_sendable(key):
            raise ValidationError(f"{name}: each key must be text that can be encoded as UTF-8")
        _scalar(f"{name}[{key[:MAX_SHOWN_CHARACTERS]!r}]", value)


def check_seconds(name: str, value: object) -> None:
    """Raise an error if ``value`` (seconds) is negative, infinite, NaN or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValidationError(f"{name} must be a number of seconds from 0, not {value!r}")


def check_minutes(name: str, value: object) -> None:
    """Raise an error if ``value`` (minutes) is not an integer from 0 to 2**53 - 1. ``None`` is accepted."""
    # The number of minutes is sent as JSON. Some JSON readers convert each number to a float. A float represents each
    # integer below 2**53 exactly, but not each larger integer. Therefore the number of minutes must be below 2**53.
    if value is not None and (
        not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53
    ):
        raise ValidationError(f"{name} must be a whole number of minutes from 0, or None")


def check_files(name: str, files: object) -> None:
    """Raise an error if ``files`` is not a mapping of the names of multipart parts to :class:`File` objects."""
    # This import is inside the function, because Airflow imports this module each time it parses a DAG file. Parsing a
    # DAG file does not need the code for uploads.
    from airflow_provider_faceki.api.uploads import File

    if not isinstance(files, Mapping):
        raise ValidationError(f"{name} must be a mapping of part names to files, not {type(files).__name__}")
    check_part_names(name, files)
    for part, file in files.items():
        if not isinstance(file, File):
            raise ValidationError(f"{name}[{part!r}] must be a File or an Image, not {type(file).__name__}")


def check_part_names(name: str, parts: Iterable[object]) -> None:
    """Raise an error if the name of a multipart part is not allowed.

    A name is text of 1 to 100 characters. Only ASCII letters, digits and ``_ . - [ ]`` are allowed, because another
    character could make the header of the part invalid.
    """
    for part in parts:
        if not isinstance(part, str) or not re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,100}", part):
            raise ValidationError(
                f"{name}: the name of a part must consist of 1 to 100 letters, digits and _ . - [ ]"
            )


def _scalar(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str | int | float):
        raise ValidationError(f"{name} must be text, a number, a boolean or None, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValidationError(f"{name} must be a finite number")
    if not _is_sendable(value):
        raise ValidationError(
            f"{name} must be text that can be encoded as UTF-8, or a number with fewer digits"
        )


def _is_sendable(value: object) -> bool:
    try:
        str(value).encode()
    except ValueError:
        # The value cannot be sent, for one of two reasons. Either its text contains a lone surrogate (half of a
        # surrogate pair), which UTF-8 cannot encode. Or the value is an integer with thousands of digits, which Python
        # does not convert to text.
        return False
    return True


def check_path(name: str, value: object) -> None:
    """Raise an error if ``value`` is not a path below the base URL, or if it is too long.

    The maximum length is :data:`MAX_URL_CHARACTERS`.
    """
    if not isinstance(value, str) or not re.fullmatch(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*", value):
        raise ValidationError(
            f"{name} must begin with / and contain no host, query, fragment or space; write any other "
            "character that a URL does not allow in its percent-encoded form, such as %7B for {"
        )
    if len(value) > MAX_URL_CHARACTERS:
        raise ValidationError(f"{name} must have at most {MAX_URL_CHARACTERS} characters")
    # Servers and proxies normalise the path, and both `%2e%2e` and `..` mean the parent directory. Therefore both are
    # refused.
    if value.startswith("//") or ".." in unquote(value).split("/"):
        raise ValidationError(
            f"{name} must stay below the base URL: // at the beginning and .. are not allowed"
        )


def path_segment(name: str, value: str) -> str:
    """Return an id as one segment of a URL path.

    :raises ValidationError: if the id is empty, or consists only of dots. Dots are refused, because servers and proxies
        remove the segments ``.`` and ``..`` from a path.
    """
    if not value.strip("."):
        raise ValidationError(
            f"{name} must not be empty or consist only of dots, because it becomes a part of a URL path"
        )
    return quote(value, safe="")


def is_web_url(value: object) -> bool:
    """Return whether ``value`` is an absolute http or https URL.

    The URL must be printable, contain no spaces, and have at most :data:`MAX_URL_CHARACTERS` characters.
    """
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        return False
    if len(value) > MAX_URL_CHARACTERS:
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
