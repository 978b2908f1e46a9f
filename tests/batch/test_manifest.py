# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Every row of a manifest is read, even if it or the row before it has errors."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch import manifest
from airflow_provider_faceki.batch import parquet as parquet_reader
from airflow_provider_faceki.batch.manifest import MAX_LINE_BYTES, read_manifest, shard_line
from airflow_provider_faceki.batch.parquet import PageError, read_pages
from airflow_provider_faceki.batch.rows import Row
from airflow_provider_faceki.storage_interface import StorageUnavailableError

COLUMNS = {"record_identifier": "id", "selfie": "face"}


def read(content: bytes, folder: Path, ending: str, **more: object) -> list[tuple[int, object]]:
    place = folder / f"people.{ending}"
    place.write_bytes(content)
    return [
        (row.number, row.problem or dict(row.values))
        for row in read_manifest(place.as_uri(), COLUMNS, **more)  # type: ignore[arg-type]
    ]


GOOD = {"record_identifier": "a", "selfie": "s3://b/a.jpg"}


@pytest.mark.parametrize(
    ("ending", "content", "expected"),
    [
        pytest.param("ndjson", b'{"id": "a", "face": "s3://b/a.jpg", "x": 1}\n', [GOOD], id="ndjson"),
        pytest.param("jsonl", b'{"id": "a", "face": "s3://b/a.jpg"}', [GOOD], id="no newline at the end"),
        pytest.param("ndjson", b'\xef\xbb\xbf{"id": "a", "face": "s3://b/a.jpg"}\n', [GOOD], id="BOM"),
        pytest.param(
            "ndjson", b'\r\n{"id": "a", "face": "s3://b/a.jpg"}\r\n\r\n', [GOOD], id="CRLF, blank lines"
        ),
        pytest.param("ndjson", b'{"id": " a\\t", "face": "s3://b/a.jpg"}\n', [GOOD], id="spaces around"),
        pytest.param("ndjson", b"{}\n", [{}], id="empty object"),
        pytest.param("ndjson", b'{"id": "", "face": null}\n', [{}], id="empty values"),
        pytest.param("ndjson", b'{"id": 17}\n', [{"record_identifier": "17"}], id="a number"),
        pytest.param("ndjson", b"", [], id="empty file"),
        pytest.param("csv", b"id,face\na,s3://b/a.jpg\n", [GOOD], id="csv"),
        pytest.param("csv", b"\xef\xbb\xbfid,face\r\na,s3://b/a.jpg\r\n", [GOOD], id="csv of Excel"),
        pytest.param("csv", b'face , "id"\n"s3://b/a.jpg","a"\n', "header", id="a space before a quote"),
        pytest.param("csv", b'face , id\n"s3://b/a.jpg","a"\n', [GOOD], id="spaces in the header"),
        pytest.param(
            "csv", b'id,note,face\na,"two\nlines, ""so""",s3://b/a.jpg\n', [GOOD], id="newline in quotes"
        ),
        pytest.param("csv", b"id,face\na\n", [{"record_identifier": "a"}], id="csv row that is too short"),
        pytest.param("csv", b"id,face\n,\n\n", [{}], id="csv row of nothing, and a blank line"),
        pytest.param(
            "csv", b"id,note,face\na,\xff\xfe,s3://b/a.jpg\n", [GOOD], id="not UTF-8 where nobody looks"
        ),
        pytest.param("csv", b"id,face\n", [], id="csv of a header"),
    ],
)
def test_good_rows(tmp_path: Path, ending: str, content: bytes, expected: object) -> None:
    if expected == "header":
        with pytest.raises(ValidationError, match="there is no column 'id'"):
            read(content, tmp_path, ending)
        return
    assert isinstance(expected, list)
    assert read(content, tmp_path, ending) == list(enumerate(expected, 1))


