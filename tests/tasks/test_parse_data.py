import numpy as np
import pytest
import torch

from lnz.errors import FormatError
from lnz.tasks.parse.arithmetic import SIGNS, Arithmetic, compose, sentences
from lnz.tasks.parse.data import ParseData
from lnz.tasks.parse.evaluate import ParseTest
from lnz.tasks.parse.module import ParseModule
from tests.io.test_dependencies import row

TREEBANK = (
    row(1, "The", 2, "det", "DET", "DT")
    + row(2, "cat", 3, "nsubj", "NOUN", "NN")
    + row(3, "sat", 0, "root", "VERB", "VBD")
    + "\n"
    + row(1, "the", "_", "_", "DET", "DT")
    + row(2, "dog", 0, "root", "_", "NN")
    + "\n"
)
CROSSING = row(1, "a", 3, "x") + row(2, "b", 0, "root") + row(3, "c", 2, "y") + "\n"


@pytest.fixture
def write(tmp_path):
    def written(text, name="train.conllu"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return written


def evaluated(tokens, tree):
    """What the tree of a sentence says it is worth, and how Python reads the sentence."""
    below = {head: [] for head in range(len(tokens) + 1)}
    for word, (head, relation) in enumerate(zip(tree.heads, tree.relations, strict=True), 1):
        below[head].append((relation, word))

    def term(word):
        parts = dict(below[word])
        if "left" not in parts:
            return tokens[word - 1]
        brackets = "bracket" in parts
        inner = f"{term(parts['left'])} {tokens[word - 1]} {term(parts['right'])}"
        return f"( {inner} )" if brackets else inner

    return term(tree.heads.index(0) + 1)


def grouped(tokens, tree):
    """The sentence with brackets around every term that the tree has."""
    left, right = (
        {tree.heads[k]: k + 1 for k, r in enumerate(tree.relations) if r == side} for side in ("left", "right")
    )

    def term(word):
        return f"({term(left[word])}{tokens[word - 1]}{term(right[word])})" if word in left else tokens[word - 1]

    return term(tree.heads.index(0) + 1)


class TestArithmetic:
    settings = Arithmetic(train=60, val=20, shortest=1, longest=6, smudged=0.0)

    def test_trees_are_those_by_which_python_computes(self):
        """A term with brackets everywhere, as its tree has it, is worth what the sentence is worth."""
        nothing = {"__builtins__": {}}
        for sentence in sentences(self.settings, "train", 0):
            tree = sentence.dependencies
            text = "".join(tree.tokens).replace("/", "//").replace("0", "11")
            full = grouped(tree.tokens, tree).replace("/", "//").replace("0", "11")
            try:
                expected = eval(text, nothing)
            except ZeroDivisionError:
                continue
            assert eval(full, nothing) == expected

    def test_trees(self):
        for sentence in sentences(self.settings, "train", 0):
            tree = sentence.dependencies
            assert tree.is_projective
            assert tree.heads.count(0) == 1
            assert evaluated(tree.tokens, tree) == " ".join(tree.tokens)
            assert 1 <= sum(token in SIGNS for token in tree.tokens) <= 6

    def test_constituents_are_the_terms_of_the_dependencies(self):
        """A sign's term is what hangs under it, but for brackets; its group is all of it."""
        for sentence in sentences(self.settings, "train", 0):
            below = {k: {k} for k in range(1, len(sentence.symbols) + 1)}
            for word in below:
                head = word
                while head := sentence.heads[head - 1]:
                    below[head].add(word)
            expected = set()
            for word, whole in below.items():
                if sentence.symbols[word - 1] in SIGNS:
                    own = {k for k, (h, r) in enumerate(zip(sentence.heads, sentence.relations, strict=True), 1)
                           if h == word and r == "bracket"}  # fmt: skip
                    inner = whole - own
                    expected.add(
                        ("sum" if sentence.symbols[word - 1] in "+-" else "product", min(inner) - 1, max(inner))
                    )
                    if own:
                        expected.add(("group", min(whole) - 1, max(whole)))
            found = [each for each in sentence.tree.constituents if each.label in ("sum", "product", "group")]
            assert {tuple(each) for each in found} == expected
            assert len(found) == len(expected)
            assert "(" not in sentence.tree.words

    def test_a_function_of_seed_split_and_index(self):
        first = sentences(self.settings, "train", 3)
        assert first == sentences(self.settings, "train", 3)
        assert first[:30] == sentences(Arithmetic(30, 20, 1, 6, 0.0), "train", 3)
        assert first[:20] != sentences(self.settings, "val", 3)
        assert first != sentences(self.settings, "train", 4)

    def test_smudges(self):
        found = compose(Arithmetic(shortest=200, longest=200, smudged=0.3), np.random.default_rng(0))
        n = len(found.symbols)
        assert abs(found.symbols.count("?") / n - 0.3) < 4 * (0.3 * 0.7 / n) ** 0.5

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"train": 0}, r"arithmetic\.train: expected a positive integer, got 0"),
            ({"shortest": 5, "longest": 4}, r"arithmetic\.longest: expected at least shortest, 5, got 4"),
            ({"smudged": 1}, r"arithmetic\.smudged: expected a number in \[0, 1\), got 1"),
        ],
    )
    def test_errors(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            Arithmetic(**wrong)


class TestFiles:
    def test_inventories(self, write):
        path = write(TREEBANK)
        data = ParseData(path, val=path, tag_column="upos")
        assert (data.words, data.tags) == (["the"], ["DET", "NOUN", "VERB"])
        assert (data.labels, "".join(data.characters)) == (["det", "nsubj", "root"], "Tacdeghost")
        assert ParseData(path, val=path).tags == []

    def test_batches(self, write):
        path = write(TREEBANK)
        (batch,) = ParseData(path, val=path, tag_column="xpos").val_dataloader()
        assert batch["tokens"] == [("the", "dog"), ("The", "cat", "sat")]  # short ones first
        assert batch["pos"] == [("DT", "NN"), ("DT", "NN", "VBD")]
        assert batch["lengths"].tolist() == [2, 3]
        assert batch["trees"].tolist() == [
            [[0, 0], [-100, -100], [0, 2], [-100, -100]],
            [[0, 0], [2, 0], [3, 1], [0, 2]],
        ]

    def test_relations_that_training_has_not_seen_are_judged_by_name(self, write):
        val = write(row(1, "a", 0, "other") + "\n", "val.conllu")
        (batch,) = ParseData(write(TREEBANK), val=val).val_dataloader()
        assert batch["trees"].tolist() == [[[0, 0], [0, -100]]]
        assert batch["gold"].items == [("other",)]

    def test_crossing_arcs_are_left_out_where_there_may_be_none(self, write):
        path = write(TREEBANK + CROSSING)
        data = ParseData(path, val=path, projective=True)
        assert (len(data.train), len(data.val)) == (2, 3)
        assert data.says.endswith("; left out of training: 1 whose arcs cross")
        assert len(ParseData(path, val=path).train) == 3
        with pytest.raises(FormatError, match=r"train\.conllu: expected sentences whose arcs do not cross, found none"):
            ParseData(write(CROSSING), val=path, projective=True)

    def test_a_split_is_drawn(self, write):
        data = ParseData(write(TREEBANK * 10), val_fraction=0.25)
        assert (len(data.train), len(data.val)) == (15, 5)

    def test_errors(self, write):
        bare = row(1, "a", "_", "_") + "\n"
        with pytest.raises(FormatError, match=r"train\.conllu: expected words with heads and relations, found none"):
            ParseData(write(bare), val=write(TREEBANK, "val.conllu"))
        with pytest.raises(ValueError, match=r"data\.val: needs data\.train"):
            ParseData(val=write(TREEBANK))
        with pytest.raises(ValueError, match=r"data\.tag_column: needs data\.train"):
            ParseData(tag_column="upos")
        with pytest.raises(ValueError, match=r"data\.tag_column: expected columns of CoNLL-U, such as .*, got tag"):
            ParseData(write(TREEBANK), tag_column="tag")
        for name in ("batch_size", "min_count"):
            with pytest.raises(ValueError, match=rf"data\.{name}: expected a positive integer, got 0"):
                ParseData(**{name: 0})


class TestNewSentences:
    def module(self, **settings):
        return ParseModule(["det", "root"], width=4, arc_width=2, label_width=2, **settings)

    def test_of_a_file(self, write):
        data = ParseTest(self.module(tag_column="xpos", tags=["DT"]), write(TREEBANK))
        assert data.says.startswith("2 sentences of ")
        assert data.val.trees[0].tolist() == [[0, 0], [2, 0], [3, -100], [0, 1]]
        with pytest.raises(FormatError, match="was trained on sentences of a file: give --data.val"):
            ParseTest(self.module())

    def test_composed(self):
        data = ParseTest(self.module(composed=True), arithmetic=Arithmetic(val=7), seed=2)
        assert (len(data.val), data.says) == (7, "7 sentences of arithmetic")
        assert data.val.sentences == [each.dependencies for each in sentences(Arithmetic(val=7), "val", 2)]
        assert torch.is_tensor(data.val[(0, 0)]["tree"])
        with pytest.raises(ValueError, match=r"data\.batch_size: expected a positive integer, got 0"):
            ParseTest(self.module(composed=True), batch_size=0)


BRACKETS = "(TOP (S (NP (DT The) (NN cat)) (VP (VBD sat)) (. .)))\n( (S (VP (VB Go))))\n(NN Oh)\n"


class TestBrackets:
    def data(self, write, text=BRACKETS, **options):
        path = write(text, "train.ptb")
        return ParseData(path, val=path, structure="constituency", **options)

    def test_labels_are_chains_without_tags(self, write):
        data = self.data(write)
        assert data.labels == ["", "NP", "TOP", "TOP S", "TOP S VP", "VP"]
        assert data.tags == []
        assert self.data(write, tag_column="tag").tags == [".", "DT", "NN", "VB", "VBD"]

    def test_batches(self, write):
        (batch,) = self.data(write, tag_column="tag").val_dataloader()
        assert batch["tokens"] == [("Go",), ("Oh",), ("The", "cat", "sat", ".")]
        assert batch["pos"] == [("VB",), ("NN",), ("DT", "NN", "VBD", ".")]
        assert (batch["trees"][0, 0, 0], batch["trees"][1, 0, 0]) == (4, 2)
        assert (batch["trees"][0, 1:] == -100).all()
        y = batch["trees"][2]
        assert (y[0, 3], y[0, 1], y[2, 2], y[2, 3], y[0, 0], y[1, 2]) == (3, 1, 5, 0, 0, -1)
        assert batch["gold"].items[0] == [("TOP", 0, 1), ("S", 0, 1), ("VP", 0, 1), ("VB", 0, 1)]

    def test_there_and_back(self, write):
        data = self.data(write)
        for sentence, tree in zip(data.val.sentences, data.val.trees, strict=True):
            again = data.val.structure.decode(sentence, tree, data.labels)
            assert again == sentence
        assert str(data.val.sentences[0].tree) == BRACKETS.splitlines()[0]

    def test_chains_that_training_has_not_seen(self, write):
        train, val = write(BRACKETS, "train.ptb"), write("(TOP (X (NN a) (Y (NN b))))\n", "val.ptb")
        (batch,) = ParseData(train, val=val, structure="constituency").val_dataloader()
        assert batch["trees"][0].triu().tolist() == [[0, -100], [0, -100]]
        assert ("X", 0, 2) in batch["gold"].items[0]

    def test_errors(self, write):
        with pytest.raises(FormatError, match=r"train\.ptb: expected '\)' for the bracket that line 1 opens"):
            self.data(write, "(S (NN a)\n")
        with pytest.raises(FormatError, match=r"train\.ptb, tree 1: expected a tag of every word, found none of 'b'"):
            self.data(write, "(S (NN a) b)\n")
        with pytest.raises(ValueError, match=r"data\.tag_column: expected tag, since bracketed trees have no .*upos"):
            self.data(write, tag_column="upos")
        with pytest.raises(ValueError, match=r"structure: projective and single_root are of dependency trees"):
            self.data(write, projective=True)
        with pytest.raises(ValueError, match=r"structure: expected one of constituency, dependency, got 'graph'"):
            ParseData(structure="graph")  # type: ignore[arg-type]
