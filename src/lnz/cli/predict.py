"""``lnz predict``: apply a trained network to new input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnz.cli.engine import add_engine, engine_of, spread_out, told_count
from lnz.io.printable import printable
from lnz.tasks.parsing import Strict

if TYPE_CHECKING:
    from lnz.tasks.cluster.engine import Engine
    from lnz.tasks.failures import Failed

SUMMARY = "label images, tag or parse sentences, transcribe recordings, or fill in rows with a trained network"

TASKS = {
    "segment": ("lnz.tasks.segment.predict", "Labeller", "images", "images labelled in"),
    "tag": ("lnz.tasks.tag.predict", "Tagger", "text", "sentences tagged in"),
    "parse": ("lnz.tasks.parse.predict", "Parser", "text", "sentences parsed in"),
    "transcribe": ("lnz.tasks.transcribe.predict", "Transcriber", "audio", "recordings transcribed in"),
}
"""Per task of ``lnz fit``, the module whose ``predict`` does it, imported only when asked for, and its worker; what it
takes; and what it has done."""
NOUNS = {"images": "images", "audio": "recordings", "text": "sentences"}

EXAMPLES = """examples:
  lnz predict runs/segment/2025-01-31-120000 --images photos --output labelled
  lnz predict runs/streets/seed-0/checkpoints/best.ckpt --images photos --output labelled --confidence npy
  lnz predict runs/tag/2025-01-31-120000 --text new.conllu --output tagged.conllu
  lnz predict runs/tag/2025-01-31-120000 --text new.txt --output tagged.bio
  lnz predict runs/parse/2025-01-31-120000 --text new.conllu --output parsed.conllu
  lnz predict runs/tag/2025-01-31-120000 --text texts --output tagged --engine ray --address ray://head:10001
  lnz predict runs/transcribe/2025-01-31-120000 --audio recordings --output texts
  lnz predict runs/latent-class/2025-01-31-120000 --rows new.csv --output classes.csv
  lnz predict runs/bayesnet/2025-01-31-120000 --rows new.csv --missing NA --output filled.csv

