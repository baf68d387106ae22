import gzip
import re

import pytest

from lnz.errors import FormatError
from lnz.io import conllu
from lnz.io import sentences as io
from tests.io.test_dependencies import row as tree_row


def row(number, form, upos="NOUN", xpos="NN"):
    return tree_row(number, form, 0, "root", upos, xpos)


CONLLU = (
    "# sent_id = 1\n# text = don't go\n"
    + row("1-2", "don't", "_", "_")
    + row(1, "do", "AUX", "VBP")
    + row(2, "n't", "PART", "RB")
    + row("2.1", "you", "PRON", "PRP")
    + row(3, "go", "VERB", "_")
    + "\n"
    + row(1, "Oh  well", "_", "UH")
    + "\n"
)


class TestConllu:
    def test_words_tags_and_lines(self, write):
        """Multiword tokens and empty nodes are no words; an underscore is no tag; a word may hold two spaces."""
        first, second = io.read_sentences(write(CONLLU))
        assert first == io.Sentence(("do", "n't", "go"), ("AUX", "PART", "VERB"), (4, 5, 7))
        assert second == io.Sentence(("Oh  well",), (None,), (9,))

    def test_another_column(self, write):
        first, second = io.read_sentences(write(CONLLU), column="xpos")
        assert first.tags == ("VBP", "RB", None)
        assert second.tags == ("UH",)

    def test_gzipped_with_line_ends_of_windows_and_a_byte_order_mark(self, write):
        data = b"\xef\xbb\xbf" + CONLLU.replace("\n", "\r\n").encode()
        path = write(gzip.compress(data), "x.conllu.gz")
        assert io.read_sentences(path) == io.read_sentences(write(CONLLU))

    def test_separators_of_unicode_are_no_line_ends(self, write):
        (sentence,) = io.read_sentences(write(row(1, "a\u2028b") + "\n"))
        assert sentence.tokens == ("a\u2028b",)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (CONLLU[:-1], r"x\.conllu, line 9: expected an empty line after the last sentence; is the file whole\?"),
            (CONLLU[:-9], r"x\.conllu, line 9: expected 10 columns separated by tabs, got 8"),
            (CONLLU.replace("2\tn't", "3\tn't"), r"x\.conllu, line 5: expected word 2, got 3"),
            (CONLLU.replace("2\tn't", "two\tn't"), r"x\.conllu, line 5: expected the number of a word, got 'two'"),
            (CONLLU.replace("\tn't\t_", "\tn't\t"), r"x\.conllu, line 5: expected no empty column, got \"2\\tn't"),
            (CONLLU.replace("\t", " "), r"x\.conllu, line 3: expected 10 columns separated by tabs, got 1"),
            ("# only\n# comments\n\n", r"x\.conllu, line 1: expected words after the comments, found none"),
            ("", r"x\.conllu: expected at least one sentence, found none"),
            ("\n\n", r"x\.conllu: expected at least one sentence, found none"),
            (
                CONLLU.encode().replace(b"\tgo", b"\tg\xf6"),
                r"x\.conllu, line 7, byte 4: expected UTF-8, got the byte 0xf6",
            ),
        ],
    )
    def test_malformed(self, write, text, message):
        with pytest.raises(FormatError, match=message):
            io.read_sentences(write(text))

    def test_a_gzip_stream_cut_short(self, write):
        data = gzip.compress(CONLLU.encode())
        with pytest.raises(FormatError, match=r"x\.conllu\.gz: expected a complete gzip stream"):
            io.read_sentences(write(data[:-12], "x.conllu.gz"))

    def test_an_unknown_column(self, write):
        with pytest.raises(ValueError, match=r"column: expected one of upos, xpos, feats, deprel, got 'lemon'"):
            io.read_sentences(write(CONLLU), column="lemon")

    def test_retagged_keeps_everything_else(self, write, tmp_path):
        path = write(CONLLU)
        conllu.rewrite_conllu(path, tmp_path / "y.conllu", [{"upos": ["A", "B", "C"]}, {"upos": ["D"]}])
        expected = CONLLU.replace("AUX", "A").replace("PART", "B").replace("VERB", "C")
        assert (tmp_path / "y.conllu").read_text() == expected.replace("well\t_\t_", "well\t_\tD")


