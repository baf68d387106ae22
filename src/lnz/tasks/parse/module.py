"""The parsing task: a network that ends in a softmax over trees, beside one that ends in a softmax per word."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lnz.io.dependencies import Dependencies, TagColumn
from lnz.nn import DependencyParser, WordEncoder
from lnz.nn.dependency_parser import Decoder
from lnz.tasks.paired import PairedModule
from lnz.tasks.parse import greedy
from lnz.tasks.parse.measures import Measures
from lnz.tasks.parse.text import words as words_of

METHODS = ("softmax", "tree")


class ParseModule(PairedModule):
    """Two networks of one architecture, from the same initial weights, on the same batches with the same dropout.

    ``tree`` ends in an exponential softmax over dependency trees and is trained by maximum likelihood, ``softmax`` in
    an independent softmax over the heads of each word, whose best heads need not make a tree. In both the relation of
    an arc is a softmax given the arc. They share no parameter: the losses are added, so that each network follows its
    own gradient.

    Args:
        relations: their names.
        words: with an embedding.
        characters: with an embedding.
        tags: of words, with an embedding; none where words are parsed without their tags.
        tag_column: of CoNLL-U, what the tags are.
        composed: whether the sentences were composed, not read from a file.
        projective: whether arcs may not cross, by Eisner's chart; else trees may have any shape, by the matrix-tree
            theorem.
        single_root: whether exactly one word hangs under the root.
        decode: "mbr", the tree with the most heads and relations expected to be right (minimum Bayes risk); "argmax",
            the most probable one.
        width: of the features, half of it in each direction.
        layers: of LSTMs.
        word_width: of the words' embeddings.
        character_width: of what the characters of a word are turned into.
        tag_width: of the tags' embeddings.
        arc_width: of the perceptrons that score arcs.
        label_width: of those that score relations.
        dropout: of the LSTMs' inputs and outputs, and of the perceptrons.
        word_dropout: how often a word is left to its characters, in training.
        learning_rate: the peak of a one-cycle schedule of Adam.
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient of each network.
    """

    task = "parse"

    def __init__(
        self,
        relations: Sequence[str],
        *,
        words: Sequence[str] = (),
        characters: Sequence[str] = (),
        tags: Sequence[str] = (),
        tag_column: TagColumn | None = None,
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
        dropout: float = 0.3,
        word_dropout: float = 0.1,
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-4,
        clip: float = 5.0,
    ) -> None:
        super().__init__()
        _check(decode, dropout, word_dropout, learning_rate, clip)
        self.settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.settings |= {name: list(self.settings[name]) for name in ("relations", "words", "characters", "tags")}
        self.relations, self.decode = list(relations), decode
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
        self.tree = DependencyParser(
            encoder,
            len(self.relations),
            projective=projective,
            single_root=single_root,
            arc_width=arc_width,
            label_width=label_width,
            dropout=dropout,
        )
        self.softmax = copy.deepcopy(self.tree)
        self.tree_measures, self.softmax_measures = (Measures(relations, single_root) for _ in range(2))
        self.draw_key()

    @property
    def networks(self) -> dict[str, DependencyParser]:
        return {"softmax": self.softmax, "tree": self.tree}

    @property
    def measures(self) -> dict[str, Measures]:
        return {"softmax": self.softmax_measures, "tree": self.tree_measures}

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        trees = batch["trees"]
        with self.draws():
            losses = {"softmax": greedy.nll(self.softmax, batch, trees)}
        with self.draws():
            losses["tree"] = self.tree.nll(batch, trees)
        observed = (trees[:, 1:, 0] >= 0).sum().clamp(min=1)
        return self.added(losses, observed, len(trees))

    @torch.no_grad()
    def beliefs(self, batch: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Per method, heads and relations ``int64 [B, N + 1, 2]`` and the probability of each, ``[B, N+1, N+1, R]``."""
        p = self.tree(batch)
        best = p.minimum_bayes_risk() if self.decode == "mbr" else p.argmax()
        return {"softmax": greedy.beliefs(self.softmax, batch), "tree": (best, p.marginals)}

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        for method, (predicted, marginals) in self.beliefs(batch).items():
            self.measures[method].update(marginals, batch["trees"], predicted, batch["relations"])

    def on_validation_epoch_end(self) -> None:
        for method, measures in self.measures.items():
            for name, value in measures.compute().items():
                self.log(f"val/{method}_{name}", value, sync_dist=True)  # equal in all processes already
            measures.reset()

    @torch.no_grad()
    def parse(self, sentences: Sequence[Dependencies]) -> list[Dependencies]:
        """The sentences with the trees of the structured network, in one batch; those that they have are not read."""
        trees = self.tree.decode(words_of(sentences), self.decode).tolist()
        return [self.named(sentence, tree) for sentence, tree in zip(sentences, trees, strict=True)]

    def named(self, sentence: Dependencies, tree: Sequence[Sequence[int]]) -> Dependencies:
        """A sentence with the heads and relations of ``tree``, N + 1 pairs or more."""
        heads, relations = zip(*tree[1 : len(sentence) + 1], strict=True)
        named = tuple(self.relations[relation] for relation in relations)
        return Dependencies(sentence.tokens, sentence.tags, heads, named, sentence.lines)

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
