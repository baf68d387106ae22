"""Which steps and tags count: ignore_index, allowed label sets, decoding to a tensor."""

from __future__ import annotations

import copy
import itertools
import warnings

import pytest
import torch

import lnz
from lnz.errors import LatentTagsWarning
from lnz.nn import LinearChainCRF

B, T, L = 3, 6, 4


def layer(batch_first: bool = True, **options: object) -> LinearChainCRF:
    crf = LinearChainCRF(L, batch_first, **options).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_(generator=generator)
    return crf


def inputs(batch_first: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    emissions = torch.randn(B, T, L, dtype=torch.float64, generator=generator)
    tags = torch.randint(L, (B, T), generator=generator)
    return (emissions, tags) if batch_first else (emissions.transpose(0, 1), tags.T)


HOLES = torch.tensor([[0, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]]).bool()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("index", [-100, -1, 7])
def test_ignored_steps_are_skipped_as_if_gathered(batch_first: bool, masked: bool, index: int) -> None:
    """Loss and all gradients; NaN at what is skipped."""
    crf, (emissions, tags) = layer(batch_first, ignore_index=index), inputs(batch_first)
    first = (lambda x: x) if batch_first else (lambda x: x.transpose(0, 1))
    marked = torch.where(first(HOLES), tags, index)
    spoilt = emissions.masked_fill(~first(HOLES).unsqueeze(-1), torch.nan).requires_grad_()
    values = crf(spoilt, marked, first(torch.ones_like(HOLES)) if masked else None, reduction="none")
    leaves = tuple(crf.parameters())
    for b in range(B):
        x = first(emissions)[b][HOLES[b]].requires_grad_()
        alone = layer(batch_first)(first(x[None]), first(first(tags)[b][HOLES[b]][None]), reduction="none")[0]
        torch.testing.assert_close(values[b], alone, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(values.sum(), (spoilt, *leaves))
    plain, gathered = layer(batch_first), emissions.clone().requires_grad_()
    alone = sum(
        plain(first(first(gathered)[b][HOLES[b]][None]), first(first(tags)[b][HOLES[b]][None]), reduction="none")[0]
        for b in range(B)
    )
    wanted = torch.autograd.grad(alone, (gathered, *plain.parameters()))  # type: ignore[arg-type]
    for actual, right in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(actual, right, rtol=0, atol=1e-12)


def test_ignored_steps_and_the_mask_both_leave_out() -> None:
    crf, (emissions, tags) = layer(ignore_index=-100), inputs()
    mask = torch.arange(T) < torch.tensor([5, 3, 6])[:, None]
    marked = tags.masked_fill(~HOLES, -100)
    wanted = layer()(emissions, tags, mask & HOLES, reduction="token_mean")
    torch.testing.assert_close(crf(emissions, marked, mask, reduction="token_mean"), wanted)
    torch.testing.assert_close(crf(emissions, marked.int(), mask.to(torch.uint8), reduction="token_mean"), wanted)
    weights = {"class_weights": [0.5, 1.0, 2.0, 1.0]}
    weighted = layer(ignore_index=-100, **weights)(emissions, marked, mask)
    torch.testing.assert_close(weighted, layer(**weights)(emissions, tags, mask & HOLES))


def test_another_ignored_index_leaves_minus_100_latent() -> None:
    crf, (emissions, tags) = layer(ignore_index=-1), inputs()
    tags[0, 1], tags[1, 2] = -1, -100
    mask = torch.ones(B, T).bool()
    mask[0, 1] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = crf(emissions, tags)
    torch.testing.assert_close(value, layer(latent_tags=True)(emissions, tags, mask))


def test_latent_tags_warn_once_and_say_what_to_do() -> None:
    crf, (emissions, tags) = layer(), inputs()
    mask = torch.ones(B, T).bool()
    tags[0, 5], mask[0, 5] = -100, False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crf(emissions, tags, mask)  # padding: as everybody has it
    tags[1, 2] = -100
    message = r"^tags: -100 at a step of the mask is latent.*ignore_index=-100\) skips.*latent_tags=True says"
    with pytest.warns(LatentTagsWarning, match=message) as caught:
        value = crf(emissions, tags, mask)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert crf(emissions, tags, mask) == value
        assert layer(latent_tags=True)(emissions, tags, mask) == value
        copy.deepcopy(crf)(emissions, tags, mask)
    with pytest.raises(ValueError, match="latent_tags: -100 cannot be latent and skipped"):
        LinearChainCRF(3, ignore_index=-100, latent_tags=True)
    with pytest.raises(TypeError, match="ignore_index: expected an integer, got '-100'"):
        LinearChainCRF(3, ignore_index="-100")  # type: ignore[arg-type]


def test_ignored_steps_under_compile() -> None:
    crf, (emissions, tags) = layer(ignore_index=-100), inputs()
    tags = tags.masked_fill(~HOLES, -100)
    torch.compiler.reset()
    compiled = torch.compile(crf, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(emissions, tags), crf(emissions, tags))


def sets() -> torch.Tensor:
    """Label sets in which every step has a tag."""
    allowed = torch.rand(B, T, L, generator=torch.Generator().manual_seed(2)) < 0.5
    allowed[..., 1] |= ~allowed.any(-1)
    return allowed


@pytest.mark.parametrize("batch_first", [True, False])
def test_allowed_tags_by_enumeration(batch_first: bool) -> None:
    crf, (emissions, _) = layer(batch_first), inputs(batch_first)
    first = (lambda x: x) if batch_first else (lambda x: x.transpose(0, 1))
    allowed, x = sets(), first(emissions)
    mask = torch.arange(T) < torch.tensor([6, 4, 1])[:, None]
    allowed[~mask] = False  # of padding, nothing is asked
    gold = allowed.int().argmax(-1)
    given = {"mask": first(mask), "allowed": first(allowed)}
    values = crf(emissions, first(gold), reduction="none", **given)
    marginals, best = first(crf.marginals(emissions, **given)), crf.decode(emissions, **given)
    assert torch.equal(crf.best_tags(emissions, **given), crf.decode(emissions, padding_value=-100, **given))
    four, four_scores = crf.topk(emissions, 4, **given)
    for b, n in enumerate(mask.sum(1).tolist()):
        every = list(itertools.product(*(allowed[b, t].nonzero().flatten().tolist() for t in range(n))))
        scores = torch.stack([layer_score(crf, x[b], y) for y in every])
        wanted = layer_score(crf, x[b], gold[b, :n].tolist()) - scores.logsumexp(0)
        torch.testing.assert_close(values[b], wanted, rtol=0, atol=1e-10)
        right = torch.zeros(T, L, dtype=torch.float64)
        for y, p in zip(every, scores.softmax(0).detach(), strict=True):
            right[range(n), list(y)] += p
        torch.testing.assert_close(marginals[b].detach(), right, rtol=0, atol=1e-10)
        order = scores.argsort(descending=True)[:4]
        assert best[b] == list(every[order[0]])
        assert four[b] == [list(every[k]) for k in order]
        torch.testing.assert_close(four_scores[: len(order), b], scores[order].detach())


def layer_score(crf: LinearChainCRF, x: torch.Tensor, y: tuple[int, ...] | list[int]) -> torch.Tensor:
    score = crf.start_transitions[y[0]] + crf.end_transitions[y[-1]] + sum(x[t, tag] for t, tag in enumerate(y))
    return score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(y))


def test_gradients_of_what_is_not_allowed_are_0() -> None:
    crf, (emissions, _) = layer(), inputs()
    allowed = sets()
    gold = allowed.int().argmax(-1)
    spoilt = emissions.masked_fill(~allowed, torch.nan).requires_grad_()
    (gradient,) = torch.autograd.grad(crf(spoilt, gold, allowed=allowed), spoilt)
    assert (gradient[~allowed] == 0).all()
    assert torch.autograd.gradcheck(lambda x: crf(x, gold, allowed=allowed), emissions.requires_grad_())


def test_partial_labels_as_sets_are_a_difference_of_two_ln_z() -> None:
    """−ln P(every tag is in its set): what a corpus with sets of tags trains by."""
    crf, (emissions, _) = layer(), inputs()
    allowed = sets()
    found = crf.distribution(emissions, allowed=allowed).log_partition - crf.distribution(emissions).log_partition
    for b in range(B):
        every = list(itertools.product(range(L), repeat=T))
        scores = torch.stack([layer_score(crf, emissions[b], y) for y in every])
        fits = torch.tensor([all(allowed[b, t, tag] for t, tag in enumerate(y)) for y in every])
        torch.testing.assert_close(found[b], scores.softmax(0)[fits].sum().log(), rtol=0, atol=1e-10)
        if b == 0:
            break


@pytest.mark.parametrize("batch_first", [True, False])
def test_sets_that_make_no_sense(batch_first: bool) -> None:
    crf, (emissions, tags) = layer(batch_first), inputs(batch_first)
    first = (lambda x: x) if batch_first else (lambda x: x.transpose(0, 1))
    allowed = torch.ones(B, T, L).bool()
    allowed[1, 4] = False
    calls = (
        lambda **given: crf(emissions, tags, **given),
        lambda **given: crf.decode(emissions, **given),
        lambda **given: crf.marginals(emissions, **given),
        lambda **given: crf.distribution(emissions, **given),
    )
    for call in calls:
        message = "^allowed: expected a tag at every step of the mask, got none in sentence 1, step 4$"
        with pytest.raises(lnz.InfeasibleError, match=message) as error:
            call(allowed=first(allowed))
        assert error.value.entries == (1,)
        call(allowed=first(torch.ones(B, T, L)))  # 0 and 1
        with pytest.raises(ValueError, match=r"^allowed: expected shape \[\d, \d, 4\], got \[\d, \d, 3\]"):
            call(allowed=first(allowed)[..., 1:])
        with pytest.raises(ValueError, match=r"^allowed: expected bool, or 0 and 1, got 2"):
            call(allowed=first(allowed.int() * 2))
    allowed[1, 4] = True
    gold = int(first(tags)[2, 3])
    allowed[2, 3, gold] = False
    with pytest.raises(lnz.InfeasibleError, match=rf"in sentence 2, step 3, tag {gold} is not among the allowed tags"):
        crf(emissions, tags, allowed=first(allowed))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("holes", [True, False])
def test_decoding_to_a_tensor(batch_first: bool, holes: bool) -> None:
    crf, (emissions, _) = layer(batch_first), inputs(batch_first)
    first = (lambda x: x) if batch_first else (lambda x: x.transpose(0, 1))
    mask = HOLES if holes else torch.arange(T) < torch.tensor([6, 0, 2])[:, None]
    lists, scores = crf.decode(emissions, first(mask), return_scores=True)
    for value in (-100, 0, -1):
        best = crf.decode(emissions, first(mask), padding_value=value)
        assert best.dtype == torch.int64
        assert best.shape == emissions.shape[:2]
        assert [row[there].tolist() for row, there in zip(first(best), mask, strict=True)] == lists
        assert (first(best)[~mask] == value).all()
        again, same = crf.decode(emissions, first(mask), padding_value=value, return_scores=True)
        assert torch.equal(again, best)
        assert torch.equal(same, scores)
    whole = first(crf.decode(emissions, padding_value=9))
    assert whole.tolist() == crf.decode(emissions)
    with pytest.raises(TypeError, match="padding_value: expected an integer, got 'x'"):
        crf.decode(emissions, padding_value="x")  # type: ignore[call-overload]


def test_soft_targets_by_enumeration() -> None:
    """Distillation: the cross-entropy of one layer's distribution against another's, and its gradient."""
    student, (emissions, _) = layer(), inputs()
    teacher = layer()
    with torch.no_grad():
        teacher.transitions.mul_(-1)
    x, theirs = emissions[:, :4].clone().requires_grad_(), emissions[:, :4].flip(2)
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 0]]).bool()
    with torch.no_grad():
        p = teacher.distribution(theirs, mask)
    found = p.cross_entropy(student.distribution(x, mask))
    y = x.detach().clone().requires_grad_()
    wanted = []
    for b in range(B):
        n = int(mask[b].sum())
        every = list(itertools.product(range(L), repeat=n))
        ours = torch.stack([layer_score(student, y[b][mask[b]], k) for k in every]).log_softmax(0)
        soft = torch.stack([layer_score(teacher, theirs[b][mask[b]], k) for k in every]).softmax(0).detach()
        wanted.append(-(soft * ours).sum())
    torch.testing.assert_close(found, torch.stack(wanted), rtol=0, atol=1e-10)
    gradients = [
        torch.autograd.grad(value.sum(), (leaf, *student.parameters()))
        for value, leaf in ((found, x), (torch.stack(wanted), y))
    ]
    for actual, right in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, right, rtol=0, atol=1e-10)
