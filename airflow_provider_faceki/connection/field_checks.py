# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Check the values of single fields of a FACEKI Connection.

For each kind of field in ``schema.py``, this module contains a check function of the same name. The argument of the
function is the stored value: text from a form or a URI, or a typed value from JSON. The function returns the typed
value. If the value is not allowed, the function raises :class:`InvalidValue` with a description of the allowed values.
The error text never contains the value, because the value is possibly a secret. The caller adds the value if it is safe
to show.

The checks do not use ``jsonschema`` or ``pydantic``, although Airflow installs both. CONTRIBUTING.md gives the reason.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from airflow_provider_faceki.api.service import FACEKI, FILTER_PLACEHOLDERS, AuthFlow
from airflow_provider_faceki.connection.schema import (
    MIN_KEY_LENGTH,
    NO_AUTH_SCHEME,
    TOKEN_STORES,
    FieldSpec,
)

#: Maximum length of a text in characters. The length is limited, so that the text fits into an HTTP header. Real ids,
#: keys and addresses are shorter than this limit.
MAX_TEXT_LENGTH = 2048

_NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d{1,20})?([eE][+-]?\d{1,3})?", re.ASCII)
_URL = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?([^/?#]*)(/[^?#]*)?([?#].*)?", re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?"
)
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)+")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_PAGE = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?#-]|%[0-9A-Fa-f]{2})*")
_URL_SAFE = re.compile(r"[A-Za-z0-9._~-]+")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_AUTH_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,40}")
_JSON_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
# Pattern of the location of a shared token store. The location is the URI of a folder in a storage, or an absolute
# local directory. Examples are `s3://bucket/tokens`, `s3://aws_default@bucket/tokens` (with the id of an Airflow
# Connection), `/mnt/tokens` and `file:///mnt/tokens`.
_STORE_PLACE = re.compile(
    r"(?!(?i:file|local):)[A-Za-z][A-Za-z0-9+.-]*://(?:[A-Za-z0-9_.-]+@)?[^\s?#@/:][^\s?#@]*"
    r"|(?:(?i:file)://)?/[^\s?#@]+"
)
_WRONG_LOCAL_URI = re.compile(r"(?i:file://(?!/)|local:)")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_REQUEST_ID = FILTER_PLACEHOLDERS["request_id"]


class InvalidValue(ValueError):
    """Error: a Connection value is not allowed.

    :param allowed: Description of the allowed values.
    :param because: Reason why the value is not allowed. It is empty if the description of the allowed values is enough.
    """

    def __init__(self, allowed: str, because: str = "") -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.because = because


def number(value: object, spec: FieldSpec) -> float:
    """Check that a number is within the limits of its field."""
    low, high = spec.limits or (-math.inf, math.inf)
    return float(_within(value, low, high, f"a number from {low} to {high}"))


def integer(value: object, spec: FieldSpec) -> int:
    """Check that a whole number is within the limits of its field."""
    low, high = spec.limits or (-math.inf, math.inf)
    allowed = f"a whole number from {low} to {high}"
    given = _within(value, low, high, allowed)
    if given != int(given):
        raise InvalidValue(allowed)
    return int(given)


def _within(value: object, low: float, high: float, allowed: str) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    # A bool is an int in Python, so bools are rejected explicitly. NaN is rejected because every comparison with NaN is
    # false.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidValue(allowed)
    return value


def text(value: object, _: FieldSpec) -> str:
    """Check an id or a similar text: no surrounding whitespace, no control characters, and a maximum length."""
    return _clean(value, "text without white space around it and without control characters")


def credential(value: object, _: FieldSpec) -> str:
    """Check the form of a client id or a client secret. No request is sent to FACEKI.

    The text must have no surrounding whitespace, no control characters, and at most the maximum length.
    """
    return _clean(value, "the text exactly as issued, without white space around it or control characters")


