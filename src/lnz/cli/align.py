"""``lnz align``: when each word of a transcript sounds."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnz.cli.engine import add_engine, engine_of, spread_out, told_count
from lnz.cli.predict import checkpoint_of, report_failures
from lnz.io.printable import printable
from lnz.tasks.parsing import Strict

if TYPE_CHECKING:
    from lnz.io.transcripts import Utterance
    from lnz.tasks.cluster.engine import Engine
    from lnz.tasks.cluster.work import Make
    from lnz.tasks.transcribe.emissions import Costs

SUMMARY = "say when each word of a transcript sounds, by a trained network or by log-probabilities"

EXAMPLES = """examples:
  lnz align runs/transcribe/2025-01-31-120000 --audio recordings --transcripts texts.tsv --output aligned
  lnz align best.ckpt --audio recordings --transcripts texts.tsv --output aligned --format textgrid --picture
  lnz align --emissions talk.npy --tokens tokens.txt --text talk.txt --seconds-per-frame 0.02 --output aligned
  lnz align --hf-model wav2vec2 --audio recordings --transcripts texts.tsv --output aligned --format ctm

texts.tsv has a line per recording: its name, a tab, its text. (Tables with a header and LibriSpeech's *.trans.txt are
read too.) For recordings/park.wav the output folder then holds park.TextGrid, which Praat and ELAN open: a tier "words"
and, where the network spells by characters, a tier "characters"; park.json with the same intervals and how confident
each is,
  {"audio": "park.wav", "text": …, "duration": …, "seconds_per_frame": …, "log_prob": ln Q(text),
   "words": [{"label": "dog", "start": 0.41, "end": 0.63, "confidence": 0.97}, …]}
in seconds; and, with --picture, park.png: the intervals below the spectrogram. Bounds are as fine as seconds_per_frame.
A recording that cannot be read, or is too short for its text, does not stop the others: what failed is listed at the
end, and the exit status is 1.
Emissions are log-probabilities or logits [T, C] of any CTC network, .npy or .safetensors; tokens.txt has a line per
class (or lines of token and number, or a vocab.json). Each word of the JSON then also has "acoustic", the nats by which
its tokens are above the best other class: below 0, it may not have been said. In the text, * stands for anything or
nothing.
With --engine ray the output is a folder of Parquet files, part-00000.parquet and so on, with a row for each recording
in order. A worker that is killed costs no row, and none comes twice.
A network that was trained without a label prior (--model.prior_scale of lnz fit transcribe) makes its labels short."""


def main(argv: Sequence[str]) -> int:
    """Run ``lnz align`` with the arguments that follow ``align``; returns the exit status.

    Errors of files and of the machine pass through, for ``lnz`` to tell; wrong options leave with status 2.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    way = _way(parser, arguments)
    engine = _engine(parser, arguments)
    try:
        if engine is not None:
            return _spread(arguments, engine)
        return {"model": _align, "hf_model": _align_with_pretrained, "emissions": _align_emissions}[way](arguments)
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
    lists = "list of files: .txt, or .parquet with a column path (and text, instead of --transcripts)"
    trained = "checkpoint, or run folder of lnz fit transcribe (its first seed's last epoch)"
    parser.add_argument("model", type=Path, nargs="?", help=trained)
    parser.add_argument("--hf-model", type=Path, metavar="DIR", help="instead, a CTC model that transformers saved")
    parser.add_argument("--audio", type=Path, help=f"folder of audio, and of folders of it; or {lists}")
    parser.add_argument(
        "--transcripts", type=Path, help="file of transcripts; by default, all *.trans.txt in the folder"
    )
    parser.add_argument("--emissions", type=Path, metavar="FILE", help="instead of audio, scores of frames [T, C]")
    parser.add_argument("--tokens", type=Path, metavar="FILE", help="names of the classes of the emissions")
    parser.add_argument("--text", type=Path, metavar="FILE", help="text of the emissions, of one line or more")
    parser.add_argument("--seconds-per-frame", type=float, help="of the emissions")
    parser.add_argument("--blank", metavar="TOKEN", help="blank of the emissions (default: <blank>, <pad>, _ …)")
    separator = "token between words (default: | or a space, where the emissions have one; '' for none)"
    parser.add_argument("--separator", metavar="TOKEN", help=separator)
    parser.add_argument("--star", metavar="WORD", help="word that stands for anything (default: *)")
    parser.add_argument("--star-cost", type=float, help="nats that a frame of a star costs (default: 1)")
    parser.add_argument("--skip-cost", type=float, help="nats that leaving out a word costs (default: none may be)")
    parser.add_argument("--encoding", help="of the text in transcripts, as latin-1 or gbk (default: UTF-8)")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to; made where it does not exist")
    forms = "form of the alignments; both: TextGrid and JSON"
    parser.add_argument("--format", choices=("textgrid", "json", "both", "srt", "ctm"), default="both", help=forms)
    parser.add_argument("--picture", action="store_true", help="draw each alignment over its spectrogram")
    unknown = (
        "labels that the training texts have not: the recording fails (error, the default); they are left out (skip), "
        "and words of nothing else have no interval; any label may sound in their place (star)"
    )
    parser.add_argument("--unknown", choices=("error", "skip", "star"), default="error", help=unknown)
    parser.add_argument("--strict", action="store_true", help="stop at the first recording that fails")
    add_engine(parser)
    return parser


WAYS = {
    "model": ({"audio"}, {"transcripts", "picture", "unknown", "strict"}),
    "hf_model": ({"audio"}, {"transcripts", "strict", "star", "star_cost", "skip_cost"}),
    "emissions": (
        {"tokens", "text", "seconds_per_frame"},
        {"blank", "separator", "star", "star_cost", "skip_cost"},
    ),
}
"""By where scores come from: the options that are needed, and others that serve, beside those of every way."""


