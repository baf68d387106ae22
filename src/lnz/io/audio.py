"""Audio files: finding, reading, resampling, with errors that name the file."""

from __future__ import annotations

import re
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lnz.errors import FormatError
from lnz.io.files import normalized
from lnz.io.limits import limits

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"})
STREAMED = 0x7FFFF000
"""From here on, the length in a header stands for *not known*: the file was written to a pipe (by SoX, or ffmpeg)."""
BLOCK = 2**20
"""Samples that are read at a time: a header may claim any number of them."""


def list_audio(folder: Path) -> list[Path]:
    """The audio files in a folder and the folders below it, in order of path; hidden ones are passed over.

    Raises:
        FormatError: the folder is missing, holds no audio, or two files whose names without ending are the same.
    """
    if not folder.is_dir():
        raise FormatError(f"{folder}: expected a folder of audio, found {'a file' if folder.exists() else 'nothing'}")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise FormatError(f"{folder}: expected audio ({', '.join(sorted(AUDIO_SUFFIXES))}), found none")
    stems: dict[str, Path] = {}
    for path in found:
        other = stems.setdefault(normalized(path.stem), path)
        if other is not path:
            raise FormatError(f"{path}: {other.relative_to(folder)} has the same name")
    return found


def read_audio(path: Path, sample_rate: int | None = None) -> tuple[Tensor, int]:
    """A recording as ``float32 [N]`` in [−1, 1], the mean of its channels, and its sample rate in Hz.

    Args:
        path: WAV, FLAC, Ogg, MP3 or whatever else libsndfile reads.
        sample_rate: what to resample to, by a polyphase filter (:func:`scipy.signal.resample_poly`); ``None`` keeps it.

    Raises:
        FormatError: the file is missing, empty, truncated, no audio, holds numbers that are not finite, or asks for
            more than :class:`~lnz.io.limits.Limits`: samples, or a sample rate that is far from any other.
    """
    import soundfile

    if not path.is_file():
        raise FormatError(f"{path}: expected an audio file, found {'a folder' if path.is_dir() else 'nothing'}")
    try:
        with soundfile.SoundFile(path) as file:
            rate = int(file.samplerate)
            _check_rate(path, rate, sample_rate)
            samples = _samples(path, file)
            _check_whole(path, file, len(samples))
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        reason = "it is empty" if path.stat().st_size == 0 else _reason(error)
        raise FormatError(f"{path}: cannot be read as audio ({reason})") from error
    if not len(samples):
        raise FormatError(f"{path}: expected audio, got a file of 0 samples")
    if not np.isfinite(samples).all():
        raise FormatError(f"{path}: expected finite samples, got some that are not")
    mono = samples.mean(1)
    if sample_rate is not None and rate != sample_rate:
        from scipy.signal import resample_poly

        shared = gcd(rate, sample_rate)
        limits().check(path, "samples", len(mono) * sample_rate // rate, path.stat().st_size)
        mono = resample_poly(mono, sample_rate // shared, rate // shared).astype(np.float32)
        rate = sample_rate
    return torch.from_numpy(np.ascontiguousarray(mono)), rate


def _check_rate(path: Path, rate: int, wanted: int | None) -> None:
    lowest, highest = limits().sample_rate
    if not lowest <= rate <= highest:
        raise FormatError(f"{path}: expected a sample rate of {lowest:,} to {highest:,} Hz, got {rate:,}")
    ratio = max(rate, wanted or rate) // gcd(rate, wanted or rate)
    if ratio > limits().resampling:
        raise FormatError(
            f"{path}: expected a sample rate that {wanted:,} Hz has a simple ratio to, got {rate:,} Hz; resample it to "
            "another one"
        )


def _samples(path: Path, file: Any) -> np.ndarray:
    """All samples there are ``[N, channels]``, whatever the header says."""
    size, blocks, count = path.stat().st_size, [], 0
    while len(block := file.read(max(1, BLOCK // file.channels), dtype="float32", always_2d=True)):
        blocks.append(block)
        count += block.size
        limits().check(path, "samples", count, size)
    return np.concatenate(blocks) if blocks else np.empty((0, file.channels), np.float32)


def _check_whole(path: Path, file: Any, samples: int) -> None:
    """libsndfile reads what there is of a truncated file; what its header says is in the log.

    The size of the whole (RIFF, FORM) is often written wrongly beside that of the samples, and says nothing.
    """
    stated_sizes = re.findall(r"^\s*(?!RIFF|FORM)\w[\w ]*: (-?\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    for stated, there in stated_sizes:
        if int(there) < int(stated) < STREAMED:
            raise FormatError(f"{path}: truncated: its header says {stated} bytes, there are {there}")
    # of an MP3 file the length is an estimate
    if samples < (0.9 if file.format == "MP3" else 1.0) * file.frames:
        raise FormatError(f"{path}: truncated: its header says {file.frames} samples, there are {samples}")


def _reason(error: Exception) -> str:
    """What libsndfile says, less the path."""
    return str(error).rsplit("': ", 1)[-1].strip().rstrip(".").lower()
