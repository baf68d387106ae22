"""LinearChainCRF: what it replaces, masks with holes, constraints; each number also from enumeration or LinearChain."""

from __future__ import annotations

import inspect
import itertools

import pytest
import torch

import lnz
from lnz.nn import LinearChainCRF, transition_mask

B, T, L = 4, 7, 5


def example(batch_first: bool = True, seed: int = 0) -> tuple[LinearChainCRF, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    crf = LinearChainCRF(L, batch_first, latent_tags=True).double()
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_()
    emissions, tags = torch.randn(B, T, L, dtype=torch.float64), torch.randint(L, (B, T))
    mask = torch.arange(T) < torch.tensor([7, 3, 1, 5])[:, None]
    if not batch_first:
        emissions, tags, mask = emissions.transpose(0, 1), tags.T, mask.T
    return crf, emissions, tags, mask


def by_hand(crf: LinearChainCRF, emissions: torch.Tensor, tags: list[int]) -> torch.Tensor:
    """The score of one tagging, term by term; ``emissions [n, L]``."""
    score = crf.start_transitions[tags[0]] + crf.end_transitions[tags[-1]]
    score = score + sum(emissions[t, y] for t, y in enumerate(tags))
    return score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(tags))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8])
def test_is_a_drop_in(batch_first: bool, masked: bool, kind: torch.dtype) -> None:
    """Values, gradients, every reduction and the best tags are those of the layer it replaces, in each form of call."""
    torchcrf = pytest.importorskip("torchcrf", reason="pytorch-crf is not installed")
    crf, emissions, tags, mask = example(batch_first)
    theirs = torchcrf.CRF(L, batch_first=batch_first).double()
    theirs.load_state_dict(crf.state_dict())
    crf.load_state_dict(theirs.state_dict())
    given = mask if masked else None
    for reduction in ("none", "sum", "mean", "token_mean"):
        results = []
        for layer, m in ((crf, None if given is None else given.to(kind)), (theirs, given)):
            x = emissions.clone().requires_grad_()
            layer.zero_grad()
            value = layer(x, tags, mask=m, reduction=reduction)
            value.sum().backward()
            results.append((value, x.grad, *(p.grad for _, p in sorted(layer.named_parameters()))))
        for ours, wanted in zip(*results, strict=True):
            torch.testing.assert_close(ours, wanted)
    assert crf.decode(emissions, None if given is None else given.to(kind)) == theirs.decode(emissions, given)


@pytest.mark.parametrize(
    "kinds", [(torch.bfloat16, torch.float32), (torch.float32, torch.float64), (torch.float64, torch.float32)]
)
def test_emissions_of_another_dtype_are_promoted_as_there(kinds: tuple[torch.dtype, torch.dtype]) -> None:
    torchcrf = pytest.importorskip("torchcrf", reason="pytorch-crf is not installed")
    crf, emissions, tags, mask = example()
    crf, emissions = crf.to(kinds[1]), emissions.to(kinds[0])
    theirs = torchcrf.CRF(L, batch_first=True).to(kinds[1])
    theirs.load_state_dict(crf.state_dict())
    for layer_input in (emissions, emissions.transpose(0, 1).contiguous().transpose(0, 1)):
        ours, wanted = crf(layer_input, tags, mask), theirs(layer_input, tags, mask)
        assert ours.dtype == wanted.dtype == torch.promote_types(*kinds)
        torch.testing.assert_close(ours, wanted)
        assert crf.decode(layer_input, mask) == theirs.decode(layer_input, mask)


def test_constructor_call_and_errors_are_those_of_the_layer_it_replaces() -> None:
    """The same names in the same order, the same defaults; what that one refuses, in the same class of error."""
    torchcrf = pytest.importorskip("torchcrf", reason="pytorch-crf is not installed")
    for method in ("__init__", "forward", "decode", "reset_parameters"):
        ours, theirs = (
            inspect.signature(getattr(layer, method)).parameters for layer in (LinearChainCRF, torchcrf.CRF)
        )
        shared = [name for name, p in ours.items() if p.kind is not p.KEYWORD_ONLY]
        assert shared == list(theirs)
        assert [ours[name].default for name in shared] == [p.default for p in theirs.values()]
    crf, emissions, tags, mask = example()
    other = torchcrf.CRF(L, batch_first=True).double()
    assert dict(crf.named_parameters()).keys() == dict(other.named_parameters()).keys()
    torch.testing.assert_close(crf(emissions, tags), crf(emissions, tags, None, "sum"))
    wrong = {
        "reduction": (emissions, tags, mask, "max"),
        "emissions: expected": (emissions[..., 0], tags, mask),
        r"emissions: expected shape \[B, T, 5\], got": (emissions[..., 1:], tags, mask),
        "tags": (emissions, tags[:, 1:], mask),
        "mask": (emissions, tags, mask[:, 1:]),
    }
    for name, arguments in wrong.items():
        with pytest.raises(ValueError):
            other(*arguments)
        with pytest.raises(ValueError, match=name):
            crf(*arguments)
    for layer in (LinearChainCRF, torchcrf.CRF):
        with pytest.raises(ValueError):
            layer(0)


