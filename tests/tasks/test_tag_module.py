import itertools
import random

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from lnz import plot
from lnz.errors import FormatError
from lnz.metrics import hamming
from lnz.tasks.reliability import reliability
from lnz.tasks.tag.measures import Measures, as_bio, mark_spans, span_counts
from lnz.tasks.tag.module import TagModule


def test_reliability_is_that_of_the_calibration_error():
    """Σ share · |probability − share right| is what torchmetrics says; bins in one picture."""
    torch.manual_seed(0)
    measures = Measures(["a", "b", "c"])
    assert reliability(measures.ece) == []
    for _ in range(2):
        beliefs, tags = torch.randn(4, 50, 3).mul(2).softmax(-1), torch.randint(3, (4, 50))
        measures.update(beliefs, tags, beliefs.argmax(-1))
    bins = reliability(measures.ece)
    error = sum(share * abs(sure - right) for sure, right, share in bins)
    assert error == pytest.approx(float(measures.ece.compute()), abs=1e-6)
    assert sum(share for _, _, share in bins) == pytest.approx(1)
    assert plot.png(plot.reliability({"0 chain": bins, "1 chain": bins}, "of a chain")).startswith(b"\x89PNG")


TAGS = ["O", "B-x", "I-x"]
WORDS = {"words": ["a", "b"], "characters": list("abcA")}


def small(**kwargs):
    torch.manual_seed(0)
    settings = {"width": 6, "word_width": 3, "character_width": 4, **WORDS, **kwargs}
    module = TagModule(TAGS, **settings)
    module.log = lambda name, value, **kwargs: None
    module._trainer = type("Trainer", (), {"global_step": 5, "global_rank": 0})()
    return module


def sentences():
    tokens = [("a", "cab", "A"), ("b",)]
    tags = torch.tensor([[0, 1, 2], [0, -100, -100]])
    return {"tokens": tokens, "tags": tags, "lengths": torch.tensor([3, 1]), "index": torch.arange(2)}


def enumerated(module, batch):
    """ln P of every labelling of the first sequence, by adding up its scores."""
    crf, node = module.crf.crf, module.crf.nodes(module.crf.encoder(batch))[0]
    every = torch.cartesian_prod(*[torch.arange(3)] * 3)
    start, end, edge = crf.start_transitions, crf.end_transitions, crf.transitions
    if crf.constrained:
        start, end, edge = start + crf.start_mask, end + crf.end_mask, edge + crf.transition_mask
    score = sum(node[t, every[:, t]] for t in range(3)) + start[every[:, 0]] + end[every[:, 2]]
    score = score + edge[every[:, 0], every[:, 1]] + edge[every[:, 1], every[:, 2]]
    return every, score.log_softmax(0)


def losses_of(module, batch):
    logged = {}
    module.log = lambda name, value, **kwargs: logged.update({name: value})
    total = module.training_step(batch, 0)
    return logged, total