def _clean(value: object, allowed: str) -> str:
    if not isinstance(value, str):
        raise InvalidValue(allowed)
    if value != value.strip():
        raise InvalidValue(allowed, "white space before or after")
    if not value.isprintable():
        raise InvalidValue(allowed, "control or invisible characters")
    if len(value) > MAX_TEXT_LENGTH:
        raise InvalidValue(f"{allowed}, at most {MAX_TEXT_LENGTH} characters")
    return value


def key(value: object, _: FieldSpec) -> str:
    """Check a secret key that the user has chosen: minimum length, no surrounding whitespace, no control characters."""
    allowed = f"{MIN_KEY_LENGTH} or more characters, without white space around them"
    given = _clean(value, allowed)
    if len(given) < MIN_KEY_LENGTH:
        raise InvalidValue(allowed)
    return given


def webhook_token(value: object, _: FieldSpec) -> str:
    """Check a secret token that is a part of the webhook URL. It must be long, and all characters must be URL-safe."""
    allowed = f"{MIN_KEY_LENGTH} or more of the characters A-Z a-z 0-9 - . _ ~"
    given = _clean(value, allowed)
    if len(given) < MIN_KEY_LENGTH or not _URL_SAFE.fullmatch(given):
        raise InvalidValue(allowed)
    return given


def header_name(value: object, _: FieldSpec) -> str:
    """Check the name of an HTTP header."""
    if not isinstance(value, str) or not _HEADER_NAME.fullmatch(value):
        raise InvalidValue("the name of an HTTP header, such as X-Signature")
    return value


def auth_flow(value: object, spec: FieldSpec) -> AuthFlow:
    """Check the field ``auth_flow``, which selects the form of the token request. Return it as :class:`AuthFlow`."""
    return AuthFlow(choice(value, spec))


def auth_scheme(value: object, _: FieldSpec) -> str:
    """Check the authentication scheme, such as ``Bearer``, that stands in front of the access token in the HTTP header.

    :returns: The scheme. For the value ``none``, the result is an empty text: the header then contains only the token.
    """
    if not isinstance(value, str) or not _AUTH_SCHEME.fullmatch(value):
        raise InvalidValue(f"one word such as Bearer, or {NO_AUTH_SCHEME} for the token alone")
    return "" if value == NO_AUTH_SCHEME else value


def choice(value: object, spec: FieldSpec) -> str:
    """Check that a text is one of the allowed values."""
    if not isinstance(value, str) or value not in spec.choices:
        raise InvalidValue(f"one of {', '.join(spec.choices)}")
    return value


def words(value: object, spec: FieldSpec) -> tuple[str, ...]:
    """Check that each word is an allowed value, in upper or lower case. The value is a list, or text with commas."""
    allowed = f"some of {', '.join(spec.choices)}, as a list or with commas"
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidValue(allowed)
    given = {each.strip().upper() for each in found}
    if not given or given - set(spec.choices):
        raise InvalidValue(allowed)
    return tuple(each for each in spec.choices if each in given)


def token_store(value: object, _: FieldSpec) -> str:
    """Check the field ``token_store``, which says where the access token is stored.

    The value is the name of a token store, or the location of a token store that several machines share.
    """
    if isinstance(value, str) and (value in TOKEN_STORES or _STORE_PLACE.fullmatch(value)):
        return value
    # As a token store, a URI such as file://folder is refused. It means a folder in the working directory, and each
    # process can have another working directory. So the processes would not share their tokens.
    is_relative = isinstance(value, str) and _WRONG_LOCAL_URI.match(value)
    raise InvalidValue(
        f"{', '.join(TOKEN_STORES)}, the URI of a folder such as s3://aws_default@bucket/tokens, or the absolute path "
        "of a directory",
        "a local directory's URI begins with file:///" if is_relative else "",
    )


