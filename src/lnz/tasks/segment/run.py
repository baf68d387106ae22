"""``lnz fit segment``: what the task is, for the machinery that all tasks share."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning.pytorch as pl
import torch

from lnz import plot
from lnz.tasks import calibrated
from lnz.tasks.console import Console
from lnz.tasks.options import TaskCLI
from lnz.tasks.run import run as run_task
from lnz.tasks.segment import comparison, report
from lnz.tasks.segment.data import SegmentData, collate
from lnz.tasks.segment.evaluate import SegmentTest
from lnz.tasks.segment.measures import TITLES
from lnz.tasks.segment.module import METHODS, SegmentModule
from lnz.tasks.segment.objectives import COMPARED, NAMES
from lnz.tasks.task import Task

DESCRIPTION = """Train a network that labels every pixel, once ending in an exponential softmax over whole labellings
(a Markov random field of the pixel grid, trained by any of ten objectives) and once, beside it, in an independent
softmax per pixel: same architecture, initial weights, batches and budget."""

EXAMPLES = """examples:
  scenes of handwritten digits, nothing to download, three seeds:
    lnz fit segment --seeds 3
  a folder with park.jpg, park_mask.png and so on, label 255 not judged:
    lnz fit segment --data.images photos --data.mask_suffix _mask --data.void_label 255
  masks of 0 and 255; masks of colours, a line "128 64 128 road" for each class:
    lnz fit segment --data.images photos --data.masks gt --data.label_values "[0,255]"
    lnz fit segment --data.images photos --data.masks gt --data.palette colours.txt
  images and masks in two folders, split by lists, edge scores from the image:
    lnz fit segment --data.images im --data.masks gt --data.train_list a.txt --data.val_list b.txt \\
        --model.edges contrast
  a larger network; or one of your own, a class in unet.py of this folder, called with channels and classes:
    lnz fit segment --config configs/camvid_encoder_decoder.yaml
    PYTHONPATH=. lnz fit segment --data.images photos --model.network unet.UNet --model.network.init_args.base 32
  rare classes count more; squares cut out of the images, mirrored at random:
    lnz fit segment --data.images photos --data.crop 128 --data.flip true --model.class_weights balanced
  contrastive divergence with five sweeps of a persistent chain per image; the expected IoU itself:
    lnz fit segment --objective pcd --model.steps 5
    lnz fit segment --objective label-adjustment --model.error iou --model.epsilon 10 --model.last_epsilon 1
  every objective with the same budget, in one table:
    lnz fit segment --objective all --output runs/objectives
  confidence that fits the validation data (one temperature per method, kept in the checkpoints):
    lnz fit segment --data.images photos --data.masks gt --calibrate
  a configuration file, something changed:
    lnz fit segment --config configs/camvid.yaml --trainer.max_epochs 5 --output runs/short
  go on after a crash or Ctrl-C:
    lnz fit segment --config runs/short/config.yaml --ckpt_path last
  two processes:
    lnz fit segment --trainer.strategy ddp --trainer.accelerator cpu --trainer.devices 2
The run folder then holds report.html, picture.png, results.json, config.yaml and, per seed, checkpoints and a
TensorBoard log (tensorboard --logdir runs)."""


class SegmentTask(Task):
    """Labels for every pixel of an image."""

    name = "segment"
    description = DESCRIPTION
    examples = EXAMPLES
    module = SegmentModule
    data = SegmentData
    test = SegmentTest
    report = report
    best = ("val/mrf_miou", "max")
    epochs = 20

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--objective",
            type=Literal[(*NAMES, "all")],  # type: ignore[valid-type]
            default="nll",
            help="What the MRF is trained by (see model.objective); all: one run each, compared.",
        )
        parser.add_argument("--calibrate", action="store_true", help=calibrated.HELP)
        parser.link_arguments("objective", "model.objective", _of_one_run)
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        parser.link_arguments("data.class_counts", "model.class_counts", apply_on="instantiate")
        parser.link_arguments("data.in_channels", "model.in_channels", apply_on="instantiate")

    def judge(
        self,
        seed: int,
        trainer: pl.Trainer,
        module: SegmentModule,
        data: SegmentData,
        seconds: float,
        history: list[dict[str, float]],
    ) -> report.Result:
        """The measures on the validation images."""
        step = module.seconds_per_step(next(iter(data.train_dataloader())))
        return self._measured(seed, trainer, module, data, seconds, history, step)

    def evaluate(self, seed: int, trainer: pl.Trainer, module: SegmentModule, data: SegmentTest) -> report.Result:
        return self._measured(seed, trainer, module, data, 0.0, [], 0.0)

    def _measured(
        self,
        seed: int,
        trainer: pl.Trainer,
        module: SegmentModule,
        data: SegmentData,
        seconds: float,
        history: list[dict[str, float]],
        step: float,
    ) -> report.Result:
        values = trainer.validate(module, datamodule=data, verbose=False)[0]
        measures = {m: {name: values[f"val/{m}_{name}"] for name in TITLES} for m in METHODS}
        shares = module.by_class[METHODS[0]][1].tolist()
        classes: dict[str, dict[str, float | None]] = {
            name: {"share": share} for name, share in zip(data.class_names, shares, strict=True)
        }
        for method in METHODS:
            for name, value in zip(data.class_names, module.by_class[method][0].tolist(), strict=True):
                classes[name][method] = None if math.isnan(value) else value
        objective, converged = module.settings["objective"], values["val/converged"]
        return report.Result(
            seed,
            measures,
            converged,
            seconds,
            history,
            objective,
            step,
            classes,
            values["val/void"],
            dict(module.temperatures),
            dict(module.reliability),
            dict(module.reweighted),
        )

    def picture(self, module: SegmentModule, data: SegmentData, count: int = 4) -> bytes:
        """The first validation images with their gold labels, both methods' labels, and the MRF's confidence."""
        module = module.cpu().eval()
        images, confidence = [], []
        columns: dict[str, list[Any]] = {"gold": [], "softmax": [], "MRF": []}
        for index in range(min(count, len(data.val_sizes))):
            batch = collate([data.val[(0, index)]])  # type: ignore[index]
            with torch.no_grad():
                labels, certainty = module.predict_step(batch, index)
                alone = module.softmax(batch["image"]).argmax(1)
            images.append(batch["image"][0])
            columns["gold"].append(batch["labels"][0])
            columns["softmax"].append(alone[0])
            columns["MRF"].append(labels[0])
            confidence.append(certainty[0])
        legend = data.legend
        return plot.png(plot.segmentation(images, columns, confidence, legend.names, legend.colours))


def _of_one_run(objective: str) -> str:
    """Of "all" no model is made; its runs ask for one each."""
    return COMPARED[0] if objective == "all" else objective


def run(argv: list[str], console: Console) -> None:
    """Train by the objective asked for, or by one after the other; see :func:`lnz.tasks.run.run`."""
    task = SegmentTask()
    config = TaskCLI(task, argv).config
    if config.objective == "all":
        comparison.run(task, argv, config, console)
    else:
        run_task(task, argv, console)
