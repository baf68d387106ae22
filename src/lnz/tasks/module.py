"""What the modules of all tasks share: settings that a checkpoint keeps, and the way back from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import lightning.pytorch as pl

from lnz.errors import FormatError


class TaskModule(pl.LightningModule):
    """A module that is made again from ``settings``, plain values by argument, and its weights.

    More to keep is added in ``on_save_checkpoint`` under ``checkpoint["lnz"]``, and read in ``on_load_checkpoint``.
    """

    task: ClassVar[str]
    """The name of the task of ``lnz fit``."""
    settings: dict[str, Any]

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], source: str) -> Self:
        """The module of a checkpoint, ready to be applied; nothing else is needed.

        Raises:
            FormatError: the checkpoint is of another task or version; ``source`` names it.
        """
        about = checkpoint.get("lnz", {})
        if about.get("task") != cls.task:
            raise FormatError(f"{source}: expected a checkpoint of lnz fit {cls.task}, got task {about.get('task')!r}")
        try:
            module = cls(**cls.arguments(about["settings"]))
            module.load_state_dict(checkpoint["state_dict"])
            module.on_load_checkpoint(dict(checkpoint))
        except Exception as error:  # whatever odd settings lead to: an AttributeError, a MemoryError
            raise FormatError(f"{source}: does not belong to this version of lnz ({error})") from error
        return module.eval()

    @classmethod
    def arguments(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The constructor's arguments from ``settings`` as a checkpoint keeps them."""
        return dict(settings)

    def on_train_start(self) -> None:
        """Refuse to go on for longer than planned: a learning rate that falls to 0 has done so by then."""
        found: Any = self.lr_schedulers() or []
        for schedule in found if isinstance(found, list) else [found]:
            asked, planned = self.trainer.estimated_stepping_batches, getattr(schedule, "total_steps", None)
            if planned is not None and asked > planned:
                raise FormatError(
                    f"ckpt_path: expected a run of {asked} steps as asked for, got one of {planned}; "
                    "give --trainer.max_epochs as it was, or train anew"
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lnz"] = {"task": self.task, "settings": self.settings}