def verify(value: object, _: FieldSpec) -> bool | str:
    """Check the setting for TLS certificates: true, false, or the path of a CA bundle."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, str) and os.path.exists(value):
        return value
    raise InvalidValue(
        "true, false, or the path of a CA bundle file or directory that exists on this machine"
    )


def port(value: object) -> int | None:
    """Check the port of a Connection. For port 0 return ``None``, because port 0 means that no port is set.

    Some versions of Airflow send port 0 if the port in the form is empty.
    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise InvalidValue("a port from 1 to 65535, or no value")
    return value or None


def scheme(value: object) -> str:
    """Check the field ``schema`` of a Connection. The field must contain the scheme of the base URL: https or http."""
    if not isinstance(value, str) or value.lower() not in _DEFAULT_PORTS:
        raise InvalidValue("https, http or no value; put a path into the API base URL")
    return value.lower()


def base_url(value: object, _: FieldSpec) -> str:
    """Check the base URL of a service."""
    return url_with_defaults(value, None, None)


def url_with_defaults(value: object, default_scheme: str | None, default_port: int | None) -> str:
    """Check a base URL and return it. The defaults are used for a missing scheme and for a missing port."""
    allowed = (
        "https://host, optionally with a port and a path; http:// only for localhost, 127.x.x.x and [::1]"
    )
    found_scheme, host, found_port, path = _url_parts(value, allowed)
    used_scheme = found_scheme or default_scheme or "https"
    used_port = found_port or default_port
    if used_scheme not in _DEFAULT_PORTS:
        raise InvalidValue(allowed, "another scheme")
    if used_scheme == "http" and not _is_loopback(host):
        raise InvalidValue(allowed, "http would send the secret unencrypted")
    if path and not _good_path(path):
        raise InvalidValue(
            allowed, "a path with an empty folder, dots as a folder, spaces or special characters"
        )
    shown_port = "" if used_port in (None, _DEFAULT_PORTS[used_scheme]) else f":{used_port}"
    return f"{used_scheme}://{host}{shown_port}{path}"


def _url_parts(value: object, allowed: str) -> tuple[str, str, int | None, str]:
    """Split a URL into scheme, host, port, and path without trailing slashes.

    If the URL contains any other part, such as a password or a query, it is refused.
    """
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH:
        raise InvalidValue(allowed)
    split = _URL.fullmatch(value)
    found_scheme, authority, path, rest = split.groups("") if split else ("", "", "", "")
    if "@" in authority:
        raise InvalidValue(allowed, "a user name or password in it")
    if rest:
        raise InvalidValue(allowed, "a query or fragment in it")
    # Airflow removes the brackets of an IPv6 address when it reads the URI of a Connection. Therefore the brackets are
    # added again.
    if _is_ipv6(authority):
        authority = f"[{authority}]"
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None or not _good_host(parts[1]):
        raise InvalidValue(allowed, "no usable host and port")
    if parts[2] is not None and not 1 <= int(parts[2]) <= 65535:
        raise InvalidValue(allowed, "no such port")
    return found_scheme.lower(), parts[1].lower(), int(parts[2]) if parts[2] else None, path.rstrip("/")


def _good_host(host: str) -> bool:
    if host.startswith("["):
        return _is_ipv6(host[1:-1])
    if re.fullmatch(r"[0-9.]+", host):
        return _address(host) is not None
    return _HOST_NAME.fullmatch(host) is not None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_ipv6(host: str) -> bool:
    return isinstance(_address(host), ipaddress.IPv6Address)


def _is_loopback(host: str) -> bool:
    address = _address(host.strip("[]"))
    return host == "localhost" or (address is not None and address.is_loopback)