@pytest.mark.parametrize(
    ("ending", "bad", "problem"),
    [
        pytest.param("ndjson", b"nonsense", "not JSON", id="no JSON"),
        pytest.param("ndjson", b"[" * 100_000, "not JSON", id="deep"),
        pytest.param("ndjson", b"[1]", "not a JSON object", id="a list"),
        pytest.param("ndjson", b'{"id": "a", "id": "b"}', "a name twice", id="two identifiers"),
        pytest.param(
            "ndjson", b'{"id": "a", "face": "s3://b/a", "face": "s3://b/b"}', "a name twice", id="two faces"
        ),
        pytest.param("ndjson", b'{"id": "a", "\\u0069d": "b"}', "a name twice", id="a name in two spellings"),
        pytest.param("ndjson", b'{"id": 1.5}', "must be text, not float", id="a float"),
        pytest.param("ndjson", b'{"id": true}', "must be text, not bool", id="a bool"),
        pytest.param("ndjson", b'{"id": ["a"]}', "must be text, not list", id="a list as identifier"),
        pytest.param("ndjson", b'{"id": "a", "face": {"uri": 1}}', "must be text, not dict", id="an object"),
        pytest.param("ndjson", b'{"id": "\\ud800"}', "not UTF-8, or not printable", id="half a character"),
        pytest.param("ndjson", b'{"id": "a\\u0000b"}', "not UTF-8, or not printable", id="NUL"),
        pytest.param("ndjson", b'{"id": "\xff"}', "not JSON", id="bytes that are no UTF-8"),
        pytest.param("ndjson", b'{"id": "' + b"x" * MAX_LINE_BYTES + b'"}', "longer than", id="too long"),
        pytest.param("csv", b"a,s3://b/a.jpg,more", "has 3 columns, the header 2", id="too many columns"),
        pytest.param("csv", b'"a,s3://b/a.jpg', "a quote that is not closed", id="open quote"),
        pytest.param("csv", b'"a"b,s3://b/a.jpg', "a quote that is not closed", id="text after a quote"),
        pytest.param("csv", b"a,\xff", "not UTF-8, or not printable", id="csv that is no UTF-8"),
        pytest.param("csv", b"a," + b"x" * 200_000, "more than 128 KiB", id="a long field"),
        pytest.param("csv", b"a," + b"x" * MAX_LINE_BYTES, "longer than", id="a long line"),
    ],
)
def test_a_bad_row_is_one_row(tmp_path: Path, ending: str, bad: bytes, problem: str) -> None:
    header, good = (
        (b"id,face\n", b"a,s3://b/a.jpg") if ending == "csv" else (b"", b'{"id":"a","face":"s3://b/a.jpg"}')
    )
    content = header + b"\n".join([good, bad, good, good, b""])
    found = read(content, tmp_path, ending)
    assert [number for number, _ in found] == [1, 2, 3, 4]
    assert [values for _, values in found if values == GOOD] == [GOOD] * 3
    assert problem in str(found[1][1])


def test_a_missing_quote_spoils_only_its_own_row(tmp_path: Path) -> None:
    quoted = [f'"p{number}","s3://b/{number}.jpg"\n'.encode() for number in range(300)]
    quoted[50] = b'"p50,"s3://b/50.jpg"\n'
    found = read(b"id,face\n" + b"".join(quoted), tmp_path, "csv")
    read_well = {str(values["record_identifier"]) for _, values in found if isinstance(values, dict)}
    assert read_well == {f"p{number}" for number in range(300) if number != 50}
    assert len(found) == 300


@pytest.mark.parametrize(
    ("ending", "content", "told"),
    [
        pytest.param("csv", b"", "no readable header", id="empty csv"),
        pytest.param("csv", b"name;face\n", "there is no column 'id'; it has 1 column(s)", id="semicolons"),
        pytest.param("csv", b"id;face\n", "in UTF-8 and with commas?", id="semicolons of Excel"),
        pytest.param("csv", "id,face\n".encode("utf-16"), "in UTF-8 and with commas?", id="UTF-16 of Excel"),
        pytest.param(
            "csv",
            b"Jane Doe,s3://b/jane.jpg\n",
            "it has 2 column(s); if your columns have other names, set the parameter columns; is the first line",
            id="no header",
        ),
        pytest.param("csv", b"id,face,id\n", "more than one column 'id'", id="a column twice"),
        pytest.param("parquet", b"PAR1 no", "not a readable Parquet file", id="no parquet"),
        pytest.param("parquet", b"", "not a readable Parquet file", id="empty parquet"),
        pytest.param("txt", b"", "name it .ndjson, .csv or .parquet", id="unknown ending"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, ending: str, content: bytes, told: str) -> None:
    with pytest.raises(ValidationError, match="manifest") as caught:
        read(content, tmp_path, ending)
    assert told in str(caught.value)
    assert "jane" not in str(caught.value).lower()


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cannot read"):
        list(read_manifest((tmp_path / "none.csv").as_uri(), COLUMNS))
    with pytest.raises(ValidationError, match="manifest must be a URI, not list"):
        list(read_manifest(["a"], COLUMNS))  # type: ignore[arg-type]


def test_format_by_name(tmp_path: Path) -> None:
    (tmp_path / "people").write_bytes(b"id\na\n")
    found = list(read_manifest((tmp_path / "people").as_uri(), COLUMNS, format="csv"))
    assert [row.values for row in found] == [{"record_identifier": "a"}]


def write_parquet(place: Path, columns: dict[str, object], **more: object) -> None:
    parquet.write_table(pyarrow.table(columns), place, **more)


def test_parquet(tmp_path: Path) -> None:
    place = tmp_path / "people.parquet"
    identifiers = pyarrow.array(["a", None, " b "]).dictionary_encode()
    write_parquet(place, {"face": ["s3://b/a.jpg", "", None], "blob": [b"x"] * 3, "id": identifiers})
    found = [dict(row.values) for row in read_manifest(place.as_uri(), COLUMNS)]
    assert found == [GOOD, {}, {"record_identifier": "b"}]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        pytest.param([b"a"], "bytes", id="bytes"),
        pytest.param([1.0], "float", id="numbers of pandas"),
    ],
)
def test_parquet_of_another_type(tmp_path: Path, values: object, kind: str) -> None:
    place = tmp_path / "people.parquet"
    write_parquet(place, {"id": values})
    assert [row.problem for row in read_manifest(place.as_uri(), COLUMNS)] == [
        f"column 'id' must be text, not {kind}"
    ]


