"""``lnz fit density``: what the task is, for the machinery that all tasks share."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch

from lnz import plot
from lnz.nn import BlockGibbs, BoltzmannMachine, RestrictedBoltzmannMachine
from lnz.nn.boltzmann_machine import base_rates
from lnz.tasks.density import judge, report
from lnz.tasks.density.data import DensityData
from lnz.tasks.density.evaluate import DensityTest
from lnz.tasks.density.module import DensityModule
from lnz.tasks.run import run as run_task
from lnz.tasks.streams import generator
from lnz.tasks.task import Task

DESCRIPTION = """Learn the distribution of binary images: a restricted Boltzmann machine, or a grid of hidden units,
whose ln Z sums over every image there could be. The report compares it with independent pixels, and ln Z by annealed
importance sampling with ln Z enumerated, where that can be done."""

EXAMPLES = """examples:
  scikit-learn's handwritten digits, nothing to download, three seeds:
    lnz fit density --seeds 3
  the exact gradient instead of persistent contrastive divergence, 12 hidden units:
    lnz fit density --model.objective nll --model.hidden 12
  a folder of images, made 16 × 16, dark pixels 1:
    lnz fit density --data.images photos --data.size [16,16] --data.invert true --model.hidden 100
  a grid of hidden units instead of a restricted Boltzmann machine:
    lnz fit density --model.kind grid
  a configuration file, something changed:
    lnz fit density --config configs/density.yaml --trainer.max_epochs 5 --output runs/short
  go on after a crash or Ctrl-C, the persistent chains too:
    lnz fit density --config runs/short/config.yaml --ckpt_path last
The run folder then holds report.html, picture.png, results.json, config.yaml and, per seed, checkpoints and a
TensorBoard log (tensorboard --logdir runs)."""

SHOWN = 64
"""Images, samples and hidden units in the picture."""


class DensityTask(Task):
    """A distribution over binary images."""

    name = "density"
    description = DESCRIPTION
    examples = EXAMPLES
    module = DensityModule
    data = DensityData
    test = DensityTest
    report = report
    best = ("val/log_likelihood", "max")
    epochs = 100

    def add_arguments(self, parser: Any) -> None:
        parser.link_arguments("data.height", "model.height", apply_on="instantiate")
        parser.link_arguments("data.width", "model.width", apply_on="instantiate")

    def judge(
        self,
        seed: int,
        trainer: pl.Trainer,
        module: DensityModule,
        data: DensityData,
        seconds: float,
        history: list[dict[str, float]],
    ) -> report.Result:
        """Log-likelihoods in double precision, and ln Z both ways."""
        parts = {"train": data.train, "test": data.test}
        return self._measured(seed, module, parts, base_rates(data.train.double()), seconds, history)

    def evaluate(self, seed: int, trainer: pl.Trainer, module: DensityModule, data: DensityTest) -> report.Result:
        return self._measured(seed, module, {"test": data.test}, data.rates, 0.0, [])

    def _measured(
        self,
        seed: int,
        module: DensityModule,
        parts: Mapping[str, torch.Tensor],
        rates: torch.Tensor,
        seconds: float,
        history: list[dict[str, float]],
    ) -> report.Result:
        machine, settings = copy.deepcopy(module.machine).cpu().double(), module.settings
        images = {name: v.double() for name, v in parts.items()}
        log_z = judge.log_partition(machine, rates, settings["ais_steps"], settings["ais_chains"], seed)
        model = {name: float(judge.log_numerators(machine, v).mean()) - log_z.best for name, v in images.items()}
        pixels = {name: float(judge.pixelwise(rates, v).mean()) for name, v in images.items()}
        model["pseudo"] = float(judge.log_pseudolikelihood(machine, images["test"]).mean())
        pixels["pseudo"] = pixels["test"]  # a pixel that is independent of the others is what it is without them
        measures = {"pixels": pixels, "model": model}
        kind, objective = settings["kind"], settings["objective"]
        return report.Result(seed, kind, objective, measures, dataclasses.asdict(log_z), seconds, history)

    @torch.no_grad()
    def picture(self, module: DensityModule, data: DensityData) -> bytes:
        """Images of the data, states of long chains, and the weights of hidden units."""
        module = module.cpu()
        stream = generator(data.seed, 4)
        chains = module.chains or module.machine.init_chains(SHOWN, None, stream)
        chains = BlockGibbs().step(module.machine.mrf().model, chains, module.settings["picture_sweeps"], stream)
        drawn = chains.labels[:SHOWN, : module.machine.num_visible].float()
        shape = (-1, data.height, data.width)
        return plot.png(
            plot.mosaics(
                {
                    "training images": data.train[:SHOWN].float().reshape(shape),
                    f"samples, {chains.sweeps} sweeps": drawn.reshape(shape),
                    "weights of hidden units": weights(module.machine, data.height, data.width),
                }
            )
        )


def weights(machine: BoltzmannMachine, height: int, width: int) -> torch.Tensor:
    """Images of weights ``[K, height, width]``: an RBM's, by hidden unit; a grid's, of a pixel and between neighbours.

    The latter are three: of each pixel with its hidden unit, of that with the one to the right, with the one below.
    """
    if isinstance(machine, RestrictedBoltzmannMachine):
        return machine.weight.detach().T[:SHOWN].reshape(-1, height, width)
    own, right, below = machine.weight.detach().split([height * width, height * (width - 1), (height - 1) * width])
    shown = torch.zeros(3, height, width)
    shown[0] = own.reshape(height, width)
    shown[1, :, :-1] = right.reshape(height, width - 1)
    shown[2, :-1] = below.reshape(height - 1, width)
    return shown


run = partial(run_task, DensityTask())
