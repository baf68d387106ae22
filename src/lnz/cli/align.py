"""``lnz align``: when each word of a transcript sounds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lnz.cli.predict import checkpoint_of
from lnz.io.printable import printable
from lnz.tasks.parsing import Strict

SUMMARY = "say when each word of a transcript sounds, by a trained network"

EXAMPLES = """examples:
  lnz align runs/transcribe/2025-01-31-120000 --audio recordings --transcripts texts.tsv --output aligned
  lnz align best.ckpt --audio recordings --transcripts texts.tsv --output aligned --format textgrid --picture

texts.tsv has a line per recording: its name, a tab, its text. (Tables with a header and LibriSpeech's *.trans.txt are
read too.) For recordings/park.wav the output folder then holds park.TextGrid, which Praat and ELAN open: a tier "words"
and, where the network spells by characters, a tier "characters"; park.json with the same intervals and how confident
each is,
  {"audio": "park.wav", "text": …, "duration": …, "seconds_per_frame": …, "log_prob": ln Q(text),
   "words": [{"label": "dog", "start": 0.41, "end": 0.63, "confidence": 0.97}, …]}
in seconds; and, with --picture, park.png: the intervals below the spectrogram. Bounds are as fine as seconds_per_frame.
A network that was trained without a label prior (--model.prior_scale of lnz fit transcribe) makes its labels short."""


def main(argv: Sequence[str]) -> int:
    """Run ``lnz align`` with the arguments that follow ``align``; returns the exit status.

    Errors of files and of the machine pass through, for ``lnz`` to tell; wrong options leave with status 2.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _align(arguments)
    except ModuleNotFoundError as error:
        raise ImportError(f"lnz align needs {error.name}; install it with: pip install 'lnz[train]'") from error
    except KeyboardInterrupt:
        print("\nlnz align: stopped; the files written so far are whole", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = Strict(
        prog="lnz align",
        description=f"{SUMMARY[0].upper()}{SUMMARY[1:]}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", type=Path, help="checkpoint, or run folder of lnz fit transcribe (its first seed's last epoch)"
    )
    parser.add_argument("--audio", type=Path, required=True, help="folder of audio, and of folders of it")
    parser.add_argument(
        "--transcripts", type=Path, help="file of transcripts; by default, all *.trans.txt in the folder"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to; made where it does not exist")
    parser.add_argument("--format", choices=("textgrid", "json", "both"), default="both", help="form of the alignments")
    parser.add_argument("--picture", action="store_true", help="draw each alignment over its spectrogram")
    return parser


def _align(arguments: argparse.Namespace) -> int:
    from rich.progress import track

    from lnz.io.audio import list_audio
    from lnz.io.checkpoints import load_checkpoint
    from lnz.io.transcripts import pair_audio, read_transcripts
    from lnz.tasks.transcribe.align import align_files

    source = checkpoint_of(arguments.model)
    checkpoint = load_checkpoint(source)
    texts = arguments.transcripts or arguments.audio
    utterances = pair_audio(list_audio(arguments.audio), read_transcripts(texts), texts)
    arguments.output.mkdir(parents=True, exist_ok=True)
    done = align_files(checkpoint, str(source), utterances, arguments.output, arguments.format, arguments.picture)
    words = sum(len(aligned.words) for aligned in track(done, "Aligning", total=len(utterances)))
    print(printable(f"{words} words of {len(utterances)} recordings aligned in {arguments.output}"))
    return 0
