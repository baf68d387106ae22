"""The transcription task: log-mel features, an encoder, and connectionist temporal classification."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics.text import CharErrorRate, WordErrorRate

from lnz.distributions import CTC
from lnz.errors import FormatError
from lnz.nn import CTCHead, LogMel, SpeechEncoder
from lnz.nn.functional import ctc_loss
from lnz.tasks.module import TaskModule
from lnz.tasks.streams import generator
from lnz.tasks.transcribe.alphabet import BLANK, Alphabet, Units
from lnz.tasks.transcribe.augment import spec_augment
from lnz.tasks.transcribe.data import Recording, TranscribeData
from lnz.typing import IGNORE

RAREST = 0.01
"""The smallest average probability of a class that the prior takes for true. A smaller one would give a class that a
network has not learnt yet so much that it fills the recordings, and then the next: training would go nowhere."""
KEPT = 0.9
"""What a training step keeps of the average: it forgets a step's share within some ten steps."""


@dataclass(frozen=True)
class Needed:
    """How many labels a target has, and how many repeat the one before, from which a blank must part them."""

    labels: int
    repeats: int

    @property
    def frames(self) -> int:
        return self.labels + self.repeats

    def __str__(self) -> str:
        return f"{self.labels} labels, {self.repeats} of them repeats"