def records_path(value: object, _: FieldSpec) -> str:
    """Check the URL path for fetching records."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH or not _good_path(value):
        raise InvalidValue(
            f"a path such as {FACEKI.records_path}; a path with an id goes into the field of that filter, such as "
            "link_filter"
        )
    return value


def record_filter(value: object, spec: FieldSpec) -> str:
    """Check a record filter: the place for an id in a request that searches for records by this id.

    The value has one of two forms:

    - The name of a query parameter. Its value in a request is the id.
    - A path such as ``/records/{link}``. It must contain the placeholder of the filter once. A placeholder is a name in
      braces, such as ``{link}``, which the id replaces.
    """
    if isinstance(value, str) and _JSON_NAME.fullmatch(value):
        return value
    allowed = f"the name of a query parameter, or a path such as /records/{spec.placeholder}"
    return _path_with(value, spec.placeholder, allowed)


def json_name(value: object, _: FieldSpec) -> str:
    """Check the name of a JSON field."""
    if not isinstance(value, str) or not _JSON_NAME.fullmatch(value):
        raise InvalidValue("the name of a field, such as requestId")
    return value


def pdf_report_path(value: object, _: FieldSpec) -> str:
    """Check the path of the PDF report. It must contain the placeholder ``{requestId}`` once, and can have a query."""
    return _path_with(value, _REQUEST_ID, f"a path such as /reports/{_REQUEST_ID}")


def portal_url(value: object, _: FieldSpec) -> str:
    """Check the address of record pages in FACEKI's portal. It must contain ``{requestId}`` once, after the host."""
    allowed = (
        f"an address such as https://portal.example/records/{_REQUEST_ID}, with {_REQUEST_ID} in it once"
    )
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH or value.count(_REQUEST_ID) != 1:
        raise InvalidValue(allowed)
    authority, slash, rest = value.removeprefix("https://").partition("/")
    _url_parts(f"https://{authority}", allowed)
    if not value.startswith("https://") or not slash or not _PAGE.fullmatch(rest.replace(_REQUEST_ID, "id")):
        raise InvalidValue(allowed)
    return value


def _path_with(value: object, placeholder: str, allowed: str) -> str:
    allowed = f"{allowed}, with {placeholder} in it once"
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH or value.count(placeholder) != 1:
        raise InvalidValue(allowed)
    before, _mark, query = value.replace(placeholder, "id").partition("?")
    if not _good_path(before) or not _QUERY.fullmatch(query):
        raise InvalidValue(allowed)
    return value


def _good_path(value: str) -> bool:
    return bool(_PATH.fullmatch(value)) and not {".", ".."} & set(value.split("/"))


def proxies(value: object, _: FieldSpec) -> tuple[tuple[str, str], ...]:
    """Check the proxy settings, an object with one proxy URL for each URL scheme. An empty object disables proxies.

    The object can also be JSON text, because the Connection form before Airflow 3.2 and a Connection URI contain only
    text.
    """
    allowed = (
        '{} for no proxy, or a JSON object {"http": "http://host:port", "https": "http://host:port"}, '
        "or one of the two"
    )
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidValue(allowed, "text that is not JSON") from None
    if not isinstance(value, Mapping):
        raise InvalidValue(allowed)
    if set(value) - {"http", "https"}:
        raise InvalidValue(allowed, "an object with other keys")
    return tuple((name, _proxy(url, allowed)) for name, url in sorted(value.items()) if url not in (None, ""))


def _proxy(url: object, allowed: str) -> str:
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        raise InvalidValue(allowed, "an invalid proxy URL")
    full = url if "://" in url else f"http://{url}"
    scheme_part, _, authority = full.partition("://")
    user, _, server = authority.rpartition("@")
    found_scheme, _, _, below = _url_parts(f"{scheme_part}://{server}", allowed)
    if found_scheme not in _DEFAULT_PORTS or below or {"/", "?", "#"} & set(user):
        raise InvalidValue(allowed, "an address with another scheme or with a path")
    try:
        urlsplit(full)
    except ValueError:
        # `urlsplit` refuses square brackets outside of an IPv6 address. It also refuses characters that Unicode's
        # normalization changes into `/`, `:`, `@`, `?` or `#`. The error of `urlsplit` contains the password, so this
        # error is not shown.
        raise InvalidValue(
            allowed, "a user name or password with characters that need percent-encoding"
        ) from None
    return full
