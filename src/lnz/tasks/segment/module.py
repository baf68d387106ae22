"""The segmentation task: a network that ends in an exponential softmax, beside one that ends in a softmax."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from lnz.errors import ConvergenceWarning, FormatError
from lnz.inference import BeliefPropagation
from lnz.nn import ConvNet, GridMRF
from lnz.nn.grid_mrf import Edges
from lnz.objectives import nll
from lnz.tasks.segment.measures import Measures
from lnz.typing import IGNORE

METHODS = ("softmax", "mrf")
TASK = "segment"


class SegmentModule(pl.LightningModule):
    """Two networks of one architecture, from the same initial weights, on the same batches.

    ``softmax`` ends in an independent softmax per pixel, ``mrf`` in a :class:`~lnz.nn.GridMRF`. They share no
    parameter: the losses are added, so that each network follows its own gradient in one optimiser.

    Args:
        num_classes: number of labels of a pixel.
        in_channels: channels of the images.
        width: channels of the network.
        dilations: one 3×3 convolution per entry, with that dilation; the receptive field is 1 + 2 Σ dilations.
        edges: edge scores, "shared" (one table per direction), "contrast" (table × a weight from the image) or
            "full" (a table per edge from the image).
        neighbours: 4 or 8 neighbours of a pixel.
        inference: belief propagation in training, prediction and judgement.
        learning_rate: the peak of a one-cycle schedule of Adam.
        weight_decay: decoupled weight decay.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        width: int = 16,
        dilations: Sequence[int] = (1, 1),
        edges: Edges = "shared",
        neighbours: int = 4,
        inference: BeliefPropagation = BeliefPropagation(),  # noqa: B008  (frozen)
        learning_rate: float = 0.02,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        self.settings = {
            "num_classes": num_classes,
            "in_channels": in_channels,
            "width": width,
            "dilations": list(dilations),
            "edges": edges,
            "neighbours": neighbours,
            "inference": dataclasses.asdict(inference),
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
        }
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        trunk = ConvNet(in_channels, width, dilations)
        mrf = GridMRF(width, num_classes, edges, neighbours, inference)
        self.mrf = nn.Sequential(trunk, mrf)
        self.softmax = nn.Sequential(ConvNet(in_channels, width, dilations), nn.Conv2d(width, num_classes, 1))
        self.softmax[0].load_state_dict(trunk.state_dict())
        self.softmax[1].load_state_dict(mrf.nodes.state_dict())
        self.softmax_measures, self.mrf_measures = Measures(num_classes), Measures(num_classes)
        self.converged = MeanMetric()

    @property
    def measures(self) -> dict[str, Measures]:
        return {"softmax": self.softmax_measures, "mrf": self.mrf_measures}

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], source: str) -> SegmentModule:
        """The module of a checkpoint, ready to predict.

        Raises:
            FormatError: the checkpoint is of another task or version; ``source`` names it.
        """
        about = checkpoint.get("lnz", {})
        if about.get("task") != TASK:
            raise FormatError(f"{source}: expected a checkpoint of lnz fit {TASK}, got task {about.get('task')!r}")
        try:
            settings = dict(about["settings"])
            settings["inference"] = BeliefPropagation(**settings["inference"])
            module = cls(**settings)
            module.load_state_dict(checkpoint["state_dict"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise FormatError(f"{source}: does not belong to this version of lnz ({error})") from error
        return module.eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lnz"] = {"task": TASK, "settings": self.settings}

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        image, labels = batch["image"], batch["labels"]
        observed = (labels != IGNORE).sum().clamp(min=1)
        losses = {"softmax": F.cross_entropy(self.softmax(image), labels, ignore_index=IGNORE, reduction="sum")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead: converged is logged and reported
            p = self.mrf(image)
            losses["mrf"] = nll(p, labels.flatten(1), reduction="sum")
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

    @torch.no_grad()
    def beliefs(self, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Per method, the probability of each label of each pixel ``[B, L, H, W]``; and whether each image converged.

        The second is 1 or 0 per image, ``[B]``.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            p = self.mrf(image)
            nodes = p.node_marginals
        mrf = nodes.transpose(1, 2).unflatten(2, image.shape[-2:])
        converged = torch.as_tensor(p.diagnostics["converged"], dtype=torch.float32)
        return {"softmax": self.softmax(image).softmax(1), "mrf": mrf}, converged

    def on_validation_epoch_start(self) -> None:
        """Judge one model: each process has running statistics of its own batches, and those of the first one count."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        beliefs, converged = self.beliefs(batch["image"])
        for method, measures in self.measures.items():
            measures.update(beliefs[method], batch["labels"])
        self.converged.update(converged)

    def on_validation_epoch_end(self) -> None:
        for method, measures in self.measures.items():
            for name, value in measures.compute().items():
                self.log(f"val/{method}_{name}", value, sync_dist=True)  # equal in all processes already
            measures.reset()
        self.log("val/converged", self.converged.compute(), sync_dist=True)
        self.converged.reset()

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Labels of most probable marginals ``int64 [B, H, W]`` and their probability, under the MRF."""
        beliefs, _ = self.beliefs(batch["image"])
        confidence, labels = beliefs["mrf"].max(1)
        return labels, confidence

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=max(steps, 2))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
