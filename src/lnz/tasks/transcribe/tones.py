"""Dialled digits as pairs of tones, in noise: nothing to download, and it is known when each digit sounds.

Each key of a telephone is the sum of two tones (ITU-T Q.23). Here their length, level and pitch vary, as do the pauses
between them; hum, hiss and clicks, which are tones too short to be a key, are added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lnz.io.alignments import Interval

LOW, HIGH = (697, 770, 852, 941), (1209, 1336, 1477)
KEYS = "123456789*0#"
"""Row by row: the row has the low tone, the column the high one."""


@dataclass(frozen=True)
class Tones:
    """How dialled digits are composed.

    Args:
        train: number of training recordings.
        val: number of validation recordings.
        digits: the fewest and the most digits per recording.
        sample_rate: in Hz.
        length: the shortest and the longest a digit sounds, in seconds.
        pause: the shortest and the longest silence around digits, in seconds.
        noise: standard deviation of Gaussian noise; a tone has amplitudes around 0.2.
    """

    train: int = 512
    val: int = 64
    digits: tuple[int, int] = (3, 8)
    sample_rate: int = 8000
    length: tuple[float, float] = (0.06, 0.25)
    pause: tuple[float, float] = (0.03, 0.3)
    noise: float = 0.1

    def __post_init__(self) -> None:
        for name in ("train", "val"):
            if getattr(self, name) < 1:
                raise ValueError(f"tones.{name}: expected a positive integer, got {getattr(self, name)}")
        for name in ("digits", "length", "pause"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"tones.{name}: expected two positive numbers in order, got {[low, high]}")
        if self.sample_rate < 4000:
            raise ValueError(f"tones.sample_rate: expected at least 4000 Hz, got {self.sample_rate}")
        if not self.noise >= 0:
            raise ValueError(f"tones.noise: expected at least 0, got {self.noise}")


def compose(tones: Tones, generator: np.random.Generator) -> tuple[Tensor, str, list[Interval]]:
    """One recording: waveform ``float32 [N]``, its text, digits between spaces, and when each sounds."""
    rate = tones.sample_rate
    low, high = tones.digits
    keys = [KEYS[k] for k in generator.integers(len(KEYS), size=generator.integers(low, high + 1))]
    pieces, intervals, at = [], [], 0
    for key in keys:
        pause, sound = (round(rate * generator.uniform(*span)) for span in (tones.pause, tones.length))
        row, column = divmod(KEYS.index(key), len(HIGH))
        t = np.arange(sound) / rate
        wave = np.zeros(sound)
        for pitch in (LOW[row], HIGH[column]):
            shift, phase = generator.uniform(0.985, 1.015), generator.uniform(0, 2 * np.pi)
            wave += generator.uniform(0.1, 0.3) * np.sin(2 * np.pi * pitch * shift * t + phase)
        ramp = np.minimum(1.0, np.minimum(t, t[::-1]) / 0.005)  # 5 ms, so that it does not click
        pieces += [np.zeros(pause), wave * ramp]
        at += pause + sound
        intervals.append(Interval((at - sound) / rate, at / rate, key))
    pieces.append(np.zeros(round(rate * generator.uniform(*tones.pause))))
    wave = np.concatenate(pieces)
    _disturb(wave, tones, generator)
    return torch.from_numpy(wave.astype(np.float32)), " ".join(keys), intervals


def _disturb(wave: np.ndarray, tones: Tones, generator: np.random.Generator) -> None:
    rate = tones.sample_rate
    wave += tones.noise * generator.standard_normal(len(wave))
    wave += 0.3 * tones.noise * np.sin(2 * np.pi * 50 * np.arange(len(wave)) / rate + generator.uniform(0, 2 * np.pi))
    for start in generator.integers(len(wave), size=generator.integers(1, 4)):
        click = min(round(0.01 * rate), len(wave) - start)
        wave[start : start + click] += 0.4 * np.sin(
            2 * np.pi * generator.choice((*LOW, *HIGH)) * np.arange(click) / rate
        )
