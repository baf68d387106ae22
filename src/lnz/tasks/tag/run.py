"""``lnz fit tag``: what the task is, for the machinery that all tasks share."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch

from lnz import plot
from lnz.tasks import calibrated
from lnz.tasks.console import Console
from lnz.tasks.paired_task import PairedTask
from lnz.tasks.run import run as run_task
from lnz.tasks.tag import report
from lnz.tasks.tag.data import TagData
from lnz.tasks.tag.evaluate import TagTest
from lnz.tasks.tag.module import TagModule
from lnz.tasks.tag.objectives import NAMES

DESCRIPTION = """Train a network that tags every element of a sequence, once ending in an exponential softmax over whole
taggings (a linear chain) and once, beside it, in an independent softmax per element: same architecture, initial
weights, batches, dropout and budget. No tagged text comes with lnz: without --data.train, strings of scikit-learn's
handwritten digits are composed, noisy readings of a counter that moves on by 0, 1 or 2."""

EXAMPLES = """examples:
  composed strings of handwritten digits, nothing to download, three seeds:
    lnz fit tag --seeds 3
  parts of speech, from CoNLL-U files, gzipped or not:
    lnz fit tag --data.train en-train.conllu --data.val en-dev.conllu
  names in columns (a word, a tab, its tag; an empty line between sentences), BIO's rules kept:
    lnz fit tag --data.train train.bio --data.val dev.bio --data.scheme BIO
  a pretrained encoder of Hugging Face's transformers (pip install 'lnz[transformers]'), a name or a folder:
    lnz fit tag --data.train train.bio --model.encoder hf --model.pretrained FOLDER --trainer.max_epochs 4
  a weight per feature and tag instead of a network, in seconds; templates and weights of the penalties as you like:
    lnz fit tag --data.train train.bio --data.val dev.bio --data.scheme BIO --model features --model.learning.c1 0.05
  embeddings that start from vectors of word2vec, GloVe or fastText (.vec):
    lnz fit tag --data.train train.bio --data.val dev.bio --model.vectors glove.6B.100d.txt
  another objective than maximum likelihood:
    lnz fit tag --objective hinge
  probabilities that fit the validation data (one temperature per method, kept in the checkpoints):
    lnz fit tag --data.train train.bio --data.val dev.bio --calibrate
  a configuration file, something changed:
    lnz fit tag --config configs/tag_ewt.yaml --trainer.max_epochs 2 --output runs/short
  go on after a crash or Ctrl-C:
    lnz fit tag --config runs/short/config.yaml --ckpt_path last
The run folder then holds report.html, picture.png, results.json, config.yaml and, per seed, checkpoints (the last, and
the best by validation F1 of spans, or accuracy) and a TensorBoard log (tensorboard --logdir runs)."""


class TagTask(PairedTask):
    """A tag for every element of a sequence."""

    name = "tag"
    description = DESCRIPTION
    examples = EXAMPLES
    module = TagModule
    data = TagData
    test = TagTest
    report = report
    best = ("val/crf_score", "max")
    epochs = 12

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--objective",
            type=Literal[NAMES],  # type: ignore[valid-type]
            default="nll",
            help="What the chain is trained by (see model.objective).",
        )
        parser.add_argument("--calibrate", action="store_true", help=calibrated.HELP)
        parser.link_arguments("objective", "model.objective")
        for name in ("tags", "words", "characters", "image_size", "scheme", "column"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def about(self, module: TagModule) -> dict[str, Any]:
        return {"objective": module.settings["objective"]}

    def picture(self, module: TagModule, data: TagData, count: int = 4) -> bytes:
        """Marginals of the first validation sequences with gold and best tags, and the scores of transitions."""
        module = module.cpu().eval()
        rows = []
        for index in range(min(count, len(data.val))):
            example = data.val[(0, index)]
            batch = data.collate([example])
            with torch.no_grad():
                found = module.beliefs(batch)
            rows.append(
                plot.Tagging(
                    elements=list(batch["image"][0]) if "image" in batch else list(batch["tokens"][0]),
                    gold=batch["tags"][0],
                    predicted={"softmax": found["softmax"][0][0], "chain": found["crf"][0][0]},
                    marginals=found["crf"][1][0],
                )
            )
        assert module.crf.crf is not None
        return plot.png(plot.tagging(rows, data.tags, module.crf.crf.transitions.detach()))


def run(argv: list[str], console: Console) -> None:
    """Run ``lnz fit tag``; ``--model features`` is short for ``--model.encoder features``."""
    joined = [f"--model.encoder={arg.partition('=')[2]}" if arg == "--model=features" else arg for arg in argv]
    for k, (flag, value) in enumerate(pairwise(argv)):
        if (flag, value) == ("--model", "features"):
            joined[k] = "--model.encoder"
    run_task(TagTask(), joined, console)
