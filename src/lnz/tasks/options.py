"""The options of ``lnz fit TASK``: those of data, model and trainer, and of the run as a whole."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lnz.errors import FormatError
from lnz.io.yaml import check_yaml
from lnz.tasks.parsing import Strict
from lnz.tasks.task import Task


class Help(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help that keeps the lines of the examples, and lists no dozens of classes that happen to be imported."""

    def _expand_help(self, action: Any) -> str:
        return re.sub(r", known subclasses: (?:[\w.]+, ){12,}[\w.]+", "", super()._expand_help(action))


class _Parser(Strict, LightningArgumentParser):
    """Lightning's parser with full option names and our errors."""


class TaskCLI(LightningCLI):
    """The options of a task; objects are made seed by seed, by :meth:`make`."""

    def __init__(self, task: Task, args: list[str]) -> None:
        self.task = task
        super().__init__(
            task.module,
            task.data,
            save_config_callback=None,
            trainer_defaults={
                "max_epochs": task.epochs,
                "accelerator": "auto",
                "deterministic": True,
                "use_distributed_sampler": False,  # the data gives each process its share
                "enable_model_summary": False,
                "log_every_n_steps": 1,
            },
            parser_kwargs={
                "prog": f"lnz fit {task.name}",
                "usage": f"lnz fit {task.name} [--config FILE] [--output DIR] [--seeds K] [options]",
                "description": task.description,
                "epilog": task.examples,
                "formatter_class": Help,
            },
            parser_class=_Parser,
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: Any) -> None:
        default = f"runs/{self.task.name}/<time>"
        parser.add_argument("--output", type=Path | None, help=f"Run folder; by default, {default}.")
        parser.add_argument("--overwrite", action="store_true", help="Replace the run that --output holds.")
        parser.add_argument("--seeds", type=int, default=1, help="Number of runs, seeded seed_everything, +1, +2 …")
        parser.add_argument("--ckpt_path", type=str | None, help="Checkpoint to go on from, or last: that of --output.")
        parser.link_arguments("seed_everything", "data.seed")
        self.task.add_arguments(parser)
        for action in parser._actions:  # a link by a function is shown as what it links, without the function's name
            action.option_strings = [re.sub(r"^\w+\((\w+)\)(?= -->)", r"\1", text) for text in action.option_strings]

    def add_core_arguments_to_parser(self, parser: Any) -> None:
        super().add_core_arguments_to_parser(parser)
        groups, trainer = parser._action_groups, parser.groups["trainer"]
        groups.append(groups.pop(groups.index(trainer)))  # in the help, after what is of the task

    def add_default_arguments_to_parser(self, parser: Any) -> None:
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of the first run.")

    def _set_seed(self) -> None:
        """Nothing yet: each seed sets its own."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        check_configs(args)
        self.config = parser.parse_args(args)  # the base class warns when both args and sys.argv are there

    def instantiate_classes(self) -> None:
        """Nothing yet: each seed makes its own."""

    def make(self, config: Any) -> Any:
        """Model, data and the trainer's settings; a value that one of them refuses is told as a wrong option."""
        try:
            return self.parser.instantiate(config)
        except FormatError:
            raise
        except ValueError as error:
            self.parser.error(str(error))


def check_configs(args: Sequence[str]) -> None:
    """Look at the configuration files among arguments before anything is made of them.

    Raises:
        FormatError: what :func:`lnz.io.yaml.check_yaml` raises.
    """
    for flag, argument in zip(["", *args], args, strict=False):
        name, _, value = argument.rpartition("=")
        config = "--config" in (flag, name) or value.endswith((".yaml", ".yml", ".json"))
        if config and os.path.isfile(value):
            check_yaml(value)
