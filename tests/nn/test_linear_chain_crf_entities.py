"""Posteriors of whole entities under each scheme, against enumeration of all taggings by a reader of its own."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import lnz
from lnz.nn import Entity, LinearChainCRF

SCHEMES = {
    "BIO": ["O", "B-x", "I-x", "B-y", "I-y"],
    "IOB2": ["I-y", "B-x", "O", "I-x", "B-y"],
    "IOB1": ["O", "I-x", "B-x", "I-y", "B-y"],
    "BIOES": ["O", "B-x", "I-x", "E-x", "S-x", "S-y"],
    "IOBES": ["O", "B-x", "I-x", "E-x", "S-x", "S-y"],
    "BILOU": ["O", "B-x", "I-x", "L-x", "U-x", "U-y"],
    "BMES": ["B", "M", "E", "S"],
}
T = 4


def layer(scheme: str, batch_first: bool = True) -> LinearChainCRF:
    names = SCHEMES[scheme]
    crf = LinearChainCRF(len(names), batch_first, tags=names, scheme=scheme).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_(generator=generator)
    return crf


def emissions_of(crf: LinearChainCRF, batch: int = 3, steps: int = T) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return 2 * torch.randn(batch, steps, crf.num_tags, dtype=torch.float64, generator=generator)


def read(names: list[str]) -> set[tuple[int, int, str]]:
    """The spans of a tagging, of any scheme: a letter that begins, or an I of another type than what was before it."""
    spans, begun = set(), None
    for t, name in enumerate([*names, "O"]):
        letter, _, kind = name.partition("-")
        if begun is not None and (letter in "OBSU" or kind != begun[1]):
            spans.add((begun[0], t, begun[1]))
            begun = None
        if letter != "O" and begun is None:
            begun = t, kind
    return spans


def enumerated(crf: LinearChainCRF, x: torch.Tensor) -> tuple[dict[tuple[int, int, str], float], set]:
    """The posterior of every span of one sequence ``[T, L]``, and the spans of the best tagging."""
    assert crf.tags is not None
    start, end, edge = (
        scores.detach() + mask
        for scores, mask in (
            (crf.start_transitions, crf.start_mask),
            (crf.end_transitions, crf.end_mask),
            (crf.transitions, crf.transition_mask),
        )
    )
    every = list(itertools.product(range(crf.num_tags), repeat=len(x)))
    index = torch.tensor(every)
    scores = start[index[:, 0]] + end[index[:, -1]] + x.gather(1, index.T).sum(0)
    scores = scores + edge[index[:, :-1], index[:, 1:]].sum(1)
    probabilities = scores.softmax(0)
    posterior: dict[tuple[int, int, str], float] = {}
    for y, p in zip(every, probabilities.tolist(), strict=True):
        for span in read([crf.tags[tag] for tag in y]) if p else ():
            posterior[span] = posterior.get(span, 0.0) + p
    return posterior, read([crf.tags[tag] for tag in every[int(scores.argmax())]])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("batch_first", [True, False])
def test_every_span_by_enumeration(scheme: str, batch_first: bool) -> None:
    crf = layer(scheme, batch_first)
    x = emissions_of(crf)
    posteriors = [enumerated(crf, row)[0] for row in x]
    kinds = sorted({name.partition("-")[2] for name in SCHEMES[scheme] if name != "O"})
    for start, end, kind in ((a, b, k) for a in range(T) for b in range(a + 1, T + 1) for k in kinds):
        given = x if batch_first else x.transpose(0, 1)
        found = crf.span_log_prob(given, torch.full((3,), start), [end] * 3, kind)
        wanted = [posterior.get((start, end, kind), 0.0) for posterior in posteriors]
        torch.testing.assert_close(found.exp().tolist(), wanted, rtol=0, atol=1e-9)
        assert all((p == 0) == math.isinf(value) for p, value in zip(wanted, found.tolist(), strict=True))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("batch_first", [True, False])
def test_entities_of_the_best_tagging_by_enumeration(scheme: str, batch_first: bool) -> None:
    crf = layer(scheme, batch_first)
    x = emissions_of(crf, 12)
    count = 0
    for row, entities in zip(x, crf.entities(x if batch_first else x.transpose(0, 1)), strict=True):
        posterior, best = enumerated(crf, row)
        assert [tuple(entity[:3]) for entity in entities] == sorted(best)
        for entity in entities:
            assert isinstance(entity, Entity)
            assert entity.probability == pytest.approx(posterior[entity[:3]], rel=0, abs=1e-9)
        count += len(entities)
    assert count > 6


@pytest.mark.parametrize("scheme", ["BIO", "IOB1", "BILOU"])
def test_steps_that_the_mask_leaves_out_are_skipped(scheme: str) -> None:
    """Positions are those of the emissions; an entity goes on over the holes."""
    crf = layer(scheme)
    x = emissions_of(crf, 8, 7)
    mask = torch.tensor([0, 1, 0, 1, 1, 0, 1]).bool().expand(8, 7).clone()
    mask[7] = False
    kept = mask[0].nonzero().flatten().tolist()
    spoilt = x.masked_fill(~mask[..., None], torch.nan)
    found = crf.entities(spoilt, mask)
    alone = crf.entities(x[:7, mask[0]])
    assert found[7] == []
    assert sum(map(len, alone)) > 3
    for here, there in zip(found, alone, strict=False):
        assert [(e.start, e.end, e.type) for e in here] == [(kept[e.start], kept[e.end - 1] + 1, e.type) for e in there]
        assert [e.probability for e in here] == pytest.approx([e.probability for e in there], abs=1e-12)
    for b, entities in enumerate(found):
        for e in entities:
            value = crf.span_log_prob(spoilt[b : b + 1], [e.start], [e.end], [e.type], mask[b : b + 1])
            assert value.exp().item() == pytest.approx(e.probability, abs=1e-12)


def test_a_type_per_sequence_and_gradients() -> None:
    crf = layer("IOB1")
    x = emissions_of(crf).requires_grad_()
    start, end, types = torch.tensor([0, 1, 2]), torch.tensor([2, 2, 4]), ["x", "y", "x"]
    together = crf.span_log_prob(x, start, end, types)
    for b in range(3):
        one = crf.span_log_prob(x[b : b + 1], start[b : b + 1], end[b : b + 1], types[b])
        torch.testing.assert_close(together[b], one[0])
    assert torch.autograd.gradcheck(lambda e: crf.span_log_prob(e, start, end, types), x)
    certain = torch.zeros_like(x).masked_fill(torch.tensor([0, 1, 1, 1, 1]).bool(), -torch.inf).requires_grad_()
    nowhere = crf.span_log_prob(certain, start, end, types)  # all is O
    assert torch.isneginf(nowhere).all()
    (gradient,) = torch.autograd.grad(nowhere.masked_fill(torch.isneginf(nowhere), 0.0).sum(), certain)
    assert (gradient == 0).all()


def test_allowed_tags_count_in_entities() -> None:
    crf = layer("BIO")
    x = emissions_of(crf, 6)
    allowed = torch.ones_like(x).bool()
    allowed[:, 1, 1:] = False  # step 1 is O
    for row, entities in zip(x.masked_fill(~allowed, -torch.inf), crf.entities(x, allowed=allowed), strict=True):
        posterior, best = enumerated(crf, row)
        assert {entity[:3] for entity in entities} == best
        for entity in entities:
            assert entity.probability == pytest.approx(posterior[entity[:3]], rel=0, abs=1e-9)
    assert torch.isneginf(crf.span_log_prob(x, [0] * 6, [2] * 6, "x", allowed=allowed)).all()


def test_half_precision_and_many_entities(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of few entities as in one; float32 to its rounding."""
    crf = layer("BIO")
    x = emissions_of(crf, 20, 30)
    whole = crf.entities(x)
    monkeypatch.setattr("lnz.nn.entities.ENTRIES", 1000)
    assert crf.entities(x) == whole
    single = crf.float().entities(x.float())
    for a, b in zip(single, whole, strict=True):
        assert [e[:3] for e in a] == [e[:3] for e in b]
        assert [e.probability for e in a] == pytest.approx([e.probability for e in b], abs=1e-5)
    assert crf.entities(x[:0].float()) == []
    assert crf.entities(x[:2, :0].float()) == [[], []]


