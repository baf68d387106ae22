"""``lnz fit transcribe``: what the task is, for the machinery that all tasks share."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning.pytorch as pl

from lnz import plot
from lnz.tasks.run import run as run_task
from lnz.tasks.task import Task
from lnz.tasks.transcribe import judge, report
from lnz.tasks.transcribe.align import align, drawn
from lnz.tasks.transcribe.data import TranscribeData
from lnz.tasks.transcribe.evaluate import TranscribeTest
from lnz.tasks.transcribe.module import TranscribeModule

DESCRIPTION = """Train a network that turns recordings into texts, from recordings and their transcripts alone: log-mel
features, convolutions, and connectionist temporal classification, which sums over all ways to lay a text over a
recording. The report has error rates by characters and words, and forced alignments over the spectrogram. Without data
it composes dialled digits, pairs of tones in noise, of which it is known when each sounds."""

EXAMPLES = """examples:
  dialled digits, nothing to download, three seeds:
    lnz fit transcribe --seeds 3
  a folder of audio, and lines of a name, a tab and a text:
    lnz fit transcribe --data.audio recordings --data.transcripts texts.tsv
  LibriSpeech as it is unpacked, its *.trans.txt found beside the audio:
    lnz fit transcribe --data.audio LibriSpeech/dev-clean --data.in_memory false --model.stride 4 --model.recurrent 192
  transcripts of digits or phones between spaces, each a label of its own:
    lnz fit transcribe --data.audio recordings --data.transcripts phones.tsv --data.units words
  alignments that are no spikes, by a label prior, pauses having a label; judged by TextGrids with a tier "words":
    lnz fit transcribe --model.prior_scale 0.3 --data.pauses true --data.audio recordings \\
        --data.transcripts texts.tsv --data.alignments grids
  a configuration file, something changed:
    lnz fit transcribe --config configs/transcribe_fsdd.yaml --trainer.max_epochs 2 --output runs/short
  go on after a crash or Ctrl-C:
    lnz fit transcribe --config runs/short/config.yaml --ckpt_path last
The run folder then holds report.html, picture.png, results.json, config.yaml and, per seed, checkpoints and a
TensorBoard log (tensorboard --logdir runs). lnz align and lnz predict take it from there."""

SHOWN = 3
"""Recordings in the picture."""


class TranscribeTask(Task):
    """What recordings say, and when."""

    name = "transcribe"
    description = DESCRIPTION
    examples = EXAMPLES
    module = TranscribeModule
    data = TranscribeData
    test = TranscribeTest
    report = report
    best = ("val/cer", "min")
    epochs = 20

    def add_arguments(self, parser: Any) -> None:
        for name in ("labels", "units", "pauses", "sample_rate"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def judge(
        self,
        seed: int,
        trainer: pl.Trainer,
        module: TranscribeModule,
        data: TranscribeData,
        seconds: float,
        history: list[dict[str, float]],
    ) -> report.Result:
        """Error rates on the validation recordings, and how far alignments are off where bounds are known."""
        module = module.cpu().eval()
        return report.Result(
            seed,
            judge.error_rates(module, data.val),
            judge.alignment_errors(module, data.val),
            [len(data.train), len(data.val)],
            len(module.too_short(data.train, data.targets)),
            module.prior_scale,
            module.seconds_per_frame,
            module.beam,
            seconds,
            history,
        )

    def evaluate(self, seed: int, trainer: pl.Trainer, module: TranscribeModule, data: TranscribeTest) -> report.Result:
        module = module.cpu().eval()
        rates, alignment = judge.error_rates(module, data.val), judge.alignment_errors(module, data.val)
        counts, resolution = [0, len(data.val)], module.seconds_per_frame
        return report.Result(seed, rates, alignment, counts, 0, module.prior_scale, resolution, module.beam, 0.0, [])

    def picture(self, module: TranscribeModule, data: TranscribeData) -> bytes:
        """The first validation recordings with their forced alignments."""
        module = module.cpu().eval()
        shown = []
        for recording in data.val[:SHOWN]:
            waveform = recording.load(data.sample_rate)
            found = align(module, waveform, recording.text, recording.name).tiers
            shown.append((recording.name, waveform, judge.gold_tiers(found, recording)))
        return plot.png(drawn(module, shown))


run = partial(run_task, TranscribeTask())
