# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Read the rows of a batch from a manifest file or from identifiers that another task returned.

A manifest is a file with one row for each person. It is read row by row in bounded memory. An unreadable row does not
stop the reading. This module reads NDJSON and CSV files; ``parquet.py`` reads Parquet files.

A manifest can be split into shards. A shard is a file with a part of the manifest, and it is read like a manifest.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import IO, BinaryIO

from airflow_provider_faceki import lineage, storage
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.api.values import check_identifier, is_missing
from airflow_provider_faceki.batch.airflow_store import write_file
from airflow_provider_faceki.batch.manifest_schema import MANIFEST_FORMATS, REQUIRED_COLUMNS
from airflow_provider_faceki.batch.rows import ParsedRow, Row, UnreadableRow, row_key, short_hash

#: Maximum length of a line in bytes. A longer line is an unreadable row. The maximum is much larger than a row of URIs,
#: which has a few hundred bytes.
MAX_LINE_BYTES = 1024 * 1024
#: If more than this number of consecutive bytes contain no row, reading stops with an error. Such bytes are one endless
#: line, or blank lines.
MAX_BYTES_WITHOUT_ROW = 64 * 1024 * 1024
#: In the check of ``MAX_BYTES_WITHOUT_ROW``, each blank line counts as at least this number of bytes, although it is
#: shorter. The reason is that a blank line takes as much time to read as any other line.
BLANK_LINE_BYTES = 1024
#: A CSV row continues on the next line if a field contains a line break. At most this number of lines is added to the
#: first line of a row. If the row is longer than ``MAX_LINE_BYTES``, no further line is added. If the row is not
#: complete after the last added line, it is unreadable, because a closing quote is probably missing.
MAX_FIELD_LINES = 100
#: Number of identifiers that are read at once. If the identifiers are XComs of mapped tasks, one query to Airflow's
#: database reads this number of identifiers.
IDENTIFIERS_PER_QUERY = 500
#: Maximum number of shards (parts of a manifest). The number is limited, because all shards are open files at the same
#: time while the manifest is read.
MAX_SHARDS = 256
# Maximum size in bytes of a shard (a part of a manifest) in memory. A larger shard is moved to a temporary file on
# disk.
_MAX_MEMORY_BYTES = 64 * 1024

# Some programs write this byte order mark before the first line of a UTF-8 file.
_BOM = b"\xef\xbb\xbf"

_FORMAT_OF_SUFFIX = {"ndjson": "ndjson", "jsonl": "ndjson", "csv": "csv", "parquet": "parquet"}
# Names of additional fields in the rows of a shard. A shard is a file with a part of a manifest. The first field
# contains the row number in the original manifest. The others exist only if the row cannot be read. They contain the
# reason, and a hash of the content.
_NUMBER_FIELD, _PROBLEM_FIELD = "airflow_provider_faceki:row", "airflow_provider_faceki:problem"
_HASH_FIELD = "airflow_provider_faceki:hash"


def read_manifest(
    uri: str,
    columns: Mapping[str, str],
    conn_id: str | None = None,
    format: str | None = None,  # noqa: A002
    required: Collection[str] = ("record_identifier",),
) -> Iterator[Row]:
    """Read a manifest, which is a file with one row for each person, and yield its rows.

    :param uri: Absolute local path or URI of the manifest.
    :param columns: Mapping from names in ``COLUMNS`` to the column names in the file.
    :param conn_id: Id of the Connection for the storage of the manifest.
    :param format: ``ndjson``, ``csv`` or ``parquet``. Default: derived from the suffix of the file.
    :param required: Names in ``COLUMNS`` whose columns a CSV or Parquet file must contain. For NDJSON, nothing is
        checked.
    :raises ValidationError: if the manifest as a whole is not readable.
    :raises ConfigurationError: if it is a Parquet file, and pyarrow is not installed.
    :raises OSError: if the storage failed.
    """
    if not isinstance(uri, str):
        raise ValidationError(f"manifest must be a URI, not {type(uri).__name__}")
    kind = format or _FORMAT_OF_SUFFIX.get(uri.rpartition(".")[2].lower(), "")
    if kind not in MANIFEST_FORMATS:
        raise ValidationError(
            f"manifest: name it .ndjson, .csv or .parquet, or give its format ({', '.join(MANIFEST_FORMATS)})"
        )
    in_file = [columns[name] for name in required]
    # CSV and NDJSON files are read from the beginning to the end. The columns of a Parquet file are at different
    # positions, so the reader moves back and forth in the file.
    with storage.open_binary(uri, conn_id, is_sequential=kind != "parquet") as file:
        for number, parsed in enumerate(_parse(file, kind, columns.values(), in_file), 1):
            yield _to_row(number, parsed, columns)