class TestLosses:
    def test_both_networks_start_equal_and_share_nothing(self):
        module = small(dropout=0.5).eval()
        batch = sentences()
        softmax, crf = (network.nodes(network.encoder(batch)) for network in module.networks.values())
        assert torch.equal(softmax, crf)
        mine, other = ({id(p) for p in network.parameters()} for network in module.networks.values())
        assert not mine & other

    @pytest.mark.parametrize("scheme", [None, "BIO"])
    def test_the_chain_is_trained_by_its_likelihood(self, scheme):
        """Against enumeration of the labellings of each sentence, a latent tag summed over."""
        module, batch = small(dropout=0, word_dropout=0, scheme=scheme).double(), sentences()
        logged, total = losses_of(module, batch)
        every, logs = enumerated(module, batch)
        alone = {"tokens": batch["tokens"][1:], "lengths": torch.tensor([1])}
        one = module.crf(alone).node_marginals[0, 0, 0].log()
        first = logs[(every == torch.tensor([0, 1, 2])).all(1)].squeeze()
        torch.testing.assert_close(logged["train/crf_loss"], -(first + one) / 4)
        torch.testing.assert_close(total, logged["train/crf_loss"] + logged["train/softmax_loss"])
        batch["tags"][0, 1] = -100
        logged, _ = losses_of(module, batch)
        first = logs[(every[:, 0] == 0) & (every[:, 2] == 2)].logsumexp(0)
        torch.testing.assert_close(logged["train/crf_loss"], -(first + one) / 3)

    def test_the_softmax_by_cross_entropy(self):
        module, batch = small(dropout=0, word_dropout=0), sentences()
        logged, total = losses_of(module, batch)
        total.backward()
        grads = [p.grad.clone() for p in module.softmax.parameters()]
        module.zero_grad()
        scores = module.softmax.nodes(module.softmax.encoder(batch))
        expected = F.cross_entropy(scores.flatten(0, 1), batch["tags"].flatten(), ignore_index=-100)
        torch.testing.assert_close(logged["train/softmax_loss"], expected)
        expected.backward()
        for got, parameter in zip(grads, module.softmax.parameters(), strict=True):
            torch.testing.assert_close(got, parameter.grad)

    def test_other_objectives(self):
        batch = sentences()
        batch = {**batch, "tokens": batch["tokens"][:1], "tags": batch["tags"][:1], "lengths": batch["lengths"][:1]}
        found = {}
        for name in ("pseudolikelihood", "hinge", "label-adjustment"):
            module = small(dropout=0, word_dropout=0, objective=name, epsilon=100.0).double()
            with torch.no_grad():
                module.crf.crf.transitions.normal_()
            found[name] = 3 * losses_of(module, batch)[0]["train/crf_loss"]
        every, logs = enumerated(module, batch)
        gold, index = batch["tags"][0], {tuple(y.tolist()): k for k, y in enumerate(every)}
        errors = hamming(gold.expand_as(every), every).double()
        torch.testing.assert_close(found["hinge"], (logs + errors).max() - logs[index[0, 1, 2]])
        torch.testing.assert_close(found["label-adjustment"], logs.max() - logs[index[0, 1, 2]])  # epsilon is large
        conditional = 0.0
        for t in range(3):
            others = [index[(*gold[:t].tolist(), tag, *gold[t + 1 :].tolist())] for tag in range(3)]
            conditional -= logs[index[0, 1, 2]] - logs[others].logsumexp(0)
        torch.testing.assert_close(found["pseudolikelihood"], conditional)

    def test_dropout_is_a_function_of_run_and_step_and_the_same_for_both(self):
        module, batch = small(dropout=0.5), sentences()
        module.softmax.encoder.load_state_dict(module.crf.encoder.state_dict())
        drawn = []
        for _ in range(2):
            for network in module.networks.values():
                with module.draws():
                    drawn.append(network.encoder(batch))
        for other in drawn[1:]:
            assert torch.equal(drawn[0], other)
        before = torch.get_rng_state()
        module.training_step(batch, 0)
        assert torch.equal(before, torch.get_rng_state())
        module._trainer.global_step = 6
        with module.draws():
            assert not torch.equal(drawn[0], module.crf.encoder(batch))


def test_predictions_keep_the_scheme():
    module, batch = small(scheme="BIO").eval(), sentences()
    for seed in range(20):
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_()
        first, second = module.predict_step(batch, 0)
        assert (len(first), len(second)) == (3, 1)
        assert first[0] != "I-x"
        assert all(before != "O" for before, tag in itertools.pairwise(first) if tag == "I-x")


def test_beliefs_are_marginals():
    module, batch = small().double().eval(), sentences()
    every, logs = enumerated(module, batch)
    predicted, beliefs = module.beliefs(batch)["crf"]
    expected = torch.stack([logs.exp()[every[:, 1] == tag].sum() for tag in range(3)])
    torch.testing.assert_close(beliefs[0, 1], expected)
    assert predicted[0].tolist() == every[logs.argmax()].tolist()
    assert predicted[1].tolist()[1:] == [-100, -100]


