"""Rows of CSV and Parquet files: what stands in the cells, and where what is wrong stands."""

import gzip
import io
import sys

import numpy as np
import pytest

import lnz
from lnz.io.rows import read_rows, write_csv


def cells(rows):
    """The texts of each column, row by row."""
    return {name: [column.values[code] for code in column.codes] for name, column in rows.columns.items()}


@pytest.mark.parametrize("packed", [False, True])
def test_cells_are_text_in_the_order_of_the_file(tmp_path, packed):
    text = 'b,a,"x, y"\r\nyes,1,"q ""r"""\r\n\r\n,2,é\r\nyes,1,e\u0301\r\n'
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    rows = read_rows(path)
    assert cells(rows) == {"b": ["yes", "", "yes"], "a": ["1", "2", "1"], "x, y": ['q "r"', "é", "é"]}
    assert rows.count == 3
    assert [rows.place(row) for row in range(3)] == [f"{path}, line {line}" for line in (2, 4, 5)]


def test_delimiters_and_encodings(tmp_path):
    (tmp_path / "rows.tsv").write_bytes("a\tb\nü\t1\n".encode("latin-1"))
    assert cells(read_rows(tmp_path / "rows.tsv", "latin-1")) == {"a": ["ü"], "b": ["1"]}
    (tmp_path / "rows.csv").write_text("a;b\n1;2\n")
    assert cells(read_rows(tmp_path / "rows.csv", delimiter=";")) == {"a": ["1"], "b": ["2"]}
    with pytest.raises(lnz.FormatError, match="encoding"):
        read_rows(tmp_path / "rows.tsv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected a first line with the names of the columns, got an empty file"),
        ("a,b\n", r"expected at least one row below the names of the columns, got none"),
        ("a,,c\n1,2,3\n", r"expected a name of every column, got none of column 2"),
        ("a,b,a\n1,2,3\n", r"expected columns of different names, got 'a' twice"),
        ("a,b\n1,2\n1\n", r"rows.csv, line 3: expected 2 cells, one per column, got 1"),
        ("a,b\n1,2,3\n", r"rows.csv, line 2: expected 2 cells, one per column, got 3"),
        ('a,b\n1,"2\n', r"rows.csv, line 2: expected comma-separated values"),
    ],
)
def test_malformed_files_are_told_by_line(tmp_path, text, message):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(lnz.FormatError, match=message):
        read_rows(tmp_path / "rows.csv")


def test_what_is_written_is_read_back(tmp_path):
    buffer = io.StringIO()
    write_csv(buffer, ["a", "b,c"], [["x", 'y "z"'], ["", "w"]])
    (tmp_path / "rows.csv").write_text(buffer.getvalue())
    assert cells(read_rows(tmp_path / "rows.csv")) == {"a": ["x", ""], "b,c": ['y "z"', "w"]}


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        ImportError, match=r"reading Parquet needs pyarrow; install it with: pip install 'lnz\[parquet\]'"
    ):
        read_rows(tmp_path / "rows.parquet")


class TestParquet:
    @pytest.fixture(autouse=True)
    def arrow(self):
        self.pa = pytest.importorskip("pyarrow", reason="needs the extra parquet")
        self.parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")

    def test_every_kind_of_cell(self, tmp_path):
        pa = self.pa
        table = pa.table(
            {
                "text": pa.array(["x", None, "x"]),
                "whole": pa.array([1, None, 3]),
                "broken": pa.array([1.0, float("nan"), 0.5]),
                "truth": pa.array([True, False, None]),
                "coded": pa.array(["p", "q", None]).dictionary_encode(),
            }
        )
        path = tmp_path / "rows"  # told by its contents
        self.parquet.write_table(table, path)
        rows = read_rows(path)
        assert cells(rows) == {
            "text": ["x", "", "x"],
            "whole": ["1", "", "3"],
            "broken": ["1", "", "0.5"],
            "truth": ["true", "false", ""],
            "coded": ["p", "q", ""],
        }
        assert rows.place(1) == f"{path}, row 2"

    def test_bad_files(self, tmp_path):
        path = tmp_path / "rows.parquet"
        path.write_bytes(b"PAR1 and no more")
        with pytest.raises(lnz.FormatError, match="expected a Parquet file, got"):
            read_rows(path)
        self.parquet.write_table(self.pa.table({"a": [[1, 2], [3]]}), path)
        with pytest.raises(lnz.FormatError, match="expected text, numbers or truth values in column 'a', got list"):
            read_rows(path)
        self.parquet.write_table(self.pa.table({"a": self.pa.array([], self.pa.string())}), path)
        with pytest.raises(lnz.FormatError, match="expected at least one row"):
            read_rows(path)


def test_many_rows_are_codes(tmp_path):
    (tmp_path / "rows.csv").write_text("a\n" + "x\ny\n" * 5000)
    column = read_rows(tmp_path / "rows.csv").columns["a"]
    assert column.values == ("x", "y")
    assert column.codes.dtype == np.int64
    assert column.codes.sum() == 5000
