"""``lnz infer``: queries about a model file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, get_args

from torch import Tensor

from lnz.cli.engine import ONE_PROCESS
from lnz.cli.methods import METHODS, add_settings, count, default_method, method_name, method_of, refused
from lnz.cli.search import shown
from lnz.errors import IntractableError, LnzError
from lnz.io import (
    NamedModel,
    atomic_write,
    parse_evidence,
    parse_variables,
    read_evidence,
    read_model,
    read_variables,
)
from lnz.io.printable import json_printable, printable
from lnz.io.rows import write_csv
from lnz.tasks.infer import Answer, Query, draw, infer
from lnz.tasks.parsing import Strict

SUMMARY = "answer queries about a model file (.uai, .bif): ln Z, marginals, best labelling"

DESCRIPTION = """\
Answer one query about a graphical model, exactly or by one of the classical approximations; or draw samples.

queries:
  PR   the partition function: ln Z and log10 Z. Of a Bayesian network with evidence e, Z is P(e).
  MAR  the probability of each state of each variable (and ln Z), given the evidence.
  MAP  a labelling of highest score, given the evidence, and that score.
  MMAP the labels of some variables (--map-vars) of the highest probability, all others summed out.

samples:
  --samples N, instead of a query, draws N independent rows given the evidence, and writes them as CSV, variables and
  states by name. Those of a Bayesian network without evidence are ancestral; --seed makes them the same each time.

methods:
{methods}

models:
  .uai  Markov and Bayesian networks of the UAI competitions; variables and states are named 0, 1, 2, …
  .bif  Bayesian networks with named variables and states; and the same as BIFXML (.bifxml, .xmlbif, .xml), XDSL and
        DSL of GeNIe (.xdsl, .dsl) and NET of Hugin (.net).
  Any may be gzipped (.uai.gz, .bif.gz). Text is UTF-8, or what --encoding says.

evidence:
  a file in the UAI format (empty; or the number of observed variables, then pairs of a variable and its state, all as
  numbers), or NAME=STATE,NAME=STATE with names from the model; where no name fits, a number counts from 0. A name with
  a comma or = stands in double quotes. NAME=0.7:0.3 is soft evidence, a likelihood: a weight for each state, in the
  order of the file, that multiplies the model.
"""

EPILOG = """\
output:
  By default the UAI result format on stdout ("PR" and log10 Z; "MAR", the number of variables, then the number of
  states and the probabilities of each; "MAP", the number of variables and the state of each; "MMAP", the number of
  query variables, then each and its state), and one line with ln Z and log10 Z on stderr.
  With --json one object on stdout: ln_Z, log10_Z, marginals {variable: [p, …]} in the file's order of states,
  assignment {variable: state}, log_score (ln of the product of all tables at that assignment, evidence included, not
  normalised; for MMAP, of their sum over all other variables), method, exact, diagnostics (of a best labelling: its
  score, the bound that no score exceeds, the gap between them, and whether it is proved optimal; of samplers: R-hat,
  effective sample size and standard errors; of ais: its standard error). What the query, or the method, does not
  compute is null.

examples:
  lnz infer model.uai --query PR
  lnz infer model.uai.gz --evidence model.uai.evid --query MAR --output model.uai.MAR
  lnz infer asia.bif --evidence smoke=yes,xray=no --query MAR --json
  lnz infer grid.uai --query MAR --method bp --damping 0.3 --max-iterations 1000
  lnz infer grid.uai --query PR --method mean-field    a lower bound, and
  lnz infer grid.uai --query PR --method trw           an upper bound on ln Z
  lnz infer grid.uai --query MAR --method gibbs --order tree --chains 32 --sweeps 1000 --seed 1
  lnz infer grid.uai --query MAP --time-limit 60       a labelling, and a bound that says how good it is
  lnz infer grid.uai --query MAP --method icm --start trws --restarts 2000
  lnz infer asia.bif --evidence 'smoke=0.7:0.3,"xray"=yes' --query MAR
  lnz infer asia.bif --query MMAP --map-vars lung,bronc --evidence xray=yes --json
  lnz infer asia.bif --samples 1000 --evidence smoke=yes --seed 1 --output rows.csv
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``lnz infer`` and return the exit code; errors in files and models are raised."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.engine == "ray":
        parser.error(ONE_PROCESS.format(command="lnz infer"))
    if args.samples is not None:
        return _sampled(parser, args)
    args.query = args.query or "MAR"
    args.method = args.method or default_method(args.query)
    method = shown(method_of(parser, args))
    if (args.map_vars is None) == (args.query == "MMAP"):
        parser.error("--query MMAP needs --map-vars, the variables to label, and no other query takes it")
    output = nullcontext(sys.stdout) if args.output is None else atomic_write(args.output)
    with output as file, _warnings_on_stderr():  # the output is opened first: nothing is computed in vain
        model = read_model(args.model, args.encoding)
        variables = _variables(args.map_vars, model, args.encoding)
        model, evidence = _observed(args.evidence, model, args.encoding)
        with _in_words_of_the_command(args):
            answer = infer(model, args.query, method, evidence, variables)
        file.write(_json(answer, args.method) if args.json else answer.to_uai())
    if not args.json:
        print(_summary_line(answer, args.method), file=sys.stderr)
    return 0