class TestCheckpoints:
    def saved(self, module):
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        return checkpoint

    @pytest.mark.parametrize("settings", [{}, {"scheme": "BIO"}, {"words": (), "characters": (), "image_size": (8, 8)}])
    def test_round_trip(self, settings):
        module, batch = small(**settings).eval(), sentences()
        if "image_size" in settings:
            batch["image"] = torch.randn(2, 3, 8, 8)
        again = TagModule.from_checkpoint(self.saved(module), "x.ckpt")
        for method in ("softmax", "crf"):
            for a, b in zip(module.beliefs(batch)[method], again.beliefs(batch)[method], strict=True):
                assert torch.equal(a, b)

    def test_foreign_checkpoints(self):
        with pytest.raises(FormatError, match=r"x\.ckpt: expected a checkpoint of lnz fit tag, got task 'segment'"):
            TagModule.from_checkpoint({"lnz": {"task": "segment"}, "state_dict": {}}, "x.ckpt")
        checkpoint = self.saved(small())
        checkpoint["state_dict"].pop("key")
        with pytest.raises(FormatError, match=r"x\.ckpt: does not belong to this version of lnz"):
            TagModule.from_checkpoint(checkpoint, "x.ckpt")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder": "image"}, r"model\.encoder: 'image' needs images, which the composed strings have"),
        ({"encoder": "words", "image_size": (8, 8)}, r"model\.encoder: 'words' needs sentences: give data\.train"),
        ({"encoder": "bert"}, r"model\.encoder: expected 'image', 'words', 'hf' or 'features', got 'bert'"),
        ({"encoder": "hf"}, r"model\.pretrained: expected a name or folder with model\.encoder hf, and only there"),
        ({"pretrained": "x"}, r"model\.pretrained: expected a name or folder with model\.encoder hf, and only there"),
        ({"objective": "em"}, r"model\.objective: expected one of nll, pseudolikelihood, .*, got 'em'"),
        ({"epsilon": 0}, r"model\.epsilon: expected a positive number, got 0"),
        ({"clip": 0}, r"model\.clip: expected a positive number, got 0"),
        ({"dropout": 1}, r"model\.dropout: expected a number in \[0, 1\), got 1"),
        ({"word_dropout": -1}, r"model\.word_dropout: expected a number in \[0, 1\), got -1"),
        ({"width": 5}, r"width: expected an even positive integer, got 5"),
        ({"image_size": (8, 3)}, r"size: expected at least 4 × 4 pixels, got 8 × 3"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        small(**wrong)


class TestMeasures:
    def measured(self, tags, *batches):
        measures = Measures(tags)
        for batch in batches:
            measures.update(*batch)
        return {name: float(value) for name, value in measures.compute().items()}

    def test_against_the_definitions(self):
        beliefs, tags = torch.randn(4, 5, 3).softmax(-1), torch.randint(3, (4, 5))
        tags[0, 3:], tags[2, 1] = -100, -100
        predicted = torch.randint(3, (4, 5))
        predicted[3] = tags[3]
        got = self.measured(
            ["a", "b", "c"], *[(beliefs[k : k + 2], tags[k : k + 2], predicted[k : k + 2]) for k in (0, 2)]
        )
        seen = tags != -100
        assert got["accuracy"] == pytest.approx((predicted == tags)[seen].float().mean().item())
        whole = [bool((predicted[k] == tags[k])[seen[k]].all()) for k in range(4)]
        assert got["whole"] == pytest.approx(sum(whole) / 4)
        gold = beliefs.gather(2, tags.clamp(min=0)[..., None])[..., 0]
        assert got["nll"] == pytest.approx(-gold.log()[seen].mean().item())
        ece = multiclass_calibration_error(beliefs[seen], tags[seen], num_classes=3, n_bins=15)
        assert got["ece"] == pytest.approx(float(ece), abs=1e-6)
        assert "f1" not in got

    def test_spans_add_up_over_batches(self):
        beliefs = torch.full((1, 3, 3), 1 / 3)
        first = (beliefs, torch.tensor([[1, 2, 0]]), torch.tensor([[1, 2, 1]]))  # one right, one too many
        second = (beliefs, torch.tensor([[1, 1, -100]]), torch.tensor([[1, 2, -100]]))  # two of one token, one of two
        assert self.measured(TAGS, first, second)["f1"] == pytest.approx(2 * 1 / (3 + 3))

    def test_a_batch_without_gold_counts_nowhere(self):
        beliefs, tags = torch.randn(2, 2, 3).softmax(-1), torch.tensor([[0, 1], [-100, -100]])
        both = self.measured(TAGS, (beliefs, tags, tags.clamp(min=0)), (beliefs[1:], tags[1:], tags[1:]))
        assert both == self.measured(TAGS, (beliefs[:1], tags[:1], tags[:1]))

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            (["O", "B-x"], True),
            (["B-x"], True),
            (["S-x", "O", "E-x"], True),
            (["O"], False),
            (["NOUN", "B-x"], False),
            (["B", "E", "M", "S"], True),
            (["O", "B-x", "M-x", "E-x"], True),
            (["B", "S"], False),
            (["B", "E", "N"], False),
            (["B_x", "O"], False),
        ],
    )
    def test_which_tags_mark_spans(self, tags, expected):
        assert mark_spans(tags) == expected