For photos/park.jpg the output folder then holds park_mask.png (the label of each pixel's largest marginal) and
park_confidence.png (that marginal, 65535 for 1) or park_confidence.npy. Of a CoNLL-U file the tags are replaced and all
else is kept; other text (a .txt file with a sentence per line, or columns with the word first) gives CoNLL-U where the
output is named .conllu, else lines of a word, a tab and a tag. Trees replace heads and relations, and are written as
CoNLL-U. For recordings/park.wav the output folder holds park.txt, the text of the prefix beam search. Rows of a CSV or
Parquet file are written as CSV, each empty cell filled in by the state that is the likeliest given its row; variables
without a column follow, such as the class, with the probabilities of their states; other columns stay as they are. A
file that cannot be read does not stop the others: what failed is listed at the end, and the exit status is 1.
With --engine ray, --text may be a folder too, and the output is a folder of Parquet files, part-00000.parquet and so
on, with a row for each input in order: its number, the file it is from, what was found (masks and confidences are
files in bytes), and the error of one that failed. A worker that is killed costs no row, and none comes twice.
Checkpoints are read as tensors and plain values only: no code in them is run."""


def main(argv: Sequence[str]) -> int:
    """Run ``lnz predict`` with the arguments that follow ``predict``; returns the exit status.

    Errors of files and of the machine pass through, for ``lnz`` to tell; wrong options leave with status 2.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    engine = engine_of(parser, arguments)
    try:
        return _predict(arguments, engine)
    except ModuleNotFoundError as error:
        raise ImportError(f"lnz predict needs {error.name}; install it with: pip install 'lnz[train]'") from error
    except KeyboardInterrupt:
        print("\nlnz predict: stopped; the files written so far are whole", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The options of ``lnz predict``."""
    parser = Strict(
        prog="lnz predict",
        description=f"{SUMMARY[0].upper()}{SUMMARY[1:]}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="checkpoint, or run folder of lnz fit (its first seed's last epoch)")
    lists = "list of files: .txt, or .parquet with a column path"
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--images", type=Path, help=f"of segment: folder of images, of any size; or {lists}")
    given.add_argument(
        "--text", type=Path, help="of tag and parse: file of sentences: .conllu, .txt, .parquet (text) or columns"
    )
    given.add_argument("--audio", type=Path, help=f"of transcribe: folder of audio; or {lists}")
    given.add_argument("--rows", type=Path, help="of bayesnet and latent-class: CSV or Parquet file, gzipped or not")
    output = "folder to write to, made where it does not exist; of tag, parse and rows, file to write"
    parser.add_argument("--output", type=Path, required=True, help=output)
    parser.add_argument("--confidence", choices=("png", "npy", "none"), default="png", help="form of confidence maps")
    parser.add_argument("--encoding", help="of --text or --rows, as latin-1 or gbk (default: UTF-8)")
    parser.add_argument("--missing", action="append", default=[], help="text in --rows that stands for nothing, as NA")
    parser.add_argument("--strict", action="store_true", help="stop at the first image or recording that fails")
    add_engine(parser)
    return parser


def _predict(arguments: argparse.Namespace, engine: Engine | None) -> int:
    from rich.progress import track

    from lnz.errors import FormatError
    from lnz.io.audio import list_audio
    from lnz.io.checkpoints import load_checkpoint
    from lnz.io.images import list_images
    from lnz.io.named_files import named_files
    from lnz.tasks.new_rows import network_of

    network = network_of(arguments.model)
    if network is not None:
        if engine is not None:
            raise FormatError("--engine: expected process, got ray: rows are filled in in one process")
        return _fill_in(arguments, network)
    source = checkpoint_of(arguments.model)
    checkpoint = load_checkpoint(source)
    task = checkpoint.get("lnz", {}).get("task")
    if arguments.rows is not None:
        raise FormatError(f"{source}: expected a run folder of lnz fit bayesnet or latent-class, for --rows")
    if task not in TASKS:
        raise FormatError(f"{source}: expected a checkpoint of lnz fit {' or '.join(TASKS)}, got task {task!r}")
    module, worker, takes, said = TASKS[task]
    if task == "tag":  # which may be of images
        import_module(module).check_sentences(checkpoint, str(source))
    given = getattr(arguments, takes)
    if given is None:
        raise FormatError(f"{source}: of lnz fit {task}, which takes --{takes}")
    if engine is not None:
        done = _spread(arguments, engine, source, getattr(import_module(module), worker), takes)
        told_count(done, said, arguments.output)
        return report_failures("lnz predict", done, NOUNS[takes])
    if takes == "text":
        count = import_module(module).predict(checkpoint, str(source), given, arguments.output, arguments.encoding)
        print(printable(f"{count} {said} {arguments.output}"))
        return 0
    files = named_files(given, list_images if takes == "images" else list_audio)
    arguments.output.mkdir(parents=True, exist_ok=True)
    options = {"strict": arguments.strict} | ({"confidence": arguments.confidence} if takes == "images" else {})
    done = import_module(module).predict(checkpoint, str(source), files, arguments.output, **options)
    results = list(track(done, "Predicting", total=len(files)))
    told_count(results, said, arguments.output)
    return report_failures("lnz predict", results, NOUNS[takes])


def _spread(
    arguments: argparse.Namespace, engine: Engine, source: Path, kind: Callable[..., Any], takes: str
) -> list[Failed | None]:
    """Let Ray's workers do it; what became of each input."""
    from lnz.io.audio import list_audio
    from lnz.io.images import list_images
    from lnz.io.named_files import named_files
    from lnz.tasks.cluster.work import Input, files_of, made

    options = {"confidence": arguments.confidence} if takes == "images" else {}
    make, given = partial(made, kind, source.resolve(), options), getattr(arguments, takes).resolve()
    worker: Any = make("cpu")  # reads the sentences; and a bad checkpoint is told at once
    if takes == "text":
        read = [(file, worker.read(file, arguments.encoding)) for file in files_of(given)]
        inputs = [Input(str(file), sentence) for file, sentences in read for sentence in sentences]
    else:
        files = named_files(given, list_images if takes == "images" else list_audio, distinct=False)
        inputs = [Input(str(file), file) for file in files]
    return spread_out(make, inputs, arguments.output, engine, arguments.strict, "Predicting")


def _fill_in(arguments: argparse.Namespace, network: Path) -> int:
    from lnz.errors import FormatError
    from lnz.tasks.new_rows import predict

    if arguments.rows is None:
        raise FormatError(f"{network}: a network of rows, which takes --rows")
    count = predict(network, arguments.rows, arguments.output, arguments.encoding, arguments.missing)
    print(printable(f"{count} rows filled in in {arguments.output}"))
    return 0


def report_failures(command: str, results: Sequence[object], what: str) -> int:
    """List on stderr what failed among ``results``; returns the exit status."""
    from lnz.tasks.failures import Failed, told

    failures = [result for result in results if isinstance(result, Failed)]
    if failures:
        print(printable(f"{command}: {told(failures, len(results), what)}"), file=sys.stderr)
    return 1 if failures else 0


def checkpoint_of(model: Path) -> Path:
    """The checkpoint itself, or the last one of the first seed of a run folder."""
    from lnz.tasks.evaluate import checkpoints_of

    return checkpoints_of(model)[0]
