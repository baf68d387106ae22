"""``lnz fit TASK``: train a network, or learn a directed model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from lnz.io.printable import printable

SUMMARY = "train a network that ends in an exponential softmax, or learn a directed model by EM"

TASKS = {
    "segment": ("lnz.tasks.segment.run", "label every pixel of an image: a Markov random field over the grid"),
    "tag": ("lnz.tasks.tag.run", "label every word of a sentence, or image of a string: a linear chain"),
    "parse": ("lnz.tasks.parse.run", "the tree of a sentence: dependencies or constituents"),
    "density": ("lnz.tasks.density.run", "a distribution over binary images: a restricted Boltzmann machine"),
    "transcribe": ("lnz.tasks.transcribe.run", "what recordings say, and when: connectionist temporal classification"),
    "bayesnet": ("lnz.tasks.bayesnet.run", "the tables of a Bayesian network, from rows with holes: EM"),
    "latent-class": ("lnz.tasks.latent_class.run", "classes that nobody saw, from answers to items: EM"),
}
"""Per task, the module whose ``run(argv, console)`` does it, imported only when asked for."""

USAGE = f"""usage: lnz fit TASK [options]

{SUMMARY[0].upper()}{SUMMARY[1:]}.

tasks:
{chr(10).join(f"  {name:<12} {summary}" for name, (_, summary) in TASKS.items())}

examples:
  lnz fit segment                                         scenes of handwritten digits, nothing to download
  lnz fit segment --data.images photos --data.masks gt    a folder of images and one of masks
  lnz fit segment --config configs/camvid.yaml            a configuration file
  lnz fit segment --objective all                         every objective, side by side in one table
  lnz fit tag --data.train train.conllu                   parts of speech or names, softmax beside chain
  lnz fit parse --data.train train.conllu                 dependency trees, softmax per word beside trees
  lnz fit density --model.objective pcd                   learn to draw handwritten digits
  lnz fit transcribe                                      dialled digits in noise, with forced alignments
  lnz fit bayesnet --model.net asia.bif --data.rows rows.csv
                                                          tables from rows with holes
  lnz fit latent-class --data.rows rows.csv --model.classes 2:5
                                                          how many classes, and what each is like
  lnz fit segment --help                                  all options
"""


def main(argv: Sequence[str]) -> int:
    """Run ``lnz fit`` with the arguments that follow ``fit``; returns the exit status.

    Errors of files and of the machine pass through, for ``lnz`` to tell; wrong options leave with status 2.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    task, *rest = argv
    if task not in TASKS:
        near = get_close_matches(task, TASKS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        print(printable(f"lnz fit: no task {task!r}; tasks are: {', '.join(TASKS)}{meant}"), file=sys.stderr)
        return 2
    try:
        from lnz.tasks.console import Console
        from lnz.tasks.run import TERMINATED, Interrupted

        run = import_module(TASKS[task][0]).run
    except ModuleNotFoundError as error:
        raise ImportError(f"lnz fit needs {error.name}; install it with: pip install 'lnz[train]'") from error
    try:
        run(rest, Console())
    except Interrupted as stop:
        how = "terminated" if stop.code == TERMINATED else "stopped"
        print(printable(f"\nlnz fit: {how}; go on with: {stop}"), file=sys.stderr)
        return stop.code
    return 0
