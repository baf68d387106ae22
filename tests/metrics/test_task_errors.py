"""Task errors against hand-made values, brute force and the libraries that define them."""

from __future__ import annotations

import math

import pytest
import torch
from sacrebleu.metrics.bleu import BLEU
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.functional.text import edit_distance as torchmetrics_edit_distance

import lnz
from lnz.metrics import bleu, cost_matrix, edit_distance, hamming, iou
from lnz.objectives.errors import ChangeError, NodeError

IGNORE = -100


def labellings(labels: int, shape: tuple[int, ...], seed: int, ignored: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(labels, shape, generator=generator)
    return drawn.masked_fill(torch.rand(shape, generator=generator) < ignored, IGNORE)


def test_metrics_come_with_lnz() -> None:
    assert lnz.metrics.hamming is hamming


def test_hamming_counts_what_differs_where_gold_is_known() -> None:
    gold = torch.tensor([[0, 1, 2, 1], [0, IGNORE, 2, IGNORE]])
    predicted = torch.tensor([[0, 2, 2, 0], [1, 1, 0, 0]])
    assert hamming(gold, predicted).tolist() == [2, 2]
    assert hamming(gold[0], predicted).tolist() == [2, 3]  # batches broadcast


def test_cost_matrix_prices_false_positives_and_negatives_apart() -> None:
    error = cost_matrix(torch.tensor([[0.0, 1.0], [5.0, 0.0]]))
    gold = torch.tensor([[0, 0, 1, 1], [1, 1, 1, IGNORE]])
    predicted = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]])
    assert error(gold, predicted).tolist() == [6.0, 10.0]


@pytest.mark.parametrize("error", [hamming, cost_matrix(torch.tensor([[0.0, 1, 2], [3, 0, 4], [5, 6, 0]]))])
def test_node_costs_add_up_to_the_error(error: NodeError) -> None:
    gold, predicted = labellings(3, (4, 5), 0, ignored=0.3), labellings(3, (4, 5), 1)
    costs = error.node_costs(gold, 3)
    assert costs.shape == (4, 5, 3)
    total = costs.gather(-1, predicted[..., None]).squeeze(-1).sum(-1)
    torch.testing.assert_close(total, error(gold, predicted))


def test_iou_is_that_of_torchmetrics_entry_by_entry() -> None:
    gold, predicted = labellings(5, (20, 12), 0, ignored=0.2), labellings(5, (20, 12), 1)
    wanted = [
        1 - multiclass_jaccard_index(p, g, num_classes=5, average="macro", ignore_index=IGNORE)
        for g, p in zip(gold, predicted, strict=True)
    ]
    torch.testing.assert_close(iou(5)(gold, predicted), torch.stack(wanted))


def test_iou_by_hand() -> None:
    gold = torch.tensor([[0, 0, 1, 1], [2, 2, 2, IGNORE], [IGNORE] * 4])
    predicted = torch.tensor([[0, 1, 1, 1], [2, 2, 2, 0], [0, 1, 2, 0]])
    wanted = torch.tensor([1 - (1 / 2 + 2 / 3) / 2, 0.0, 0.0])
    torch.testing.assert_close(iou(3)(gold, predicted), wanted)


def test_iou_knows_what_every_single_change_makes_of_it() -> None:
    error = iou(4)
    assert isinstance(error, ChangeError)
    gold, predicted = labellings(4, (30, 6), 2, ignored=0.2), labellings(4, (30, 6), 3)
    predicted[:5] = gold[:5].clamp(min=0)
    costs = error.change_costs(gold, predicted, 4)
    for node in range(6):
        for label in range(4):
            changed = predicted.clone()
            changed[:, node] = label
            torch.testing.assert_close(costs[:, node, label], error(gold, changed))


def test_edit_distance() -> None:
    words = {word: [ord(letter) for letter in word] for word in ("kitten", "sitting", "saturday", "sunday", "")}

    def padded(*chosen: str) -> Tensor:
        width = max(map(len, chosen))
        return torch.tensor([words[word] + [IGNORE] * (width - len(word)) for word in chosen])

    pairs = [("kitten", "sitting"), ("saturday", "sunday"), ("", "kitten"), ("sunday", "sunday")]
    gold, predicted = padded(*(a for a, _ in pairs)), padded(*(b for _, b in pairs))
    assert edit_distance(gold, predicted).tolist() == [3, 3, 6, 0]
    wanted = [torchmetrics_edit_distance([a], [b], reduction="sum").item() for a, b in pairs]
    assert edit_distance(gold, predicted).tolist() == wanted


