"""Bracketed trees: read, written, made charts and undone, nothing lost; errors name the line."""

import gzip

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lnz
from lnz.io import ChartLabels, Constituent, Tree, allowing, parse_trees, read_trees, write_trees
from lnz.ops.spans import is_tree

CAT = "(S (NP (DT the) (NN cat)) (VP (VBD sat)))"


@st.composite
def trees(draw, depth=4):
    """Any tree of letters: unary chains, words with and without tags, constituents of many parts."""
    labels = st.sampled_from(["A", "B", "C-X", "-NONE-", "$"])

    def bracket(level):
        kind = draw(st.integers(0, 3 if level < depth else 1))
        parts = [draw(st.sampled_from("abc"))] if kind < 2 else []
        parts += [
            bracket(level + 1) if draw(st.booleans()) else "w" for _ in range(draw(st.integers(1, 4)) if kind else 0)
        ]
        return f"({draw(labels)} {' '.join(parts)})"

    text = bracket(0)
    return f"( {text})" if draw(st.booleans()) else text


def test_a_tree_is_its_constituents_from_the_top_down():
    (tree,) = parse_trees(CAT)
    assert tree.words == ("the", "cat", "sat")
    assert tree.constituents == (
        ("S", 0, 3), ("NP", 0, 2), ("DT", 0, 1), ("NN", 1, 2), ("VP", 2, 3), ("VBD", 2, 3),
    )  # fmt: skip
    assert str(tree) == CAT


def test_treebanks_write_over_several_lines_without_an_outer_label():
    text = "\n( (S \n  (NP-SBJ-1 (-NONE- *))\n  (VP (TO to)\n\t(VP (VB go) )))\r\n (. .) )\n\n(X (Y c))\n"
    one, two = parse_trees(text)
    assert str(one) == "( (S (NP-SBJ-1 (-NONE- *)) (VP (TO to) (VP (VB go)))) (. .))"
    assert one.constituents[0] == ("", 0, 4)
    assert two.words == ("c",)


@given(trees())
def test_what_is_written_is_read_again(text):
    (tree,) = parse_trees(text)
    assert str(tree) == text
    assert list(parse_trees(str(tree))) == [tree]
    assert Tree(tree.words, tree.constituents) == tree


@given(st.lists(trees(), min_size=1, max_size=3), st.sampled_from(["left", "right"]))
def test_charts_are_binary_trees_and_are_undone(texts, branching):
    found = [tree for text in texts for tree in parse_trees(text)]
    labels = ChartLabels.of(found)
    assert labels.chains[0] == ()
    for tree in found:
        y, N = labels.encode(tree, branching), len(tree.words)
        assert is_tree(y >= 0, torch.tensor(N))
        assert (y >= 0).sum() == 2 * N - 1
        assert labels.decode(y, tree.words) == tree
        p = lnz.ConstituencyTree(torch.zeros(N, N, len(labels)))
        assert torch.isfinite(p.log_prob(y))
        padded = torch.nn.functional.pad(y, (0, 2, 0, 2), value=-100)
        assert labels.decode(padded, tree.words) == tree


def test_branching_of_what_is_not_binary():
    (tree,) = parse_trees("(S a (X b) c d)")
    labels = ChartLabels.of([tree])
    assert labels.chains == ((), ("S",), ("X",))
    right, left = labels.encode(tree), labels.encode(tree, "left")
    assert right.tolist() == [[0, -1, -1, 1], [-1, 2, -1, 0], [-1, -1, 0, 0], [-1, -1, -1, 0]]
    assert left.tolist() == [[0, 0, 0, 1], [-1, 2, -1, -1], [-1, -1, 0, -1], [-1, -1, -1, 0]]


def test_unary_chains_are_joint_labels():
    (tree,) = parse_trees("(TOP (S (VP (VB go))))")
    labels = ChartLabels.of([tree])
    assert labels.chains == ((), ("TOP", "S", "VP", "VB"))
    assert labels.encode(tree).tolist() == [[1]]


def test_a_best_tree_that_has_no_root_gets_one():
    labels = ChartLabels(((), ("A",)))
    y = torch.tensor([[0, -1, 0], [-1, 1, 1], [-1, -1, 0]])
    assert str(labels.decode(y, ["x", "y", "z"], root="S")) == "(S x (A (A y) z))"
    assert str(labels.decode(torch.tensor([[0]]), ["x"])) == "(TOP x)"


def test_depth_has_no_limit():
    depth = 20_000
    (tree,) = parse_trees("(A " * depth + "x" + ")" * depth)
    assert len(tree.constituents) == depth
    assert str(tree).count(")") == depth
    labels = ChartLabels.of([tree])
    assert labels.decode(labels.encode(tree), tree.words) == tree
    text = "".join(f"(A w{i} " for i in range(2_000)) + "x" + ")" * 2_000
    (tree,) = parse_trees(text)
    assert labels.of([tree]).encode(tree).shape == (2001, 2001)


