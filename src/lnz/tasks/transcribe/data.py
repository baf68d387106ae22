"""The data of the transcription task: a folder of audio with transcripts, or composed tones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from lnz.errors import FormatError
from lnz.io.alignments import Interval, read_textgrid
from lnz.io.audio import list_audio, read_audio
from lnz.io.files import normalized
from lnz.io.lists import read_list
from lnz.io.transcripts import Utterance, pair_audio, read_transcripts
from lnz.tasks.streams import Keys, generator
from lnz.tasks.transcribe.alphabet import Alphabet, Units
from lnz.tasks.transcribe.tones import KEYS, Tones, compose
from lnz.typing import IGNORE

Example = dict[str, Any]
"""``waveform`` ``[N]``, its ``labels`` ``int64 [S]``, and the ``index`` of the recording in its split."""
GRIDS = "*.TextGrid"
WORDS = "words"
"""The tier of TextGrids that says when each word sounds."""


@dataclass(frozen=True)
class Recording:
    """A recording: its text, its waveform (``None``: read when needed), and when its words sound, if that is known."""

    name: str
    text: str
    samples: int
    waveform: Tensor | None = None
    audio: Path | None = None
    gold: list[Interval] = field(default_factory=list)

    def load(self, sample_rate: int) -> Tensor:
        """The waveform ``[N]``."""
        if self.waveform is not None:
            return self.waveform
        assert self.audio is not None
        return read_audio(self.audio, sample_rate)[0]


class TranscribeData(pl.LightningDataModule):
    """Recordings and their transcripts. Without ``audio``, dialled digits: pairs of tones in noise, composed here.

    Everything is read and checked on construction, before training starts.

    Args:
        audio: folder of audio, and of folders of it: WAV, FLAC, Ogg, MP3 … Without it, dialled digits are composed.
        transcripts: file of transcripts: lines of a name, a tab and a text; or a table with a header, of commas or
            tabs; or JSON lines (NeMo's manifests); or LibriSpeech's. By default, all *.trans.txt in the folder and
            below.
        alignments: folder of TextGrids named as the recordings, some or all, whose tier "words" says when each word
            sounds; forced alignments of validation recordings are then judged by it. Nothing is trained on it.
        val_list: file that names the validation recordings, one per line.
        val_fraction: share of the recordings held out where val_list is not given.
        encoding: of the text in transcripts and lists, as latin-1 or gbk; by default UTF-8.
        units: what a label is: "characters", or "words", which is whatever stands between spaces (words, digits,
            phones). By default, characters of a folder's transcripts, and words (here, digits) of composed ones.
        pauses: give what is before, between and after words a label of its own. With a label prior (model.prior_scale),
            words may otherwise fill the pauses.
        sample_rate: audio is resampled to it, in Hz.
        batch_size: recordings per batch (and per process).
        in_memory: keep the audio after checking it, about 230 MB per hour at 16 kHz; or else read it again each time.
        num_workers: processes that read audio.
        tones: how dialled digits are composed, where no audio is given.
        seed: what splits, order and tones are drawn from.
    """

    def __init__(
        self,
        audio: Path | None = None,
        *,
        transcripts: Path | None = None,
        alignments: Path | None = None,
        val_list: Path | None = None,
        val_fraction: float = 0.1,
        encoding: str | None = None,
        units: Units | None = None,
        pauses: bool = False,
        sample_rate: int = 16000,
        batch_size: int = 16,
        in_memory: bool = True,
        num_workers: int = 0,
        tones: Tones = Tones(),  # noqa: B008  (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size: expected a positive integer, got {batch_size}")
        if sample_rate < 1:
            raise ValueError(f"data.sample_rate: expected a positive number of Hz, got {sample_rate}")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        if audio is None:
            given = {"transcripts": transcripts, "alignments": alignments, "val_list": val_list}
            extra = [name for name, value in given.items() if value is not None]
            if extra:
                raise ValueError(f"data.{extra[0]}: needs data.audio, the folder of the recordings")
            self.sample_rate, units = tones.sample_rate, units or "words"
            train, val = ([composed(tones, part, k, seed) for k in range(getattr(tones, part))] for part in PARTS)
        else:
            self.sample_rate, units = sample_rate, units or "characters"
            source = transcripts or audio
            found = pair_audio(list_audio(audio), read_transcripts(source, encoding), source)
            grids = grids_of(alignments)
            train, val = (
                [checked(utterance, sample_rate, in_memory, grids) for utterance in part]
                for part in split(found, val_list, val_fraction, seed, encoding)
            )
        self.train, self.val = train, val
        every_key = [" ".join(KEYS)] if audio is None else []
        self.alphabet = Alphabet.of([*(recording.text for recording in train), *every_key], units, pauses)
        self.labels, self.units, self.pauses = self.alphabet.labels, units, pauses
        self.targets = {r.name: self.alphabet.encode(r.text, r.name) for r in (*train, *val)}

    def train_dataloader(self) -> DataLoader[Example]:
        rank, world = self._rank_and_world()
        return self._loader(self.train, Keys(len(self.train), self.seed, rank, world, shuffle=True))

    def val_dataloader(self) -> DataLoader[Example]:
        return self._loader(self.val, Keys(len(self.val), self.seed, *self._rank_and_world()))

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, recordings: Sequence[Recording], order: Keys) -> DataLoader[Example]:
        return DataLoader(
            Recordings(recordings, self.targets, self.sample_rate),
            self.batch_size,
            sampler=order,
            num_workers=self.num_workers,
            collate_fn=collate,
            persistent_workers=self.num_workers > 0,
        )


PARTS = ("train", "val")


class Recordings(Dataset[Example]):
    """Waveforms and labels by the keys of :class:`~lnz.tasks.streams.Keys`."""

    def __init__(self, recordings: Sequence[Recording], targets: dict[str, Tensor], sample_rate: int) -> None:
        self.recordings, self.targets, self.sample_rate = list(recordings), targets, sample_rate

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        recording = self.recordings[key[1]]
        labels = self.targets[recording.name]
        return {"waveform": recording.load(self.sample_rate), "labels": labels, "index": key[1]}


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """A batch: ``waveform`` ``[B, N]``, its ``samples`` ``int64 [B]``, ``labels`` ``int64 [B, S]`` and ``index``."""
    waveforms = [example["waveform"] for example in examples]
    return {
        "waveform": pad_sequence(waveforms, batch_first=True),
        "samples": torch.tensor([len(waveform) for waveform in waveforms]),
        "labels": pad_sequence([example["labels"] for example in examples], batch_first=True, padding_value=IGNORE),
        "index": torch.tensor([example["index"] for example in examples]),
    }


def split(
    utterances: Sequence[Utterance], val_list: Path | None, val_fraction: float, seed: int, encoding: str | None = None
) -> tuple[list[Utterance], list[Utterance]]:
    """Training and validation recordings: by list, or by a draw from ``seed``.

    Raises:
        FormatError: the list cannot be read, or names a recording that is not there.
        ValueError: nothing is left for one of them.
    """
    if val_list is not None:
        held_out = set(read_list(val_list, {each.name: each.name for each in utterances}, "recording", encoding))
        train = [utterance for utterance in utterances if utterance.name not in held_out]
        if not train:
            raise ValueError("data.val_list: names every recording; none is left for training")
        return train, [utterance for utterance in utterances if utterance.name in held_out]
    if not 0 < val_fraction < 1:
        raise ValueError(f"data.val_fraction: expected a number in (0, 1), got {val_fraction}")
    count = max(1, round(val_fraction * len(utterances)))
    if count >= len(utterances):
        raise ValueError(f"data.audio: expected at least 2 recordings to split, got {len(utterances)}")
    order = torch.randperm(len(utterances), generator=generator(seed)).tolist()
    return [utterances[k] for k in sorted(order[count:])], [utterances[k] for k in sorted(order[:count])]


def composed(tones: Tones, part: str, index: int, seed: int) -> Recording:
    """One recording of dialled digits, a function of (seed, part, index) alone."""
    stream = np.random.default_rng([seed, part == "val", index])
    waveform, text, gold = compose(tones, stream)
    return Recording(f"{part}-{index}", text, len(waveform), waveform, None, gold)


def grids_of(folder: Path | None) -> dict[str, Path]:
    """The TextGrids of a folder by the name of their recording."""
    return {} if folder is None else {normalized(path.stem): path for path in folder.glob(GRIDS)}


def checked(utterance: Utterance, sample_rate: int, in_memory: bool, grids: Mapping[str, Path]) -> Recording:
    """A recording of a file, read once, with the bounds of its words where a TextGrid has them."""
    waveform, _ = read_audio(utterance.audio, sample_rate)
    grid = grids.get(normalized(utterance.name))
    gold = [] if grid is None else read_words(grid, utterance.text)
    kept = waveform if in_memory else None
    return Recording(utterance.name, utterance.text, len(waveform), kept, utterance.audio, gold)


def read_words(grid: Path, text: str) -> list[Interval]:
    """When each word of a text sounds, by the tier "words" of a TextGrid.

    Raises:
        FormatError: there is no such tier, or it says something else.
    """
    tiers = read_textgrid(grid)
    if WORDS not in tiers:
        raise FormatError(f"{grid}: expected a tier {WORDS!r}, got {', '.join(map(repr, tiers))}")
    said = normalized(" ".join(interval.label for interval in tiers[WORDS]))
    if said != text:
        raise FormatError(f"{grid}: expected the words of the transcript, {text!r}, got {said!r}")
    return tiers[WORDS]
