"""``lnz align``: when each word of a transcript sounds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lnz.cli.predict import checkpoint_of, report_failures
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
A recording that cannot be read, or is too short for its text, does not stop the others: what failed is listed at the
end, and the exit status is 1.
A network that was trained without a label prior (--model.prior_scale of lnz fit transcribe) makes its labels short."""


def main(argv: Sequence[str]) -> int:
    """Run ``lnz align`` with the arguments that follow ``align``; returns the exit status.

    Errors of files and of the machine pass through, for ``lnz`` to tell; wrong options leave with status 2.
    """
    arguments = build_parser().parse_args(argv)
    try:
        return _align(arguments)
    except ModuleNotFoundError as error:
        raise ImportError(f"lnz align needs {error.name}; install it with: pip install 'lnz[train]'") from error
    except KeyboardInterrupt:
        print("\nlnz align: stopped; the files written so far are whole", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The options of ``lnz align``."""
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
    parser.add_argument("--encoding", help="of the text in transcripts, as latin-1 or gbk (default: UTF-8)")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to; made where it does not exist")
    parser.add_argument("--format", choices=("textgrid", "json", "both"), default="both", help="form of the alignments")
    parser.add_argument("--picture", action="store_true", help="draw each alignment over its spectrogram")
    unknown = (
        "labels that the training texts have not: the recording fails (error, the default); they are left out (skip), "
        "and words of nothing else have no interval; any label may sound in their place (star)"
    )
    parser.add_argument("--unknown", choices=("error", "skip", "star"), default="error", help=unknown)
    parser.add_argument("--strict", action="store_true", help="stop at the first recording that fails")
    return parser


def _align(arguments: argparse.Namespace) -> int:
    from rich.progress import track

    from lnz.io.audio import list_audio
    from lnz.io.checkpoints import load_checkpoint
    from lnz.io.transcripts import pair_audio, read_transcripts
    from lnz.tasks.failures import Failed
    from lnz.tasks.transcribe.align import align_files

    source = checkpoint_of(arguments.model)
    checkpoint = load_checkpoint(source)
    texts = arguments.transcripts or arguments.audio
    utterances = pair_audio(list_audio(arguments.audio), read_transcripts(texts, arguments.encoding), texts)
    arguments.output.mkdir(parents=True, exist_ok=True)
    options = (arguments.format, arguments.picture, arguments.unknown, arguments.strict)
    done = align_files(checkpoint, str(source), utterances, arguments.output, *options)
    results = list(track(done, "Aligning", total=len(utterances)))
    aligned = [result for result in results if not isinstance(result, Failed)]
    words = sum(len(result.words) for result in aligned)
    print(printable(f"{words} words of {len(aligned)} recordings aligned in {arguments.output}"))
    return report_failures("lnz align", results, "recordings")
