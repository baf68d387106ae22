"""A CRF on an encoder of transformers: skipped positions, what it gives, saving and loading, schemes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs the extra transformers")

from lnz.errors import InfeasibleError  # noqa: E402
from lnz.hf import CRFConfig, CRFForTokenClassification  # noqa: E402
from lnz.nn import LinearChainCRF  # noqa: E402
from lnz.nn.tag_schemes import scheme_of, transition_mask  # noqa: E402
from tests.hf import tiny  # noqa: E402

MASK = [0, 1, 0, 1, 1, 0]
GOLD = [1, 2, 0]  # B-X I-X O
L = len(tiny.LABELS)


def gathered(model, inputs, mask, labels=None, **options):
    """Loss, tags, marginals and score of each sentence by itself, by the scores of its words alone."""
    logits = model(inputs, word_mask=mask, decode=False, **options).logits
    crf = LinearChainCRF(L, batch_first=True, tags=model.crf.tags, scheme=model.crf.scheme).to(logits.dtype)
    crf.start_transitions, crf.end_transitions = model.crf.start_transitions, model.crf.end_transitions
    crf.transitions = model.crf.transitions
    terms, best = [], []
    for b, row in enumerate(mask.bool()):
        words = logits[b, row][None]
        if labels is not None:
            terms.append(-crf(words, labels[b, row][None]))
        (tags,), score = crf.decode(words, return_scores=True)
        best.append((tags, crf.marginals(words)[0], score[0]))
    return (torch.stack(terms).mean() if terms else None), best


@pytest.mark.parametrize("how", ["word_mask", "labels"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_positions_without_a_word_are_skipped_exactly(how: str, dtype: torch.dtype) -> None:
    model = tiny.model().to(dtype)
    inputs, mask = tiny.ids(1, 6), torch.tensor([MASK])
    labels = torch.full((1, 6), -100)
    labels[mask.bool()] = torch.tensor(GOLD)
    given = {"word_mask": mask} if how == "word_mask" else {}
    if how == "word_mask":
        labels[~mask.bool()] = 3  # whatever they are
    loss = model(inputs, labels=labels, **given).loss
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    expected, _ = gathered(model, inputs, mask, labels)
    expected_grads = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for grad, other in zip(grads, expected_grads, strict=True):
        assert (grad is None) == (other is None)
        if grad is not None:
            torch.testing.assert_close(grad, other, rtol=1e-6, atol=1e-6)


def test_prediction_skips_them_too() -> None:
    model = tiny.model().double()
    inputs, mask = tiny.ids(20, 6), torch.rand(20, 6, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[:, 2] = True
    found = model(inputs, word_mask=mask)
    _, best = gathered(model, inputs, mask)
    assert found.tags.shape == (20, 6)
    assert found.marginals.shape == (20, 6, L)
    assert torch.equal(found.tags != -100, mask)
    assert (found.marginals[~mask] == 0).all()
    for b, (tags, marginals, score) in enumerate(best):
        assert found.tags[b, mask[b]].tolist() == tags
        torch.testing.assert_close(found.marginals[b, mask[b]], marginals)
        torch.testing.assert_close(found.score[b], score)


def test_without_a_mask_special_tokens_are_no_words() -> None:
    model = tiny.model()
    inputs = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 1, 4, 5, 6, 3]])  # unknown and hidden words are words
    attention = (inputs != 0).long()
    found = model(inputs, attention)
    assert (found.tags != -100).tolist() == [[False, True, True, False, False, False], [False, *[True] * 4, False]]
    explicit = model(inputs, attention, word_mask=found.tags != -100)
    assert torch.equal(found.tags, explicit.tags)


def test_padding_never_has_a_word_and_changes_nothing() -> None:
    model, inputs = tiny.model(), tiny.ids(2, 6)
    attention = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    labels = torch.zeros(2, 6, dtype=torch.int64)
    found = model(inputs, attention, labels=labels, word_mask=torch.ones(2, 6))
    alone = model(inputs[:1, :4], labels=labels[:1, :4])
    torch.testing.assert_close(found.marginals[:1, :4], alone.marginals)
    assert found.tags[0, 4:].tolist() == [-100, -100]


def test_a_word_with_an_unknown_label_is_summed_over() -> None:
    model, inputs = tiny.model(scheme=None).double(), tiny.ids(1, 3)
    words = torch.ones(1, 3)

    def log_prob(label: int) -> torch.Tensor:
        return -model(inputs, word_mask=words, labels=torch.tensor([[1, label, 0]])).loss

    torch.testing.assert_close(log_prob(-100), torch.stack([log_prob(label) for label in range(L)]).logsumexp(0))


@pytest.mark.parametrize("reduction", ["mean", "token_mean", "sum"])
def test_reductions(reduction: str) -> None:
    model, inputs = tiny.model(reduction=reduction), tiny.ids(2, 4)
    labels = torch.tensor([[0, 1, -100, 2], [-100, 0, -100, -100]])
    terms = [-tiny.model(reduction="sum")(inputs[b : b + 1], labels=labels[b : b + 1]).loss for b in range(2)]
    count = {"mean": 2, "token_mean": 4, "sum": 1}[reduction]
    torch.testing.assert_close(model(inputs, labels=labels).loss, -sum(terms) / count)


def test_training_with_labels_does_not_decode_unless_asked() -> None:
    model, inputs = tiny.model().train(), tiny.ids(1, 4)
    labels = torch.zeros(1, 4, dtype=torch.int64)
    assert model(inputs, labels=labels).tags is None
    assert model(inputs, labels=labels, decode=True).tags is not None
    assert model(inputs).tags is not None
    assert len(model.eval()(inputs, labels=labels, return_dict=False)) == 5


SCHEMES = {
    "BIO": ["O", "B-X", "I-X", "B-Y", "I-Y"],
    "IOB1": ["O", "B-X", "I-X", "I-Y"],
    "BIOES": ["O", "B-X", "I-X", "E-X", "S-X"],
    "BILOU": ["O", "B-X", "I-X", "L-X", "U-X"],
    "BMES": ["O", "B-X", "M-X", "E-X", "S-X"],
}


def spans(tags, scheme):
    """Entities of a tagging, as in the definition of the scheme, by its names."""
    found, before = set(), "O"
    start = None
    for k, tag in enumerate([*tags, "O"]):
        ends = start is not None and (tag == "O" or tag[2:] != before[2:] or tag[0] in "BSU" or before[0] in "ELSU")
        if ends:
            found.add((start, k, before[2:]))
            start = None
        if tag != "O" and start is None:
            start = k
        before = tag
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_and_posteriors_of_entities_by_enumeration(scheme: str) -> None:
    """In float64, to 1e-9, with positions skipped; and no tagging that the scheme forbids has a probability."""
    labels = SCHEMES[scheme]
    model = tiny.model(labels, scheme).double()
    inputs, mask = tiny.ids(3, 6), torch.tensor([MASK, [1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]).bool()
    found, logits = model.entities(inputs, word_mask=mask), model(inputs, word_mask=mask).logits
    start, end, edge = (each.double() for each in transition_mask(labels, scheme))
    start, end, edge = (
        start + model.crf.start_transitions,
        end + model.crf.end_transitions,
        edge + model.crf.transitions,
    )
    checked = 0
    for b in range(3):
        places = mask[b].nonzero().flatten().tolist()
        x, weights = logits[b, mask[b]], {}
        for tags in itertools.product(range(len(labels)), repeat=len(places)):
            score = start[tags[0]] + end[tags[-1]] + sum(x[k, tag] for k, tag in enumerate(tags))
            score = score + sum(edge[i, j] for i, j in itertools.pairwise(tags))
            weights[tags] = score.exp().item()
        total = math.fsum(weights.values())
        for first, after, kind, probability in found[b]:
            span = places.index(first), places.index(after - 1) + 1, kind
            exact = math.fsum(
                w for tags, w in weights.items() if w and span in spans([labels[t] for t in tags], scheme)
            )
            assert probability == pytest.approx(exact / total, abs=1e-9)
            checked += 1
        best = max(weights, key=weights.__getitem__)
        assert {(places.index(e.start), places.index(e.end - 1) + 1, e.type) for e in found[b]} == spans(
            [labels[t] for t in best], scheme
        )
    assert checked > 2


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        *[(labels, name) for name, labels in SCHEMES.items()],
        (["O", "I-X"], "IOB1"),
        (["B", "M", "E", "S"], "BMES"),
        (["NOUN", "VERB"], None),
        (["O"], None),
    ],
)
def test_the_scheme_of_names(labels: list[str], scheme: str | None) -> None:
    assert scheme_of(labels) == scheme
    assert tiny.model(labels).config.scheme == scheme


def test_labels_that_the_scheme_forbids() -> None:
    with pytest.raises(InfeasibleError, match="in sentence 0, step 2, 'I-X' cannot follow 'O' in scheme BIO"):
        tiny.model()(tiny.ids(1, 4), labels=torch.tensor([[-100, 0, 2, -100]]))


def test_allowed_labels() -> None:
    model, inputs = tiny.model(), tiny.ids(2, 4)
    allowed = torch.zeros(2, 4, L, dtype=torch.bool)
    allowed[..., 0] = True
    found = model(inputs, allowed=allowed, labels=torch.zeros(2, 4, dtype=torch.int64))
    assert found.tags.tolist() == [[0] * 4] * 2
    assert found.loss.item() == pytest.approx(0, abs=1e-6)


class TestSaving:
    def test_from_encoder_leaves_the_encoder_as_it_is(self, tmp_path) -> None:
        tiny.bert(3).save_pretrained(tmp_path)
        for encoder in (tiny.bert(3), transformers.AutoModel.from_pretrained(tmp_path)):
            before = {name: value.clone() for name, value in encoder.state_dict().items()}
            model = tiny.model(encoder=encoder)
            assert encoder.pooler is not None
            assert model.encoder.pooler is None
            for name, value in model.encoder.state_dict().items():
                assert torch.equal(value, before[name])
            inputs = tiny.ids(2, 5)
            hidden = encoder.eval()(inputs).last_hidden_state
            torch.testing.assert_close(model(inputs).logits, model.classifier(hidden))

    @pytest.mark.parametrize("shard", ["5GB", "2KB"])
    def test_comes_back(self, tmp_path, shard: str) -> None:
        model, inputs = tiny.model(SCHEMES["BILOU"], "BILOU", reduction="token_mean"), tiny.ids(50, 7)
        model.save_pretrained(tmp_path, max_shard_size=shard)
        assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "2KB")
        expected = model(inputs)
        for cls in (CRFForTokenClassification, transformers.AutoModelForTokenClassification):
            again = cls.from_pretrained(tmp_path)
            assert not again.training
            assert type(again) is CRFForTokenClassification
            for name in ("labels", "scheme", "reduction", "special_token_ids", "label2id", "dropout"):
                assert getattr(again.config, name) == getattr(model.config, name)
            found = again(inputs)
            assert torch.equal(found.tags, expected.tags)
            assert torch.equal(found.marginals, expected.marginals)
            assert again.entities(inputs) == model.entities(inputs)

    def test_made_on_the_meta_device(self, tmp_path) -> None:
        model, inputs = tiny.model(), tiny.ids(50, 7)
        with torch.device("meta"):
            empty = CRFForTokenClassification(CRFConfig(**model.config.to_dict()))
        assert all(parameter.is_meta for parameter in empty.parameters())
        empty.load_state_dict(model.state_dict(), assign=True)
        position = torch.arange(7).expand(50, -1)  # BERT's buffers are in no checkpoint
        kinds = torch.zeros_like(inputs)
        found = empty.eval()(inputs, position_ids=position, token_type_ids=kinds)
        expected = model(inputs)
        assert torch.equal(found.tags, expected.tags)
        torch.testing.assert_close(found.marginals, expected.marginals)

    def test_a_new_head_on_saved_weights(self, tmp_path) -> None:
        """Weights that a checkpoint lacks are drawn as the layer draws them, and never left as memory was."""
        model = tiny.model()
        state = {name: value for name, value in model.state_dict().items() if "crf" not in name}
        model.save_pretrained(tmp_path, state_dict=state)
        again = CRFForTokenClassification.from_pretrained(tmp_path)
        assert all(parameter.abs().max() <= 0.1 for parameter in again.crf.parameters())
        assert torch.equal(again.classifier.weight, model.classifier.weight)

    def test_half_precision(self, tmp_path) -> None:
        """The chain's scores stay in float32, whose sums it needs."""
        tiny.model().save_pretrained(tmp_path)
        again = CRFForTokenClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
        made = CRFForTokenClassification.from_encoder(tiny.bert().bfloat16(), tiny.LABELS)
        for model in (again, made):
            assert model.classifier.weight.dtype == torch.bfloat16
            assert model.crf.transitions.dtype == torch.float32
            assert model(tiny.ids(2, 5), labels=torch.zeros(2, 5, dtype=torch.int64)).loss.isfinite()


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "electra", "albert"])
def test_other_encoders(kind: str, tmp_path) -> None:
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "embedding_size": 8, "dim": 8, "hidden_dim": 16, "n_layers": 1, "n_heads": 2}
    config = transformers.AutoConfig.for_model(kind)
    config = type(config)(**{name: value for name, value in sizes.items() if hasattr(config, name)})
    model = CRFForTokenClassification.from_encoder(transformers.AutoModel.from_config(config), tiny.LABELS).eval()
    model(tiny.ids(2, 5), labels=torch.zeros(2, 5, dtype=torch.int64)).loss.backward()
    assert [name for name, each in model.named_parameters() if each.grad is None and "pooler" in name] == []
    model.save_pretrained(tmp_path)
    again = CRFForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(again(tiny.ids(2, 5)).marginals, model(tiny.ids(2, 5)).marginals)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"labels": ["O", "X"], "scheme": "BIO"}, ValueError, r"tags: expected O, B-…, I-… of scheme BIO, got 'X'"),
            ({"labels": ["A", "A"], "scheme": None}, ValueError, r"labels: expected every name once, got \['A', 'A'\]"),
            ({"labels": ["O", "B-X"], "reduction": "x"}, ValueError, r"reduction: expected 'mean', .* got 'x'"),
            ({"labels": ["O", "B-X"], "dropout": 1.0}, ValueError, r"dropout: expected a number in \[0, 1\), got 1.0"),
        ],
    )
    def test_settings(self, options, error, message) -> None:
        with pytest.raises(error, match=message):
            tiny.model(**options)

    def test_encoders(self) -> None:
        with pytest.raises(TypeError, match="model: expected a model as AutoModel makes it, got Linear"):
            CRFForTokenClassification.from_encoder(torch.nn.Linear(1, 1), ["O"])
        config = transformers.T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
        with pytest.raises(ValueError, match="model: expected an encoder alone, got T5Model, which has a decoder"):
            CRFForTokenClassification.from_encoder(transformers.T5Model(config), ["O"])

    def test_masks(self) -> None:
        model, inputs = tiny.model(), tiny.ids(1, 4)
        with pytest.raises(ValueError, match=r"word_mask: expected shape \[1, 4\], got \[1, 3\]"):
            model(inputs, word_mask=torch.ones(1, 3))
        with pytest.raises(ValueError, match=r"word_mask: expected bool, or 0 and 1, got 2"):
            model(inputs, word_mask=torch.full((1, 4), 2))
        with pytest.raises(ValueError, match=r"labels: expected shape \[1, 4\], got \[1, 3\]"):
            model(inputs, labels=torch.zeros(1, 3, dtype=torch.int64))
