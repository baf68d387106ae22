"""Scores of spans against their formula."""

import pytest
import torch

from lnz.nn import SpanScorer


def test_the_formula():
    """A span's features are what was read between its ends, from either side."""
    torch.manual_seed(0)
    scorer, features = SpanScorer(6, 4, hidden=5).double().eval(), torch.randn(2, 4, 6, dtype=torch.double)
    scores = scorer(features, [4, 2])
    assert scores.shape == (2, 4, 4, 4)
    assert (scores[..., 0] == 0).all()
    for b, n in enumerate((4, 2)):
        ahead = [scorer.start, *features[b, :n, :3]]
        back = [*features[b, :n, 3:], scorer.stop]
        for i in range(n):
            for j in range(i, n):
                span = torch.cat((ahead[j + 1] - ahead[i], back[j + 1] - back[i]))
                hidden = torch.relu(scorer.normalise(scorer.project(span)))
                torch.testing.assert_close(scores[b, i, j, 1:], scorer.label(hidden))


def test_padding_is_ignored():
    scorer, features = SpanScorer(6, 3).eval(), torch.randn(2, 4, 6)
    alone = scorer(features[1:, :2])
    features[1, 2:] = 7.0
    torch.testing.assert_close(scorer(features, torch.tensor([4, 2]))[1, :2, :2], alone[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 3), "width: expected an even positive integer, got 5"),
        ((4, 1), "num_labels: expected at least 2, the empty label and another, got 1"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpanScorer(*arguments)