def test_parameters_start_small_and_have_the_usual_names() -> None:
    crf = LinearChainCRF(50)
    assert {name: tuple(p.shape) for name, p in crf.state_dict().items()} == {
        "start_transitions": (50,), "end_transitions": (50,), "transitions": (50, 50),
    }  # fmt: skip
    assert all(-0.1 <= p.min() < -0.05 and 0.05 < p.max() <= 0.1 for p in crf.parameters())


def test_likelihood_marginals_and_best_tags_by_enumeration() -> None:
    crf, emissions, tags, mask = example()
    for b, n in enumerate(mask.sum(1).tolist()):
        if n > 5:
            continue
        every = list(itertools.product(range(L), repeat=n))
        scores = torch.stack([by_hand(crf, emissions[b], list(y)) for y in every])
        gold = by_hand(crf, emissions[b], tags[b, :n].tolist())
        value = crf(emissions, tags, mask, reduction="none")[b]
        torch.testing.assert_close(value, gold - scores.logsumexp(0))
        wanted = torch.zeros(T, L, dtype=torch.float64)
        for y, p in zip(every, scores.softmax(0), strict=True):
            wanted[range(n), list(y)] += p.detach()
        torch.testing.assert_close(crf.marginals(emissions, mask)[b].detach(), wanted)
        paths, values = crf.topk(emissions, 4, mask)
        order = scores.argsort(descending=True)[:4]
        assert paths[b] == [list(every[i]) for i in order]
        torch.testing.assert_close(values[: len(order), b], scores[order].detach())
        best, score = crf.decode(emissions, mask, return_scores=True)
        assert best[b] == list(every[order[0]])
        torch.testing.assert_close(score[b], scores.max().detach())


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_step_that_the_mask_leaves_out_is_skipped(batch_first: bool) -> None:
    crf, emissions, tags, _ = example(batch_first)
    mask = torch.tensor([[1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1, 0], [0] * 7, [1] * 7]).bool()
    first = (lambda x: x) if batch_first else (lambda x: x.transpose(0, 1))
    values = crf(emissions, tags, first(mask), reduction="none")
    best, marginals = crf.decode(emissions, first(mask)), first(crf.marginals(emissions, first(mask)))
    for b in range(B):
        kept = mask[b]
        if not kept.any():
            assert values[b] == 0
            assert best[b] == []
            assert (marginals[b] == 0).all()
            continue
        x, y = first(emissions)[b, kept].unsqueeze(0), first(tags)[b, kept].unsqueeze(0)
        torch.testing.assert_close(values[b], crf(first(x), first(y)))
        assert best[b] == crf.decode(first(x))[0]
        torch.testing.assert_close(marginals[b, kept], first(crf.marginals(first(x)))[0])
        assert (marginals[b, ~kept] == 0).all()


def test_mean_over_tokens_counts_the_steps_that_there_are() -> None:
    crf, emissions, tags, _ = example()
    mask = torch.tensor([[1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1, 0], [0] * 7, [1] * 7])
    total = crf(emissions, tags, mask)
    torch.testing.assert_close(crf(emissions, tags, mask, reduction="token_mean"), total / 13)
    torch.testing.assert_close(crf(emissions, tags, mask, reduction="mean"), total / 4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("holes", [False, True])
def test_emissions_that_the_mask_leaves_out_are_never_looked_at(value: float, holes: bool) -> None:
    crf, emissions, tags, mask = example()
    if holes:
        mask = torch.tensor([[1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1, 0], [0] * 7, [1] * 7]).bool()
    spoilt = emissions.masked_fill(~mask[..., None], value).requires_grad_()
    plain = emissions.clone().requires_grad_()
    assert crf.decode(spoilt, mask) == crf.decode(plain, mask)
    assert torch.equal(crf.best_tags(spoilt, mask), crf.best_tags(plain, mask))
    torch.testing.assert_close(crf.marginals(spoilt, mask), crf.marginals(plain, mask))
    values = [crf(x, tags, mask) for x in (spoilt, plain)]
    torch.testing.assert_close(*values)
    gradients = [torch.autograd.grad(v, (x, *crf.parameters())) for v, x in zip(values, (spoilt, plain), strict=True)]
    for actual, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, wanted)
    assert (gradients[0][0][~mask] == 0).all()


