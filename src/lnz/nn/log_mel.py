"""Log-mel spectrograms, through torch alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lnz.checks import as_integers, as_lengths
from lnz.nn.derived import Derived

BREAK, STEP, LOG_STEP = 1000.0, 200 / 3, math.log(6.4) / 27
"""Slaney's scale: a mel is 66.7 Hz up to 1 kHz, and a 27th of a factor of 6.4 above."""


class LogMel(nn.Module):
    """Waveforms to the logarithm of their energy in mel bands, by frames.

    Frame t is centred at t · hop seconds, Hann-windowed, and sees zeros beyond the ends of its recording, so that
    neither padding nor the other recordings of a batch change anything. Energies more than ``dynamic_range`` below the
    loudest of the recording are raised to that; each band is then brought to mean 0 and standard deviation 1 over the
    recording, which takes away how loud it is and what the microphone does.

    Args:
        sample_rate: of the waveforms, in Hz.
        num_mels: M, the number of bands, from 0 Hz to half the sample rate.
        hop: seconds from frame to frame.
        window: seconds that a frame sees.
        dynamic_range: in decibels.
        normalise: ``False`` leaves mean and deviation of the bands as they are.

    Raises:
        ValueError: a setting that is not positive, or so many bands that one of them is between two frequencies.
    """

    def __init__(
        self,
        sample_rate: int,
        num_mels: int = 40,
        hop: float = 0.01,
        window: float = 0.025,
        dynamic_range: float = 80.0,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("sample_rate", sample_rate), ("num_mels", num_mels), ("dynamic_range", dynamic_range)):
            if not value > 0:
                raise ValueError(f"{name}: expected a positive number, got {value}")
        for name, value in (("hop", hop), ("window", window)):
            if not round(value * sample_rate) > 0:
                raise ValueError(f"{name}: expected at least one sample at {sample_rate} Hz, got {value} s")
        self.sample_rate, self.num_mels, self.normalise = sample_rate, num_mels, normalise
        self.dynamic_range = dynamic_range
        self.hop = round(hop * sample_rate)
        """From frame to frame, in samples."""
        self.width = round(window * sample_rate)
        """Of the window, in samples."""
        self.num_fft = 2 ** math.ceil(math.log2(self.width))
        self._window = Derived(0.5 - 0.5 * np.cos(2 * np.pi / self.width * np.arange(self.width)))
        self._filters = Derived(_filterbank(sample_rate, self.num_fft, num_mels))

    @property
    def seconds_per_frame(self) -> float:
        """The hop as it is, in whole samples."""
        return self.hop / self.sample_rate

    def frames(self, samples: Tensor | Sequence[int]) -> Tensor:
        """How many frames a recording of so many samples has: 1 + ⌊samples / hop⌋."""
        samples = as_integers("samples", samples)
        return 1 + samples // self.hop

    def forward(self, waveform: Tensor, samples: Tensor | Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Features ``[B, T, M]``, 0 beyond the end, and the number of frames ``int64 [B]``.

        Args:
            waveform: ``[B, N]``; what lies beyond the end is ignored.
            samples: integers ``[B]``, the length of each; ``None`` is N.
        """
        if waveform.dim() != 2 or not waveform.is_floating_point():
            raise ValueError(f"waveform: expected floating point [B, N], got {waveform.dtype} {list(waveform.shape)}")
        B, N = waveform.shape
        if samples is None:
            samples = torch.full((B,), N, device=waveform.device)
        samples = as_lengths(samples, N, "samples", "those of waveform", waveform.device)
        waveform = waveform.masked_fill(torch.arange(N, device=waveform.device) >= samples[:, None], 0.0)
        padded = nn.functional.pad(waveform, (self.num_fft // 2, self.num_fft // 2))
        spectrum = torch.stft(
            padded,
            self.num_fft,
            self.hop,
            self.width,
            self._window.like(waveform),
            center=False,
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()  # [B, num_fft / 2 + 1, T]
        energy = (self._filters.like(power) @ power).transpose(1, 2)
        frames = self.frames(samples)
        inside = (torch.arange(energy.shape[1], device=energy.device) < frames[:, None])[..., None]
        loudest = energy.masked_fill(~inside, 0.0).amax((1, 2), keepdim=True)
        tiny = torch.finfo(energy.dtype).tiny
        floor = (loudest * 10 ** (-self.dynamic_range / 10)).clamp_min(tiny)
        features = torch.maximum(energy, floor).log()
        if self.normalise:
            count = frames[:, None, None]
            mean = features.masked_fill(~inside, 0.0).sum(1, keepdim=True) / count
            centred = (features - mean).masked_fill(~inside, 0.0)
            deviation = (centred.square().sum(1, keepdim=True) / count).sqrt()
            features = centred / deviation.clamp_min(1e-5)  # a silent band stays 0
        return features.masked_fill(~inside, 0.0), frames

    if TYPE_CHECKING:
        __call__ = forward


def mel_filterbank(sample_rate: int, num_fft: int, num_mels: int) -> Tensor:
    """Triangular filters of unit area, equally wide on Slaney's mel scale, ``[num_mels, num_fft // 2 + 1]``.

    Those of the Auditory Toolbox (Slaney 1998) and, by default, of librosa: filter m rises from corner m to corner
    m + 1 and falls to corner m + 2, where the num_mels + 2 corners are equally spaced in mel from 0 Hz to half the
    sample rate.

    Raises:
        ValueError: a filter that is so narrow that no frequency of the transform is inside.
    """
    return torch.from_numpy(_filterbank(sample_rate, num_fft, num_mels)).float()


def _filterbank(sample_rate: int, num_fft: int, num_mels: int) -> np.ndarray:
    top = hertz_to_mel(np.float64(sample_rate / 2))
    corners = mel_to_hertz(np.linspace(0, top, num_mels + 2))
    frequencies = np.arange(num_fft // 2 + 1) * (sample_rate / num_fft)
    low, centre, high = (corners[k : num_mels + k, None] for k in range(3))
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    filters = np.minimum(rising, falling).clip(0) * (2 / (high - low))
    if not filters.any(1).all():
        empty = num_mels - int(filters.any(1).sum())
        raise ValueError(
            f"num_mels: {num_mels} bands up to {sample_rate / 2:g} Hz are too narrow for a transform with a frequency "
            f"every {sample_rate / num_fft:g} Hz: {empty} hold none; expected fewer, or a longer window"
        )
    return filters


def hertz_to_mel(hertz: Any) -> Any:
    """Slaney's mel scale, of an array: linear to 1 kHz, logarithmic above."""
    above = BREAK / STEP + np.log(np.maximum(hertz, BREAK) / BREAK) / LOG_STEP
    return np.where(hertz < BREAK, hertz / STEP, above)


def mel_to_hertz(mel: Any) -> Any:
    """The inverse of :func:`hertz_to_mel`."""
    above = BREAK * np.exp(LOG_STEP * np.maximum(mel - BREAK / STEP, 0))
    return np.where(mel < BREAK / STEP, mel * STEP, above)
