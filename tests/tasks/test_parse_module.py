import math

import pytest
import torch

from lnz.errors import FormatError
from lnz.io.dependencies import Dependencies
from lnz.tasks.parse import greedy
from lnz.tasks.parse.constituency import Constituency
from lnz.tasks.parse.constituency_measures import ConstituencyMeasures
from lnz.tasks.parse.dependency import Dependency
from lnz.tasks.parse.dependency_measures import DependencyMeasures
from lnz.tasks.parse.module import ParseModule
from lnz.tasks.parse.text import TreeDataset, collate

RELATIONS = ["dep", "root"]
DEPENDENCY = Dependency()
SENTENCES = [
    Dependencies(("a", "cab", "A"), (None,) * 3, (2, 0, 2), ("dep", "root", "dep:x")),
    Dependencies(("b",), (None,), (0,), ("root",)),
]


def small(**kwargs):
    torch.manual_seed(0)
    settings = {"width": 6, "word_width": 3, "character_width": 4, "arc_width": 4, "label_width": 3, **kwargs}
    module = ParseModule(RELATIONS, words=["a", "b"], characters=list("abcA"), **settings)
    module.log = lambda name, value, **kwargs: None
    module._trainer = type("Trainer", (), {"global_step": 5, "global_rank": 0})()
    with torch.no_grad():  # biaffine forms begin as 0
        for network in module.networks.values():
            torch.manual_seed(1)
            for parameter in (network.scorer.arc, network.scorer.label):
                parameter.normal_()
    return module


def batch():
    examples = TreeDataset(DEPENDENCY, SENTENCES, RELATIONS)
    return collate(DEPENDENCY, [examples[(0, k)] for k in range(2)])


class TestLosses:
    def test_both_networks_start_equal_and_share_nothing(self):
        module = small(dropout=0.5).eval()
        softmax, tree = (network.scorer(network.encoder(batch())) for network in module.networks.values())
        assert torch.equal(softmax, tree)
        mine, other = ({id(p) for p in network.parameters()} for network in module.networks.values())
        assert not mine & other

    def test_the_sum_is_per_word(self):
        module, logged = small(dropout=0.0, word_dropout=0.0).double(), {}
        module.log = lambda name, value, **kwargs: logged.update({name: value})
        total = module.training_step(batch(), 0)
        tree = -module.tree(batch()).log_prob(unsubtyped()).sum()
        known = module.tree.scorer.labels_of(*given(module.tree))
        tree = tree + known[0, 3, 0]  # the relation that training has not seen counts nowhere
        torch.testing.assert_close(logged["train/tree_loss"], tree / 4)
        torch.testing.assert_close(total, logged["train/tree_loss"] + logged["train/softmax_loss"])

    def test_the_softmax_is_over_the_heads_of_each_word(self):
        module = small(dropout=0.0, word_dropout=0.0).double()
        network = module.softmax
        roles, _ = given(network)
        arcs, labels = network.scorer.arcs(roles), network.scorer.labels(roles)
        expected = 0.0
        for b, sentence in enumerate(SENTENCES):
            n = len(sentence)
            for word, (head, relation) in enumerate(zip(sentence.heads, sentence.relations, strict=True), 1):
                others = [k for k in range(n + 1) if k != word]
                expected -= arcs[b, word, others].log_softmax(0)[others.index(head)]
                if relation in RELATIONS:
                    expected -= labels[b, word, head, RELATIONS.index(relation)]
        torch.testing.assert_close(greedy.arcs_nll(network, batch(), batch()["trees"]), expected)
        best, joint = greedy.arc_beliefs(greedy.arc_softmax(network, batch()), batch()["lengths"])
        assert best[1].tolist() == [[0, 0], [0, int(labels[1, 1, 0].argmax())], [-100, -100], [-100, -100]]
        torch.testing.assert_close(joint[0, 1:].sum((-1, -2)), torch.ones(3, dtype=torch.double))
        flat = joint[0, 1:].flatten(1)
        assert torch.equal(best[0, 1:, 0] * 2 + best[0, 1:, 1], flat.argmax(1))

    def test_dropout_is_the_same_for_both(self):
        module = small(dropout=0.5)
        drawn = []
        for network in module.networks.values():
            with module.draws():
                drawn.append(network.scorer(network.encoder(batch())))
        assert torch.equal(*drawn)


def unsubtyped():
    """The gold trees, the relation that is not known called by its kind."""
    return torch.where((batch()["trees"] == -100) & (torch.arange(4)[:, None] < 4), 0, batch()["trees"])


def given(network):
    return network.scorer.roles(network.encoder(batch())), batch()["trees"][..., 0]


