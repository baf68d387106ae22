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

    def test_line_breaks_in_quotes_are_part_of_a_text(self, written):
        table = 'file_name,text\r\na.wav,"one\r\ntwo, ""three"""\r\nb.wav,four\r\n'
        assert read_transcripts(written(table, "t.csv")) == {"a": 'one two, "three"', "b": "four"}

    @pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c"])
    def test_only_line_feeds_end_lines(self, written, separator):
        for content, name in (
            (f"a\tone{separator}two\nb\tthree\n", "t.tsv"),
            (f"name,text\na,one{separator}two\nb,three\n", "t.csv"),
            (f"path\tsentence\na\tone{separator}two\nb\tthree\n", "t.tsv"),
            (f"a one{separator}two\nb three\n", "t.txt"),
            (f'{{"audio_filepath": "x/a.wav", "text": "one{separator}two"}}\n{{"id": "b", "text": "three"}}', "t.json"),
        ):
            if name == "t.json" and separator < " ":
                continue  # JSON has no control characters in strings
            assert read_transcripts(written(content, name)) == {"a": "one two", "b": "three"}

    def test_json_lines(self, written):
        manifest = '{"audio_filepath": "/data/a.wav", "duration": 1.5, "text": "one"}\n\n'
        manifest += '{"text": "tw\\u00f6", "audio_filepath": "b.flac"}\n'
        assert read_transcripts(written(manifest, "manifest.jsonl")) == {"a": "one", "b": "twö"}

    def test_other_encodings(self, written, tmp_path):
        (tmp_path / "t.tsv").write_bytes("a\tGefühl\n".encode("latin-1"))
        assert read_transcripts(tmp_path / "t.tsv", "latin-1") == {"a": "Gefühl"}
        (tmp_path / "t.tsv").write_bytes("a\tGefühl\n".encode("utf-16"))
        assert read_transcripts(tmp_path / "t.tsv") == {"a": "Gefühl"}


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
            ('name,text\na,"one\n', "t.csv", r"t.csv, line 2: cannot be read as a table \(unexpected end of data\)"),
            ('{"text": "one"}\n', "t.json", r"t.json, line 1: expected an object with one of name, .*, got '{"),
            (
                '{"id": 3, "text": "one"}\n',
                "t.json",
                r"t.json, line 1: expected an object with one of name, .* as strings",
            ),
            ('{"id": "a", "text": "one"}\n{', "t.json", r"t.json, line 2: cannot be read as a JSON object"),
            ('{"id": ' + "9" * 5000 + "}", "t.json", r"t.json, line 1: cannot be read as a JSON object"),
            ('{"id": ' + "[" * 99999 + "}", "t.json", r"t.json, line 1: cannot be read as a JSON object"),
            ("name,text\n", "t.csv", r"t.csv: expected a name and a text on each line, found none"),
        ],
    )
    def test_message(self, written, content, name, message):
        with pytest.raises(FormatError, match=message):
            read_transcripts(written(content, name))

    def test_unreadable(self, tmp_path):
        with pytest.raises(FormatError, match=r"none.tsv: expected a readable file, got: no such file"):
            read_transcripts(tmp_path / "none.tsv")
        (tmp_path / "bytes.tsv").write_bytes(b"a\t\xff\xfe\n")
        with pytest.raises(
            FormatError, match=r"bytes.tsv, line 1, byte 3: expected UTF-8, got the byte 0xff; .*--encoding"
        ):
            read_transcripts(tmp_path / "bytes.tsv")
        with pytest.raises(FormatError, match=r"expected transcripts \(\*.trans.txt\) in it or below, found none"):
            read_transcripts(tmp_path)


class TestPairs:
    audio = (Path("audio/a.wav"), Path("audio/x/b.flac"))

    def test_by_name_in_the_order_of_the_audio(self):
        a, b = pair_audio(self.audio, {"b": "two", "a": "one"}, Path("t.tsv"))
        assert (a.name, a.text, b.name, b.text) == ("a", "one", "b", "two")

    def test_names_are_compared_in_one_form(self):
        audio = [Path("audio/fu\u0308nf.wav"), Path("audio/\u00e9.wav")]
        pairs = pair_audio(audio, {"fünf": "five", "é": "e"}, Path("t.tsv"))
        assert [(pair.audio, pair.text) for pair in pairs] == list(zip(audio, ("five", "e"), strict=True))

    def test_errors(self):
        with pytest.raises(FormatError, match=r"audio/a.wav: no transcript in t.tsv \(and 1 more\)"):
            pair_audio(self.audio, {}, Path("t.tsv"))
        with pytest.raises(FormatError, match=r"t.tsv: no recording of 'c' in audio"):
            pair_audio(self.audio, {"a": "one", "b": "two", "c": "three"}, Path("t.tsv"))
