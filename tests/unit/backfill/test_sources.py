"""Sources: what a row is in each format, and what becomes of a row that cannot be used."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.config.errors import InputInvalid
from penstock.tasks.backfill.sources import Document, InvalidRow, open_source
from penstock.tasks.backfill.sources import lines as lines_module

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda text: text.strip())
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows(path: Path | str, skip: int = 0, **fields: str | None) -> list[Any]:
    return list(open_source(str(path), **fields).rows(skip))


def pairs(found: list[Any]) -> list[tuple[str, str]]:
    return [(row.id, row.text) for row in found if isinstance(row, Document)]


def codes(found: list[Any]) -> list[str]:
    return [row.code for row in found if isinstance(row, InvalidRow)]


def write_lines(path: Path, *lines: bytes | dict[str, Any]) -> Path:
    data = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


GOOD = {"id": "good", "text": "a good text"}
BAD_ROWS = [
    (b"{not json", "invalid_json", None, "line 2: not valid JSON"),
    (b"[1, 2]", "not_an_object", None, "line 2: a JSON object was expected, not a list"),
    (b"7", "not_an_object", None, "line 2"),
    (b'{"id": "x", "text": "caf\xe9"}', "invalid_utf8", None, "line 2: not valid UTF-8 (byte 25 of the line)"),
    (b'{"id": "x"}', "missing_text", "x", "line 2: no field 'text'"),
    (b'{"id": "x", "text": null}', "missing_text", "x", "line 2: field 'text' is null"),
    (b'{"id": "x", "text": 5}', "invalid_text", "x", "line 2: the text is a number, not a string"),
    (b'{"id": "x", "text": ["a"]}', "invalid_text", "x", "a list"),
    (b'{"id": "x", "text": {"a": 1}}', "invalid_text", "x", "an object"),
    (b'{"id": "x", "text": true}', "invalid_text", "x", "a boolean"),
    (b'{"id": "x", "text": ""}', "empty_text", "x", "line 2: the text is empty or only whitespace"),
    (b'{"id": "x", "text": " \\t\\n\\u3000"}', "empty_text", "x", "line 2"),
    (b'{"id": "x", "text": "\\ud800"}', "invalid_text", "x", "half a surrogate pair"),
    (b'{"id": null, "text": "t"}', "invalid_id", None, "line 2: field 'id' holds null"),
    (b'{"id": ["a"], "text": "t"}', "invalid_id", None, "a list"),
    (b'{"id": {"a": 1}, "text": "t"}', "invalid_id", None, "an object"),
    (b'{"id": 1.5, "text": "t"}', "invalid_id", None, "a number with a fraction"),
    (b'{"id": false, "text": "t"}', "invalid_id", None, "a boolean"),
    (b'{"id": "", "text": "t"}', "invalid_id", None, "text that is empty"),
    (b'{"id": "\\ud800", "text": "t"}', "invalid_id", None, "not valid Unicode"),
    (b'{"id": "x", "text": "t"} trailing', "invalid_json", None, "line 2"),
    (b"[" * 100_000, "invalid_json", None, "line 2"),
]


@pytest.mark.parametrize(("line", "code", "row_id", "message"), BAD_ROWS, ids=[str(row[0][:40]) for row in BAD_ROWS])
def test_a_bad_line_is_a_dead_letter_and_its_neighbours_are_read(
    tmp_path: Path, line: bytes, code: str, row_id: str | None, message: str
) -> None:
    first, bad, last = rows(write_lines(tmp_path / "c.jsonl", GOOD, line, {"id": 3, "text": "last"}))
    assert (first.id, first.text) == ("good", "a good text")
    assert (bad.code, bad.id, bad.ordinal) == (code, row_id, 1)
    assert message in bad.message
    assert (last.id, last.text, last.ordinal) == ("3", "last", 2)


def test_an_integer_id_of_any_size_keeps_its_digits(tmp_path: Path) -> None:
    lines = [b'{"id": %d, "text": "t"}' % number for number in (0, -3, 2**63, 10**30)]
    assert [row.id for row in rows(write_lines(tmp_path / "c.jsonl", *lines))] == ["0", "-3", str(2**63), str(10**30)]


def test_what_python_writes_beyond_strict_json_is_read(tmp_path: Path) -> None:
    assert pairs(rows(write_lines(tmp_path / "c.jsonl", b'{"id": "x", "text": "t", "score": NaN}'))) == [("x", "t")]


def test_blank_lines_of_jsonl_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    found = rows(write_lines(tmp_path / "c.jsonl", b"", {"text": "one"}, b"  ", {"text": "two"}))
    assert pairs(found) == [("2", "one"), ("4", "two")]
    assert [row.ordinal for row in found] == [1, 3]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(tmp_path: Path) -> None:
    assert pairs(rows(write_lines(tmp_path / "c.jsonl", b'\xef\xbb\xbf{"text": "a"}\r', b'{"text": "b"}\r'))) == [
        ("1", "a"),
        ("2", "b"),
    ]
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert pairs(rows(tmp_path / "c.txt")) == [("1", "one"), ("2", "two")]


def test_a_utf16_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for name in ("c.jsonl", "c.csv", "c.txt"):
        (tmp_path / name).write_text("id,text\n1,a\n", encoding="utf-16")
        with pytest.raises(InputInvalid, match="iconv"):
            rows(tmp_path / name)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("skip", [0, 1, 2, 3, 9])
def test_a_pass_may_begin_at_any_row_of_a_plain_or_compressed_file(tmp_path: Path, suffix: str, skip: int) -> None:
    path = write_lines(tmp_path / f"c.jsonl{suffix}", *({"id": n, "text": f"t{n}"} for n in range(3)))
    assert [row.ordinal for row in rows(path, skip)] == list(range(3))[skip:]


def test_compressed_files_of_several_frames_are_read_to_the_end(tmp_path: Path) -> None:
    parts = [b'{"text": "a"}\n', b'{"text": "b"}\n']
    (tmp_path / "c.jsonl.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    (tmp_path / "c.jsonl.zst").write_bytes(b"".join(map(zstandard.compress, parts)))
    for path in sorted(tmp_path.iterdir()):
        assert [row.text for row in rows(path)] == ["a", "b"]


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.jsonl.zst", "c.csv.gz", "c.csv.zst", "c.txt.gz", "c.txt.zst"])
def test_a_cut_compressed_file_gives_the_rows_it_holds_and_a_dead_letter_for_the_rest(
    tmp_path: Path, name: str
) -> None:
    rng = np.random.default_rng(7)
    noise = [rng.bytes(300).hex() for _ in range(2000)]
    kind = name.split(".")[1]
    lines = {
        "jsonl": [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(noise)],
        "csv": ["id,text", *(f"{n},{text}" for n, text in enumerate(noise))],
        "txt": noise,
    }[kind]
    path = write_lines(tmp_path / name, *(line.encode() for line in lines))
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    found = rows(path)
    assert codes(found) == ["source_truncated"]
    assert found[-1].ordinal == len(found) - 1
    assert 500 < len(found) < 2000
    assert [row.text for row in found[:-1]] == noise[: len(found) - 1]
    assert codes(rows(path, skip=len(found) - 1)) == ["source_truncated"]


def test_a_line_over_the_bound_is_a_dead_letter_and_costs_no_memory(tmp_path: Path) -> None:
    stream = io.BytesIO(b"short\n" + b"x" * 1000 + b"\nend")
    found = list(lines_module.split(stream, limit=100))
    assert [line.data for line in found] == [b"short", None, b"end"]
    assert [line.ordinal for line in found] == [0, 1, 2]


FIELD_GUESSES = [
    ([{"text": "t", "body": "b"}], "text"),
    ([{"body": "b", "title": "t"}], "body"),
    ([{"title": "t", "n": 1}], "title"),
    ([{"id": "x", "title": "t"}], "title"),
    ([{"id": "x", "text": 5, "title": "t"}, {"id": "y", "text": "t", "title": "t"}], "text"),
    ([{"n": 1}, {"content": "c", "x": "y"}], "content"),
]


@pytest.mark.parametrize(("records", "chosen"), FIELD_GUESSES)
def test_the_text_field_is_text_or_what_plainly_is_the_text(
    tmp_path: Path, records: list[dict[str, Any]], chosen: str
) -> None:
    source = open_source(str(write_lines(tmp_path / "c.jsonl", *records)))
    assert source.fields is not None
    assert source.fields.text == chosen


def test_no_text_field_is_an_error_that_lists_the_fields_found(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.jsonl", {"title": "a", "abstract": "b"})
    with pytest.raises(InputInvalid, match=r"Fields found: 'title', 'abstract'.*--text-field"):
        rows(path)
    with pytest.raises(InputInvalid, match=r"no field 'body'. Fields found: 'title', 'abstract'"):
        rows(path, text_field="body")
    with pytest.raises(InputInvalid, match=r"no field 'uid'.*--id-field"):
        rows(path, text_field="title", id_field="uid")
    assert pairs(rows(path, text_field="abstract")) == [("1", "b")]


def test_a_named_id_field_is_required_in_each_row(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.jsonl", {"uid": "a", "text": "one"}, {"text": "two"})
    found = rows(path, id_field="uid")
    assert pairs(found) == [("a", "one")]
    assert codes(found) == ["missing_id"]


@quick
@given(st.lists(st.tuples(IDS, TEXTS), min_size=1, max_size=30))
def test_jsonl_and_parquet_give_back_the_rows_that_were_written(tmp_path: Path, corpus: list[tuple[str, str]]) -> None:
    write_lines(tmp_path / "c.jsonl", *({"id": row_id, "text": text} for row_id, text in corpus))
    assert pairs(rows(tmp_path / "c.jsonl")) == corpus
    table = pa.table({"id": [row_id for row_id, _ in corpus], "text": [text for _, text in corpus]})
    pq.write_table(table, tmp_path / "c.parquet", row_group_size=7)
    assert pairs(rows(tmp_path / "c.parquet")) == corpus


@quick
@given(st.lists(st.tuples(st.integers(), TEXTS.map(lambda text: text.replace("\0", ""))), min_size=1, max_size=30))
def test_csv_gives_back_the_rows_that_were_written(tmp_path: Path, corpus: list[tuple[int, str]]) -> None:
    import csv

    corpus = [(number, text) for number, text in corpus if text.strip()]
    with (tmp_path / "c.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *corpus])
    assert pairs(rows(tmp_path / "c.csv")) == [(str(number), text) for number, text in corpus]


CSV_CASES = [
    (b"id;text\n1;a,b\n", [("1", "a,b")], []),
    (b"id\ttext\n1\ta,b\n", [("1", "a,b")], []),
    (b"text\nonly\n", [("1", "only")], []),
    (b'id,text\n1,"two\nlines"\n2,x\n', [("1", "two\nlines"), ("2", "x")], []),
    (b"id,text\n1\n2,b\n3,c,d\n", [("2", "b")], ["corrupt_row", "corrupt_row"]),
    (b'id,text\n1,"a"b\n2,b\n', [("2", "b")], ["corrupt_row"]),
    (b"id,text\n1,caf\xe9\n2,b\n", [("2", "b")], ["invalid_utf8"]),
    (b"id,text\n1,\n,b\n2,c\n", [("2", "c")], ["empty_text", "invalid_id"]),
    (b"id,text\n1,a\n\n2,b\n", [("1", "a"), ("2", "b")], []),
    (b'id,text\n1,a\n2,"never closed\n', [("1", "a")], ["corrupt_row"]),
]


@pytest.mark.parametrize(("data", "good", "bad"), CSV_CASES, ids=[str(case[0]) for case in CSV_CASES])
def test_csv_rows(tmp_path: Path, data: bytes, good: list[tuple[str, str]], bad: list[str]) -> None:
    (tmp_path / "c.csv").write_bytes(data)
    found = rows(tmp_path / "c.csv")
    assert pairs(found) == good
    assert codes(found) == bad
    assert [row.ordinal for row in found] == list(range(len(found)))


def test_an_empty_csv_or_parquet_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"")
    with pytest.raises(InputInvalid, match="begins with a header"):
        rows(tmp_path / "c.csv")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputInvalid, match="cannot be read as Parquet"):
        rows(tmp_path / "c.parquet")


PARQUET_COLUMNS: list[tuple[dict[str, Any], list[tuple[str, str]], list[str]]] = [
    ({"id": pa.array([1, 2, None]), "text": ["a", None, "c"]}, [("1", "a")], ["missing_text", "invalid_id"]),
    ({"id": ["x", "", "z"], "text": ["a", "b", " "]}, [("x", "a")], ["invalid_id", "empty_text"]),
    ({"text": pa.array(["a", "b"]).dictionary_encode()}, [("1", "a"), ("2", "b")], []),
    ({"title": pa.array(["a"], pa.large_string()), "n": [1]}, [("1", "a")], []),
]


@pytest.mark.parametrize(("columns", "good", "bad"), PARQUET_COLUMNS)
def test_parquet_rows(tmp_path: Path, columns: dict[str, Any], good: list[tuple[str, str]], bad: list[str]) -> None:
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    found = rows(tmp_path / "c.parquet")
    assert pairs(found) == good
    assert codes(found) == bad


def test_parquet_columns_of_a_wrong_kind_are_an_error_that_lists_them(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1.5], "text": ["a"], "n": [1]}), tmp_path / "c.parquet")
    with pytest.raises(InputInvalid, match=r"'id' holds double; an id is text or an integer"):
        rows(tmp_path / "c.parquet")
    with pytest.raises(InputInvalid, match=r"no column of text named 'n'. Columns found: 'id' \(double\)"):
        rows(tmp_path / "c.parquet", text_field="n", id_field="text")


def test_parquet_is_read_from_any_row_on_across_row_groups(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"t{n}" for n in range(50)]}), tmp_path / "c.parquet", row_group_size=8)
    for skip in (0, 1, 7, 8, 9, 40, 49, 50, 60):
        assert [row.ordinal for row in rows(tmp_path / "c.parquet", skip)] == list(range(50))[skip:]


def test_parquet_strings_that_are_not_utf8_are_dead_letters_one_by_one(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"caf\xe9", b"fine"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": texts}), tmp_path / "c.parquet", use_dictionary=False)
    found = rows(tmp_path / "c.parquet")
    assert pairs(found) == [("1", "good"), ("3", "fine")]
    assert codes(found) == ["invalid_utf8"]


def test_a_corrupt_row_group_costs_its_own_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    texts = [f"text number {n} " + "x" * 50 for n in range(40)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10, use_dictionary=False, compression="zstd")
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    found = rows(path)
    assert [row.ordinal for row in found] == list(range(40))
    assert codes(found) == ["corrupt_row"] * 10
    assert [row.ordinal for row in found if isinstance(row, InvalidRow)] == list(range(10, 20))


def test_a_text_file_has_a_document_a_line_and_an_empty_line_is_an_empty_document(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"one\n\ncaf\xe9\nlast without an end")
    found = rows(tmp_path / "c.txt")
    assert pairs(found) == [("1", "one"), ("4", "last without an end")]
    assert [(row.id, row.code) for row in found if isinstance(row, InvalidRow)] == [
        ("2", "empty_text"),
        ("3", "invalid_utf8"),
    ]
    with pytest.raises(InputInvalid, match="no fields to name"):
        rows(tmp_path / "c.txt", text_field="text")


def test_a_folder_gives_its_text_files_in_sorted_order_with_their_paths_as_ids(tmp_path: Path) -> None:
    for name, data in {
        "b.md": b"beta",
        "a/z.txt": b"zeta",
        "a/y/deep.markdown": b"deep",
        "c.TXT": b"\xef\xbb\xbfsea",
        "d.txt": b"\xff",
        "e.txt": b" \n",
        ".hidden/x.txt": b"hidden",
        "picture.png": b"png",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "loop").symlink_to(tmp_path)
    found = rows(tmp_path)
    assert pairs(found) == [("a/y/deep.markdown", "deep"), ("a/z.txt", "zeta"), ("b.md", "beta"), ("c.TXT", "sea")]
    assert [(row.id, row.code) for row in found if isinstance(row, InvalidRow)] == [
        ("d.txt", "invalid_utf8"),
        ("e.txt", "empty_text"),
    ]
    assert [row.ordinal for row in rows(tmp_path, 2)] == [2, 3, 4, 5]
    assert open_source(str(tmp_path)).progress() == (0, 6)


def test_a_file_of_a_folder_that_cannot_be_read_is_a_dead_letter(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_text("locked")
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "b.txt":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found = rows(tmp_path)
    assert pairs(found) == [("a.txt", "fine")]
    assert found[1].code == "unreadable_file"
    assert "Permission denied" in found[1].message


def test_standard_input_is_jsonl_read_once_with_a_running_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(b'{"id": %d, "body": "t%d"}\n' % (n, n) for n in range(300))

    def again(skip: int, mark: int = 0) -> list[Any]:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        source = open_source("-")
        assert source.fingerprint() is None
        return list(source.rows(skip, mark))

    whole = again(0)
    rest = again(120, whole[119].mark)
    assert [row.id for row in whole] == [str(n) for n in range(300)]
    assert rest == whole[120:]
    assert len({row.mark for row in whole}) == 300
    data = data.replace(b"t7", b"T7")
    with pytest.raises(InputInvalid, match="first 120 lines of standard input are not those of the earlier run"):
        again(120, whole[119].mark)


SOURCE_ERRORS = [
    ("nowhere.jsonl", None, "does not exist. A source is JSONL"),
    ("c.json", b"[]", "JSON lines: jq"),
    ("c.docx", b"x", "unknown kind of file"),
    ("plain", b"x", "unknown kind of file"),
    ("c.parquet.gz", b"x", "unknown kind of file"),
]


@pytest.mark.parametrize(("name", "data", "message"), SOURCE_ERRORS)
def test_what_is_no_source_is_refused_with_the_kinds_that_are(
    tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputInvalid, match=message):
        rows(tmp_path / name)


def test_a_folder_without_text_files_names_the_sources_it_holds(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_bytes(b"x")
    with pytest.raises(InputInvalid, match=r"holds no .* files \(but data.parquet: give such a file itself"):
        rows(tmp_path)


def test_a_fingerprint_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", GOOD)
    second = write_lines(tmp_path / "b.jsonl", GOOD)
    other = write_lines(tmp_path / "c.jsonl", {"id": "good", "text": "a goad text"})
    prints = [open_source(str(path)).fingerprint() for path in (first, second, other)]
    assert prints[0] == prints[1] != prints[2]


def test_progress_reaches_the_whole(tmp_path: Path) -> None:
    for name in ("c.jsonl", "c.jsonl.gz", "c.txt"):
        path = write_lines(tmp_path / name, *({"text": f"t{n}"} for n in range(500)))
        source = open_source(str(path))
        assert source.progress()[0] <= path.stat().st_size
        assert sum(1 for _ in source.rows()) == 500
        assert source.progress() == (path.stat().st_size, path.stat().st_size)
