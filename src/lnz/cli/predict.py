"""``lnz predict``: apply a trained network to new input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from lnz.io.printable import printable
from lnz.tasks.parsing import Strict

SUMMARY = "label images, tag or parse sentences, transcribe recordings, or fill in rows with a trained network"

TASKS = {
    "segment": ("lnz.tasks.segment.predict", "images", "images labelled in"),
    "tag": ("lnz.tasks.tag.predict", "text", "sentences tagged in"),
    "parse": ("lnz.tasks.parse.predict", "text", "sentences parsed in"),
    "transcribe": ("lnz.tasks.transcribe.predict", "audio", "recordings transcribed in"),
}
"""Per task of ``lnz fit``, the module whose ``predict`` does it, imported only when asked for; what it takes; and what
it has done."""

EXAMPLES = """examples:
  lnz predict runs/segment/2025-01-31-120000 --images photos --output labelled
  lnz predict runs/streets/seed-0/checkpoints/best.ckpt --images photos --output labelled --confidence npy
  lnz predict runs/tag/2025-01-31-120000 --text new.conllu --output tagged.conllu
  lnz predict runs/tag/2025-01-31-120000 --text new.txt --output tagged.bio
  lnz predict runs/parse/2025-01-31-120000 --text new.conllu --output parsed.conllu
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
Checkpoints are read as tensors and plain values only: no code in them is run."""


def main(argv: Sequence[str]) -> int:
    """Run ``lnz predict`` with the arguments that follow ``predict``; returns the exit status.

    Errors of files and of the machine pass through, for ``lnz`` to tell; wrong options leave with status 2.
    """
    arguments = build_parser().parse_args(argv)
    try:
        return _predict(arguments)
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
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--images", type=Path, help="of segment: folder of images, of any size")
    given.add_argument(
        "--text", type=Path, help="of tag and parse: file of sentences: .conllu, .txt or columns; may be gzipped"
    )
    given.add_argument("--audio", type=Path, help="of transcribe: folder of audio")
    given.add_argument("--rows", type=Path, help="of bayesnet and latent-class: CSV or Parquet file, gzipped or not")
    output = "folder to write to, made where it does not exist; of tag, parse and rows, file to write"
    parser.add_argument("--output", type=Path, required=True, help=output)
    parser.add_argument("--confidence", choices=("png", "npy", "none"), default="png", help="form of confidence maps")
    parser.add_argument("--encoding", help="of --text or --rows, as latin-1 or gbk (default: UTF-8)")
    parser.add_argument("--missing", action="append", default=[], help="text in --rows that stands for nothing, as NA")
    parser.add_argument("--strict", action="store_true", help="stop at the first image or recording that fails")
    return parser


def _predict(arguments: argparse.Namespace) -> int:
    from rich.progress import track

    from lnz.errors import FormatError
    from lnz.io.audio import list_audio
    from lnz.io.checkpoints import load_checkpoint
    from lnz.io.images import list_images
    from lnz.tasks.failures import Failed
    from lnz.tasks.new_rows import network_of

    network = network_of(arguments.model)
    if network is not None:
        return _fill_in(arguments, network)
    source = checkpoint_of(arguments.model)
    checkpoint = load_checkpoint(source)
    task = checkpoint.get("lnz", {}).get("task")
    if arguments.rows is not None:
        raise FormatError(f"{source}: expected a run folder of lnz fit bayesnet or latent-class, for --rows")
    if task not in TASKS:
        raise FormatError(f"{source}: expected a checkpoint of lnz fit {' or '.join(TASKS)}, got task {task!r}")
    module, takes, said = TASKS[task]
    if task == "tag":  # which may be of images
        import_module(module).check_sentences(checkpoint, str(source))
    given = getattr(arguments, takes)
    if given is None:
        raise FormatError(f"{source}: of lnz fit {task}, which takes --{takes}")
    if takes == "text":
        count = import_module(module).predict(checkpoint, str(source), given, arguments.output, arguments.encoding)
        print(printable(f"{count} {said} {arguments.output}"))
        return 0
    files = list_images(given) if takes == "images" else list_audio(given)
    arguments.output.mkdir(parents=True, exist_ok=True)
    options = {"strict": arguments.strict} | ({"confidence": arguments.confidence} if takes == "images" else {})
    done = import_module(module).predict(checkpoint, str(source), files, arguments.output, **options)
    results = list(track(done, "Predicting", total=len(files)))
    count = sum(not isinstance(result, Failed) for result in results)
    print(printable(f"{count} {said} {arguments.output}"))
    return report_failures("lnz predict", results, "images" if takes == "images" else "recordings")


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
