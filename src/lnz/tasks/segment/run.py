"""``lnz fit segment``: the command line, the seeds one after the other, and what is left in the run folder."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import re
import time
import warnings
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from lnz import plot
from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.checkpoints import AtomicCheckpointIO, load_checkpoint
from lnz.tasks.segment import report
from lnz.tasks.segment.data import SegmentData, collate
from lnz.tasks.segment.measures import TITLES
from lnz.tasks.segment.module import METHODS, SegmentModule

DESCRIPTION = """Train a network that labels every pixel, once ending in an exponential softmax over whole labellings
(a Markov random field of the pixel grid, by belief propagation) and once, beside it, in an independent softmax per
pixel: same architecture, initial weights, batches and budget."""

EXAMPLES = """examples:
  scenes of handwritten digits, nothing to download, three seeds:
    lnz fit segment --seeds 3
  a folder with park.jpg, park_mask.png and so on, label 255 not judged:
    lnz fit segment --data.images photos --data.mask_suffix _mask --data.void_label 255
  images and masks in two folders, split by lists, edge scores from the image:
    lnz fit segment --data.images im --data.masks gt --data.train_list a.txt --data.val_list b.txt \\
        --model.edges contrast
  a configuration file, something changed:
    lnz fit segment --config configs/camvid.yaml --trainer.max_epochs 5 --output runs/short
  go on after a crash or Ctrl-C:
    lnz fit segment --config runs/short/config.yaml --ckpt_path last
  two processes:
    lnz fit segment --trainer.strategy ddp --trainer.accelerator cpu --trainer.devices 2
The run folder then holds report.html, picture.png, results.json, config.yaml and, per seed, checkpoints and a
TensorBoard log (tensorboard --logdir runs)."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; the last checkpoint is kept."""


