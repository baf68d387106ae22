"""``lnz infer``: queries about a model file."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from typing import Any, NoReturn, get_args

from torch import Tensor

from lnz.errors import IntractableError
from lnz.inference import BeliefPropagation, Enumeration, Exact, Method
from lnz.io import NamedModel, atomic_write, parse_evidence, read_evidence, read_model
from lnz.tasks.infer import Answer, Query, infer

SUMMARY = "answer queries about a model file (.uai, .bif): ln Z, marginals, best labelling"

METHODS: dict[str, type[Exact] | type[BeliefPropagation] | type[Enumeration]] = {
    "exact": Exact,
    "bp": BeliefPropagation,
    "enumeration": Enumeration,
}

DESCRIPTION = """\
Answer one query about a graphical model, exactly or by belief propagation.

queries:
  PR   the partition function: ln Z and log10 Z. Of a Bayesian network with evidence e, Z is P(e).
  MAR  the probability of each state of each variable (and ln Z), given the evidence.
  MAP  a labelling of highest score, given the evidence, and that score.

models:
  .uai  Markov and Bayesian networks of the UAI competitions; variables and states are named 0, 1, 2, …
  .bif  Bayesian networks with named variables and states.
  Either may be gzipped (.uai.gz, .bif.gz).

evidence:
  a file in the UAI format (empty; or the number of observed variables, then pairs of a variable and its state, all as
  numbers), or NAME=STATE,NAME=STATE with names from the model; where no name fits, a number counts from 0.
"""

EPILOG = """\
output:
  By default the UAI result format on stdout ("PR" and log10 Z; "MAR", the number of variables, then the number of
  states and the probabilities of each; "MAP", the number of variables and the state of each), and one line with ln Z
  and log10 Z on stderr.
  With --json one object on stdout: ln_Z, log10_Z, marginals {variable: [p, …]} in the file's order of states,
  assignment {variable: state}, log_score (ln of the product of all tables at that assignment, evidence included, not
  normalised), method, exact, diagnostics. What the query does not compute is null.

examples:
  lnz infer model.uai --query PR
  lnz infer model.uai.gz --evidence model.uai.evid --query MAR --output model.uai.MAR
  lnz infer asia.bif --evidence smoke=yes,xray=no --query MAR --json
  lnz infer grid.uai --query MAR --method bp --damping 0.3 --max-iterations 1000
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``lnz infer`` and return the exit code; errors in files and models are raised."""
    parser = _parser()
    args = parser.parse_args(argv)
    method = _method(parser, args)
    output = nullcontext(sys.stdout) if args.output is None else atomic_write(args.output)
    with output as file, _warnings_on_stderr():  # the output is opened first: nothing is computed in vain
        model = read_model(args.model)
        evidence = _evidence(args.evidence, model)
        try:
            answer = infer(model, args.query, method, evidence)
        except IntractableError as error:
            raise _refused(args.method, error) from error
        file.write(_json(answer, args.method) if args.json else answer.to_uai())
    if not args.json:
        print(_summary_line(answer, args.method), file=sys.stderr)
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "lnz infer", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="the model file: .uai, .bif, or either with .gz")
    parser.add_argument("--query", choices=get_args(Query), default="MAR", help="what to compute (default: MAR)")
    parser.add_argument("--evidence", metavar="FILE|NAME=STATE,…", help="what has been observed (default: nothing)")
    parser.add_argument(
        "--method",
        choices=tuple(METHODS),
        default="exact",
        help="exact: elimination on a junction tree, refused where its tables would be too large; bp: loopy belief "
        "propagation, exact on trees only, its Z is Bethe's; enumeration: every labelling listed (default: exact)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the UAI result format")
    parser.add_argument("--output", metavar="FILE", help="write the result here, in one step when it is complete")
    settings = parser.add_argument_group("settings of the method")
    settings.add_argument(
        "--max-table",
        type=_count,
        metavar="N",
        help="exact, enumeration: the largest table to allocate, in entries of 8 bytes" + _default("max_table"),
    )
    settings.add_argument(
        "--max-iterations",
        type=_count,
        metavar="N",
        help="bp: iterations before giving up with a warning" + _default("max_iterations"),
    )
    settings.add_argument(
        "--damping",
        type=float,
        metavar="D",
        help="bp: from 0 (none) to below 1; 0.3 to 0.7 calms messages that oscillate" + _default("damping"),
    )
    settings.add_argument(
        "--tolerance",
        type=float,
        metavar="T",
        help="bp: stop where no message changes by more than this (default: 1e-10)",
    )
    settings.add_argument(
        "--schedule",
        metavar="S",
        help="bp: flooding, sequential or residual" + _default("schedule"),
    )
    return parser


def _default(setting: str) -> str:
    defaults = {f"{field.default}" for method in METHODS.values() for field in fields(method) if field.name == setting}
    return f" (default: {', '.join(sorted(defaults))})"


def _count(text: str) -> int:
    """A positive integer, also as 1e8."""
    value = float(text)
    if not 1 <= value <= 2**62 or value != int(value):
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text) if text.isdecimal() else int(value)


def _method(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Method:
    """The method with the settings that were given; a setting of another method is an error, not ignored."""
    known = {name: {field.name for field in fields(method)} for name, method in METHODS.items()}
    names = sorted(set().union(*known.values()) & set(vars(args)))
    given: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    for name in given.keys() - known[args.method]:
        takers = ", ".join(method for method, settings in known.items() if name in settings)
        parser.error(f"--{name.replace('_', '-')} is a setting of --method {takers}, not of {args.method}")
    try:
        return METHODS[args.method](**given)
    except ValueError as error:
        parser.error(f"--method {args.method}: {error}")


def _refused(method: str, error: IntractableError) -> IntractableError:
    """The refusal in the words of this command."""
    others = " or ".join(f"--method {name}" for name, kind in METHODS.items() if kind.__name__ in error.alternatives)
    return IntractableError(
        f"--method {method} needs a table of about 10^{math.log10(error.table_bytes):.1f} bytes (treewidth at most "
        f"{error.treewidth}), more than --max-table allows; pass {others}, or a larger --max-table",
        treewidth=error.treewidth,
        table_bytes=error.table_bytes,
        alternatives=error.alternatives,
    )


def _evidence(text: str | None, model: NamedModel) -> Tensor | None:
    if text is None:
        return None
    return parse_evidence(text, model) if "=" in text and not os.path.exists(text) else read_evidence(text, model)


def _json(answer: Answer, method: str) -> str:
    return json.dumps(answer.to_dict() | {"method": method}, ensure_ascii=False, allow_nan=False) + "\n"


def _summary_line(answer: Answer, method: str) -> str:
    how = "(" + ", ".join(dict.fromkeys((method, "exact" if answer.exact else "approximate"))) + ")"
    if answer.log_partition is None:
        return f"log score = {answer.log_score:.10g} {how}"
    return f"ln Z = {answer.log_partition:.10g}, log10 Z = {answer.log10_partition:.10g} {how}"


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Show each warning as one line, when it comes."""

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        print(f"lnz: {category.__name__}: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.showwarning = show
        yield
