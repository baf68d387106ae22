"""``lnz evaluate``: judge a trained network on new data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lnz.cli.engine import ONE_PROCESS
from lnz.io.printable import printable

SUMMARY = "judge a trained network on new data: the table of lnz fit"

USAGE = """usage: lnz evaluate MODEL [--data.OPTION VALUE …] [--json] [--output FILE]

Judge a trained network on new data, and print the table of lnz fit. MODEL is a checkpoint, or a run folder of lnz fit,
of which all seeds are judged: the table then has means and standard deviations. What the options of the data are
depends on what the model was trained for: lnz evaluate MODEL --help lists them. They are named as those of lnz fit.
Without data, those that lnz fit composes are judged, which training has not seen.

examples:
  lnz evaluate runs/segment/2025-01-31-120000 --data.images photos --data.masks labels --data.void_label 255
  lnz evaluate runs/tag/2025-01-31-120000 --data.val test.conllu --json
  lnz evaluate runs/parse/2025-01-31-120000 --data.val test.conllu
  lnz evaluate runs/density/2025-01-31-120000 --data.images photos --data.size [16,16] --data.invert true
  lnz evaluate runs/bayesnet/2025-01-31-120000 --data.rows new.csv  how likely new rows are; of latent-class too
  lnz evaluate best.ckpt --data.audio recordings --data.transcripts texts.tsv
  lnz evaluate runs/segment/2025-01-31-120000 --data.seed 7         scenes composed anew

--json prints a list with the results of each seed, as results.json of a run holds them; --output writes it to a file.
Checkpoints are read as tensors and plain values only: no code in them is run.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``lnz evaluate`` with the arguments that follow ``evaluate``; returns the exit status.

    Errors of files and of the machine pass through, for ``lnz`` to tell; wrong options leave with status 2.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    model = argv[0]
    if model.startswith("-"):  # which options there are depends on it
        print(printable(f"lnz evaluate: expected a checkpoint or run folder first, got {model!r}"), file=sys.stderr)
        return 2
    if "ray" in (argv[k + 1] for k in range(len(argv) - 1) if argv[k] == "--engine") or "--engine=ray" in argv:
        print(printable(f"lnz evaluate: {ONE_PROCESS.format(command='lnz evaluate')}"), file=sys.stderr)
        return 2
    try:
        from lnz.tasks.console import Console
        from lnz.tasks.evaluate import evaluate
    except ModuleNotFoundError as error:
        raise ImportError(f"lnz evaluate needs {error.name}; install it with: pip install 'lnz[train]'") from error
    evaluate(Path(model), argv, Console())
    return 0
