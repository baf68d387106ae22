"""Tag schemes: what may follow what, in spans of any type, and layers that are held to it."""

from __future__ import annotations

import itertools

import pytest
import torch

import lnz
from lnz.nn import LinearChainCRF, transition_mask

B, T, L = 4, 7, 5


SPANS = {
    "BIO": (["O", "B-x", "I-x", "B-y", "I-y"], ["O B-x I-x B-x I-x I-x O B-y B-x", "B-y I-y"],
            ["I-x", "O I-x", "B-x I-y", "I-y I-y"]),
    "BIOES": (["O", "B-x", "I-x", "E-x", "S-x", "B-y", "I-y", "E-y", "S-y"],
              ["O B-x E-x S-y B-y I-y I-y E-y", "S-x S-x", "O"],
              ["B-x", "B-x O", "E-x", "B-x E-y", "B-x I-x", "S-x E-x", "I-x E-x", "B-x B-x E-x", "E-x E-x"]),
    "BILOU": (["O", "B-x", "I-x", "L-x", "U-x", "B-y", "I-y", "L-y", "U-y"],
              ["O B-x L-x U-y B-y I-y I-y L-y", "U-x U-x"],
              ["B-x", "B-x O", "L-x", "B-x L-y", "U-x L-x", "O I-x L-x"]),
    "IOB1": (["O", "B-x", "I-x", "B-y", "I-y"], ["I-x I-x B-x I-x I-y O I-y", "I-x B-x B-x", "I-y I-x"],
             ["B-x", "O B-x", "I-x B-y", "I-y I-x O B-x"]),
    "BMES": (["O", "B-x", "M-x", "E-x", "S-x", "B-y", "M-y", "E-y", "S-y"],
             ["O B-x E-x S-y B-y M-y M-y E-y", "S-x S-x"],
             ["B-x", "B-x O", "E-x", "B-x E-y", "S-x E-x", "O M-x E-x", "B-x M-x", "M-x E-x"]),
}  # fmt: skip


@pytest.mark.parametrize("scheme", SPANS)
def test_schemes_allow_and_forbid(scheme: str) -> None:
    tags, allowed, forbidden = SPANS[scheme]
    start, end, follows = transition_mask(tags, scheme)
    for sentences, wanted in ((allowed, 0.0), (forbidden, -torch.inf)):
        for sentence in sentences:
            y = [tags.index(tag) for tag in sentence.split()]
            score = start[y[0]] + end[y[-1]] + sum(follows[a, b] for a, b in itertools.pairwise(y))
            assert score == wanted, sentence


@pytest.mark.parametrize(("name", "other"), [("IOB2", "BIO"), ("IOBES", "BIOES")])
def test_schemes_of_two_names(name: str, other: str) -> None:
    for one, two in zip(transition_mask(SPANS[other][0], name), transition_mask(SPANS[other][0], other), strict=True):
        assert torch.equal(one, two)
    assert LinearChainCRF(2, tags=["O", "B-x"], scheme=name).constrained


def test_words_are_segmented_by_letters_alone() -> None:
    tags = ["B", "M", "E", "S"]
    start, end, follows = transition_mask(tags, "BMES")
    assert [tag for tag, score in zip(tags, start, strict=True) if score == 0] == ["B", "S"]
    assert [tag for tag, score in zip(tags, end, strict=True) if score == 0] == ["E", "S"]
    allowed = {a + b for (a, i), (b, j) in itertools.product(zip(tags, range(4), strict=True), repeat=2)
               if follows[i, j] == 0}  # fmt: skip
    assert allowed == {"BM", "BE", "MM", "ME", "EB", "ES", "SB", "SS"}


@pytest.mark.parametrize("scheme", ["BIO", "IOB1", "BIOES", "BMES", "BILOU"])
def test_a_type_may_have_any_name(scheme):
    """``O`` too, which is no tag outside of spans then: what is allowed does not depend on names."""
    letters = {"BIO": "BI", "IOB1": "BI", "BIOES": "BIES", "BMES": "BMES", "BILOU": "BILU"}[scheme]
    masks = []
    for names in (("O", "X"), ("P", "Q")):
        tags = ["O", *(f"{letter}-{name}" for name in names for letter in letters)]
        masks.append(transition_mask(tags, scheme))
    for one, two in zip(*masks, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("scheme", SPANS)
def test_constrained_layers_put_all_probability_on_what_is_allowed(scheme: str) -> None:
    tags, _, _ = SPANS[scheme]
    torch.manual_seed(0)
    crf = LinearChainCRF(len(tags), True, tags=tags, scheme=scheme)
    assert set(crf.state_dict()) == {"start_transitions", "end_transitions", "transitions"}
    emissions = 3 * torch.randn(20, 6, len(tags))
    mask = torch.arange(6) < torch.randint(1, 7, (20, 1))
    start, end, follows = transition_mask(tags, scheme)
    for y in crf.decode(emissions, mask):
        assert start[y[0]] + end[y[-1]] + sum(follows[a, b] for a, b in itertools.pairwise(y)) == 0
    gold = torch.tensor([y + [0] * (6 - len(y)) for y in crf.decode(emissions, mask)])
    value = crf(emissions, gold, mask)
    value.backward()
    assert all(torch.isfinite(p.grad).all() for p in crf.parameters())
    assert (crf.transitions.grad[follows == -torch.inf] == 0).all()


def test_masks_of_schemes_have_the_dtype_asked_for() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        assert {scores.dtype for scores in transition_mask(["O", "B-x"], dtype=dtype)} == {dtype}
    scores = transition_mask(["O", "B-x", "I-x"], dtype=torch.float64)[2]
    assert torch.isfinite(lnz.LinearChain(torch.zeros(4, 3, dtype=torch.float64), scores).log_partition)
    assert transition_mask(["O", "B-x"])[0].dtype == torch.get_default_dtype()