def check_identifiers(identifiers: object) -> Sequence[object]:
    """Check that ``identifiers`` are a list or Airflow's lazy sequence of XComs, and return them.

    :raises ValidationError: if they have another type. For example, a string is refused, because it would be split into
        its letters.
    """
    if isinstance(identifiers, str | bytes) or not isinstance(identifiers, Sequence):
        raise ValidationError(
            f"identifiers must be a list, not {type(identifiers).__name__}: pass a task's output "
            "(`task.output`), or let the DAG render templates as native objects"
        )
    return identifiers


def rows_from_identifiers(identifiers: Sequence[object], field: str) -> Iterator[Row]:
    """Yield a row for each identifier.

    The identifiers are read in slices. If they are the results of a mapped task, they are in Airflow's database, and
    one query reads a whole slice.

    :param identifiers: Sequence of items. Each item is an identifier, or an object that contains the identifier.
    :param field: Name of the field that contains the identifier, if the item is an object.
    """
    for start in range(0, len(identifiers), IDENTIFIERS_PER_QUERY):
        for number, item in enumerate(identifiers[start : start + IDENTIFIERS_PER_QUERY], start + 1):
            value = item.get(field) if isinstance(item, Mapping) else item
            if is_missing(value):
                yield Row(number, {})
            elif isinstance(value, str):
                yield Row(number, {"record_identifier": value.strip()})
            else:
                yield Row(number, {}, _problem_of_identifier(field, value))


def split(
    uri: str,
    folder: str,
    shards: int,
    columns: Mapping[str, str],
    conn_id: str | None = None,
    output_conn_id: str | None = None,
    manifest_format: str | None = None,
    required: Collection[str] = REQUIRED_COLUMNS,
) -> list[str]:
    """Split a manifest into shards (NDJSON files) of about the same size, and return the URIs of all shards.

    The identifier of a row determines its shard. If the row has no identifier, the row number determines the shard.
    Therefore rows with the same identifier are in the same shard. In this shard, the first of these rows is verified.
    The others become errors and are not billed. If rows are later added to the end of the manifest, the existing rows
    stay in their shards.

    Empty shards are also written. Each row in a shard contains its row number in the manifest. If a row is unreadable,
    the shard contains the reason. The other parameters and errors are those of :func:`read_manifest`.

    :param folder: URI of the folder for the shards.
    :param shards: Number of shards. Use the same number in all tries of a batch, because a different number moves
        rows to other shards.
    :param columns: Mapping from the column names in the shards to the column names in the manifest.
    :param output_conn_id: Id of the Connection for the storage of the folder.
    :raises ValidationError: if the manifest as a whole is not readable, or ``shards`` is out of range.
    """
    if not 1 <= shards <= MAX_SHARDS:
        raise ValidationError(f"shards must be between 1 and {MAX_SHARDS}, not {shards}")
    with ExitStack() as stack:
        files: list[IO[bytes]] = [
            stack.enter_context(tempfile.SpooledTemporaryFile(_MAX_MEMORY_BYTES)) for _ in range(shards)
        ]
        for row in read_manifest(uri, columns, conn_id, manifest_format, required):
            identifier = row.values.get("record_identifier")
            key = f"row {row.number}" if identifier is None else row_key(identifier)
            files[_shard_of(key, shards)].write(shard_line(row))
        root = folder.rstrip("/")
        written = [
            write_file(f"{root}/shard-{number:03d}-of-{shards:03d}.ndjson", file, output_conn_id)
            for number, file in enumerate(files, 1)
        ]
    lineage.collect(lineage.Lineage(lineage.datasets({uri: None}), lineage.datasets({root: None})), split)
    return written


def shard_line(row: Row) -> bytes:
    """Return a row as one NDJSON line of a shard, which is a file with a part of the manifest.

    :func:`read_manifest` reads the line and restores the row with its original number.
    """
    content = row.values
    if row.problem:
        content = {_PROBLEM_FIELD: row.problem, _HASH_FIELD: row.content_hash}
    return json.dumps({_NUMBER_FIELD: row.number, **content}).encode() + b"\n"


