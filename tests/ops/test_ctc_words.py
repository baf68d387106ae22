"""Best alignments and posteriors where words may be left out, against every path of states."""

from itertools import product

import pytest
import torch

from lnz.ops import backend, ctc

WAYS = ("reference", "cpu")


def every_path(x, of, words):
    """ln of the weight of every path of states: written from the definition, arc by arc."""
    T, S = x.shape[1], of.labels.shape[1]
    begins, costs, labels = words.begins.tolist(), words.costs.tolist(), of.labels[0].tolist()

    def arc(a, b):
        if b == a:
            return 0.0 if b % 2 == 0 or of.stays else -torch.inf
        if b == a + 1:
            return 0.0
        if b == a + 2 and b % 2 == 1:
            return 0.0 if of.direct[0, b // 2] else -torch.inf
        if a % 2 == 0 and b % 2 == 1 and a // 2 in begins[:-1] and b // 2 in begins[:-1] and a < b:
            return -sum(costs[begins.index(a // 2) : begins.index(b // 2)])
        return -torch.inf

    def end(a):
        if a >= 2 * S - 1:
            return 0.0
        at = (a + 1) // 2
        return -sum(costs[begins.index(at) :]) if at in begins[:-1] else -torch.inf

    found = {}
    for path in product(range(2 * S + 1), repeat=T):
        score = sum(x[0, t, of.blank if k % 2 == 0 else labels[k // 2]].item() for t, k in enumerate(path))
        score += sum(arc(a, b) for a, b in zip((0, *path), path, strict=False)) + end((0, *path)[-1])
        if score > -torch.inf:
            found[path] = score
    return found


def left_out(path, words, S):
    """Which words have no label on a path."""
    spoken = {k // 2 for k in path if k % 2}
    return torch.tensor([int(b) not in spoken for b in words.begins[:-1]], dtype=torch.float64)


CASES = {
    "none may be left out": ([1, 2, 1], [0, 2, 3], [2, 3], [torch.inf, torch.inf]),
    "the first": ([1, 2, 1], [0, 2, 3], [2, 3], [0.5, torch.inf]),
    "the last": ([1, 2, 1], [0, 2, 3], [2, 3], [torch.inf, 1.0]),
    "any": ([1, 2, 2], [0, 1, 2, 3], [1, 2, 3], [0.3, -0.2, 1.0]),
    "with a separator": ([1, 3, 2], [0, 2, 3], [1, 3], [0.1, 0.2]),
    "two in the middle": ([1, 2, 1, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4], [torch.inf, 0.4, 0.1, torch.inf]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equal_the_sum_over_every_path(way, stays, case):
    labels, begins, ends, costs = case
    S, T = len(labels), 5 if len(labels) < 4 else 4
    torch.manual_seed(0)
    x = 2 * torch.randn(1, T, 4, dtype=torch.float64)
    of = ctc.lattice(torch.tensor([labels]), torch.tensor([T]), torch.tensor([S]), 0, stays)
    words = ctc.Words(torch.tensor(begins), torch.tensor(ends), torch.tensor(costs, dtype=torch.float64))
    paths = every_path(x, of, words)
    weights = torch.tensor(list(paths.values()), dtype=torch.float64).softmax(0)
    asked = torch.tensor([t % len(ends) if t else -1 for t in range(T)])
    within = torch.zeros(T, dtype=torch.float64)
    for path, weight in zip(paths, weights, strict=True):
        for t, w in enumerate(asked.tolist()):
            if w >= 0 and 2 * begins[w] < path[t] < 2 * ends[w]:
                within[t] += weight
    gone = sum(weight * left_out(path, words, S) for path, weight in zip(paths, weights, strict=True))
    with backend(way):
        states, score = ctc.best_states(x, of, words)
        posteriors = ctc.word_posteriors(x, of, words, asked)
    assert tuple(states.tolist()) == max(paths, key=paths.__getitem__)
    torch.testing.assert_close(score.item(), max(paths.values()))
    torch.testing.assert_close(posteriors.within, within, rtol=0, atol=1e-12)
    torch.testing.assert_close(posteriors.left_out, gone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_kernels_equal_the_reference_on_longer_texts(dtype, scale):
    torch.manual_seed(1)
    T, S = 190, 40
    x = scale * torch.randn(1, T, 7, dtype=dtype)
    of = ctc.lattice(torch.randint(1, 7, (1, S)), torch.tensor([T]), torch.tensor([S]), 0, True)
    begins = torch.tensor([*range(0, S, 4), S])
    words = ctc.Words(begins, begins[1:] - 1, torch.where(torch.arange(10) % 3 > 0, 0.5 * scale, torch.inf).double())
    asked = torch.arange(T) * 10 // T
    results = []
    for way in WAYS:
        with backend(way):
            results.append((*ctc.best_states(x, of, words), *ctc.word_posteriors(x, of, words, asked)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_without_arcs_over_words_equal_the_marginals_of_alignments():
    """Every label a word, and no two alike: then the posterior of a word is the marginal of its class."""
    torch.manual_seed(2)
    T, S = 60, 9
    x = torch.randn(1, T, S + 1, dtype=torch.float64)
    of = ctc.lattice(torch.arange(1, S + 1)[None], torch.tensor([T]), torch.tensor([S]), 0, True)
    begins = torch.arange(S + 1)
    words = ctc.Words(begins, begins[1:], torch.full((S,), torch.inf, dtype=torch.float64))
    states, score = ctc.best_states(x, of, words)
    best, total = ctc.topk(x, of, 1)
    assert torch.equal(torch.where(states % 2 == 1, states // 2 + 1, 0), best[0, 0])
    torch.testing.assert_close(score, total[0, 0])
    asked = torch.arange(T) * S // T
    expected = ctc.marginals(x, of)[1][0].gather(1, asked[:, None] + 1)[:, 0]
    torch.testing.assert_close(ctc.word_posteriors(x, of, words, asked).within, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_too_few_frames_have_no_best_states(way):
    of = ctc.lattice(torch.tensor([[1, 1]]), torch.tensor([2]), torch.tensor([2]), 0, True)
    words = ctc.Words(torch.tensor([0, 2]), torch.tensor([2]), torch.tensor([torch.inf], dtype=torch.float64))
    with backend(way):
        states, score = ctc.best_states(torch.zeros(1, 2, 2), of, words)
    assert states.tolist() == [-1, -1]
    assert score == -torch.inf