def test_parquet_without_the_column(tmp_path: Path) -> None:
    place = tmp_path / "people.parquet"
    write_parquet(place, {"face": ["x"]})
    with pytest.raises(ValidationError, match="there is no column 'id'; it has 1 column"):
        list(read_manifest(place.as_uri(), COLUMNS))


@pytest.mark.parametrize("ending", ["ndjson", "csv", "parquet"])
def test_a_large_manifest_takes_no_more_memory(tmp_path: Path, ending: str) -> None:
    """The rows have 2.5 kB, so that some thousand rows fill many of Parquet's pages of 1 MB."""
    face = "s3://bucket/{0}" + "x" * 2500

    def peak(count: int) -> int:
        place = tmp_path / f"people-{count}.{ending}"
        if ending == "parquet":
            faces = list(map(face.format, range(count)))
            write_parquet(place, {"id": list(map(str, range(count))), "face": faces}, row_group_size=count)
            del faces
        else:
            line = f"{{0}},{face}\n" if ending == "csv" else f'{{{{"id":"{{0}}","face":"{face}"}}}}\n'
            place.write_text(
                ("id,face\n" if ending == "csv" else "") + "".join(map(line.format, range(count)))
            )
        before, arrow = pyarrow.total_allocated_bytes(), 0
        tracemalloc.start()
        for row in read_manifest(place.as_uri(), COLUMNS):
            assert row.problem is None
            arrow = max(arrow, pyarrow.total_allocated_bytes() - before)
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return arrow + traced

    fewer = peak(3_000)
    assert peak(6_000) < fewer + 1_500_000


def test_a_shard_line_reads_back_as_the_same_row(tmp_path: Path) -> None:
    made = [
        Row(7, {"record_identifier": "a", "selfie": "ü"}),
        Row(12, {}, "the line is not JSON"),
        Row(13, {}),
    ]
    place = tmp_path / "shard.ndjson"
    place.write_bytes(b"".join(map(shard_line, made)))
    same = {"record_identifier": "record_identifier", "selfie": "selfie"}
    assert list(read_manifest(place.as_uri(), same)) == made


def spoiled(count: int, place: int) -> pyarrow.Array:
    """Return strings of which one is not UTF-8. Programs that do not check the encoding write such strings."""
    made = pyarrow.array(
        [b"\xff\xfe" if number == place else b"p%d" % number for number in range(count)], pyarrow.binary()
    )
    return pyarrow.Array.from_buffers(pyarrow.string(), count, made.buffers())


def test_a_value_of_a_parquet_file_that_is_not_utf_8_spoils_its_own_row(tmp_path: Path) -> None:
    place = tmp_path / "people.parquet"
    write_parquet(place, {"id": spoiled(1500, 700), "face": ["s3://b/a.jpg"] * 1500})
    found = list(read_manifest(place.as_uri(), COLUMNS))
    assert [row.values.get("record_identifier") for row in found if row.number != 701] == [
        f"p{number}" for number in range(1500) if number != 700
    ]
    assert found[700].problem == "column 'id' contains text that is not UTF-8, or cannot be read"