def _way(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """Which of :data:`WAYS` the arguments ask for; leaves with a message where they do not fit together."""

    def option(name: str) -> str:
        return "a model" if name == "model" else f"--{name.replace('_', '-')}"

    given = [way for way in WAYS if getattr(arguments, way) is not None]
    if not given:
        parser.error("expected a model, --hf-model or --emissions, got none of them")
    if len(given) > 1:
        parser.error(f"expected one of a model, --hf-model and --emissions, got {' and '.join(map(option, given))}")
    needed, others = WAYS[given[0]]
    for name in sorted(needed):
        if getattr(arguments, name) is None:
            parser.error(f"{option(name)}: needed with {option(given[0])}")
    for name in sorted(set().union(*(a | b for a, b in WAYS.values())) - needed - others):
        if getattr(arguments, name) != parser.get_default(name):
            parser.error(f"{option(name)}: does not go with {option(given[0])}")
    checks = {"seconds_per_frame": (0.0, "a number above 0"), "star_cost": (-1e-300, "a number of at least 0")}
    for name, (least, kind) in {**checks, "skip_cost": checks["star_cost"]}.items():
        value = getattr(arguments, name)
        if value is not None and not least < value < math.inf:
            parser.error(f"{option(name)}: expected {kind}, got {value}")
    return given[0]


def _costs(arguments: argparse.Namespace) -> Costs:
    from lnz.tasks.transcribe.emissions import Costs

    given = {name: getattr(arguments, name) for name in ("star", "star_cost", "skip_cost")}
    return Costs(**{name: value for name, value in given.items() if value is not None})


def _utterances(arguments: argparse.Namespace) -> list[Utterance]:
    from lnz.io.audio import list_audio
    from lnz.io.named_files import named_files
    from lnz.io.transcripts import pair_audio, read_transcripts, read_utterances

    if arguments.transcripts is None and arguments.audio.name.lower().endswith(".parquet"):
        return read_utterances(arguments.audio, distinct=arguments.engine == "process")
    texts = arguments.transcripts or arguments.audio
    return pair_audio(named_files(arguments.audio, list_audio), read_transcripts(texts, arguments.encoding), texts)


def _engine(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Engine | None:
    """How Ray works, or ``None``; leaves with a message about what does not go with it."""
    engine = engine_of(parser, arguments)
    for name in ("emissions", "picture", "format") if engine is not None else ():
        if getattr(arguments, name) != parser.get_default(name):
            parser.error(f"--{name}: does not go with --engine ray, which writes Parquet")
    return engine


def _spread(arguments: argparse.Namespace, engine: Engine) -> int:
    """Let Ray's workers do it."""
    from lnz.tasks.cluster.work import Input, made
    from lnz.tasks.transcribe.align import Aligner
    from lnz.tasks.transcribe.emissions import PretrainedAligner

    if arguments.hf_model is None:
        options = {"unknown": arguments.unknown}
        make: Make = partial(made, Aligner, checkpoint_of(arguments.model).resolve(), options)
    else:
        make = partial(PretrainedAligner, arguments.hf_model.resolve(), _costs(arguments))
    make("cpu")  # a bad model is told at once
    arguments.audio = arguments.audio.resolve()
    inputs = [Input(str(utterance.audio), utterance) for utterance in _utterances(arguments)]
    done = spread_out(make, inputs, arguments.output, engine, arguments.strict, "Aligning")
    told_count(done, "recordings aligned in", arguments.output)
    return report_failures("lnz align", done, "recordings")


def _align(arguments: argparse.Namespace) -> int:
    from lnz.io.checkpoints import load_checkpoint
    from lnz.tasks.transcribe.align import align_files

    source = checkpoint_of(arguments.model)
    checkpoint, utterances = load_checkpoint(source), _utterances(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    options = (arguments.format, arguments.picture, arguments.unknown, arguments.strict)
    done = align_files(checkpoint, str(source), utterances, arguments.output, *options)
    return _finish(arguments, done, len(utterances), lambda aligned: len(aligned.words))


def _align_with_pretrained(arguments: argparse.Namespace) -> int:
    from lnz.tasks.transcribe.emissions import align_with_pretrained

    utterances = _utterances(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    options = (arguments.output, arguments.format, _costs(arguments), arguments.strict)
    return _finish(arguments, align_with_pretrained(arguments.hf_model, utterances, *options), len(utterances), len)


def _align_emissions(arguments: argparse.Namespace) -> int:
    from lnz.tasks.transcribe.emissions import align_emissions

    arguments.output.mkdir(parents=True, exist_ok=True)
    found = align_emissions(
        arguments.emissions,
        arguments.tokens,
        arguments.text,
        arguments.output,
        arguments.format,
        arguments.seconds_per_frame,
        _costs(arguments),
        blank=arguments.blank,
        separator=arguments.separator,
        encoding=arguments.encoding,
    )
    left_out = sum(math.isnan(word.start) for word in found)
    doubtful = sum(word.acoustic < 0 for word in found)
    more = f", {left_out} left out" if left_out else ""
    print(printable(f"{len(found) - left_out} words aligned in {arguments.output}{more}, {doubtful} in doubt"))
    return 0


def _finish(arguments: argparse.Namespace, done: Iterable[Any], total: int, words: Callable[[Any], int]) -> int:
    """Work through the recordings, and say how many there were and which failed."""
    from rich.progress import track

    from lnz.tasks.failures import Failed

    results = list(track(done, "Aligning", total=total))
    aligned = [result for result in results if not isinstance(result, Failed)]
    count = sum(map(words, aligned))
    print(printable(f"{count} words of {len(aligned)} recordings aligned in {arguments.output}"))
    return report_failures("lnz align", results, "recordings")