def _problem_of_identifier(field: str, value: object) -> str:
    """Return the reason why ``value``, which is not a text, is not accepted as an identifier.

    A number is not accepted, because it possibly differs from the original text. For example, Jinja's native rendering
    converts the text ``1_000`` to the number 1000, which can be the identifier of another person.
    """
    try:
        return check_identifier(f"an identifier, or an object's {field!r},", value)
    except ValidationError as error:
        return error.message


def _parse(
    file: BinaryIO, kind: str, columns: Collection[str], required: Collection[str]
) -> Iterator[ParsedRow]:
    if kind == "ndjson":
        return _read_ndjson(file)
    if kind == "csv":
        return _read_csv(file, columns, required)
    from airflow_provider_faceki.batch.parquet import read_parquet

    return read_parquet(file, columns, partial(_check_header, columns=columns, required=required))


def _read_ndjson(file: BinaryIO) -> Iterator[ParsedRow]:
    """Yield the JSON object of each line. If a line contains no JSON object, yield an :class:`UnreadableRow`."""
    for line in _lines(file):
        yield line if isinstance(line, UnreadableRow) else _parse_json(line)


def _read_csv(file: BinaryIO, columns: Collection[str], required: Collection[str]) -> Iterator[ParsedRow]:
    """Yield the rows of a CSV file in UTF-8. A byte order mark is allowed, and lines can end with LF or CRLF.

    If a quote is not closed, only the row with this quote is unreadable.

    :param file: The CSV file.
    :param columns: Names of the columns that are used.
    :param required: Names of the columns that the header must contain.
    :raises ValidationError: if the header is not readable, lacks a required column or contains a used column twice, or
        if ``MAX_BYTES_WITHOUT_ROW`` bytes contain no row.
    """
    records = _csv_records(_lines(file))
    header = next(records, None)
    if not isinstance(header, list):
        raise ValidationError("manifest: the CSV file has no readable header")
    header = [name.strip() for name in header]
    _check_header(header, columns, required, "; is the first line a header, in UTF-8 and with commas?")
    for record in records:
        if isinstance(record, UnreadableRow):
            yield record
        elif len(record) > len(header):
            problem = f"the row has {len(record)} columns, the header {len(header)}"
            yield UnreadableRow(problem, "\0".join(record))
        else:
            yield dict(zip(header, record, strict=False))


def _lines(file: BinaryIO) -> Iterator[bytes | UnreadableRow]:
    """Yield the lines of a file that are not blank.

    :raises ValidationError: if one line, or a sequence of blank lines, has more than ``MAX_BYTES_WITHOUT_ROW`` bytes.
    """
    is_first, without_row = True, 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        without_row += max(len(line), BLANK_LINE_BYTES)
        if len(line) > MAX_LINE_BYTES:
            head = line
            while not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
                without_row += len(line)
                _check_has_rows(without_row)
            without_row = 0
            yield UnreadableRow(f"the line is longer than {MAX_LINE_BYTES} bytes", head)
        else:
            line = line.removeprefix(_BOM) if is_first else line
            if line.strip():
                without_row = 0
                yield line
        is_first = False
        _check_has_rows(without_row)


def _check_has_rows(without_row: int) -> None:
    if without_row > MAX_BYTES_WITHOUT_ROW:
        raise ValidationError(
            f"manifest: {MAX_BYTES_WITHOUT_ROW // 2**20} MiB without a row, only one very long line or "
            f"blank lines (each counts as {BLANK_LINE_BYTES} bytes); is the file CSV or NDJSON?"
        )


def _parse_json(line: bytes) -> ParsedRow:
    try:
        values = json.loads(line, object_pairs_hook=_unique)
    except _RepeatedNameError:
        # If a JSON object contains a name twice, with two values, JSON does not define which value is valid. With the
        # wrong value, the wrong person would be verified. Therefore the row is unreadable.
        return UnreadableRow("the line contains a name twice", line)
    except (ValueError, RecursionError):
        return UnreadableRow("the line is not JSON", line)
    return values if isinstance(values, dict) else UnreadableRow("the line is not a JSON object", line)


