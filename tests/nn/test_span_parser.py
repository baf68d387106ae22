"""The parser over spans, on charts made of bracketed trees."""

import pytest
import torch

from lnz.io import ChartLabels, parse_trees
from lnz.nn import SpanParser, WordEncoder

TREES = list(parse_trees("(S (NP (DT the) (NN cat)) (VP (VBD sat)) (. .)) (S (VP (VB sit)))"))
LABELS = ChartLabels.of(TREES)


def batch():
    return {"tokens": [tree.words for tree in TREES], "lengths": torch.tensor([4, 1])}


def gold():
    y = torch.full((2, 4, 4), -100)
    for row, tree in zip(y, TREES, strict=True):
        row[: len(tree.words), : len(tree.words)] = LABELS.encode(tree)
    return y


def parser():
    torch.manual_seed(0)
    words = sorted({word for tree in TREES for word in tree.words})
    encoder = WordEncoder(words, list("acehist."), width=16, word_width=8, dropout=0.0, word_dropout=0.0)
    return SpanParser(encoder, len(LABELS), hidden=16, dropout=0.0)


def test_its_loss_is_that_of_the_distribution():
    model = parser()
    torch.testing.assert_close(model.nll(batch(), gold()), -model(batch()).log_prob(gold()).sum())
    assert model(batch()).scores.shape == (2, 4, 4, len(LABELS))


def test_learns():
    """A few steps by maximum likelihood: both ways of decoding find the gold trees."""
    model = parser()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        model.nll(batch(), gold()).backward()
        optimizer.step()
    for by in ("mbr", "argmax"):
        found = model.eval().decode(batch(), by)
        assert [LABELS.decode(y, tree.words) for y, tree in zip(found, TREES, strict=True)] == TREES
    with pytest.raises(ValueError, match="by: expected 'mbr' or 'argmax', got 'best'"):
        model.decode(batch(), "best")