def test_latent_tags_are_summed_over() -> None:
    crf, emissions, tags, mask = example()
    tags[0, 2] = -100
    each = []
    for label in range(L):
        tags_here = tags.clone()
        tags_here[0, 2] = label
        each.append(crf(emissions, tags_here, mask, reduction="none")[0])
    torch.testing.assert_close(crf(emissions, tags, mask, reduction="none")[0], torch.stack(each).logsumexp(0))


def test_emissions_are_left_as_they_are() -> None:
    crf, emissions, tags, mask = example()
    before = emissions.clone()
    crf(emissions, tags, mask)
    crf.decode(emissions, mask)
    assert torch.equal(emissions, before)


def test_gradients_reach_every_parameter() -> None:
    crf, emissions, tags, mask = example()
    parameters = [emissions.requires_grad_(), *crf.parameters()]

    def value(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return crf(x, tags, mask)

    assert torch.autograd.gradcheck(value, parameters)


def test_tags_and_arguments_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="num_tags: expected a positive integer, got 0"):
        LinearChainCRF(0)
    with pytest.raises(ValueError, match="tags: expected 3 names, got 1"):
        LinearChainCRF(3, tags=["O"])
    with pytest.raises(ValueError, match="scheme: expected 'BIO', 'IOB1', .* or 'IOBES', got 'BILO'"):
        transition_mask(["O"], "BILO")
    with pytest.raises(ValueError, match="tags: expected O, .*-… of scheme BMES, or the letter alone, got 'B-'"):
        transition_mask(["O", "B-"], "BMES")
    for tag in ("X-per", "S-per", "B", "", "BI-x"):
        with pytest.raises(ValueError, match="tags: expected O, B-…, I-… of scheme BIO, got"):
            transition_mask(["O", tag])
    crf, emissions, tags, mask = example()
    with pytest.raises(ValueError, match="reduction: expected 'none', .* got 'max'"):
        crf(emissions, tags, reduction="max")
    with pytest.raises(ValueError, match=r"emissions: expected shape \[B, T, 5\], got \[4, 7\]"):
        crf.decode(emissions[..., 0])
    with pytest.raises(ValueError, match=r"tags: expected shape \[4, 7\], got \[4, 6\]"):
        crf(emissions, tags[:, :6])
    with pytest.raises(ValueError, match=r"mask: expected shape \[4, 7\], got \[4, 6\]"):
        crf(emissions, tags, mask[:, :6])
    with pytest.raises(ValueError, match="scheme: expected the names of the tags beside it, tags=…, got 'BIOES' alone"):
        LinearChainCRF(3, scheme="BIOES")
    with pytest.raises(ValueError, match="tags: expected every name once, got 'O' twice"):
        LinearChainCRF(3, tags=["O", "B-x", "O"])
    with pytest.raises(TypeError, match="class_weights: expected 3 numbers, got 'abc'"):
        LinearChainCRF(3, class_weights="abc")
    crf = LinearChainCRF(2, True, tags=["B-x", "E-x"], scheme="BIOES")  # no single token can be tagged by these
    with pytest.raises(lnz.InfeasibleError, match=r"batch entries \[0\]"):
        crf.decode(torch.zeros(1, 1, 2))


