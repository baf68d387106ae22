"""The grammar that is read off a treebank: relative frequencies, and derivations as :class:`lnz.PCFG` finds them."""

from __future__ import annotations

import math

import pytest
import torch

import lnz
from lnz.io import ChartLabels, Tree, parse_trees
from lnz.tasks.parse.treebank_grammar import TreebankGrammar

TEXT = """
(S (NP (DT the) (NN cat)) (VP (VB saw) (NP (DT the) (NN dog))))
(S (NP (DT the) (NN cat)) (VP (VB saw) (NP (NN dog)) (PP (IN with) (NP (NN cats)))))
(S (NP (NN cats)) (VP (VB saw) (NP (NP (DT the) (NN dog)) (PP (IN with) (NP (NN cats))))))
(S (NP (DT the) (JJ old) (NN dog)) (VP (VB saw)))
"""


def apart(tree: Tree) -> tuple[Tree, list[str]]:
    """A tree without its tags, and these."""
    last = {c.start: k for k, c in enumerate(tree.constituents) if c.stop == c.start + 1}
    tags = [tree.constituents[last[word]].label for word in range(len(tree.words))]
    rest = tuple(c for k, c in enumerate(tree.constituents) if k not in last.values())
    return Tree(tree.words, rest), tags


@pytest.fixture(scope="module")
def read() -> tuple[TreebankGrammar, ChartLabels, list[tuple[torch.Tensor, list[str]]]]:
    trees = [apart(tree) for tree in parse_trees(TEXT)]
    labels = ChartLabels.of(tree for tree, _ in trees)
    tags = sorted({tag for _, own in trees for tag in own})
    charts = [(labels.encode(tree), own) for tree, own in trees]
    return TreebankGrammar.of(charts, len(labels), tags), labels, charts


def test_rules_have_their_relative_frequencies(read) -> None:
    grammar, labels, _ = read
    NP, VP, PP = (labels.chains.index((name,)) for name in ("NP", "VP", "PP"))
    tag = {name: 2 * len(labels) + k for name, k in grammar.tags.items()}
    rules = {(a, b, c): p for a, b, c, p in zip(*(x.tolist() for x in (
        grammar.parents, grammar.left, grammar.right, grammar.log_rules.exp())), strict=True)}  # fmt: skip
    # ten noun phrases: the cat, the dog, the cat, dog, cats, cats, the dog with cats, the dog, cats, the old dog
    assert rules[NP, tag["DT"], tag["NN"]] == pytest.approx(4 / 10)
    assert rules[NP, NP, PP] == pytest.approx(1 / 10)
    assert rules[NP, tag["DT"], len(labels) + NP] == pytest.approx(1 / 10)
    assert rules[len(labels) + NP, tag["JJ"], tag["NN"]] == pytest.approx(1.0)
    assert grammar.log_words[NP, grammar.tags["NN"]].exp() == pytest.approx(4 / 10)
    assert rules[VP, tag["VB"], NP] == pytest.approx(2 / 4)
    assert rules[PP, tag["IN"], NP] == pytest.approx(1.0)


def test_derivations_are_those_of_a_pcfg(read) -> None:
    """Constituents of one word are preterminals there, and rules have each label both ways."""
    grammar, labels, charts = read
    NT, PT = 2 * len(labels), grammar.symbols
    rules = torch.full((NT, NT + PT, NT + PT), -torch.inf, dtype=torch.float64)
    for a, b, c, p in zip(grammar.parents, grammar.left, grammar.right, grammar.log_rules, strict=True):
        for left in {int(b), NT + int(b)} - set(range(NT, NT + int(b))):
            for right in {int(c), NT + int(c)} - set(range(NT, NT + int(c))):
                rules[a, left, right] = p
    for chart, own in charts:
        words = grammar.log_words[:, [grammar.tags[tag] for tag in own]].T.double()
        p = lnz.PCFG(grammar.log_roots[:NT].double(), rules, words)
        best, found = grammar.parse(own)
        assert found == pytest.approx(p.topk(1)[1].item(), abs=1e-5)
        if "IN" not in own:  # else there are two readings: what is done with cats, and what is with them
            assert torch.equal(best.clamp(min=-1), chart)


def test_what_has_no_derivation(read) -> None:
    grammar, _, _ = read
    for tags in (["IN", "IN"], ["NN", "XX"], ["IN"]):
        chart, score = grammar.parse(tags)
        assert score == -math.inf
        assert (chart == -1).all()