def test_a_tag_that_the_layer_does_not_have_is_impossible() -> None:
    crf = LinearChainCRF(3, True, tags=["O", "B-x", "E-x"], scheme="BIOES")
    x = torch.zeros(1, 4, 3)
    assert crf.span_log_prob(x, [0], [1], "x").item() == -math.inf  # no S-x
    assert crf.span_log_prob(x, [0], [3], "x").item() == -math.inf  # no I-x
    assert crf.span_log_prob(x, [0], [2], "x").item() > -math.inf


def test_what_makes_no_sense() -> None:
    plain, x = LinearChainCRF(5, True), torch.zeros(2, 4, 5)
    for call in (lambda: plain.entities(x), lambda: plain.span_log_prob(x, [0, 0], [1, 1], "x")):
        with pytest.raises(ValueError, match=r"needs the names of the tags, LinearChainCRF\(…, tags="):
            call()
    crf = LinearChainCRF(5, True, tags=SCHEMES["BIO"])
    with pytest.raises(ValueError, match="types: expected 'x' or 'y', got 'z'"):
        crf.span_log_prob(x, [0, 0], [1, 1], ["x", "z"])
    with pytest.raises(ValueError, match="types: expected a name for each of 2 sequences, or one for all, got 3"):
        crf.span_log_prob(x, [0, 0], [1, 1], ["x"] * 3)
    with pytest.raises(ValueError, match=r"end: expected shape \[2\], a step per sequence, got \[1\]"):
        crf.span_log_prob(x, [0, 0], [1], "x")
    with pytest.raises(TypeError, match="start: expected integers"):
        crf.span_log_prob(x, [0.5, 0], [1, 1], "x")  # type: ignore[list-item]
    for start, end in ((-1, 2), (2, 2), (3, 5)):
        with pytest.raises(
            ValueError, match=f"expected 0 <= start < end <= 4, got start {start}, end {end} in sentence 1"
        ):
            crf.span_log_prob(x, [0, start], [1, end], "x")
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with pytest.raises(ValueError, match="mask: expected a step in the span from 2 to 4 of sentence 1, got none"):
        crf.span_log_prob(x, [0, 2], [1, 4], "x", mask)
    alone = LinearChainCRF(2, True, tags=["B-x", "E-x"], scheme="BIOES")
    for call in (
        lambda: alone.entities(torch.zeros(1, 1, 2)),
        lambda: alone.span_log_prob(torch.zeros(1, 1, 2), [0], [1], "x"),
    ):
        with pytest.raises(lnz.InfeasibleError, match=r"no tagging has a finite score in batch entries \[0\]"):
            call()