FORBIDDEN = {
    "O O I-x": r"in sentence 1, step 3, 'I-x' cannot follow 'O' in scheme BIO",
    "I-x O O": r"in sentence 1, step 0, 'I-x' cannot be the first tag in scheme BIO",
    "B-x I-y ?": r"in sentence 1, step 1, 'I-y' cannot follow 'B-x' in scheme BIO",
    "O ? I-y": r"in sentence 1, no tagging agrees with the tags that are not latent",
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sentence", FORBIDDEN)
def test_gold_tags_that_a_scheme_forbids_are_named(batch_first: bool, weighted: bool, sentence: str) -> None:
    if weighted and "?" in sentence:
        return  # latent tags have no weight
    names, first = ["O", "B-x", "I-x", "B-y", "I-y"], (lambda x: x) if batch_first else (lambda x: x.transpose(0, 1))
    weights = torch.ones(5) if weighted else None
    crf = LinearChainCRF(5, batch_first, tags=names, class_weights=weights, latent_tags=True)
    if sentence == "O ? I-y":  # makes it impossible whatever is latent
        with torch.no_grad():
            crf.transitions[3, 4] = crf.transitions[4, 4] = -torch.inf
    y = [-100 if tag == "?" else names.index(tag) for tag in sentence.split()]
    tags, mask = torch.tensor([[0, 1, 2, 0], [y[0], y[1], -7, y[2]]]), torch.tensor([[1, 1, 1, 0], [1, 1, 0, 1]])
    emissions = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    given = first(emissions), first(tags), first(mask)
    for reduction in ("sum", "mean", "none"):
        with pytest.raises(lnz.InfeasibleError, match=rf"^tags: .* in batch entries \[1\]: {FORBIDDEN[sentence]}; zero_"
                           ) as error:  # fmt: skip
            crf(*given, reduction=reduction)
        assert error.value.entries == (1,)
    values = crf(*given, reduction="none", zero_infinity=True)
    assert values[1] == 0
    alone = crf(first(emissions[:1]), first(tags[:1]), first(mask[:1]))
    torch.testing.assert_close(values[0], alone)
    leaves = emissions, *crf.parameters()
    for actual, wanted in zip(
        torch.autograd.grad(values.sum(), leaves), torch.autograd.grad(alone, leaves), strict=True
    ):
        torch.testing.assert_close(actual, wanted)


def test_other_reasons_for_impossible_gold_tags() -> None:
    crf, emissions, tags, mask = example()
    emissions[2, 0, 3], tags[2, 0] = -torch.inf, 3
    with pytest.raises(lnz.InfeasibleError, match=r"in sentence 2, step 0, tag 3 has an emission score of -inf"):
        crf(emissions, tags, mask)
    crf = LinearChainCRF(3, True, tags=["B-x", "E-x", "S-x"], scheme="IOBES")
    with pytest.raises(lnz.InfeasibleError, match=r"sentence 0, step 1, 'B-x' cannot be the last tag in scheme IOBES"):
        crf(torch.zeros(1, 2, 3), torch.tensor([[2, 0]]))


def test_decoding_with_and_without_scores_agree_on_what_is_impossible() -> None:
    crf = LinearChainCRF(2, True, tags=["B-x", "E-x"], scheme="BIOES")
    emissions, mask = torch.zeros(3, 2, 2), torch.tensor([[1, 1], [1, 0], [0, 0]])
    for scores in (False, True):
        with pytest.raises(lnz.InfeasibleError, match=r"decode: no tagging has a finite score in batch entries \[1\]"):
            crf.decode(emissions, mask, return_scores=scores)  # type: ignore[call-overload]
    best, values = crf.decode(emissions[::2], mask[::2], return_scores=True)
    assert best == crf.decode(emissions[::2], mask[::2]) == [[0, 1], []]
    assert values[1] == 0


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (0, 0), (2, 1)])
def test_gradients_reach_every_parameter_where_there_is_nothing(constrained: bool, shape: tuple[int, int]) -> None:
    crf = LinearChainCRF(3, True, tags=["O", "B-x", "I-x"] if constrained else None)
    emissions, tags = torch.zeros(*shape, 3), torch.zeros(shape, dtype=torch.int64)
    value = crf(emissions, tags)
    value.backward()
    start, end, transitions = (parameter.grad for parameter in crf.parameters())
    assert (transitions == 0).all()
    if shape == (2, 1):  # of one step: gold − the probability of each tag, in both
        wanted = 2 * (torch.tensor([1.0, 0, 0]) - crf.marginals(emissions)[0, 0].detach())
        torch.testing.assert_close(start, wanted)
        torch.testing.assert_close(end, wanted)
    else:
        assert value == 0
        assert (start == 0).all()
        assert (end == 0).all()
    assert [len(best) for best in crf.decode(emissions)] == [shape[1]] * shape[0]
    assert crf.marginals(emissions).shape == crf.best_tags(emissions).unsqueeze(-1).expand(*shape, 3).shape
    assert crf(emissions, tags, torch.zeros(shape), reduction="none").tolist() == [0] * shape[0]