class TestSpans:
    """nervaluate against the rules of conlleval, written down here once more."""

    @staticmethod
    def conlleval(tags):
        spans, start, before = set(), None, ("O", "")
        for at, tag in enumerate([*tags, "O"]):
            letter, _, kind = tag.partition("-")
            other = kind != before[1]
            ends = before[0] != "O" and (before[0] in "ESLU" or letter in "OBSU" or other)
            begins = letter in "BSU" or (letter in "IMEL" and (before[0] in "OESLU" or other))
            if ends:
                spans.add((start, at, before[1]))
            if begins:
                start = at
            before = (letter, kind)
        return spans

    def counts(self, gold, predicted):
        pairs = [(self.conlleval(a), self.conlleval(b)) for a, b in zip(gold, predicted, strict=True)]
        return tuple(
            sum(map(len, side)) for side in ([a & b for a, b in pairs], [b for _, b in pairs], [a for a, _ in pairs])
        )

    @pytest.mark.parametrize(
        ("gold", "predicted", "expected"),
        [
            ("B-x I-x O", "B-x I-x O", (1, 1, 1)),
            ("B-x I-x O", "B-x O O", (0, 1, 1)),  # an end is wrong
            ("B-x I-x O", "B-y I-y O", (0, 1, 1)),  # the type is
            ("B-x I-x O", "I-x I-x O", (1, 1, 1)),  # a span may begin with I
            ("B-x B-x I-x", "B-x I-x I-x", (0, 1, 2)),
            ("B-x I-x B-y", "B-x I-y B-y", (1, 3, 2)),
            ("O B-a-b I-a-b", "O B-a-b I-a-b", (1, 1, 1)),  # a type may hold a hyphen
            ("S-x S-x O", "S-x O O", (1, 1, 2)),
            ("B-x E-x B-x L-x U-y", "B-x E-x I-x L-x U-y", (3, 3, 3)),
            ("O O", "O O", (0, 0, 0)),
            ("I-x I-x B-x I-y O I-y", "I-x B-x B-x I-y I-y O", (1, 4, 4)),  # IOB1
            ("B-x M-x M-x E-x S-y", "B-x M-x E-x S-x S-y", (1, 3, 2)),  # BMES
        ],
    )
    def test_by_hand(self, gold, predicted, expected):
        assert span_counts([gold.split()], [predicted.split()]) == expected
        assert self.counts([gold.split()], [predicted.split()]) == expected

    def test_letters_of_words_alone(self):
        assert span_counts([[*"BMESBES"]], [[*"BESSBES"]]) == (3, 5, 4)

    @pytest.mark.parametrize("letters", ["BI", "BIES", "BILU", "BMES"])
    def test_drawn(self, letters):
        draw = random.Random(0)
        tags = ["O", *(f"{letter}-{kind}" for letter in letters for kind in "xy")]
        for _ in range(100):
            lengths = [draw.randint(1, 8) for _ in range(3)]
            gold, predicted = ([draw.choices(tags, k=n) for n in lengths] for _ in range(2))
            assert span_counts(gold, predicted) == self.counts(gold, predicted)

    def test_bio_of_other_schemes(self):
        tags, bio = "B-x I-x E-x I-x S-y O U-y L-y", "B-x I-x I-x B-x B-y O B-y B-y"
        assert " ".join(as_bio(tags.split())) == bio