def test_bleu_is_that_of_sacrebleu() -> None:
    gold, predicted = labellings(4, (10, 9), 0, ignored=0.2), labellings(4, (10, 7), 1)
    judge = BLEU(tokenize="none", effective_order=True)
    for row, (g, p) in enumerate(zip(gold, predicted, strict=True)):
        reference = " ".join(str(label) for label in g.tolist() if label != IGNORE)
        score = judge.sentence_score(" ".join(map(str, p.tolist())), [reference]).score
        assert bleu(gold, predicted)[row].item() == pytest.approx(1 - score / 100, abs=1e-6)


def test_bleu_by_hand() -> None:
    gold = torch.tensor([[0, 1, 2, 3, 4, 5]])
    predicted = torch.tensor([[0, 1, 2, 3, 4, 4]])
    precisions = (5 / 6, 4 / 5, 3 / 4, 2 / 3)  # of 1- to 4-grams; the lengths are equal, so no brevity penalty
    assert bleu(gold, predicted).item() == pytest.approx(1 - math.prod(precisions) ** 0.25, abs=1e-6)
    assert bleu(gold, gold).tolist() == [0.0]
    empty = torch.full((1, 6), IGNORE)
    assert bleu(empty, empty).tolist() == [0.0]
    assert bleu(gold, empty).tolist() == [1.0]


@pytest.mark.parametrize("error", [hamming, iou(3), edit_distance, bleu])
def test_errors_have_the_shape_of_the_batch(error: object) -> None:
    assert callable(error)
    gold, predicted = labellings(3, (2, 1, 4), 0), labellings(3, (3, 4), 1)
    found = error(gold, predicted)
    assert found.shape == (2, 3)
    assert found.is_floating_point()
    assert found[1, 2] == error(gold[1, 0], predicted[2])
    assert error(gold[0, 0], gold[0, 0]) == 0
    assert error(gold[:0], gold[:0]).shape == (0, 1)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: cost_matrix([[0.0]]), TypeError, "costs: expected a torch.Tensor, got list"),
        (lambda: cost_matrix(torch.zeros(2, 3)), ValueError, r"costs: expected shape \[L, L\], got \[2, 3\]"),
        (lambda: cost_matrix(torch.full((2, 2), torch.nan)), ValueError, "costs: expected finite numbers"),
        (lambda: cost_matrix(torch.tensor([[0.0, -1], [0, 0]])), ValueError, "costs: expected no negative numbers"),
        (
            lambda: cost_matrix(torch.zeros(2, 2)).node_costs(torch.zeros(3, dtype=torch.int64), 4),
            ValueError,
            r"costs: expected a cost matrix of shape \[4, 4\].* got \[2, 2\]",
        ),
        (lambda: iou(0), ValueError, "num_labels: expected a positive integer, got 0"),
        (lambda: iou(2)(torch.tensor([2]), torch.tensor([0])), ValueError, r"gold: expected labels in \[0, 2\)"),
        (lambda: iou(2)(torch.tensor([1]), torch.tensor([3])), ValueError, "predicted: expected labels"),
        (lambda: hamming(torch.zeros(3), torch.zeros(3)), TypeError, "gold: expected a torch.Tensor of integers"),
        (
            lambda: hamming(torch.zeros(3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)),
            ValueError,
            "predicted: expected 3 labels as in gold, got 4",
        ),
        (
            lambda: edit_distance(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 3, dtype=torch.int64)),
            ValueError,
            "expected batch shapes that broadcast",
        ),
    ],
)
def test_wrong_arguments(call: object, kind: type[Exception], message: str) -> None:
    assert callable(call)
    with pytest.raises(kind, match=message):
        call()


def test_one_label_is_right_wherever_anything_is_observed() -> None:
    gold = torch.tensor([[0, -100], [-100, -100]])
    assert iou(1)(gold, torch.zeros_like(gold)).tolist() == [0.0, 0.0]