@pytest.mark.parametrize("batch_first", [True, False])
def test_what_is_wrong_is_named_as_the_caller_named_it(batch_first: bool) -> None:
    crf, emissions, tags, mask = example(batch_first)
    spoilt = emissions.clone()
    spoilt[0, 0, 3] = torch.nan  # of the first step, which no mask hides
    for call in (lambda: crf(spoilt, tags, mask), lambda: crf.decode(spoilt, mask), lambda: crf.marginals(spoilt)):
        with pytest.raises(ValueError, match=r"^emissions: 1 of 140 scores are NaN, first at \[0, 0, 3\]"):
            call()
    for bad in (L, -1):
        wrong = tags.clone()
        wrong[0, 0] = bad
        with pytest.raises(ValueError, match=rf"^tags: expected labels in \[0, 5\), .* got {bad} at \[0, 0\]"):
            crf(emissions, wrong, mask)
    with pytest.raises(ValueError, match=r"^emissions: expected shape .*, got \[\d, \d\]"):
        crf(emissions[..., 0], tags)
    with pytest.raises(TypeError, match=r"^tags: expected a torch.Tensor of integers, got torch.float64"):
        crf(emissions, tags.double())
    with pytest.raises(TypeError, match=r"^tags: expected a torch.Tensor of integers, got list"):
        crf(emissions, tags.tolist())
    with torch.no_grad():
        crf.transitions[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"^transitions: 1 of 25 scores are NaN, first at \[1, 2\]"):
        crf(emissions, tags, mask)


def test_tags_are_integers_of_any_dtype_as_there() -> None:
    torchcrf = pytest.importorskip("torchcrf", reason="pytorch-crf is not installed")
    crf, emissions, tags, mask = example()
    theirs = torchcrf.CRF(L, batch_first=True).double()
    theirs.load_state_dict(crf.state_dict())
    torch.testing.assert_close(crf(emissions, tags.int(), mask), theirs(emissions, tags.int(), mask))
    padded = torch.where(mask, tags, -7).to(torch.int16)  # whatever beyond the mask
    torch.testing.assert_close(crf(emissions, padded, mask), crf(emissions, tags, mask))


def test_masks_hold_0_and_1() -> None:
    crf, emissions, tags, mask = example()
    torch.testing.assert_close(crf(emissions, tags, mask.double()), crf(emissions, tags, mask))
    for bad, shown in ((torch.nan, "nan"), (0.5, "0.5"), (2.0, "2.0")):
        wrong = mask.double()
        wrong[2, 1] = bad
        with pytest.raises(ValueError, match=rf"mask: expected bool, or 0 and 1, got {shown} at \[2, 1\]"):
            crf(emissions, tags, wrong)


def test_the_mean_over_no_tokens_is_refused() -> None:
    crf, emissions, tags, mask = example()
    message = "mask: expected a step to average over, for reduction='token_mean', got none"
    with pytest.raises(ValueError, match=message):
        crf(emissions, tags, torch.zeros_like(mask), reduction="token_mean")
    with pytest.raises(ValueError, match=message):
        crf(emissions[:, :0], tags[:, :0], reduction="token_mean")
    assert crf(emissions, tags, torch.zeros_like(mask), reduction="mean") == 0


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_likelihoods_beyond_the_range_of_half_precision_are_no_error(
    dtype: torch.dtype, weights: list[float] | None
) -> None:
    """Below −65504 in float16, which is −inf; the tags are possible all the same."""
    crf = LinearChainCRF(3, batch_first=True, class_weights=weights).to(dtype)
    wide = LinearChainCRF(3, batch_first=True, class_weights=weights).double()
    wide.load_state_dict(crf.state_dict())
    emissions = (8e3 * torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()
    tags = torch.randint(0, 3, (2, 40), generator=torch.Generator().manual_seed(1))
    for reduction in ("none", "mean", "sum", "token_mean"):
        found, right = crf(emissions, tags, reduction=reduction), wide(emissions.double(), tags, reduction=reduction)
        assert (right.abs() > 65504).all() or reduction == "token_mean"
        torch.testing.assert_close(found, right.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=0.0)
    assert torch.isfinite(torch.autograd.grad(found, emissions)[0]).all()


@pytest.mark.parametrize("masked", [True, False])
def test_compiles_in_one_graph(masked: bool) -> None:
    crf, emissions, tags, mask = example()
    given = (emissions.requires_grad_(), tags, mask) if masked else (emissions.requires_grad_(), tags)
    leaves = (emissions, *crf.parameters())
    torch.compiler.reset()
    results = []
    for layer in (crf, torch.compile(crf, fullgraph=True, backend="aot_eager")):
        value = layer(*given)
        results.append((value, *torch.autograd.grad(value, leaves)))
    for actual, wanted in zip(*results, strict=True):
        torch.testing.assert_close(actual, wanted)