class TestPredictions:
    def test_trees(self):
        module = small().eval()
        p = module.tree(batch())
        assert torch.equal(module.beliefs(batch())["tree"][0], p.minimum_bayes_risk())
        torch.testing.assert_close(module.beliefs(batch())["tree"][1], p.marginals)
        found = module.parse(SENTENCES)
        best = p.minimum_bayes_risk()
        assert found[0].heads == tuple(best[0, 1:, 0].tolist())
        assert found[1].relations == (RELATIONS[best[1, 1, 1]],)
        assert (found[0].tokens, found[0].heads.count(0)) == (SENTENCES[0].tokens, 1)

    def test_the_most_probable_tree(self):
        module = small(decode="argmax").eval()
        assert torch.equal(module.beliefs(batch())["tree"][0], module.tree(batch()).argmax())


class TestMeasures:
    def test_by_hand(self):
        """Of four words three have the right head, one of these with the wrong relation; one sentence is no tree."""
        measures = DependencyMeasures(RELATIONS, True)
        predicted = torch.tensor([[[0, 0], [2, 0], [3, 0], [2, 0]], [[0, 0], [0, 0], [-100, -100], [-100, -100]]])
        marginals = torch.full((2, 4, 4, 2), 0.1)
        trees = batch()["trees"]
        for word, (head, relation) in enumerate(trees[0, 1:3].tolist(), 1):
            marginals[0, word, head, relation] = 0.5
        marginals[1, 1, 0, 1] = 0.25
        measures.update(predicted, marginals, trees, batch()["gold"].items)
        found = {name: float(value) for name, value in measures.compute().items()}
        assert found["uas"] == pytest.approx(3 / 4)
        assert found["las"] == pytest.approx(2 / 4)  # a subtype is cut
        assert found["tree"] == pytest.approx(1 / 2)  # words 2 and 3 hang under each other
        assert found["nll"] == pytest.approx(float(-torch.tensor([0.5, 0.5, 0.25]).log().mean()))
        # three words are judged: one right of probability 1/2, two wrong of probability 1/10
        assert found["ece"] == pytest.approx((1 / 3) * 0.5 + (2 / 3) * 0.1, abs=1e-6)
        measures.reset()
        measures.update(torch.where(trees == -100, 0, trees), marginals, trees, batch()["gold"].items)
        assert float(measures.compute()["tree"]) == 1.0

    def test_roots(self):
        """Two words under the root are a tree only where there may be several roots."""
        predicted = torch.tensor([[[0, 0], [0, 1], [0, 1]]])
        for single_root, expected in ((True, 0.0), (False, 1.0)):
            measures = DependencyMeasures(RELATIONS, single_root)
            measures.update(predicted, torch.ones(1, 3, 3, 2), predicted, [("root", "root")])
            assert float(measures.compute()["tree"]) == expected


LABELS = ["", "NP", "S"]
CONSTITUENCY = Constituency()
BRACKETS = "(S (NP (DT a) (NN cab)) (VB A))\n(S (NN b))\n"


def spans(tmp_path, **kwargs):
    """A module of constituency trees and a batch."""
    (tmp_path / "x.ptb").write_text(BRACKETS)
    sentences = CONSTITUENCY.read(tmp_path / "x.ptb", None, True, True, None)
    examples = TreeDataset(CONSTITUENCY, sentences, LABELS)
    torch.manual_seed(0)
    module = ParseModule(
        LABELS, structure="constituency", width=6, span_width=4, dropout=0.0, word_dropout=0.0, **kwargs
    )
    module.log = lambda name, value, **kwargs: None
    module._trainer = type("Trainer", (), {"global_step": 5, "global_rank": 0})()
    return module.double(), collate(CONSTITUENCY, [examples[(0, k)] for k in range(2)]), sentences


