"""Dependency trees in CoNLL-U: what is read, what is refused, and what is written."""

import gzip

import pytest

from lnz.errors import FormatError
from lnz.io.dependencies import Dependencies, read_dependencies, rewrite_dependencies, write_dependencies


def row(number, form, head, relation="dep", upos="NOUN", xpos="_", deps="_"):
    return f"{number}\t{form}\t_\t{upos}\t{xpos}\t_\t{head}\t{relation}\t{deps}\t_\n"


TEXT = (
    "# sent_id = 1\n"
    + row("1-2", "don't", "_", "_", "_")
    + row(1, "do", 3, "aux", "AUX", "VBP", "3:aux")
    + row(2, "n't", 3, "advmod", "PART")
    + row("2.1", "you", "_", "_", "PRON")
    + row(3, "go", 0, "root", "VERB", "VB", "0:root")
    + "\n"
    + row(1, "Oh", 0, "root", "_")
    + "\n"
)


class TestReading:
    def test_words_and_trees(self, write):
        """Multiword tokens and empty nodes are no words, and heads are numbers of words."""
        first, second = read_dependencies(write(TEXT))
        assert first == Dependencies(
            ("do", "n't", "go"), ("AUX", "PART", "VERB"), (3, 3, 0), ("aux", "advmod", "root"), (3, 4, 6)
        )
        assert second == Dependencies(("Oh",), (None,), (0,), ("root",), (8,))
        assert read_dependencies(write(gzip.compress(TEXT.encode()), "x.conllu.gz")) == [first, second]

    def test_tags(self, write):
        def tags(column):
            return [sentence.tags for sentence in read_dependencies(write(TEXT), tag_column=column)]

        assert tags("xpos") == [("VBP", None, "VB"), (None,)]
        assert tags("upos+xpos") == [("AUX VBP", "PART _", "VERB VB"), (None,)]
        assert tags(None) == [(None,) * 3, (None,)]

    def test_what_is_not_known(self, write):
        (sentence,) = read_dependencies(write(row(1, "a", "_", "_") + row(2, "b", 0, "_") + "\n"))
        assert (sentence.heads, sentence.relations) == ((None, 0), (None, None))

    def test_trees_may_be_left_unread(self, write):
        path = write(row(1, "a", 7) + "\n")
        assert read_dependencies(path, trees=False)[0].heads == (None,)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (row(1, "a", 3) + row(2, "b", 0), r"line 1: expected a head in 0 … 2, the words of the sentence, got '3'"),
            (row(1, "a", -1), r"line 1: expected a head in 0 … 1, the words of the sentence, got '-1'"),
            (row(1, "a", "1.1") + row(2, "b", 0), r"line 1: expected a head in 0 … 2, .*, got '1\.1'"),
            (row(1, "a", "²"), r"line 1: expected a head in 0 … 1, .*, got '²'"),
            (row(1, "a", "9" * 5000), r"line 1: expected a head in 0 … 1, .*, got '9{40}'"),
            (row(1, "a", 1), r"line 1: expected a tree, got a cycle: word 1 is its own head"),
            (
                "# x\n" + row(1, "a", 0) + row(2, "b", 4) + row(3, "c", 2) + row(4, "d", 3),
                r"line 3: expected a tree, got a cycle: words 2, 3, 4 hang under each other",
            ),
            (
                row(1, "a", 2) + row(2, "b", 0) + row(3, "c", 0),
                r"line 3: expected one word with head 0, got a second one after line 2; .* single_root false",
            ),
            (
                row(1, "a", 0).replace("\t_\n", "\n"),
                r"line 1: expected 10 columns separated by tabs, got 9",
            ),
            (row(2, "a", 0), r"line 1: expected word 1, got 2"),
        ],
    )
    def test_errors(self, text, message, write):
        with pytest.raises(FormatError, match=r"x\.conllu, " + message):
            read_dependencies(write(text + "\n"))

    def test_a_file_that_was_cut_short(self, write):
        with pytest.raises(FormatError, match=r"x\.conllu, line 1: expected an empty line after the last sentence"):
            read_dependencies(write(row(1, "a", 0)))
        with pytest.raises(FormatError, match=r"x\.conllu: expected at least one sentence, found none"):
            read_dependencies(write("\n"))

    def test_several_roots_where_they_are_allowed(self, write):
        path = write(row(1, "a", 0) + row(2, "b", 0) + "\n")
        assert read_dependencies(path, single_root=False)[0].heads == (0, 0)

    def test_long_chains(self, write):
        """No recursion, and each word is walked over once."""
        n = 20000
        path = write("".join(row(k, "a", k - 1) for k in range(1, n + 1)) + "\n")
        assert read_dependencies(path)[0].heads == tuple(range(n))


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        ((0,), True),
        ((2, 0, 2), True),
        ((3, 0, 2), False),  # 3 → 1 goes over the root's arc to 2
        ((0, 4, 1, 1), False),
        ((2, 0, 4, 2), True),
        ((None, 0, None), True),
        ((0, 0), True),
    ],
)
def test_projective(heads, expected):
    n = len(heads)
    assert Dependencies(("a",) * n, (None,) * n, heads, (None,) * n).is_projective == expected


def test_projective_as_the_distribution_has_it():
    """Of all trees on five words, those that the projective distribution gives a finite score."""
    import torch

    import lnz

    heads = torch.cartesian_prod(*[torch.arange(6)] * 5)
    y = torch.cat((torch.zeros(len(heads), 1, dtype=torch.long), heads), 1)
    tree, projective = (
        lnz.DependencyTree(torch.zeros(6, 6), None, kind, False).score(y).isfinite() for kind in (False, True)
    )
    for row_, possible in zip(heads[tree].tolist(), projective[tree].tolist(), strict=True):
        sentence = Dependencies(("a",) * 5, (None,) * 5, tuple(row_), (None,) * 5)
        assert sentence.is_projective == possible


class TestWriting:
    def test_what_is_written_is_read_again(self, tmp_path):
        trees = [
            Dependencies(("a b", "c"), ("X", None), (2, 0), ("det", "root"), (1, 2)),
            Dependencies(("d",), ("Y",), (None,), (None,), (4,)),
        ]
        write_dependencies(tmp_path / "x.conllu", trees)
        assert read_dependencies(tmp_path / "x.conllu") == trees

    def test_other_columns_and_lines_stay(self, write, tmp_path):
        """But for the enhanced graph, which went with the old tree."""
        first, second = read_dependencies(write(TEXT))
        other = Dependencies(first.tokens, first.tags, (0, 1, 1), ("root", "x", "y"), first.lines)
        rewrite_dependencies(write(TEXT), tmp_path / "y.conllu", [other, second])
        expected = TEXT.replace("3\taux\t3:aux", "0\troot\t_").replace("3\tadvmod", "1\tx")
        expected = expected.replace("go\t_\tVERB\tVB\t_\t0\troot\t0:root", "go\t_\tVERB\tVB\t_\t1\ty\t_")
        assert (tmp_path / "y.conllu").read_text() == expected
