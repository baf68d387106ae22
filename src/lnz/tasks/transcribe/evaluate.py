"""New recordings for a trained transcriber, all of them judged."""

from __future__ import annotations

from pathlib import Path

from lnz.io.audio import list_audio
from lnz.io.transcripts import pair_audio, read_transcripts
from lnz.tasks.transcribe.data import checked, composed, grids_of
from lnz.tasks.transcribe.module import TranscribeModule
from lnz.tasks.transcribe.tones import Tones


class TranscribeTest:
    """Recordings and their transcripts. Without ``audio``, dialled digits, composed here.

    Args:
        module: the trained one; texts are spelt with its labels, audio is resampled to its rate.
        audio: folder of audio, and of folders of it. Without it, dialled digits are composed.
        transcripts: file of transcripts, as lnz fit transcribe takes it; by default, all *.trans.txt in the folder.
        alignments: folder of TextGrids named as the recordings, some or all, whose tier "words" says when each word
            sounds; forced alignments are judged by it.
        encoding: of the text in transcripts, as latin-1 or gbk; by default UTF-8.
        in_memory: keep the audio after checking it; or else read it again each time.
        tones: how dialled digits are composed, where no audio is given.
        seed: what tones are drawn from.

    Raises:
        FormatError: bad files, or a transcript that cannot be spelt with the module's labels.
    """

    def __init__(
        self,
        module: TranscribeModule,
        audio: Path | None = None,
        *,
        transcripts: Path | None = None,
        alignments: Path | None = None,
        encoding: str | None = None,
        in_memory: bool = True,
        tones: Tones = Tones(),  # noqa: B008  (frozen)
        seed: int = 0,
    ) -> None:
        self.sample_rate = module.sample_rate
        if audio is None:
            for name, value in {"transcripts": transcripts, "alignments": alignments}.items():
                if value is not None:
                    raise ValueError(f"data.{name}: needs data.audio, the folder of the recordings")
            if tones.sample_rate != self.sample_rate:
                raise ValueError(f"data.tones.sample_rate: expected that of training, {self.sample_rate}")
            self.val = [composed(tones, "val", k, seed) for k in range(tones.val)]
        else:
            source = transcripts or audio
            found, grids = (
                pair_audio(list_audio(audio), read_transcripts(source, encoding), source),
                grids_of(alignments),
            )
            self.val = [checked(utterance, self.sample_rate, in_memory, grids) for utterance in found]
        self.targets = {each.name: module.alphabet.encode(each.text, each.name) for each in self.val}
        self.says = f"{len(self.val)} {'composed recordings' if audio is None else f'recordings of {audio}'}"