class _Help(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help that keeps the lines of the examples."""


class SegmentCLI(LightningCLI):
    """The options of the task; objects are made seed by seed, in :func:`fit_seed`."""

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            SegmentModule,
            SegmentData,
            save_config_callback=None,
            trainer_defaults={
                "max_epochs": 20,
                "accelerator": "auto",
                "deterministic": True,
                "use_distributed_sampler": False,  # SegmentData gives each process its share
                "enable_model_summary": False,
                "log_every_n_steps": 1,
            },
            parser_kwargs={
                "prog": "lnz fit segment",
                "usage": "lnz fit segment [--config FILE] [--output DIR] [--seeds K] [options]",
                "description": DESCRIPTION,
                "epilog": EXAMPLES,
                "formatter_class": _Help,
            },
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.add_argument("--output", type=Path | None, help="Run folder; by default, runs/segment/<time>.")
        parser.add_argument("--seeds", type=int, default=1, help="Number of runs, seeded seed_everything, +1, +2 …")
        parser.add_argument("--ckpt_path", type=str | None, help="Checkpoint to go on from, or last: that of --output.")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        parser.link_arguments("data.in_channels", "model.in_channels", apply_on="instantiate")

    def add_default_arguments_to_parser(self, parser: Any) -> None:
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of the first run.")

    def _set_seed(self) -> None:
        """Nothing yet: each seed sets its own."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        self.config = parser.parse_args(args)  # the base class warns when both args and sys.argv are there

    def instantiate_classes(self) -> None:
        """Nothing yet: each seed makes its own."""


class Progress(RichProgressBar):
    """The usual progress bar, less the version of the log."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return {key: value for key, value in super().get_metrics(trainer, pl_module).items() if key != "v_num"}


class History(Callback):
    """The logged values of each epoch, kept through checkpoints."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.points.append({"epoch": float(trainer.current_epoch + 1), **values})

    def state_dict(self) -> dict[str, Any]:
        return {"points": list(self.points)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = list(state_dict["points"])


def run(argv: list[str], console: Console) -> None:
    """Parse ``argv``, train each seed, and show and keep the results.

    Raises:
        SystemExit: a wrong option.
        FormatError, OSError: bad input, or a run folder that cannot be written; before training.
        Interrupted: Ctrl-C.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # Lightning's, of torch
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    cli = SegmentCLI(argv)
    config = cli.config
    if config.seeds < 1:
        cli.parser.error(f"seeds: expected a positive integer, got {config.seeds}")
    if config.ckpt_path == "last" and config.output is None:
        cli.parser.error("ckpt_path: 'last' needs --output, the run folder whose last checkpoint is meant")
    output = run_folder(config)
    first = config.seed_everything
    if first < 0:
        cli.parser.error(f"seed_everything: expected an integer of at least 0, got {first}")
    seeds = [first + k for k in range(config.seeds)]
    if rank_zero_only.rank == 0:
        prepare(output)
        saved = config.clone()
        saved.output, saved.ckpt_path = output, None
        with atomic_write(output / "config.yaml") as file:
            file.write(cli.parser.dump(saved))
    results = []
    for seed in seeds:
        folder = output / f"seed-{seed}"
        finished = folder / "results.json"
        checkpoint = resume_from(config.ckpt_path, folder, seed == first)
        if config.ckpt_path and finished.is_file():
            results.append(report.Result(**json.loads(finished.read_text(encoding="utf-8"))))
            continue
        try:
            result = fit_seed(cli, seed, folder, checkpoint)
        except Interrupted as stop:
            raise Interrupted(f"lnz fit segment --config {output / 'config.yaml'} --ckpt_path last") from stop
        results.append(result)
    if rank_zero_only.rank == 0:
        finish(results, output, console)


def run_folder(config: Any) -> Path:
    """The run folder asked for, that of the checkpoint to go on from, or a new one."""
    if config.output is not None:
        return config.output.resolve()
    if config.ckpt_path:
        seed_folder = Path(config.ckpt_path).resolve().parent.parent
        if re.fullmatch(r"seed-\d+", seed_folder.name):
            return seed_folder.parent
    return Path("runs", "segment", datetime.now().strftime("%Y-%m-%d-%H%M%S")).resolve()


def prepare(output: Path) -> None:
    """Make the run folder, and find out now whether it can be written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with atomic_write(output / ".writable") as file:
            file.write("")
        (output / ".writable").unlink()
    except OSError as error:
        raise OSError(error.errno, f"run folder cannot be written: {error.strerror}", str(output)) from error


def resume_from(ckpt_path: str | None, folder: Path, is_first: bool) -> Path | None:
    """The checkpoint that a seed goes on from, if any.

    A path is that of one seed: the one of its folder in this run, or the first where it comes from elsewhere. The other
    seeds go on from their own last checkpoints, or, where they have none yet, start from the beginning.

    Raises:
        FormatError: the checkpoint is missing, cannot be read, or is of another task.
    """
    if ckpt_path is None:
        return None
    path = folder / "checkpoints" / "last.ckpt"
    required = False
    if ckpt_path != "last":
        given = Path(ckpt_path).resolve()
        origin = given.parent.parent
        of_this_run = origin.parent == folder.parent and re.fullmatch(r"seed-\d+", origin.name)
        required = origin == folder if of_this_run else is_first
        path = given if required else path
    if not required and not path.is_file():
        return None
    SegmentModule.from_checkpoint(load_checkpoint(path), str(path))
    return path


def fit_seed(cli: SegmentCLI, seed: int, folder: Path, checkpoint: Path | None) -> report.Result:
    """Train and judge one seed; its folder then holds checkpoints, logs, results and picture."""
    config = cli.config.clone()
    config.seed_everything = config.data.seed = seed
    pl.seed_everything(seed, workers=True, verbose=False)
    made = instantiate(cli, config)
    history = History()
    trainer = make_trainer(dict(made.trainer), folder, history)
    started = time.monotonic()
    try:
        trainer.fit(made.model, datamodule=made.data, ckpt_path=str(checkpoint) if checkpoint else None)
    except SystemExit as stop:  # how the trainer leaves after Ctrl-C
        if trainer.interrupted:
            raise Interrupted from stop
        raise
    if trainer.interrupted:
        raise Interrupted
    seconds = time.monotonic() - started
    values = trainer.validate(made.model, datamodule=made.data, verbose=False)[0]
    measures = {m: {name: values[f"val/{m}_{name}"] for name in TITLES} for m in METHODS}
    result = report.Result(seed, measures, values["val/converged"], seconds, history.points)
    if trainer.is_global_zero:
        with atomic_write(folder / "picture.png", "wb") as file:
            file.write(picture(made.model, made.data))
        with atomic_write(folder / "results.json") as file:
            json.dump(dataclasses.asdict(result), file, indent=1)
    return result


def instantiate(cli: SegmentCLI, config: Any) -> Any:
    """Model, data and the trainer's settings; a value that one of them refuses is told as a wrong option."""
    try:
        return cli.parser.instantiate(config)
    except FormatError:
        raise
    except ValueError as error:
        cli.parser.error(str(error))


def make_trainer(settings: dict[str, Any], folder: Path, history: History) -> pl.Trainer:
    """The trainer asked for, with our checkpoints, curves and log."""
    # two callbacks: one alone writes last.ckpt only where it also writes a new best
    kept = partial(ModelCheckpoint, folder / "checkpoints", save_on_train_epoch_end=True, enable_version_counter=False)
    last, best = kept(filename="last"), kept(filename="best", monitor="val/mrf_miou", mode="max")
    callbacks = settings["callbacks"] or []
    settings["callbacks"] = [*(callbacks if isinstance(callbacks, list) else [callbacks]), history]
    if settings["enable_checkpointing"] is not False and not settings["fast_dev_run"]:
        settings["callbacks"] += [last, best]
    if settings["enable_progress_bar"] is not False:
        settings["callbacks"].append(Progress())
    plugins = settings["plugins"] or []
    settings["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
    if settings["logger"] in (None, True):
        settings["logger"] = TensorBoardLogger(folder, name=None, version="tensorboard")
    settings["default_root_dir"] = settings["default_root_dir"] or folder
    return pl.Trainer(**settings)


def picture(module: SegmentModule, data: SegmentData, count: int = 4) -> bytes:
    """The first validation images with their gold labels, both methods' labels, and the MRF's confidence."""
    module = module.cpu().eval()
    images, confidence = [], []
    columns: dict[str, list[Any]] = {"gold": [], "softmax": [], "MRF": []}
    for index in range(min(count, len(data.val_sizes))):
        batch = collate([data.val[(0, index)]])  # type: ignore[index]
        beliefs, _ = module.beliefs(batch["image"])
        images.append(batch["image"][0])
        columns["gold"].append(batch["labels"][0])
        columns["softmax"].append(beliefs["softmax"][0].argmax(0))
        certainty, labels = beliefs["mrf"][0].max(0)
        columns["MRF"].append(labels)
        confidence.append(certainty)
    return plot.png(plot.segmentation(images, columns, confidence, data.num_classes))


def finish(results: list[report.Result], output: Path, console: Console) -> None:
    """Write the report of all seeds, and show the table."""
    shown = (output / f"seed-{results[0].seed}" / "picture.png").read_bytes()
    config = (output / "config.yaml").read_text(encoding="utf-8")
    about = {"run folder": output, "seeds": ", ".join(str(result.seed) for result in results)}
    with atomic_write(output / "picture.png", "wb") as file:
        file.write(shown)
    with atomic_write(output / "results.json") as file:
        json.dump([dataclasses.asdict(result) for result in results], file, indent=1)
    with atomic_write(output / "report.html") as file:
        file.write(report.page(results, shown, config, about))
    console.print(report.table(results))
    console.print(f"picture: {output / 'picture.png'}\nreport:  {output / 'report.html'}", soft_wrap=True)