class TranscribeModule(TaskModule):
    """Waveforms to a distribution over texts, trained by the probability of the transcript, whatever its alignment.

    Log-mel features, an encoder of convolutions, a linear layer, and :class:`lnz.CTC` over its logits.

    Args:
        labels: that texts are spelt with, blank apart.
        units: whether labels are characters or words.
        pauses: whether what is before, between and after words has a label, the space.
        sample_rate: of the waveforms, in Hz.
        mels: bands of the log-mel spectrogram.
        hop: seconds between its frames.
        window: seconds that a frame sees.
        width: channels of the convolutions.
        stride: frames per frame of the network, a power of 2; hop · stride is the resolution of alignments.
        dilations: one residual convolution of 5 frames per entry, with that dilation; a frame of the network sees about
            4 · hop · stride · Σ dilations seconds.
        recurrent: channels of a recurrent layer (GRU) in each direction on top, which sees all; 0 for none.
        time_masks: stripes of time hidden from training, per recording (SpecAugment); 0 for none.
        mel_masks: stripes of frequency hidden from training, per recording; 0 for none.
        prior_scale: of the label prior (Huang et al. 2024): in training and alignment each class is divided by its
            average probability, a running one, to this power. 0 is plain CTC, whose labels are short spikes; with
            some 0.3 they last, at worst until the next one begins (data.pauses may help).
        beam: width of the prefix beam search at the end; greedy decoding is always judged too.
        zero_infinity: leave recordings out of training that are too short for their transcript; they are counted in the
            report. By default they are an error that names them.
        learning_rate: the peak of a one-cycle schedule of AdamW.
        weight_decay: decoupled weight decay.
    """

    task = "transcribe"

    def __init__(
        self,
        labels: list[str],
        units: Units,
        sample_rate: int,
        *,
        pauses: bool = False,
        mels: int = 40,
        hop: float = 0.01,
        window: float = 0.025,
        width: int = 96,
        stride: int = 2,
        dilations: Sequence[int] = (1, 2, 4, 8),
        recurrent: int = 0,
        time_masks: int = 2,
        mel_masks: int = 2,
        prior_scale: float = 0.0,
        beam: int = 16,
        zero_infinity: bool = False,
        learning_rate: float = 0.004,
        weight_decay: float = 1e-3,
    ) -> None:
        super().__init__()
        dilations = list(dilations)
        self.settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        for name in ("time_masks", "mel_masks", "prior_scale", "weight_decay"):
            if not self.settings[name] >= 0:
                raise ValueError(f"model.{name}: expected at least 0, got {self.settings[name]}")
        if beam < 1:
            raise ValueError(f"model.beam: expected a positive integer, got {beam}")
        self.alphabet = Alphabet(labels, units, pauses)
        self.features = LogMel(sample_rate, mels, hop, window)
        self.encoder = SpeechEncoder(mels, width, stride, dilations, recurrent)
        self.head = CTCHead(self.encoder.num_hidden, len(self.alphabet), BLANK)
        self.masks = (time_masks, mel_masks)
        self.prior_scale, self.beam, self.zero_infinity = prior_scale, beam, zero_infinity
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.key: Tensor  # what stripes are drawn from
        self.log_prior: Tensor  # scaled already
        self.register_buffer("key", torch.randint(2**62, ()))
        self.register_buffer(
            "log_prior", torch.full((len(self.alphabet),), -prior_scale * math.log(len(self.alphabet)))
        )
        self.errors = torch.nn.ModuleDict({"cer": CharErrorRate(), "wer": WordErrorRate()})

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.features.sample_rate

    @property
    def seconds_per_frame(self) -> float:
        """The resolution of alignments."""
        return self.features.seconds_per_frame * self.encoder.stride

    @property
    def prior(self) -> Tensor | None:
        """The logarithm of the label prior, scaled, ``[C]``; ``None`` for plain CTC."""
        return self.log_prior if self.prior_scale else None

    def frames(self, samples: Tensor) -> Tensor:
        """How many frames the network makes of so many samples."""
        return self.encoder.frames(self.features.frames(samples))

    def forward(self, waveform: Tensor, samples: Tensor | None = None, draws: torch.Generator | None = None) -> CTC:
        """The distribution over label sequences given waveforms ``[B, N]`` of ``samples`` ``int64 [B]`` each.

        With ``draws``, stripes of the features are hidden.
        """
        features, lengths = self.features(waveform, samples)
        if draws is not None and any(self.masks):
            features = spec_augment(features, lengths, draws, *self.masks)
        hidden, lengths = self.encoder(features, lengths)
        return CTC(self.head.linear(hidden), lengths, BLANK, log_prior=self.prior)

    def on_fit_start(self) -> None:
        """Tell, by name, which recordings are too short for their transcripts."""
        data = cast("TranscribeData", self.trainer.datamodule)  # type: ignore[attr-defined]
        told = [self.too_short(part, data.targets) for part in (data.train, data.val)]
        names = [text for part in told for text in part]
        if not names:
            return
        shown = "; ".join(names[:5]) + (f"; and {len(names) - 5} more" if len(names) > 5 else "")
        if told[1] or not self.zero_infinity:
            may = "" if told[1] else ", or leave them out of training by model.zero_infinity"
            raise FormatError(f"{shown}: no alignment; check them, or lower model.stride or model.hop{may}")
        rank_zero_warn(f"left out of training, too short for their transcripts: {shown}")

    def too_short(self, recordings: Sequence[Recording], targets: Mapping[str, Tensor]) -> list[str]:
        """Of each recording with fewer frames than its transcript needs, its name and the numbers."""
        told = []
        for recording in recordings:
            needed, have = self.needed(targets[recording.name]), int(self.frames(torch.tensor(recording.samples)))
            if needed.frames > have:
                told.append(f"{recording.audio or recording.name}: {needed}, need {needed.frames} frames, got {have}")
        return told

    @staticmethod
    def needed(target: Tensor) -> Needed:
        """What a target ``int64 [S]`` needs of a recording."""
        return Needed(len(target), int((target[1:] == target[:-1]).sum()))

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        # a stream of its own for every step: a resumed run draws what an uninterrupted one would have
        draws = generator(int(self.key), self.global_step, self.global_rank)
        p = self(batch["waveform"], batch["samples"], draws)
        labels = batch["labels"]
        if self.prior_scale:
            self._take_in(p)
        loss = ctc_loss(
            p.logits.transpose(0, 1),
            labels,
            p.lengths,
            (labels != IGNORE).sum(-1),
            BLANK,
            zero_infinity=self.zero_infinity,
            log_prior=p.log_prior,
        )
        with torch.no_grad():
            told = self.surprise(p, labels).mean() if self.prior_scale else loss
        self.log(
            "train/loss", told, on_step=False, on_epoch=True, sync_dist=True, prog_bar=True, batch_size=len(labels)
        )
        return loss

    @torch.no_grad()
    def _take_in(self, p: CTC) -> None:
        """The average softmax of the frames of this step, into the running one."""
        inside = torch.arange(p.logits.shape[1], device=p.logits.device) < p.lengths[:, None]
        seen = p.logits.softmax(-1)[inside].sum(0)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(seen)
        average = (self.log_prior / self.prior_scale).exp().lerp(seen / seen.sum(), 1 - KEPT)
        self.log_prior.copy_(self.prior_scale * average.clamp_min(RAREST).log())

    def surprise(self, p: CTC, labels: Tensor) -> Tensor:
        """−ln Q(labels) per label ``[B]``, without the prior, with which it is no probability; 0 where impossible."""
        q = CTC(p.logits, p.lengths, BLANK, validate_args=False)
        values = -q.log_prob(labels) / (labels != IGNORE).sum(-1)
        return torch.where(torch.isposinf(values), 0.0, values)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        p = self(batch["waveform"], batch["samples"])
        labels = batch["labels"]
        self.log("val/loss", self.surprise(p, labels).mean(), sync_dist=True, batch_size=len(labels))
        found = [self.alphabet.decode(row) for row in p.greedy()]
        gold = [self.alphabet.decode(row) for row in labels]
        for name, error in self.errors.items():
            error.update(found, gold)  # type: ignore[operator]
            self.log(f"val/{name}", error, prog_bar=True, batch_size=len(labels))  # type: ignore[arg-type]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """A norm of at most 1, unless ``--trainer.gradient_clip_val`` says otherwise."""
        most = 1.0 if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, most, gradient_clip_algorithm or "norm")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        steps = max(int(self.trainer.estimated_stepping_batches), 2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
