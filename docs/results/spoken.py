"""Lay out the recordings of transcription.md for ``lnz fit transcribe``: ``python docs/results/spoken.py DATA OUTPUT``.

DATA is the folder that holds ``fsdd`` (the Free Spoken Digit Dataset) and ``yesno`` (OpenSLR 1) as arrays. OUTPUT gets
a folder for each: WAV files, ``texts.tsv``, ``val.txt`` and, of connected digits, TextGrids with the bounds of clips.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import soundfile

from lnz.io.alignments import Interval, write_textgrid

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def clips(arrays: np.lib.npyio.NpzFile) -> list[np.ndarray]:
    return np.split(arrays["audio"], arrays["offset"][1:-1])


def fsdd(data: Path, output: Path) -> None:
    """Strings of digits as ``connected_digits.json`` says: clips of one speaker with silence between and around."""
    arrays = np.load(data / "fsdd_train.npz")
    recorded, rate = clips(arrays), int(arrays["rate"])
    texts, val = [], []
    for part, items in json.loads((data / "connected_digits.json").read_text()).items():
        for number, item in enumerate(items):
            name = f"{part}-{number:04}-{item['speaker']}"
            pieces, words, at = [], [], 0
            for gap, digit, record in zip(item["gap"], item["digits"], item["rec"], strict=False):
                clip = recorded[record]
                pieces += [np.zeros(gap, np.int16), clip]
                words.append(Interval((at + gap) / rate, (at + gap + len(clip)) / rate, DIGITS[digit]))
                at += gap + len(clip)
            pieces.append(np.zeros(item["gap"][-1], np.int16))
            wave = np.concatenate(pieces)
            soundfile.write(output / "audio" / f"{name}.wav", wave, rate)
            texts.append(f"{name}\t{' '.join(word.label for word in words)}")
            if part == "val":
                val.append(name)
                write_textgrid(output / "grids" / f"{name}.TextGrid", len(wave) / rate, {"words": words})
    (output / "texts.tsv").write_text("\n".join(texts) + "\n")
    (output / "val.txt").write_text("\n".join(val) + "\n")


def yesno(data: Path, output: Path) -> None:
    """Eight words in a row, Hebrew for yes and no; every fourth recording is held out."""
    arrays = np.load(data / "yesno_train.npz")
    names = [f"yesno-{name}" for name in arrays["name"]]
    for name, wave in zip(names, clips(arrays), strict=True):
        soundfile.write(output / "audio" / f"{name}.wav", wave, int(arrays["rate"]))
    texts = [" ".join(("no", "yes")[word] for word in words) for words in arrays["words"]]
    lines = [f"{name}\t{text}" for name, text in zip(names, texts, strict=True)]
    (output / "texts.tsv").write_text("\n".join(lines) + "\n")
    (output / "val.txt").write_text("\n".join(names[3::4]) + "\n")


if __name__ == "__main__":
    data, output = map(Path, sys.argv[1:])
    for lay_out in (fsdd, yesno):
        folder = output / lay_out.__name__
        for below in ("audio", "grids"):
            (folder / below).mkdir(parents=True, exist_ok=True)
        lay_out(data / lay_out.__name__, folder)
