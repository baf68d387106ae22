from pathlib import Path

import pytest

from lnz.errors import FormatError
from lnz.io.transcripts import pair_audio, read_transcripts


@pytest.fixture
def written(tmp_path):
    def write(content, name="texts.tsv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
        return tmp_path / name

    return write


class TestForms:
    def test_tabs(self, written):
        texts = read_transcripts(written("b.wav\tone  two\n\nclips/a\tthree \n"))
        assert texts == {"b": "one two", "a": "three"}
        assert list(texts) == ["b", "a"]

    def test_librispeech(self, written, tmp_path):
        written("84-1-0000 CHAPTER ONE\n84-1-0001 IT WAS\n", "84/1/84-1.trans.txt")
        written("85-2-0000 THE END\n", "85/2/85-2.trans.txt")
        assert read_transcripts(tmp_path) == {
            "84-1-0000": "CHAPTER ONE",
            "84-1-0001": "IT WAS",
            "85-2-0000": "THE END",
        }

    def test_tables_with_a_header(self, written):
        """Those of Common Voice and of Hugging Face's audio folders."""
        common_voice = 'client_id\tpath\tsentence\tup_votes\nx\tcv_1.mp3\tHe said "no".\t2\n'
        assert read_transcripts(written(common_voice)) == {"cv_1": 'He said "no".'}
        hugging_face = 'file_name,transcription\ndata/1.wav,"one, two"\n2.wav,three\n'
        assert read_transcripts(written(hugging_face, "metadata.csv")) == {"1": "one, two", "2": "three"}

    def test_names_with_dots_keep_them(self, written):
        assert read_transcripts(written("utt.1\tone\nutt.2.flac\ttwo\n")) == {"utt.1": "one", "utt.2": "two"}

    def test_composed_characters_are_one(self, written):
        assert read_transcripts(written("a\tfu\u0308nf\n")) == {"a": "fünf"}

    def test_a_byte_order_mark_is_no_part_of_a_name(self, written):
        assert read_transcripts(written("\ufeffa\tone\n")) == {"a": "one"}


class TestBadFiles:
    @pytest.mark.parametrize(
        ("content", "name", "message"),
        [
            ("a\tone\nb\t \n", "t.tsv", r"t.tsv, line 2: expected a text after 'b', got none"),
            ("a one\nb\n", "t.txt", r"t.txt, line 2: expected a text after 'b', got none"),
            ("a\tone\na.wav\ttwo\n", "t.tsv", r"t.tsv, line 2: 'a' has a transcript already"),
            ("a\tone\ttwo\n", "t.tsv", r"t.tsv, line 1: expected a name, a tab and a text, got 3 columns"),
            ("\tone\n", "t.tsv", r"t.tsv, line 1: expected the name of a recording, got none"),
            ("", "t.tsv", r"t.tsv: expected a name and a text on each line, found none"),
            ("a,one\n", "t.csv", r"t.csv, line 1: expected a header with one of name, .* sentence, got 'a,one'"),
            ("name,text\na\n", "t.csv", r"t.csv, line 2: expected 2 columns, got 1"),
            ("name,text\n", "t.csv", r"t.csv: expected a name and a text on each line, found none"),
        ],
    )
    def test_message(self, written, content, name, message):
        with pytest.raises(FormatError, match=message):
            read_transcripts(written(content, name))

    def test_unreadable(self, tmp_path):
        with pytest.raises(FormatError, match=r"none.tsv: cannot be read as transcripts \(no such file"):
            read_transcripts(tmp_path / "none.tsv")
        (tmp_path / "bytes.tsv").write_bytes(b"a\t\xff\xfe\n")
        with pytest.raises(FormatError, match=r"bytes.tsv: cannot be read as transcripts \('utf-8' codec"):
            read_transcripts(tmp_path / "bytes.tsv")
        with pytest.raises(FormatError, match=r"expected transcripts \(\*.trans.txt\) in it or below, found none"):
            read_transcripts(tmp_path)


class TestPairs:
    audio = (Path("audio/a.wav"), Path("audio/x/b.flac"))

    def test_by_name_in_the_order_of_the_audio(self):
        a, b = pair_audio(self.audio, {"b": "two", "a": "one"}, Path("t.tsv"))
        assert (a.name, a.text, b.name, b.text) == ("a", "one", "b", "two")

    def test_errors(self):
        with pytest.raises(FormatError, match=r"audio/a.wav: no transcript in t.tsv \(and 1 more\)"):
            pair_audio(self.audio, {}, Path("t.tsv"))
        with pytest.raises(FormatError, match=r"t.tsv: no recording of 'c' in audio"):
            pair_audio(self.audio, {"a": "one", "b": "two", "c": "three"}, Path("t.tsv"))
