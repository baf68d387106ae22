"""``lnz fit parse``: what the task is, for the machinery that all tasks share."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import lightning.pytorch as pl

from lnz import plot
from lnz.tasks import calibrated
from lnz.tasks.paired_task import PairedTask
from lnz.tasks.parse import report
from lnz.tasks.parse.data import ParseData
from lnz.tasks.parse.evaluate import ParseTest
from lnz.tasks.parse.module import ParseModule
from lnz.tasks.parse.structure import Name
from lnz.tasks.run import run as run_task

DESCRIPTION = """Train a network that parses sentences, once ending in an exponential softmax over whole trees and once,
beside it, in independent softmaxes, over the heads of each word or the labels of each span: same architecture, initial
weights, batches, dropout and budget. No treebank comes with lnz: without --data.train, sentences of arithmetic are
composed, some of whose symbols cannot be read."""

EXAMPLES = """examples:
  composed sentences of arithmetic, nothing to download, three seeds:
    lnz fit parse --seeds 3
  a treebank in CoNLL-U files, gzipped or not, with the gold tags of its words:
    lnz fit parse --data.train en-train.conllu --data.val en-dev.conllu --data.tag_column upos+xpos
  constituency trees in brackets, as the Penn Treebank has them, with the gold tags of the words:
    lnz fit parse --structure constituency --data.train train.ptb --data.val dev.ptb --data.tag_column tag
  trees without crossing arcs, by Eisner's chart:
    lnz fit parse --projective true
  probabilities that fit the validation data (one temperature per method, kept in the checkpoints):
    lnz fit parse --data.train en-train.conllu --data.val en-dev.conllu --calibrate
  a configuration file, something changed:
    lnz fit parse --config configs/parse_ewt.yaml --trainer.max_epochs 2 --output runs/short
  go on after a crash or Ctrl-C:
    lnz fit parse --config runs/short/config.yaml --ckpt_path last
The run folder then holds report.html, picture.png, results.json, config.yaml and, per seed, checkpoints (the last, and
the best by validation LAS or F1) and a TensorBoard log (tensorboard --logdir runs). lnz predict parses new
sentences."""


class ParseTask(PairedTask):
    """The tree of every sentence."""

    name = "parse"
    description = DESCRIPTION
    examples = EXAMPLES
    module = ParseModule
    data = ParseData
    test = ParseTest
    report = report
    best = ("val/tree_score", "max")
    epochs = 12

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--structure", type=Name, default="dependency", help="What trees are made of.")
        parser.add_argument(
            "--projective", type=bool, default=False, help="Of dependency trees: whether arcs may not cross."
        )
        parser.add_argument("--single_root", type=bool, default=True, help="Of dependency trees: whether one root.")
        parser.add_argument("--calibrate", action="store_true", help=calibrated.HELP)
        for name in ("structure", "projective", "single_root"):
            parser.link_arguments(name, f"model.{name}")
            parser.link_arguments(name, f"data.{name}")
        for name in ("labels", "words", "characters", "tags", "tag_column", "composed"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def about(self, module: ParseModule) -> dict[str, Any]:
        return {"structure": module.structure.name, "kind": module.structure.says(module.settings)}

    def judge(
        self, seed: int, trainer: pl.Trainer, module: Any, data: Any, seconds: float, history: list[dict[str, float]]
    ) -> report.Result:
        """The measures on the validation sentences, and those of what needs no network."""
        result = super().judge(seed, trainer, module, data, seconds, history)
        baseline = module.structure.baseline(data.train, data.val, data.labels, data.tags)
        return dataclasses.replace(result, baseline=baseline)

    def picture(self, module: ParseModule, data: ParseData, count: int = 4) -> bytes:
        """Trees of the first validation sentences: what is predicted, right and wrong, and what was missed."""
        module = module.cpu().eval()
        sentences = [sentence for sentence in data.val.sentences if 2 < len(sentence) <= plot.MOST_WORDS][:count]
        sentences = sentences or data.val.sentences[:1]
        return plot.png(module.structure.picture(list(zip(sentences, module.parse(sentences), strict=True))))


run = partial(run_task, ParseTask())