def test_a_damaged_page_is_no_failure_of_the_storage(tmp_path: Path) -> None:
    place = tmp_path / "people.parquet"
    write_parquet(place, {"id": [f"p{number}" for number in range(5000)]}, use_dictionary=False)
    content = bytearray(place.read_bytes())
    content[200:2000] = b"\x00\xff" * 900
    place.write_bytes(content)
    with pytest.raises(ValidationError, match="not a readable Parquet file"):
        list(read_manifest(place.as_uri(), COLUMNS))


def test_a_parquet_file_with_a_column_name_that_is_not_utf_8(tmp_path: Path) -> None:
    place = tmp_path / "people.parquet"
    write_parquet(place, {"id": ["p1"], "face": ["s3://b/a.jpg"], "name": ["Jane Doe"]})
    place.write_bytes(place.read_bytes().replace(b"name", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(ValidationError, match="not a readable Parquet file"):
        list(read_manifest(place.as_uri(), COLUMNS))


def test_a_storage_failure_while_reading_parquet_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let each of the reads fail: those of the metadata, of the page headers and of the rows."""
    place = tmp_path / "people.parquet"
    write_parquet(place, {"id": [f"p{number}" for number in range(5000)]}, row_group_size=2000)

    class Failing(io.FileIO):
        reads = 0
        fails_at: int | None = None

        def read(self, size: int | None = -1) -> bytes:
            Failing.reads += 1
            if Failing.reads == Failing.fails_at:
                raise StorageUnavailableError("slow down")
            return super().read(-1 if size is None else size)

    monkeypatch.setattr(storage, "open_binary", lambda uri, conn_id, **_: Failing(place))
    assert len(list(read_manifest(place.as_uri(), COLUMNS))) == 5000
    count = Failing.reads
    assert count > 5
    for number in range(1, count + 1):
        Failing.reads, Failing.fails_at = 0, number
        with pytest.raises(StorageUnavailableError, match="slow down"):
            list(read_manifest(place.as_uri(), COLUMNS))


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        pytest.param("ndjson", b"x", id="one line of NDJSON"),
        pytest.param("csv", b"x", id="one line of CSV"),
        pytest.param("ndjson", b"\0", id="zeros"),
        pytest.param("ndjson", b"\n", id="blank lines"),
        pytest.param("csv", b"\r\n", id="blank lines of CSV"),
    ],
)
def test_a_file_without_any_row_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, content: bytes
) -> None:
    monkeypatch.setattr(manifest, "MAX_BYTES_WITHOUT_ROW", MAX_LINE_BYTES)
    place = tmp_path / f"people.{ending}"
    place.write_bytes(b"id,face\n" + content * (2 * MAX_LINE_BYTES + 10))
    with pytest.raises(ValidationError, match="1 MiB without a row"):
        list(read_manifest(place.as_uri(), COLUMNS))


def test_too_many_blank_lines_are_rejected(tmp_path: Path) -> None:
    place = tmp_path / "people.ndjson"
    place.write_bytes(b"\n" * 70_000)
    with pytest.raises(ValidationError, match="64 MiB without a row, only one very long line or blank lines"):
        list(read_manifest(place.as_uri(), COLUMNS))


@pytest.mark.parametrize("ending", ["ndjson", "csv", "parquet"])
@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_a_manifest_that_is_no_regular_file_is_rejected(tmp_path: Path, ending: str, kind: str) -> None:
    place = tmp_path / "people"
    if kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(ValidationError, match="this is not a regular file"):
        list(read_manifest(str(place), COLUMNS, format=ending))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        pytest.param(["x" * 50_000_000], "column 'id' of .* contains 500.* bytes in 1 value", id="one value"),
        pytest.param(
            [f"{number}" * 10_000_000 for number in range(5)],
            "column 'id' of .* contains .* bytes in 5 value",
            id="each value",
        ),
    ],
)
def test_a_small_parquet_file_of_large_values(tmp_path: Path, values: list[str], told: str) -> None:
    place = tmp_path / "people.parquet"
    write_parquet(place, {"id": values}, compression="zstd")
    assert place.stat().st_size < 50_000
    before = pyarrow.total_allocated_bytes()
    with pytest.raises(ValidationError, match=told):
        list(read_manifest(place.as_uri(), COLUMNS))
    assert pyarrow.total_allocated_bytes() - before < 5_000_000


def forge_footer(place: Path) -> None:
    """Write 1 in place of each size of a column in the footer, with as many bytes as before."""
    content = bytearray(place.read_bytes())
    length = int.from_bytes(content[-8:-4], "little")
    footer = bytes(content[-8 - length : -8])
    group = parquet.ParquetFile(place).metadata.row_group(0)
    for column in map(group.column, range(group.num_columns)):
        size, encoded = column.total_uncompressed_size << 1, bytearray()
        while size > 0x7F:
            encoded.append(size & 0x7F | 0x80)
            size >>= 7
        encoded.append(size)
        assert encoded in footer
        footer = footer.replace(encoded, b"\x82" + b"\x80" * (len(encoded) - 2) + b"\0")
    content[-8 - length : -8] = footer
    place.write_bytes(content)
    assert parquet.ParquetFile(place).metadata.row_group(0).column(0).total_uncompressed_size == 1


@pytest.mark.parametrize(
    ("columns", "how"),
    [
        pytest.param({"id": ["x" * 3_000_000]}, {}, id="one value"),
        pytest.param({"id": ["x" * 1_500_000], "face": ["y" * 1_600_000]}, {}, id="two columns"),
        pytest.param({"id": ["x" * 3_000_000] * 2}, {"use_dictionary": True}, id="dictionary"),
    ],
)
def test_a_parquet_file_with_a_forged_footer_allocates_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict[str, object], how: dict[str, object]
) -> None:
    monkeypatch.setattr(parquet_reader, "MAX_PAGES_BYTES", 2 * 1024 * 1024)
    place = tmp_path / "people.parquet"
    write_parquet(place, columns, compression="zstd", **how)
    assert place.stat().st_size < 10_000
    forge_footer(place)
    before = pyarrow.total_allocated_bytes()
    with pytest.raises(ValidationError, match="need more than 2 MiB"):
        list(read_manifest(place.as_uri(), COLUMNS))
    assert pyarrow.total_allocated_bytes() - before < 1_000_000


@pytest.mark.parametrize(
    ("values", "how", "told"),
    [
        pytest.param([["a"]], {}, "column 'id.* contains lists, not text", id="list"),
        pytest.param(
            ["x" * 3_000] * 100,
            {"use_dictionary": False, "column_encoding": {"id": "DELTA_BYTE_ARRAY"}},
            "column 'id' .* delta encoding",
            id="delta",
        ),
        pytest.param(
            ["x" * 3_000] * 100,
            {
                "use_dictionary": False,
                "column_encoding": {"id": "DELTA_LENGTH_BYTE_ARRAY"},
                "data_page_version": "2.0",
            },
            "column 'id' .* delta encoding",
            id="delta of the lengths, second version of a page",
        ),
    ],
)
def test_a_few_bytes_of_parquet_do_not_become_any_number_of_values(
    tmp_path: Path, values: list[object], how: dict[str, object], told: str
) -> None:
    place = tmp_path / "people.parquet"
    write_parquet(place, {"id": values}, compression="zstd", **how)
    with pytest.raises(ValidationError, match=told):
        list(read_manifest(place.as_uri(), COLUMNS))


@pytest.mark.parametrize(
    ("values", "how", "told"),
    [
        pytest.param(
            ["x" * 50_000_000], {}, "column 'person.id' of .* contains 500.* bytes in 1", id="one value"
        ),
        pytest.param([["a"]], {}, "column 'person.id.* contains lists", id="list"),
        pytest.param(
            ["x" * 3_000] * 100,
            {"use_dictionary": False, "column_encoding": {"person.id": "DELTA_BYTE_ARRAY"}},
            "column 'person.id' .* delta encoding",
            id="delta",
        ),
    ],
)
def test_a_dot_in_the_name_of_a_parquet_column_removes_no_limit(
    tmp_path: Path, values: list[object], how: dict[str, object], told: str
) -> None:
    place = tmp_path / "people.parquet"
    write_parquet(place, {"person.id": values}, compression="zstd", **how)
    with pytest.raises(ValidationError, match=told):
        list(read_manifest(place.as_uri(), {"record_identifier": "person.id"}))


def test_a_row_of_several_lines_has_a_limit(tmp_path: Path) -> None:
    field = b',"' + b"x" * 100_000 + b'\n"'
    rows = b"a" + field * 10 + b"\nb" + field * 12 + b"\n"
    header = b"id" + b"".join(b",c%d" % number for number in range(12)) + b"\n"
    first, second, *_ = read(header + rows, tmp_path, "csv")
    assert first == (1, {"record_identifier": "a"})
    assert "the row is not CSV" in str(second)


@pytest.mark.parametrize("kind", ["string", "large_string", "large_binary", "string_view", "dictionary"])
def test_a_large_value_of_any_type_spoils_its_own_row(tmp_path: Path, kind: str) -> None:
    if kind == "string_view" and not hasattr(pyarrow, "string_view"):
        pytest.skip("this version of PyArrow does not have the type")
    ids = pyarrow.array(["x" * 100_000, *["a"] * 9])
    place = tmp_path / "people.parquet"
    write_parquet(
        place, {"id": ids.dictionary_encode() if kind == "dictionary" else ids.cast(getattr(pyarrow, kind)())}
    )
    first, *others = read_manifest(place.as_uri(), COLUMNS)
    assert first.problem == "column 'id' contains 100000 bytes, more than 65536"
    assert len(others) == 9


@pytest.mark.parametrize("cut", ["not a header", "nested lists", "before the file", "in the header"])
def test_a_damaged_page_header(cut: str) -> None:
    content, start = {
        "not a header": (b"\xff" * 2_000_000, 0),
        "nested lists": (b"\x19" * 2_000_000, 0),
        "before the file": (b"", -4),
        "in the header": (b"\x15\x00\x15", 0),
    }[cut]
    with pytest.raises(PageError):
        list(read_pages(io.BytesIO(content), start, 10))


@pytest.mark.parametrize(
    "how",
    [
        *(pytest.param({"compression": name}, id=name) for name in ("none", "snappy", "gzip", "zstd", "lz4")),
        pytest.param({"data_page_version": "2.0"}, id="second version of a page"),
        pytest.param(
            {"write_page_checksum": True},
            id="checksums",
            marks=pytest.mark.skipif(
                int(pyarrow.__version__.partition(".")[0]) < 15, reason="PyArrow 14 writes no checksums"
            ),
        ),
        pytest.param({"use_dictionary": False, "data_page_size": 500}, id="small pages"),
        pytest.param({"row_group_size": 7}, id="small row groups"),
        pytest.param({"write_statistics": False}, id="no statistics"),
        pytest.param({"write_page_index": True}, id="page index"),
        pytest.param({"store_schema": False, "version": "1.0"}, id="first version of the format"),
    ],
)
def test_a_parquet_file_of_any_writer(tmp_path: Path, how: dict[str, object]) -> None:
    place = tmp_path / "people.parquet"
    ids = [None if number % 10 == 3 else f"p{number}" + "x" * (number % 900) for number in range(900)]
    write_parquet(place, {"id": ids, "other": [[1, 2]] * 900}, **how)
    found = [row.values.get("record_identifier") for row in read_manifest(place.as_uri(), COLUMNS)]
    assert found == ids


def test_a_large_value_that_is_repeated_spoils_its_rows_and_no_memory(tmp_path: Path) -> None:
    place = tmp_path / "people.parquet"
    write_parquet(place, {"id": ["x" * 650_000] * 300 + ["a"]}, compression="zstd")
    assert place.stat().st_size < 5_000
    tracemalloc.start()
    before, most = pyarrow.total_allocated_bytes(), 0
    problems = set()
    for row in read_manifest(place.as_uri(), COLUMNS):
        most = max(most, pyarrow.total_allocated_bytes() - before)
        problems.add(row.problem)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problems == {"column 'id' contains 650000 bytes, more than 65536", None}
    assert most < 100_000_000
    assert held < 10_000_000


@pytest.mark.parametrize(
    "value", [None, "", " ", "nan", "NaN", "None", "null", "NULL", "N/A", "#N/A", "undefined", "\\N", '""']
)
def test_a_missing_value_by_any_spelling(tmp_path: Path, value: str | None) -> None:
    line = json.dumps({"id": "a", "face": value}).encode()
    assert read(line, tmp_path, "ndjson") == [(1, {"record_identifier": "a"})]
    place = tmp_path / "people.parquet"
    write_parquet(place, {"id": ["a"], "face": [value]})
    assert [dict(row.values) for row in read_manifest(place.as_uri(), COLUMNS)] == [
        {"record_identifier": "a"}
    ]


def test_a_missing_number_of_pandas_is_missing(tmp_path: Path) -> None:
    place = tmp_path / "people.parquet"
    write_parquet(place, {"id": ["a"], "face": [float("nan")]})
    assert [dict(row.values) for row in read_manifest(place.as_uri(), COLUMNS)] == [
        {"record_identifier": "a"}
    ]