class TestColumns:
    def test_tabs(self, write):
        """A word may hold a space, and be the sign of a comment."""
        first, second = io.read_sentences(write("# id 7\nNew York\tB-LOC\n#\tO\n# 1\tO\n\n\nis\tO", "x.bio"))
        assert first == io.Sentence(("New York", "#", "# 1"), ("B-LOC", "O", "O"), (2, 3, 4))
        assert second.lines == (7,)

    @pytest.mark.parametrize(
        ("text", "tokens", "tags"),
        [
            # WNUT 2021 and MultiCoNER: a comment with a tab before rows of four columns
            ("# id 5f9\tdomain=en\nthe _ _ O\nEU _ _ B-ORG\n", ("the", "EU"), ("O", "B-ORG")),
            ("# id 5f9\tdomain=en\nthe\t_\t_\tO\n", ("the",), ("O",)),
            ("# id 5f9 domain=en\nthe _ _ O\n", ("the",), ("O",)),  # as wide as the rows
            ("# newdoc\nthe DT\n", ("the",), ("DT",)),
            ("# newpar\nthe DT\n\n", ("the",), ("DT",)),
            ("# newdoc\nthe\tDT\n", ("the",), ("DT",)),
            ("# sent_id = 3\nthe _ _ O\n", ("the",), ("O",)),
            ("# SYM\n1 CD\n! SYM\n", ("#", "1", "!"), ("SYM", "CD", "SYM")),
            ("# #\n1 CD\n", ("#", "1"), ("#", "CD")),
            ("#\tSYM\n1\tCD\n", ("#", "1"), ("SYM", "CD")),
            ("1 CD\n# SYM\n", ("1", "#"), ("CD", "SYM")),
            ("#1 CD\n# CD\n2 CD\n", ("#1", "#", "2"), ("CD", "CD", "CD")),
        ],
    )
    def test_comments_and_the_word_number_sign(self, write, text, tokens, tags):
        if text.startswith(("# id 5f9 ", "#\tSYM")):  # neither a known comment nor a known tag: the file must say
            with pytest.raises(FormatError, match=r"x\.conll, line 1: expected a comment, or the word '#' with a tag"):
                io.read_sentences(write(text, "x.conll"))
            text = text + "\nz\tSYM\n" if "\t" in text else text.replace(" _ _", "\t_\t_\t").replace("\t O", "\tO")
        sentence = io.read_sentences(write(text, "x.conll"))[0]
        assert (sentence.tokens, sentence.tags) == (tokens, tags)

    def test_words_alone_may_be_number_signs(self, write):
        sentences = io.read_sentences(write("# newdoc\n#\nof\n\n#\n", "x.conll"), tag_column=None)
        assert [sentence.tokens for sentence in sentences] == [("#", "of"), ("#",)]

    def test_other_encodings(self, write):
        path = write("Gefühl\tO\n".encode("latin-1"), "x.conll")
        assert io.read_sentences(path, encoding="latin-1")[0].tokens == ("Gefühl",)
        with pytest.raises(FormatError, match=r"line 1, byte 4: expected UTF-8, got the byte 0xfc; .*--encoding"):
            io.read_sentences(path)

    def test_spaces_and_documents(self, write):
        document = "-DOCSTART- -X- -X- O\n\n"
        text = f"{document}EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n{document}Peter NNP B-NP B-PER\n"
        first, second = io.read_sentences(write(text, "train.txt"), kind="columns")
        assert first.tags == ("B-ORG", "O")
        assert second.tokens == ("Peter",)
        assert io.read_sentences(write(text, "x.conll"), tag_column=1)[0].tags == ("NNP", "VBZ")

    def test_words_alone(self, write):
        first, second = io.read_sentences(write("to\nbe\n\nor\n", "x.words"), tag_column=None)
        assert (first.tokens, second.tokens, second.tags) == (("to", "be"), ("or",), (None,))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a\tO\nb\n", r"x\.bio, line 2: expected 2 columns as in line 1, got 1"),
            ("a\tO\nb\tO\tO\n", r"x\.bio, line 2: expected 2 columns as in line 1, got 3"),
            ("a\tO\nb\t\n", r"x\.bio, line 2: expected no empty column, got 'b\\t'"),
            ("a\nb\n", r"x\.bio, line 1: expected a word and a tag in column -1, got 1 column"),
            ("-DOCSTART-\n\n", r"x\.bio: expected at least one sentence, found none"),
        ],
    )
    def test_malformed(self, write, text, message):
        with pytest.raises(FormatError, match=message):
            io.read_sentences(write(text, "x.bio"))

    def test_a_column_that_is_not_there(self, write):
        with pytest.raises(FormatError, match=r"x\.bio, line 1: expected a word and a tag in column 2, got 2 columns"):
            io.read_sentences(write("a\tO\n", "x.bio"), tag_column=2)

    def test_what_is_written_is_read_again(self, tmp_path):
        io.write_tagged(tmp_path / "x.bio", [(["a", "b"], ["O", "B-x"]), (["c"], ["O"])])
        assert (tmp_path / "x.bio").read_text() == "a\tO\nb\tB-x\n\nc\tO\n\n"
        assert [s.tags for s in io.read_sentences(tmp_path / "x.bio")] == [("O", "B-x"), ("O",)]