class TestSpans:
    def test_losses(self, tmp_path):
        """The softmax is over the labels of each span, none among them."""
        module, given, _ = spans(tmp_path)
        logged = {}
        module.log = lambda name, value, **kwargs: logged.update({name: value})
        module.training_step(given, 0)
        torch.testing.assert_close(logged["train/tree_loss"], -module.tree(given).log_prob(given["trees"]).sum() / 4)
        scores, expected = module.softmax.scores(given), 0.0
        gold = {(0, 0, 1): 1, (0, 0, 2): 2, (1, 0, 0): 2}
        for b, n in enumerate((3, 1)):
            for i in range(n):
                for j in range(i, n):
                    expected -= scores[b, i, j].log_softmax(0)[gold.get((b, i, j), 0)]
        torch.testing.assert_close(logged["train/softmax_loss"], expected / 4)

    def test_beliefs(self, tmp_path):
        module, given, sentences = spans(tmp_path)
        module = module.eval()
        found = module.beliefs(given)
        p = module.tree(given)
        torch.testing.assert_close(found["tree"][1], p.marginals)
        best, marginals = found["softmax"]
        torch.testing.assert_close(marginals[0].sum(-1).triu(), torch.ones(3, 3, dtype=torch.double).triu())
        assert marginals[1].sum() == pytest.approx(1)
        assert (best[0].tril(-1) + torch.ones(3, 3).tril(-1) == 0).all()
        parsed = module.parse(sentences)
        assert [each.tokens for each in parsed] == [each.tokens for each in sentences]
        assert [each.own_tags for each in parsed] == [("DT", "NN", "VB"), ("NN",)]

    def test_minimum_bayes_risk(self, tmp_path):
        """Of all binary trees, that with the fewest constituents expected to be wrong or missing."""
        module, given, _ = spans(tmp_path)
        with torch.no_grad():
            module.tree.scorer.label.weight.mul_(8)
        p, found = module.eval().tree(given), module.beliefs(given)["tree"][0]
        trees = p.topk(2 * 3**5)[0][:, 0]
        weights = p.log_prob(trees[:, None].expand(-1, 2, -1, -1))[:, 0].exp().tolist()
        spans_of = [{(i, j, int(y[i, j])) for i, j in (y > 0).nonzero().tolist()} for y in (*trees, found[0])]

        def risk(mine):
            """By the definition, over all trees."""
            return sum(weight * len(mine ^ theirs) for weight, theirs in zip(weights, spans_of, strict=False))

        assert sum(weights) == pytest.approx(1, abs=1e-9)
        assert risk(spans_of[-1]) == pytest.approx(min(map(risk, spans_of)), abs=1e-9)
        assert torch.equal(module.tree.decode(given), found)
        assert torch.equal(module.tree.decode(given, "argmax"), p.argmax())

    def test_measures_by_hand(self):
        """Two of three words are judged; the constituents predicted are S, NP and one that crosses it."""
        measures = ConstituencyMeasures(LABELS)
        gold = [("S", 0, 3), ("NP", 0, 2), ("DT", 0, 1), ("NN", 1, 2), ("VB", 2, 3)]
        trees = torch.tensor([[[0, 1, 2], [-1, 0, -1], [-1, -1, 0]]])
        predicted = torch.tensor([[[-1, 1, 2], [-1, -1, 1], [-1, -1, -1]]])
        marginals = torch.zeros(1, 3, 3, 3)
        marginals[..., 0] = 1.0
        marginals[0, 0, 1] = torch.tensor([0.5, 0.5, 0.0])
        marginals[0, 0, 2] = torch.tensor([0.0, 0.0, 1.0])
        marginals[0, 1, 2] = torch.tensor([0.2, 0.8, 0.0])
        measures.update(predicted, marginals, trees, [gold])
        found = {name: float(value) for name, value in measures.compute().items()}
        assert found["f1"] == pytest.approx(2 * 2 / (3 + 2))
        assert found["tree"] == 0.0
        assert found["nll"] == pytest.approx(-(math.log(0.5) + math.log(0.2)) / 3, abs=1e-6)
        assert found["ece"] == pytest.approx((0.5 + 0.8 + 0.0) / 3, abs=1e-6)
        measures.reset()
        measures.update(torch.full((1, 3, 3), -1), marginals, trees, [gold])
        assert (float(measures.compute()["f1"]), float(measures.compute()["tree"])) == (0.0, 1.0)


class TestCheckpoints:
    def saved(self, module):
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        return checkpoint

    @pytest.mark.parametrize("settings", [{}, {"layers": 2, "tags": ["X"], "tag_column": "upos", "projective": True}])
    def test_round_trip(self, settings):
        module = small(**settings).eval()
        again = ParseModule.from_checkpoint(self.saved(module), "x.ckpt")
        for method in ("softmax", "tree"):
            for a, b in zip(module.beliefs(batch())[method], again.beliefs(batch())[method], strict=True):
                assert torch.equal(a, b)

    def test_round_trip_of_constituency(self, tmp_path):
        module, given, _ = spans(tmp_path)
        again = ParseModule.from_checkpoint(self.saved(module), "x.ckpt").double()
        assert torch.equal(module.eval().beliefs(given)["tree"][1], again.beliefs(given)["tree"][1])

    def test_foreign_checkpoints(self):
        with pytest.raises(FormatError, match=r"x\.ckpt: expected a checkpoint of lnz fit parse, got task 'tag'"):
            ParseModule.from_checkpoint({"lnz": {"task": "tag"}, "state_dict": {}}, "x.ckpt")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decode": "best"}, r"model\.decode: expected 'mbr' or 'argmax', got 'best'"),
        ({"clip": 0}, r"model\.clip: expected a positive number, got 0"),
        ({"learning_rate": 0}, r"model\.learning_rate: expected a positive number, got 0"),
        ({"dropout": 1}, r"model\.dropout: expected a number in \[0, 1\), got 1"),
        ({"word_dropout": -1}, r"model\.word_dropout: expected a number in \[0, 1\), got -1"),
        ({"width": 5}, r"width: expected an even positive integer, got 5"),
        ({"layers": 0}, r"layers: expected a positive integer, got 0"),
        ({"arc_width": 0}, r"arc_width: expected a positive integer, got 0"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        small(**wrong)