class _RepeatedNameError(Exception):
    """Error: a JSON object contains the same name twice."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _RepeatedNameError
    return values


def _check_header(
    names: Sequence[str], columns: Collection[str], required: Collection[str], hint: str = ""
) -> None:
    """Check the names of the columns of a CSV or Parquet file. The parameters are those of :func:`_read_csv`.

    :param hint: Text for the error message: what is possibly wrong with the file.
    :raises ValidationError: if a required column is missing, or a used column exists twice.
    """
    # An error message contains the number of columns, but not the header of the file. If the file has no header, its
    # first row is read as the header, and this row contains personal data.
    found = f"it has {len(names)} column(s)"
    if missing := [column for column in required if column not in names]:
        raise ValidationError(
            f"manifest: there is no column {', '.join(map(repr, missing))}; {found}; if your columns have other "
            f"names, set the parameter columns{hint}"
        )
    if repeated := [column for column in columns if names.count(column) > 1]:
        raise ValidationError(
            f"manifest: there is more than one column {', '.join(map(repr, repeated))}; {found}{hint}"
        )


def _csv_records(lines: Iterator[bytes | UnreadableRow]) -> Iterator[list[str] | UnreadableRow]:
    pushed_back: deque[bytes | UnreadableRow] = deque()
    while True:
        line = pushed_back.popleft() if pushed_back else next(lines, None)
        if line is None:
            return
        if isinstance(line, UnreadableRow):
            yield line
            continue
        record, lookahead = _csv_record(line, pushed_back, lines)
        if record is None:
            # If a quote is not closed, the following lines are read again as separate rows.
            pushed_back.extendleft(reversed(lookahead))
            problem = "the row is not CSV: a quote that is not closed, or a field of more than 128 KiB"
            yield UnreadableRow(problem, line)
        else:
            yield record


def _csv_record(
    line: bytes, pushed_back: deque[bytes | UnreadableRow], lines: Iterator[bytes | UnreadableRow]
) -> tuple[list[str] | None, list[bytes | UnreadableRow]]:
    """Read the CSV record that begins with ``line``. The record possibly continues on further lines.

    :param line: First line of the record.
    :param pushed_back: Lines that follow ``line`` and that an earlier call has already taken from ``lines``. They are
        read before ``lines``.
    :param lines: The remaining lines of the file.
    :returns: The record, and a list of the lines that were read after ``line``. If the text is not valid CSV, the
        record is ``None``. The caller then puts the lines of the list back into ``pushed_back``.
    """
    lookahead: list[bytes | UnreadableRow] = []
    text = _decode(line)
    while (record := _parse_csv(text)) is None and text.count('"') % 2:
        if len(lookahead) >= MAX_FIELD_LINES or len(text) > MAX_LINE_BYTES:
            break
        following = pushed_back.popleft() if pushed_back else next(lines, None)
        if following is None:
            break
        lookahead.append(following)
        if isinstance(following, UnreadableRow):
            break
        text += _decode(following)
    return record, lookahead


def _parse_csv(text: str) -> list[str] | None:
    try:
        records = list(csv.reader(io.StringIO(text, newline="\n"), strict=True))
    except csv.Error:
        return None
    return records[0] if len(records) == 1 else None


def _decode(line: bytes) -> str:
    # This function accepts bytes that are not UTF-8. If a used column contains them, a later check refuses the row.
    return line.decode("utf-8", errors="surrogateescape")


def _to_row(number: int, parsed: ParsedRow, columns: Mapping[str, str]) -> Row:
    if isinstance(parsed, UnreadableRow):
        return Row(number, {}, parsed.problem, short_hash(parsed.content))
    number_in_manifest = parsed.get(_NUMBER_FIELD)
    if isinstance(number_in_manifest, int) and not isinstance(number_in_manifest, bool):
        number, problem = number_in_manifest, parsed.get(_PROBLEM_FIELD)
        if isinstance(problem, str):
            return Row(number, {}, problem, str(parsed.get(_HASH_FIELD, "")))
    values: dict[str, str] = {}
    for name, column in columns.items():
        value = parsed.get(column)
        if is_missing(value):
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            return _wrong(number, f"column {column!r} must be text, not {type(value).__name__}", value)
        text = str(value).strip()
        if not text.isprintable():
            return _wrong(
                number, f"column {column!r} contains text that is not UTF-8, or not printable", text
            )
        values[name] = text
    return Row(number, values)


def _wrong(number: int, problem: str, value: object) -> Row:
    return Row(number, {}, problem, short_hash(repr(value)))


def _shard_of(key: str, shards: int) -> int:
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards
