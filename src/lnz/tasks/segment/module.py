"""The segmentation task: a network that ends in an exponential softmax, beside one that ends in a softmax."""

from __future__ import annotations

import copy
import dataclasses
import logging
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from lnz.distributions import MRF, Softmax
from lnz.distributions.base import StructuredDistribution
from lnz.errors import ConvergenceWarning
from lnz.inference import BeliefPropagation, Gibbs
from lnz.io.masks import Legend
from lnz.nn import GridMRF
from lnz.nn.grid_mrf import Edges
from lnz.objectives import EpsilonSchedule, nll
from lnz.tasks.calibrated import CalibratedModule
from lnz.tasks.reliability import reliability
from lnz.tasks.segment.chains import ImageChains
from lnz.tasks.segment.measures import Measures
from lnz.tasks.segment.networks import Factory, described, given, import_of_run, small
from lnz.tasks.segment.objectives import (
    ENOUGH,
    OBJECTIVES,
    ErrorName,
    Name,
    Step,
    by,
    decoder,
    shifted,
    tree_reweighted,
)
from lnz.tasks.segment.weights import ClassWeights, resolved
from lnz.tasks.streams import generator
from lnz.typing import IGNORE

METHODS = ("softmax", "mrf")
WIDTH, DILATIONS = 16, (1, 1)
_logger = logging.getLogger("lnz")


