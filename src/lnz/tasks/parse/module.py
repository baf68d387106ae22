"""The parsing task: a network that ends in a softmax over trees, beside one that ends in a softmax per word."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lnz.distributions import Softmax, StructuredDistribution
from lnz.nn import WordEncoder
from lnz.nn.dependency_parser import Decoder
from lnz.tasks.paired import PairedModule
from lnz.tasks.parse.structure import Name, Parsed, Tags
from lnz.tasks.parse.structures import structure_of
from lnz.tasks.parse.text import words as words_of
from lnz.typing import IGNORE

METHODS = ("softmax", "tree")


class ParseModule(PairedModule):
    """Two networks of one architecture, from the same initial weights, on the same batches with the same dropout.

    ``tree`` ends in an exponential softmax over whole trees and is trained by maximum likelihood, ``softmax`` in
    independent softmaxes, whose best answers need not make a tree: over the heads of each word, or over the labels of
    each span, none among them. They share no parameter: the losses are added, so that each network follows its own
    gradient.

    Args:
        labels: of the trees: relations, or unary chains of constituents with spaces between, the empty one first.
        structure: "dependency" or "constituency".
        words: with an embedding.
        characters: with an embedding.
        tags: of words, with an embedding; none where words are parsed without their tags.
        tag_column: what the tags are.
        composed: whether the sentences were composed, not read from a file.
        projective: of dependency trees, whether arcs may not cross, by Eisner's chart; else they may have any
            shape, by the matrix-tree theorem.
        single_root: of dependency trees, whether exactly one word hangs under the root.
        decode: "mbr", the tree of least expected error (minimum Bayes risk): with the most words expected to be right,
            or the fewest constituents to be wrong or missing; "argmax", the most probable one.
        width: of the features, half of it in each direction.
        layers: of LSTMs.
        word_width: of the words' embeddings.
        character_width: of what the characters of a word are turned into.
        tag_width: of the tags' embeddings.
        arc_width: of the perceptrons that score arcs.
        label_width: of those that score relations.
        span_width: of the layer that scores spans.
        dropout: of the LSTMs' inputs and outputs, and of the perceptrons.
        word_dropout: how often a word is left to its characters, in training.
        learning_rate: the peak of a one-cycle schedule of Adam.
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient of each network.
    """

    task = "parse"
    calibrated_by = "likelihood"

    def __init__(
        self,
        labels: Sequence[str],
        *,
        structure: Name = "dependency",
        words: Sequence[str] = (),
        characters: Sequence[str] = (),
        tags: Sequence[str] = (),
        tag_column: Tags | None = None,
        composed: bool = False,
        projective: bool = False,
        single_root: bool = True,
        decode: Decoder = "mbr",
        width: int = 128,
        layers: int = 1,
        word_width: int = 64,
        character_width: int = 48,
        tag_width: int = 32,
        arc_width: int = 128,
        label_width: int = 64,
        span_width: int = 128,
        dropout: float = 0.3,
        word_dropout: float = 0.1,
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-4,
        clip: float = 5.0,
    ) -> None:
        super().__init__()
        _check(decode, dropout, word_dropout, learning_rate, clip)
        self.settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.settings |= {name: list(self.settings[name]) for name in ("labels", "words", "characters", "tags")}
        self.labels, self.decode, self.structure = list(labels), decode, structure_of(structure)
        self.learning_rate, self.weight_decay, self.clip = learning_rate, weight_decay, clip
        encoder = WordEncoder(
            words,
            characters,
            tags=tags,
            width=width,
            word_width=word_width,
            character_width=character_width,
            tag_width=tag_width,
            layers=layers,
            dropout=dropout,
            word_dropout=word_dropout,
        )
        self.tree = self.structure.parser(encoder, self.labels, self.settings)
        self.softmax = copy.deepcopy(self.tree)
        self.tree_measures, self.softmax_measures = (
            self.structure.measures(self.labels, self.settings) for _ in range(2)
        )
        self.draw_key()

    @property
    def networks(self) -> dict[str, Any]:
        return {"softmax": self.softmax, "tree": self.tree}

    @property
    def measures(self) -> dict[str, Any]:
        return {"softmax": self.softmax_measures, "tree": self.tree_measures}

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        with self.draws():
            losses = {"softmax": self.structure.greedy_nll(self.softmax, batch)}
        with self.draws():
            losses["tree"] = self.tree.nll(batch, batch["trees"])
        return self.added(losses, batch["lengths"].sum().clamp(min=1), len(batch["trees"]))

    def models(self, batch: Mapping[str, Any]) -> dict[str, StructuredDistribution]:
        """Per method, the distribution of a batch, at temperature 1."""
        return {"softmax": self.structure.greedy(self.softmax, batch), "tree": self.tree(batch)}

    @torch.no_grad()
    def beliefs(self, batch: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Per method, what is predicted, as trees are, and the marginals."""
        p: dict[str, Any] = {name: p.tempered(self.temperature(name)) for name, p in self.models(batch).items()}
        return {
            "softmax": self.structure.greedy_beliefs(p["softmax"], batch["lengths"]),
            "tree": self.structure.beliefs(p["tree"], self.decode),
        }

    def distributions(self, batch: Mapping[str, Any]) -> dict[str, tuple[StructuredDistribution, Tensor]]:
        p, trees = self.models(batch), batch["trees"]
        labels = self.structure.greedy_gold(trees, batch["lengths"], self.labels)
        known = labels != IGNORE
        none = torch.isneginf(p["tree"].log_prob(trees))  # as where arcs cross, and must not
        trees = trees.masked_fill(none.view(-1, *[1] * (trees.dim() - 1)), IGNORE)
        return {"softmax": (Softmax(p["softmax"].scores[known]), labels[known]), "tree": (p["tree"], trees)}

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        for method, (predicted, marginals) in self.beliefs(batch).items():
            self.measures[method].update(predicted, marginals, batch["trees"], batch["gold"].items)

    def score(self, values: Mapping[str, Tensor]) -> Tensor:
        return values[self.structure.score]

    @torch.no_grad()
    def parse(self, sentences: Sequence[Parsed]) -> list[Any]:
        """The sentences with the trees of the structured network, in one batch; those that they have are not read."""
        words = words_of(sentences)
        words["lengths"] = words["lengths"].to(self.device)
        p = self.tree(words).tempered(self.temperature("tree"))
        trees = self.structure.beliefs(p, self.decode)[0]
        pairs = zip(sentences, trees, strict=True)
        return [self.structure.decode(sentence, tree, self.labels) for sentence, tree in pairs]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), self.learning_rate, betas=(0.9, 0.9), weight_decay=self.weight_decay
        )
        steps = max(int(self.trainer.estimated_stepping_batches), 2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=steps, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _check(decode: str, dropout: float, word_dropout: float, learning_rate: float, clip: float) -> None:
    """Raise where settings are wrong."""
    if decode not in ("mbr", "argmax"):
        raise ValueError(f"model.decode: expected 'mbr' or 'argmax', got {decode!r}")
    for name, value in {"learning_rate": learning_rate, "clip": clip}.items():
        if value <= 0:
            raise ValueError(f"model.{name}: expected a positive number, got {value}")
    for name, value in {"dropout": dropout, "word_dropout": word_dropout}.items():
        if not 0 <= value < 1:
            raise ValueError(f"model.{name}: expected a number in [0, 1), got {value}")