BAD = {
    "(S (NP a)\n(VP b)": r"m.mrg: expected '\)' for the bracket that line 1 opens, found the end of the file",
    "(S a)\n\n(S (NP a)\n (VP b": r"m.mrg: expected '\)' for the bracket that line 4 opens",
    "(S a)\n)": r"m.mrg, line 2: expected '\(' or the end of the file, got '\)'",
    "(S a)\nb": r"m.mrg, line 2: expected '\(' or the end of the file, got 'b'",
    "(S a)\n(S\n (NP)\n b)": r"m.mrg, line 3: expected words in the brackets that line 3 opens, got '\(NP\)'",
    "\n()": r"m.mrg, line 2: expected words in the brackets that line 2 opens, got '\(\)'",
    "(S a)\n( (S\n (X a) (Y) ) )": r"m.mrg, line 3: expected words in the brackets that line 3 opens, got '\(Y\)'",
    " \n": "m.mrg: expected at least one tree, found none",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_tree_is_named_with_its_line(tmp_path, text):
    path = tmp_path / "m.mrg"
    path.write_text(text)
    with pytest.raises(lnz.FormatError, match=BAD[text]):
        read_trees(path)


@pytest.mark.parametrize(
    ("words", "constituents", "message"),
    [
        ((), (), "words: expected at least one, got none"),
        (("a b",), (("S", 0, 1),), "words: expected no spaces and brackets in a word, got 'a b'"),
        (("a",), (), "constituents: expected the whole, 0 … 1, first, got none"),
        (("a", "b"), (("S", 0, 1),), "constituents: expected the whole, 0 … 2, first"),
        (("a", "b"), (("S", 0, 2), ("X", 1, 3)), r"expected each inside the one .* got \('X', 1, 3\)"),
        (("a", "b"), (("S", 0, 2), ("X", 1, 1)), r"expected each inside the one .* got \('X', 1, 1\)"),
        (("a", "b", "c"), (("S", 0, 3), ("X", 0, 2), ("Y", 1, 3)), r"each inside the one .* got \('Y', 1, 3\)"),
        (("a", "b"), (("S", 0, 2), ("X", 1, 2), ("Y", 0, 1)), r"from left to right, got \('Y', 0, 1\) late"),
        (("a",), (("S(", 0, 1),), r"no spaces and brackets in a label, got 'S\('"),
        (("a",), (("", 0, 1),), r"expected a label of what begins with a word, got \('', 0, 1\)"),
    ],
)
def test_trees_that_are_none(words, constituents, message):
    with pytest.raises(ValueError, match=message):
        Tree(words, constituents)


def test_charts_that_are_none():
    (tree,) = parse_trees(CAT)
    labels = ChartLabels.of([tree])
    with pytest.raises(ValueError, match=r"expected unary chains among the labels, got \('X',\) of words 0 … 1"):
        labels.encode(Tree(("a",), (Constituent("X", 0, 1),)))
    assert labels.encode(Tree(("a",), (Constituent("X", 0, 1),)), unknown=3).tolist() == [[3]]
    with pytest.raises(ValueError, match="branching: expected 'left' or 'right', got 'up'"):
        labels.encode(tree, "up")
    y = labels.encode(tree)
    with pytest.raises(ValueError, match=r"y: expected shape \[N, N\] of 4 words or more, got \[3, 3\]"):
        labels.decode(y, "abcd")
    for bad, at, message in (
        (9, (0, 0), r"labels in \[0, 6\), got 9"),
        (-100, (0, 1), "got -100 at"),
        (1, (1, 2), "do not cross"),
    ):
        z = y.clone()
        z[at] = bad
        with pytest.raises(ValueError, match=message):
            labels.decode(z, tree.words)
    with pytest.raises(ValueError, match=r"chains: expected different ones, \(\) first"):
        ChartLabels((("A",), ()))
    with allowing(numbers=8, per_byte=0), pytest.raises(lnz.FormatError, match="at most 8 numbers in tables, got 9"):
        labels.encode(tree)


def test_files_are_written_and_read(tmp_path):
    found = list(parse_trees(CAT + "( (X é)\n)".replace("(X é)", "(X (Y é))")))
    write_trees(tmp_path / "t.mrg", found)
    assert read_trees(tmp_path / "t.mrg") == found
    (tmp_path / "t.mrg.gz").write_bytes(gzip.compress((tmp_path / "t.mrg").read_bytes()))
    assert read_trees(tmp_path / "t.mrg.gz") == found


@pytest.mark.parametrize("name", ["wsj_dev_0150-0169.ptb.gz", "wsj_raw_0001-0169.mrg.gz", "wsj_train_0001-0149.ptb.gz"])
def test_a_treebank_goes_there_and_back(shared_data, name):
    path = shared_data / "trees_wsj_sample" / name
    if not path.is_file():
        pytest.skip(f"needs {name} in the development data")
    found = read_trees(path)
    assert len(found) > 200
    assert list(parse_trees("\n".join(map(str, found)))) == found
    for branching in ("left", "right"):
        labels = ChartLabels.of(found)
        for tree in found:
            y = labels.encode(tree, branching)
            assert (y >= 0).sum() == 2 * len(tree.words) - 1
            assert labels.decode(y, tree.words) == tree
