"""Two networks of one architecture side by side: the same initial weights, batches and dropout, no shared parameter."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lnz.tasks.calibrated import CalibratedModule
from lnz.tasks.reliability import reliability
from lnz.tasks.streams import generator


class PairedModule(CalibratedModule):
    """A structured network and the softmax beside it; their losses are added, so that each follows its own gradient.

    A subclass calls :meth:`draw_key` when it is made, after its networks.
    """

    clip: float
    """Largest norm of the gradient of each network."""
    key: Tensor
    """What dropout is drawn from."""

    @property
    @abstractmethod
    def networks(self) -> Mapping[str, nn.Module]:
        """By method."""

    @property
    @abstractmethod
    def measures(self) -> Mapping[str, Any]:
        """By method, what it is judged by."""

    @abstractmethod
    def score(self, values: Mapping[str, Tensor]) -> Tensor:
        """Of measured values, what the best checkpoint is chosen by."""

    def draw_key(self) -> None:
        """Draw what dropout is drawn from."""
        self.register_buffer("key", torch.randint(2**62, ()))

    @contextmanager
    def draws(self) -> Iterator[None]:
        """Dropout as a function of (run, step): the same for both networks, and in a resumed run as in another."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            stream = generator(int(self.key), self.global_step, self.global_rank)
            torch.manual_seed(int(torch.randint(2**62, (), generator=stream)))
            yield

    def added(self, losses: Mapping[str, Tensor], count: Tensor | int, batch_size: int) -> Tensor:
        """The sum of the losses over ``count``, each of which is logged."""
        for method, loss in losses.items():
            self.log(
                f"train/{method}_loss",
                loss / count,
                on_step=False,
                on_epoch=True,
                sync_dist=True,
                prog_bar=True,
                batch_size=batch_size,
            )
        return sum(losses.values(), torch.zeros((), device=self.device)) / count

    def on_validation_epoch_end(self) -> None:
        for method, measures in self.measures.items():
            values = measures.compute()
            for name, value in {**values, "score": self.score(values)}.items():
                self.log(f"val/{method}_{name}", value, sync_dist=True)  # equal in all processes already
            self.reliability[method] = reliability(measures.ece)
            measures.reset()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for network in self.networks.values():  # each by itself: what one does is nothing to the other
            nn.utils.clip_grad_norm_(network.parameters(), self.clip)