def _sampled(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Write samples instead of an answer."""
    if args.query is not None or args.map_vars is not None:
        parser.error("--samples: is asked for instead of --query and --map-vars")
    args.method = args.method or default_method("SAMPLES")
    seed, args.query = args.seed, "SAMPLES"
    if "seed" not in {field.name for field in dataclasses.fields(METHODS[args.method].method)}:  # type: ignore[arg-type]
        args.seed = None  # of the draws alone
    method = method_of(parser, args)
    output = nullcontext(sys.stdout) if args.output is None else atomic_write(args.output)
    with output as file, _warnings_on_stderr():
        model = read_model(args.model, args.encoding)
        model, evidence = _observed(args.evidence, model, args.encoding)
        with _in_words_of_the_command(args):
            labels = draw(model, args.samples, method, evidence, seed or 0).tolist()
        rows = ([states[k] for states, k in zip(model.states, row, strict=True)] for row in labels)
        if args.json:
            named = [dict(zip(model.names, row, strict=True)) for row in rows]
            text = json.dumps({"samples": named, "method": args.method}, ensure_ascii=False)
            file.write(json_printable(text) + "\n")
        else:
            write_csv(file, model.names, rows)
    return 0


@contextmanager
def _in_words_of_the_command(args: argparse.Namespace) -> Iterator[None]:
    """Let a method that does not serve the model speak of ``--method``."""
    try:
        yield
    except IntractableError as error:
        raise refused(args, error) from error
    except ValueError as error:
        if isinstance(error, LnzError):
            raise
        raise LnzError(f"--method {args.method}: {error}") from error


def build_parser() -> argparse.ArgumentParser:
    """The options of ``lnz infer``."""
    description = DESCRIPTION.format(methods="\n".join(_line(name) for name in METHODS))
    parser = Strict(
        "lnz infer", description=description, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="the model file: .uai, .bif, one of those above; .gz may follow")
    parser.add_argument("--query", choices=get_args(Query), help="what to compute (default: MAR)")
    parser.add_argument("--samples", type=count, metavar="N", help="draw N rows instead, and write them as CSV")
    parser.add_argument("--evidence", metavar="FILE|NAME=STATE,…", help="what has been observed (default: nothing)")
    parser.add_argument("--map-vars", metavar="FILE|NAME,…", help="of MMAP, the variables to label")
    parser.add_argument("--encoding", metavar="NAME", help="of the text in files, as latin-1 or gbk (default: UTF-8)")
    parser.add_argument(
        "--method",
        type=method_name,
        choices=tuple(METHODS),
        metavar="M",
        help="one of those above, or its full name, as tree-reweighted for trw (default: exact; auto for MAP)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the UAI result format")
    parser.add_argument("--output", metavar="FILE", help="write the result here, in one step when it is complete")
    parser.add_argument("--engine", choices=("process", "ray"), default="process", help=argparse.SUPPRESS)
    add_settings(parser)
    return parser


def _line(name: str) -> str:
    kind = METHODS[name]
    return f"  {name:<12} {'/'.join(query for query in get_args(Query) if query in kind.queries):<17} {kind.summary}"


def _observed(text: str | None, model: NamedModel, encoding: str | None) -> tuple[NamedModel, Tensor | None]:
    """The model, times its soft evidence, and the labels that are observed."""
    if text is None:
        return model, None
    if "=" not in text or os.path.exists(text):
        return model, read_evidence(text, model, encoding)
    evidence = parse_evidence(text, model)
    return model.with_likelihoods(evidence.likelihoods), evidence.labels


def _variables(text: str | None, model: NamedModel, encoding: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    return read_variables(text, model, encoding) if os.path.exists(text) else parse_variables(text, model)


def _json(answer: Answer, method: str) -> str:
    answered = answer.to_dict() | {"method": method}
    return json_printable(json.dumps(answered, ensure_ascii=False, allow_nan=False)) + "\n"


def _summary_line(answer: Answer, method: str) -> str:
    named = () if method == "auto" else (method,)
    how = "(" + ", ".join(dict.fromkeys((*named, "exact" if answer.exact else "approximate"))) + ")"
    if answer.log_score is not None:
        bound = answer.diagnostics["bound"]
        gap = 0.0 if bound is None else bound - answer.log_score
        proved = "" if answer.exact or bound is None else f", no score above {bound:.10g}, gap {gap:.4g}"
        return f"log score = {answer.log_score:.10g}{proved} {how}"
    if answer.log_partition is None:
        return f"marginals {how}"
    return f"ln Z = {answer.log_partition:.10g}, log10 Z = {answer.log10_partition:.10g} {how}"


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Show each warning as one line, when it comes."""

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        print(f"lnz: {category.__name__}: {printable(' '.join(str(message).split()))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.showwarning = show
        yield
