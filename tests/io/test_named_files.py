"""Lists of files: text and Parquet, with errors that name the line or row."""

from pathlib import Path

import pytest

from lnz.errors import FormatError
from lnz.io.images import list_images
from lnz.io.named_files import named_files
from lnz.io.sentences import read_sentences
from lnz.io.transcripts import read_utterances


def table(path: Path, /, **columns: list[str]) -> Path:
    pa = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    parquet.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["list.txt", "list.lst", "list.parquet"])
def test_paths_are_relative_to_the_list(kind, tmp_path):
    names = ["a/one.png", "/two.png"]
    if kind == "list.parquet":
        source = table(tmp_path / kind, path=names)
    else:
        source = tmp_path / kind
        source.write_text("# some\n\n" + "\n".join(names))
    assert named_files(source, list_images) == [tmp_path / "a" / "one.png", Path("/two.png")]


def test_a_folder_is_listed(tmp_path):
    (tmp_path / "x.png").touch()
    assert named_files(tmp_path, list_images) == [tmp_path / "x.png"]


def test_errors(tmp_path):
    source = tmp_path / "list.txt"
    source.write_text("# nothing\n")
    with pytest.raises(FormatError, match=r"list.txt: expected the path of a file on each line, found none"):
        named_files(source, list_images)
    source.write_text("a/x.png\n\nb/x.jpg\n")
    with pytest.raises(
        FormatError, match=r"list.txt, line 3: expected files of different names, got b/x.jpg after a/x"
    ):
        named_files(source, list_images)
    assert len(named_files(source, list_images, distinct=False)) == 2
    with pytest.raises(FormatError, match=r"t.parquet, row 2: expected the path of a file, got nothing"):
        named_files(table(tmp_path / "t.parquet", path=["a", ""]), list_images)
    with pytest.raises(FormatError, match=r"t.parquet: expected a column 'path', got file"):
        named_files(table(tmp_path / "t.parquet", file=["a"]), list_images)


def test_recordings_with_their_texts(tmp_path):
    source = table(tmp_path / "t.parquet", path=["a.wav", "b.wav"], text=["x  y", "z"])
    found = read_utterances(source)
    assert [(each.audio, each.text) for each in found] == [(tmp_path / "a.wav", "x y"), (tmp_path / "b.wav", "z")]
    with pytest.raises(FormatError, match=r"t.parquet, row 1: expected a text, got nothing"):
        read_utterances(table(source, path=["a.wav"], text=[""]))


def test_sentences_of_a_column(tmp_path):
    source = table(tmp_path / "t.parquet", text=["one  two", "three"], id=["1", "2"])
    assert [each.tokens for each in read_sentences(source)] == [("one", "two"), ("three",)]
    with pytest.raises(FormatError, match=r"t.parquet, row 2: expected a sentence, got nothing"):
        read_sentences(table(source, text=["one", " "]))