def test_conllu_that_is_written_is_read_again(tmp_path):
    tagged = [(["a b", "c"], {"xpos": ["NOUN", "X"]}), (["d"], {"xpos": ["X"]})]
    conllu.write_conllu(tmp_path / "x.conllu", tagged)
    first, second = io.read_sentences(tmp_path / "x.conllu", column="xpos")
    assert (first.tokens, first.tags, second.tags) == (("a b", "c"), ("NOUN", "X"), ("X",))
    assert set(io.read_sentences(tmp_path / "x.conllu")[0].tags) == {None}


def test_text_is_a_sentence_per_line(write):
    first, second = io.read_sentences(write("To be .\n\nOr not\n", "x.txt"))
    assert (first.tokens, first.lines, second.lines) == (("To", "be", "."), (1, 1, 1), (3, 3))
    assert set(first.tags) == {None}


def test_no_file(tmp_path):
    with pytest.raises(FormatError, match=r"none\.bio: expected a readable file, got: no such file"):
        io.read_sentences(tmp_path / "none.bio")


def test_formats_by_name():
    names = {"a.conllu": "conllu", "a.CoNLLU.gz": "conllu", "a.txt": "text", "a.bio.gz": "columns", "conllu": "columns"}
    assert {name: io.format_of(name) for name in names} == names


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "ud_english_ewt/en_ewt-ud-dev.conllu.gz",
        "ud_czech_cltt/cs_cltt-ud-dev.conllu.gz",
        "ner_wnut17/wnut17_dev.bio.gz",
    ],
)
def test_published_files(shared_data, name):
    """Every line that starts with a number and a tab is a word of a treebank, every full line one of a shared task."""
    text = gzip.decompress((shared_data / name).read_bytes()).decode()
    treebank = "conllu" in name
    words = re.findall(r"^\d+\t" if treebank else r"^\S+\t\S+$", text, re.MULTILINE)
    sentences = io.read_sentences(shared_data / name)
    assert sum(map(len, sentences)) == len(words) > 1000
    assert len(sentences) == len(re.findall(r"^# sent_id", text, re.MULTILINE) if treebank else text.split("\n\n")) - (
        0 if treebank else text.endswith("\n\n")
    )
