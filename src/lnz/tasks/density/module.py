"""The density task: a Boltzmann machine over binary images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from lnz.errors import LnzError
from lnz.graphs import FactorGraph
from lnz.inference import Chains
from lnz.nn import BoltzmannMachine, RestrictedBoltzmannMachine
from lnz.nn.boltzmann_machine import Objective, base_rates
from lnz.tasks.density.data import DensityData
from lnz.tasks.density.judge import ENUMERATED, exact_log_partition, log_numerators
from lnz.tasks.module import TaskModule
from lnz.tasks.streams import generator

Kind = Literal["rbm", "grid"]
WIDEST_GRID = 12
"""ln Z of a grid is exact, by elimination, as long as its shorter side has at most this many pixels."""
COPY = 4.0
"""The weight, at first, of a pixel and its hidden unit in a grid: the one is the other in 88 of 100 cases."""
CURVES = 14
"""The curves show exact log-likelihoods up to this many units on the smaller side, and annealed ones beyond."""


class DensityModule(TaskModule):
    """A distribution over images of H × W binary pixels with hidden units, trained by one of four objectives.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.
        kind: "rbm", every pixel joined to every hidden unit; "grid", one hidden unit per pixel, joined to its pixel and
            to the hidden units of the 4 neighbouring pixels.
        hidden: hidden units of an RBM; up to 20, ln Z is enumerated too. (A grid has one per pixel.)
        objective: "cd" and "pcd", contrastive divergence from the data and from persistent chains; "pseudolikelihood"
            (RBM only); "nll", the exact gradient (an RBM of up to 20 hidden units, or a grid). By default, "pcd" for an
            RBM, "nll" for a grid.
        steps: Gibbs sweeps per training step, of "cd" and "pcd".
        chains: persistent chains, of "pcd".
        learning_rate: of stochastic gradient descent, at the start; it falls to 0 linearly.
        weight_decay: of the weights between units; biases have none.
        ais_steps: steps of annealed importance sampling, at the end.
        ais_chains: chains of annealed importance sampling, at the end.
        picture_sweeps: Gibbs sweeps of the chains whose states are drawn, at the end.
    """

    task = "density"

    def __init__(
        self,
        height: int,
        width: int,
        *,
        kind: Kind = "rbm",
        hidden: int = 16,
        objective: str | None = None,  # told wrong below, in words of its own: the parser's on a union are its types
        steps: int = 1,
        chains: int = 100,
        learning_rate: float = 0.5,
        weight_decay: float = 1e-4,
        ais_steps: int = 5000,
        ais_chains: int = 200,
        picture_sweeps: int = 2000,
    ) -> None:
        super().__init__()
        objective = objective or ("pcd" if kind == "rbm" else "nll")
        self.settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        for name in ("hidden", "steps", "chains", "ais_steps", "picture_sweeps"):
            if self.settings[name] < 1:
                raise ValueError(f"model.{name}: expected a positive integer, got {self.settings[name]}")
        if ais_chains < 2:
            raise ValueError(f"model.ais_chains: expected an integer of at least 2, got {ais_chains}")
        if kind not in get_args(Kind):
            raise ValueError(f"model.kind: expected 'rbm' or 'grid', got {kind!r}")
        if objective not in get_args(Objective):
            known = ", ".join(map(repr, get_args(Objective)))
            raise ValueError(f"model.objective: expected {known}, got {objective!r}")
        self.objective: Objective = cast("Objective", objective)
        self.steps, self.num_chains = steps, chains
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.chains: Chains | None = None
        self.rates: Tensor | None = None
        """The means of the training images ``[V]``, which independent pixels and annealing start from."""
        rbm = kind == "rbm"
        self.machine = _rbm(height * width, hidden, objective) if rbm else _grid(height, width, objective)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["lnz"]["chains"] = self.chains.state_dict() if self.chains else None
        checkpoint["lnz"]["rates"] = self.rates

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        state = checkpoint["lnz"]["chains"]
        self.chains = Chains.from_state_dict(state) if state else None
        self.rates = checkpoint["lnz"].get("rates")

    @property
    def data(self) -> DensityData:
        return cast("DensityData", self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.trainer.world_size > 1:
            raise LnzError("trainer.devices: expected 1, since the chains of lnz fit density live in one process")
        self.rates = base_rates(self.data.train.double())
        if self.trainer.global_step == 0:
            self._start_at(self.data.train.float().to(self.device))
        if self.objective == "pcd" and self.chains is None:
            stream = generator(self.data.seed, 1)
            rows = torch.randint(len(self.data.train), (self.num_chains,), generator=stream)
            self.chains = self.machine.init_chains(
                self.num_chains, self.data.train[rows].float().to(self.device), stream
            )
        elif self.chains is not None:
            self.chains.labels = self.chains.labels.to(self.device)

    @torch.no_grad()
    def _start_at(self, v: Tensor) -> None:
        """Let the units that stand for pixels be independent, with the means of the data."""
        if isinstance(self.machine, RestrictedBoltzmannMachine):
            self.machine.set_base_rates(v)
        else:
            self.machine.hidden_bias.copy_(base_rates(v).logit())

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        # a stream of its own for every step: a resumed run draws what an uninterrupted one would have
        stream = generator(self.data.seed, 2, self.current_epoch, batch_idx)
        loss = self.machine.loss(batch, self.objective, steps=self.steps, chains=self.chains, generator=stream)
        if self.objective in ("nll", "pseudolikelihood"):  # that of chains means nothing, but in its gradient
            self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """ln P per image of the test images and of as many training images."""
        log_z = self.rough_log_partition()
        train = self.data.train[: len(batch)].float().to(batch)
        self.log("val/log_likelihood", log_numerators(self.machine, batch).mean() - log_z, prog_bar=True)
        self.log("train/log_likelihood", log_numerators(self.machine, train).mean() - log_z)

    @torch.no_grad()
    def rough_log_partition(self) -> Tensor:
        """ln Z for the curves: exact where that is fast, by 500 steps of annealing elsewhere."""
        exact = exact_log_partition(self.machine, CURVES)
        if exact is not None:
            return exact
        machine = cast("RestrictedBoltzmannMachine", self.machine)
        return machine.annealed_partition(500, 50, generator=generator(self.data.seed, 3)).log_partition

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": [self.machine.weight], "weight_decay": self.weight_decay},
            {"params": [self.machine.visible_bias, self.machine.hidden_bias]},
        ]
        optimizer = torch.optim.SGD(groups, self.learning_rate)
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "step"}}


def _rbm(pixels: int, hidden: int, objective: str) -> RestrictedBoltzmannMachine:
    if objective == "nll" and min(pixels, hidden) > ENUMERATED:
        raise ValueError(f"model.objective: 'nll' enumerates up to {ENUMERATED} hidden units, got {hidden}; try 'pcd'")
    return RestrictedBoltzmannMachine(pixels, hidden)


def _grid(height: int, width: int, objective: str) -> BoltzmannMachine:
    if min(height, width) > WIDEST_GRID:
        raise ValueError(
            f"model.kind: 'grid' is judged by its exact ln Z, for images of at most {WIDEST_GRID} pixels across, got "
            f"{height} × {width}; data.size makes them smaller"
        )
    if objective == "pseudolikelihood":
        raise ValueError("model.objective: 'pseudolikelihood' needs hidden units that are not joined, as an RBM's are")
    pixels = height * width
    own = torch.arange(pixels)
    neighbours = FactorGraph.grid(height, width, 2).scopes[1]
    edges = torch.cat((torch.stack((own, pixels + own), -1), pixels + neighbours))
    machine = BoltzmannMachine(pixels, pixels, edges)
    with torch.no_grad():
        machine.weight.zero_()
        machine.weight[:pixels] = COPY
        machine.visible_bias.fill_(-COPY / 2)
    return machine