class SegmentModule(CalibratedModule):
    """Two networks of one architecture, from the same initial weights, on the same batches.

    ``softmax`` ends in an independent softmax per pixel, ``mrf`` in a :class:`~lnz.nn.GridMRF` that is trained by the
    ``objective``. They share no parameter: the losses are added, so that each network follows its own gradient in one
    optimiser.

    Args:
        num_classes: number of labels of a pixel.
        in_channels: channels of the images.
        network: class of the network, lnz.nn.EncoderDecoder or one of your own: its first two arguments are the
            channels of images and the number of classes, and of images [B, in_channels, H, W] it makes scores
            [B, num_classes, H, W]. By default, a small network of convolutions, by width and dilations, which gives
            features.
        width: channels of the small network.
        dilations: of the small network; one 3×3 convolution per entry, with that dilation; the receptive field is
            1 + 2 Σ dilations.
        edges: edge scores, "shared" (one table per direction), "contrast" (table × a weight from the image),
            "bilateral" (table × a weight from how far the features of two pixels are apart; with a network that gives
            scores, their colours) or "full" (a table per edge from the image). A network that gives scores takes
            "shared" and "bilateral".
        neighbours: 4 or 8 neighbours of a pixel.
        objective: what the MRF is trained by. "nll-bp", "nll-trw", "mean-field": maximum likelihood with ln Z by belief
            propagation, tree-reweighted belief propagation or mean field, which also give the beliefs that are judged
            (everywhere else belief propagation does); "nll": "nll-bp", and "nll-trw" after the first epoch in which
            belief propagation has converged on fewer than 90 % of the training images, as log and report say; "mcmc":
            with the gradient from samples; "cd", "pcd": contrastive divergence, from gold or from a chain per training
            image that goes on; "pseudolikelihood";
            "label-adjustment", "hinge": for the task error, by best labellings, which are then the predictions too;
            "softmax": each pixel by itself, the edge scores staying 0.
        inference: belief propagation; the iterations and the tolerance of its stand-ins too.
        sampler: of "mcmc" (chains per image, and sweeps before their states count), "cd" and "pcd"; it also draws the
            labels of unobserved pixels for those two and "pseudolikelihood".
        steps: sweeps of "cd" and "pcd".
        error: what "label-adjustment" and "hinge" train for; by default, "iou" (1 − mean IoU, times the pixels) for the
            one and "hamming" (wrong pixels) for the other.
        epsilon: of "label-adjustment", at first.
        last_epsilon: and at the end of training, falling geometrically; by default, the same.
        warm_start: share of the steps in which "nll-bp" trains, before the objective takes over; by default, half of
            them under "label-adjustment", which goes nowhere from the best labellings of an untrained network, else
            none.
        class_weights: "balanced" (in inverse proportion to class_counts) or a number per class. Training adds
            −ln weight to the scores of each class, predictions do not (Menon et al. 2021): what is learnt is the
            distribution of the data times the weights of the labels, normalised. Under the independent softmax, weights
            in the cross-entropy have the same best network.
        class_counts: pixels of each class in the training data.
        learning_rate: the peak of a one-cycle schedule of Adam.
        weight_decay: decoupled weight decay.
    """

    task = "segment"
    calibrated_by = "marginals"  # the beliefs are what is judged, and ln Z is Bethe's

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        network: Factory | None = None,
        width: int = WIDTH,
        dilations: Sequence[int] = DILATIONS,
        edges: Edges = "shared",
        neighbours: int = 4,
        objective: Name = "nll",
        inference: BeliefPropagation = BeliefPropagation(),  # noqa: B008  (frozen)
        sampler: Gibbs = Gibbs(chains=4, warmup=20),  # noqa: B008
        steps: int = 1,
        error: ErrorName | None = None,
        epsilon: float = 1.0,
        last_epsilon: float | None = None,
        warm_start: float | None = None,
        class_weights: ClassWeights | None = None,
        class_counts: Sequence[int] | None = None,
        learning_rate: float = 0.02,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {objective!r}")
        if steps < 1:
            raise ValueError(f"steps: expected a positive integer, got {steps}")
        if warm_start is None:
            warm_start = 0.5 if objective == "label-adjustment" else 0.0
        if not 0 <= warm_start < 1:
            raise ValueError(f"warm_start: expected a number in [0, 1), got {warm_start}")
        EpsilonSchedule(epsilon, last_epsilon or epsilon, 1)  # refuses now what is not positive
        description = None if network is None else described(network)
        if description is not None and (width, tuple(dilations)) != (WIDTH, DILATIONS):
            raise ValueError("width, dilations: are of the small network, and have no meaning with model.network")
        if description is not None and edges not in ("shared", "bilateral"):
            raise ValueError(f"edges: expected 'shared' or 'bilateral' of a model.network, got {edges!r}")
        weights = resolved(class_weights, class_counts, num_classes)
        self.settings = {
            "num_classes": num_classes,
            "in_channels": in_channels,
            "network": description,
            "width": width,
            "dilations": list(dilations),
            "edges": edges,
            "neighbours": neighbours,
            "objective": objective,
            "inference": dataclasses.asdict(inference),
            "sampler": dataclasses.asdict(sampler),
            "steps": steps,
            "error": error,
            "epsilon": epsilon,
            "last_epsilon": last_epsilon,
            "warm_start": warm_start,
            "class_weights": weights,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
        }
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.objective = OBJECTIVES[objective]
        self.error: ErrorName = error or ("hamming" if objective == "hinge" else "iou")
        self.inference, self.sampler, self.steps = inference, sampler, steps
        self.epsilon, self.last_epsilon, self.warm_start = epsilon, last_epsilon or epsilon, warm_start
        method = self.objective.judge(inference)

        def grid(channels: int | None) -> GridMRF:
            return GridMRF(channels, num_classes, edges, neighbours, method)

        if description is not None:
            self.mrf, self.softmax = given(description, in_channels, num_classes, grid)
        else:
            self.mrf, self.softmax = small(in_channels, num_classes, width, dilations, grid)
        if objective == "softmax":
            for name, parameter in self.mrf[1].named_parameters():  # type: ignore[index]
                parameter.requires_grad_(name.startswith("nodes."))
        self.shift: Tensor | None  # of scores in training, [L]
        self.register_buffer("shift", None if weights is None else -torch.tensor(weights).log(), persistent=False)
        self.softmax_measures, self.mrf_measures = Measures(num_classes), Measures(num_classes)
        self.converged, self.void, self.trained_converged = MeanMetric(), MeanMetric(), MeanMetric()
        self.reweighted: dict[str, float] = {}
        """Of "nll", once tree-reweighted belief propagation has taken over: the "epoch" after which it did, and the
        "share" of that epoch's images on which belief propagation had converged."""
        self.by_class: dict[str, tuple[Tensor, Tensor]] = {}
        """Per method, of the last validation: intersection over union and share of each class, ``[L]``."""
        self.chains = ImageChains() if objective == "pcd" else None
        self.legend: Legend | None = None
        """Names, colours and mask values of the labels, as the data of the training says."""
        self.key: Tensor  # what the objective's random numbers are drawn from
        self.register_buffer("key", torch.randint(2**62, ()))

    @property
    def measures(self) -> dict[str, Measures]:
        return {"softmax": self.softmax_measures, "mrf": self.mrf_measures}

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], source: str) -> Self:
        if checkpoint.get("lnz", {}).get("settings", {}).get("network"):
            import_of_run(source)
        return super().from_checkpoint(checkpoint, source)

    @classmethod
    def arguments(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        inference, sampler = BeliefPropagation(**settings["inference"]), Gibbs(**settings["sampler"])
        return {**settings, "inference": inference, "sampler": sampler}

    def setup(self, stage: str) -> None:
        self.legend = getattr(self.trainer.datamodule, "legend", self.legend)  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.legend is not None:
            checkpoint["lnz"]["legend"] = dataclasses.asdict(self.legend)
        if self.reweighted:
            checkpoint["lnz"]["reweighted"] = dict(self.reweighted)
        if self.chains is not None:  # under several processes, those of the first
            checkpoint["lnz"]["chains"] = self.chains.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if "legend" in checkpoint["lnz"]:
            self.legend = Legend(**checkpoint["lnz"]["legend"])
        if "reweighted" in checkpoint["lnz"]:
            self.reweight(**checkpoint["lnz"]["reweighted"])
        if self.chains is not None:
            self.chains.load_state_dict(checkpoint["lnz"].get("chains", {}))

    def reweight(self, epoch: float, share: float) -> None:
        """Train and judge by tree-reweighted belief propagation from now on."""
        self.reweighted = {"epoch": float(epoch), "share": float(share)}
        self.mrf[1].inference = tree_reweighted(self.inference)  # type: ignore[index]

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        image, labels = batch["image"], batch["labels"]
        observed = (labels != IGNORE).sum().clamp(min=1)
        scores = self.softmax(image)
        if self.shift is not None:
            scores = scores + self.shift[:, None, None]
        losses = {"softmax": F.cross_entropy(scores, labels, ignore_index=IGNORE, reduction="sum")}
        draws = generator(int(self.key), self.global_step, self.global_rank)
        if self.warm_start and self.global_step < self.warm_start * self._steps:
            losses["mrf"] = self.likelihood(batch)
        else:
            losses["mrf"] = self.loss(self.mrf, batch, draws)
        for method in METHODS:
            self.log(
                f"train/{method}_loss",
                losses[method] / observed,
                on_step=False,
                on_epoch=True,
                sync_dist=True,
                prog_bar=True,
                batch_size=len(image),
            )
        return (losses["softmax"] + losses["mrf"]) / observed

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor], draws: torch.Generator) -> Tensor:
        """The objective of the MRF, summed over a batch."""
        gold = batch["labels"].flatten(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead: converged is logged and reported
            p = self._trained(network, batch["image"])
            if self.objective.train is not None:
                p = by(p, self.objective.train(self.inference, self.sampler))
            chains = None if self.chains is None else self.chains.of(p, gold, batch, self.sampler, draws)
            step = Step(self.sampler, self.steps, draws, self.error, self._epsilon, chains)
            loss = self.objective.loss(p, gold, step)
            if self.objective.reweights:
                self.trained_converged.update(torch.as_tensor(p.diagnostics["converged"], dtype=torch.float32))
        if self.chains is not None and chains is not None:
            self.chains.keep(chains, batch)
        return loss

    def _trained(self, network: nn.Module, image: Tensor) -> MRF:
        p = network(image)
        return p if self.shift is None else shifted(p, self.shift)

    def likelihood(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The negative log-likelihood by belief propagation, summed over a batch, of a warm start."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return nll(by(self._trained(self.mrf, batch["image"]), self.inference), batch["labels"].flatten(1), "sum")

    @property
    def _steps(self) -> int:
        return int(self.trainer.estimated_stepping_batches)

    @property
    def _epsilon(self) -> float:
        if self.epsilon == self.last_epsilon:
            return self.epsilon
        first = int(self.warm_start * self._steps)
        calls = max(1, self._steps - first - 1)
        return EpsilonSchedule(self.epsilon, self.last_epsilon, calls, made=max(0, self.global_step - first))()

    def seconds_per_step(self, batch: Mapping[str, Tensor], repeats: int = 5) -> float:
        """The median time of the MRF's loss and its gradient on one batch; nothing is changed by it."""
        network, chains = copy.deepcopy(self.mrf).train(), copy.deepcopy(self.chains)
        seconds = []
        for repeat in range(repeats + 1):  # the first one may compile
            started = time.perf_counter()
            self.loss(network, batch, generator(repeat)).backward()
            seconds.append(time.perf_counter() - started)
        self.chains = chains
        return statistics.median(seconds[1:])

    @torch.no_grad()
    def beliefs(self, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Per method, the probability of each label of each pixel ``[B, L, H, W]``; and whether each image converged.

        The second is 1 or 0 per image, ``[B]``.
        """
        nodes, converged = self._judged(self._mrf(image))
        return {"softmax": self._softmax(image), "mrf": _shaped(nodes, image)}, converged

    def _mrf(self, image: Tensor) -> MRF:
        return self.mrf(image).tempered(self.temperature("mrf"))

    def _softmax(self, image: Tensor) -> Tensor:
        """Probabilities ``[B, L, H, W]``."""
        return (self.softmax(image) / self.temperature("softmax")).softmax(1)

    def distributions(self, batch: Mapping[str, Tensor]) -> dict[str, tuple[StructuredDistribution, Tensor]]:
        image, labels = batch["image"], batch["labels"]
        pixels = Softmax(self.softmax(image).movedim(1, -1))
        return {"softmax": (pixels, labels), "mrf": (self.mrf(image), labels.flatten(1))}

    def _judged(self, p: MRF) -> tuple[Tensor, Tensor]:
        """Beliefs ``[B, N, L]``, and whether they have converged."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            nodes = p.node_marginals
        return nodes, torch.as_tensor(p.diagnostics["converged"], dtype=torch.float32)

    @torch.no_grad()
    def predicted(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the MRF: labels ``int64 [B, H, W]``, beliefs ``[B, L, H, W]``, and whether these converged ``[B]``.

        Labels are those of the largest beliefs, or the best labelling where the objective trains for that.
        """
        p = self._mrf(image)
        nodes, converged = self._judged(p)
        best = by(p, decoder(self.inference)).argmax() if self.objective.decodes else nodes.argmax(-1)
        return best.unflatten(1, image.shape[-2:]), _shaped(nodes, image), converged

    def on_validation_epoch_start(self) -> None:
        """Judge one model: each process has running statistics of its own batches, and those of the first one count."""
        if self.trained_converged.update_called and self.trainer.state.fn == "fit":
            self._choose_inference()
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _choose_inference(self) -> None:
        """After an epoch of "nll": whether tree-reweighted belief propagation takes over."""
        share = float(self.trained_converged.compute())  # over all processes
        self.trained_converged.reset()
        self.log("train/converged", share, sync_dist=True)
        if not self.reweighted and share < ENOUGH:
            epoch = self.current_epoch + 1
            self.reweight(epoch, share)
            if self.global_rank == 0:
                _logger.warning(
                    "after epoch %d, tree-reweighted belief propagation takes over training and beliefs: belief "
                    "propagation converged on %.1f %% of the training images, fewer than %.0f %%",
                    epoch,
                    100 * share,
                    100 * ENOUGH,
                )

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        image, gold = batch["image"], batch["labels"]
        labels, beliefs, converged = self.predicted(image)
        self.mrf_measures.update(beliefs, gold, labels)
        self.softmax_measures.update(self._softmax(image), gold)
        self.converged.update(converged)
        self.void.update((gold == IGNORE).float())

    def on_validation_epoch_end(self) -> None:
        for method, measures in self.measures.items():
            for name, value in measures.compute().items():
                self.log(f"val/{method}_{name}", value, sync_dist=True)  # equal in all processes already
            self.by_class[method] = measures.by_class()
            self.reliability[method] = reliability(measures.ece)
            measures.reset()
        self.log("val/converged", self.converged.compute(), sync_dist=True)
        self.log("val/void", self.void.compute(), sync_dist=True)
        self.converged.reset()
        self.void.reset()

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Labels ``int64 [B, H, W]`` under the MRF, and the beliefs in them."""
        labels, beliefs, _ = self.predicted(batch["image"])
        return labels, beliefs.gather(1, labels[:, None]).squeeze(1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=max(self._steps, 2))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _shaped(nodes: Tensor, image: Tensor) -> Tensor:
    """``[B, N, L]`` as ``[B, L, H, W]``."""
    return nodes.transpose(1, 2).unflatten(2, image.shape[-2:])
