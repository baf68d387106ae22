"""Biaffine arcs against their formula, and the parser on top against enumeration."""

import itertools

import pytest
import torch

import lnz
from lnz.errors import InfeasibleError
from lnz.nn import BiaffineArcs, DependencyParser, WordEncoder


def drawn(module):
    """A module whose parameters are all random: forms that begin as 0 would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return module.double().eval()


class TestBiaffineArcs:
    def test_the_formula(self):
        arcs = drawn(BiaffineArcs(6, 3, arc_width=4, label_width=2))
        features = torch.randn(2, 3, 6, dtype=torch.double)
        scores = arcs(features)
        assert scores.shape == (2, 4, 4, 3)
        rooted = torch.cat((arcs.root.expand(2, 1, 6), features), 1)

        def of(layer):
            return torch.nn.functional.leaky_relu(rooted @ layer.weight.T + layer.bias, 0.1)

        d, h = of(arcs.dependent), of(arcs.head)
        ld, lh = of(arcs.labelled_dependent), of(arcs.labelled_head)
        one = torch.ones(1, dtype=torch.double)
        for b, word, head in itertools.product(range(2), range(4), range(4)):
            arc = torch.cat((d[b, word], one)) @ arcs.arc @ h[b, head]
            x, y = torch.cat((ld[b, word], one)), torch.cat((lh[b, head], one))
            label = torch.stack([x @ table @ y for table in arcs.label]).log_softmax(0)
            torch.testing.assert_close(scores[b, word, head], arc + label)

    def test_labels_of_given_heads(self):
        arcs = drawn(BiaffineArcs(6, 3, arc_width=4, label_width=2))
        roles = arcs.roles(torch.randn(2, 3, 6, dtype=torch.double))
        heads = torch.tensor([[0, 2, 0, 1], [0, 0, 1, -100]])
        every, some = arcs.labels(roles), arcs.labels_of(roles, heads)
        chosen = every.gather(2, heads.clamp(min=0)[..., None, None].expand(2, 4, 1, 3)).squeeze(2)
        torch.testing.assert_close(some, chosen)

    def test_without_labels(self):
        arcs = drawn(BiaffineArcs(6, arc_width=4))
        p = arcs.distribution(torch.randn(2, 3, 6, dtype=torch.double), [3, 2], projective=True)
        assert (p.labelled, p.projective, p.scores.shape) == (False, True, (2, 4, 4))
        with pytest.raises(TypeError, match="labels: there are none; make BiaffineArcs with num_labels"):
            arcs.labels(arcs.roles(torch.randn(1, 2, 6, dtype=torch.double)))

    def test_any_batch_shape_and_no_words(self):
        arcs = BiaffineArcs(6, 2, arc_width=4, label_width=2)
        assert arcs(torch.randn(6, 3)[:, :0].new_zeros(0, 6)).shape == (1, 1, 2)
        assert arcs(torch.randn(2, 3, 4, 6)).shape == (2, 3, 5, 5, 2)

    def test_sizes(self):
        for wrong in ({"width": 0}, {"width": 4, "num_labels": 0}, {"width": 4, "arc_width": 0}):
            with pytest.raises(ValueError, match="expected a positive integer, got 0"):
                BiaffineArcs(**wrong)


def parser(**settings):
    encoder = WordEncoder(["a", "b"], list("ab"), tags=["X"], width=6, word_width=3, character_width=4, tag_width=2)
    return drawn(DependencyParser(encoder, 2, arc_width=4, label_width=3, dropout=0.0, **settings))


def batch():
    tokens, pos = [("a", "b", "ab"), ("b",)], [("X", None, "X"), (None,)]
    return {"tokens": tokens, "pos": pos, "lengths": torch.tensor([3, 1])}


TREES = torch.tensor([[[0, 0], [2, 1], [0, 0], [2, 1]], [[0, 0], [0, 1], [-100, -100], [-100, -100]]])


class TestDependencyParser:
    def test_its_distribution_sums_to_one_over_labelled_trees(self):
        p = parser()(batch())
        heads = [y for y in itertools.product(range(4), repeat=3) if is_tree(y)]
        assert len(heads) == 9  # 3² = n^(n−1) rooted trees on three words
        trees = [[(0, 0), *zip(y, r, strict=True)] for y in heads for r in itertools.product(range(2), repeat=3)]
        every = torch.tensor(trees).unsqueeze(1).expand(-1, 2, -1, -1)
        torch.testing.assert_close(p.log_prob(every)[:, 0].logsumexp(0), torch.zeros((), dtype=torch.double))

    @pytest.mark.parametrize("projective", [False, True])
    @pytest.mark.parametrize("single_root", [False, True])
    def test_its_loss_is_that_of_the_distribution(self, projective, single_root):
        model = parser(projective=projective, single_root=single_root)
        expected = -model(batch()).log_prob(TREES).sum()
        torch.testing.assert_close(model.nll(batch(), TREES), expected)
        mine = torch.autograd.grad(model.nll(batch(), TREES), list(model.parameters()))
        theirs = torch.autograd.grad(-model(batch()).log_prob(TREES).sum(), list(model.parameters()))
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b)

    def test_unknown_heads_are_summed_over(self):
        """With their relations, which then count for nothing."""
        model, trees = parser(), TREES.clone()
        trees[0, 1, 0] = -100
        partly = trees.clone()
        partly[0, 1, 1] = -100
        torch.testing.assert_close(model.nll(batch(), trees), -model(batch()).log_prob(partly).sum())

    def test_decoding(self):
        model, words = parser(), batch()
        p = model.distribution(words)
        assert torch.equal(model.decode(words, "argmax"), p.argmax())
        best = model.decode(words)
        assert torch.equal(best, p.minimum_bayes_risk())
        assert (best[1, 2:] == -100).all()
        with pytest.raises(ValueError, match="by: expected 'mbr' or 'argmax', got 'best'"):
            model.decode(words, "best")

    def test_impossible_trees_are_told(self):
        crossing = TREES.clone()
        crossing[0, 1:, 0] = torch.tensor([3, 0, 2])
        with pytest.raises(InfeasibleError):
            parser(projective=True).nll(batch(), crossing)
        assert parser().nll(batch(), crossing).isfinite()

    def test_learns(self):
        """A few steps by maximum likelihood: the gold trees become the best ones."""
        torch.manual_seed(0)
        encoder = WordEncoder(["a", "b"], list("ab"), tags=["X"], width=8, word_width=4, dropout=0.0, word_dropout=0.0)
        model = DependencyParser(encoder, 2, arc_width=8, label_width=4, dropout=0.0)
        optimizer = torch.optim.Adam(model.parameters(), 0.03)
        for _ in range(40):
            optimizer.zero_grad()
            model.nll(batch(), TREES).backward()
            optimizer.step()
        assert torch.equal(model.eval().decode(batch()), torch.where(TREES == -100, -100, TREES))
        assert lnz.objectives.nll(model(batch()), TREES) < 0.1


def is_tree(y):
    """One root, and every way up ends there."""
    if sum(head == 0 for head in y) != 1:
        return False
    for word in range(1, len(y) + 1):
        for _ in y:
            word = y[word - 1] if word else 0  # noqa: PLW2901
        if word:
            return False
    return True
