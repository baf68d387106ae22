"""The methods of ``lnz infer`` by name: what each answers, and its settings as options."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from lnz.errors import IntractableError
from lnz.inference import (
    TRWS,
    AnnealedImportance,
    Auto,
    BeliefPropagation,
    ClusterTempering,
    DiscreteLangevin,
    Enumeration,
    Exact,
    Gibbs,
    GibbsWithGradients,
    GraphCuts,
    HamiltonianMonteCarlo,
    IntegerProgram,
    IteratedConditionalModes,
    MeanField,
    Method,
    MetropolisHastings,
    ParallelTempering,
    SimulatedAnnealing,
    SwendsenWang,
    TreeReweighted,
)


@dataclass(frozen=True)
class Kind:
    """A method by its name on the command line.

    Attributes:
        method: the class of its settings.
        queries: what it answers; "SAMPLES" is ``--samples``.
        summary: a line for the help.
    """

    method: type[Method]
    queries: tuple[str, ...]
    summary: str


SUM, ALL, ESTIMATE, BEST = ("PR", "MAR"), ("PR", "MAR", "MAP", "MMAP", "SAMPLES"), ("MAR", "SAMPLES"), ("MAP",)

METHODS: dict[str, Kind] = {
    "exact": Kind(Exact, ALL, "elimination on a junction tree, refused where its tables would be too large"),
    "enumeration": Kind(Enumeration, ALL, "every labelling listed"),
    "bp": Kind(BeliefPropagation, (*SUM, "MAP"), "loopy belief propagation, for MAP max-product; exact on trees only"),
    "mean-field": Kind(MeanField, (*SUM, "MAP"), "the best product distribution; its ln Z is a lower bound"),
    "trw": Kind(TreeReweighted, SUM, "tree-reweighted belief propagation; its ln Z is an upper bound"),
    "ais": Kind(AnnealedImportance, SUM, "annealed importance sampling, an unbiased estimate of Z with its error"),
    "gibbs": Kind(Gibbs, ESTIMATE, "Gibbs sampling"),
    "mh": Kind(MetropolisHastings, ESTIMATE, "Metropolis-Hastings, a node at a time"),
    "gwg": Kind(
        GibbsWithGradients, ESTIMATE, "Gibbs with gradients: changes proposed where the score says they matter"
    ),
    "langevin": Kind(DiscreteLangevin, ESTIMATE, "discrete Langevin proposals, Metropolis adjusted"),
    "hmc": Kind(HamiltonianMonteCarlo, ESTIMATE, "Hamiltonian Monte Carlo by the Gaussian integral; finite pairs only"),
    "sw": Kind(SwendsenWang, ESTIMATE, "Swendsen-Wang clusters, of ferromagnetic Potts models"),
    "pt": Kind(ParallelTempering, ESTIMATE, "parallel tempering of Gibbs sampling"),
    "auto": Kind(Auto, BEST, "whichever of these suit, in turn, until one proves its answer or time is up"),
    "trws": Kind(TRWS, BEST, "sequential tree-reweighted max-product, with an upper bound"),
    "graph-cuts": Kind(GraphCuts, BEST, "minimum cuts and expansion moves, where pairs are submodular"),
    "milp": Kind(IntegerProgram, BEST, "integer programming, exact; for small models"),
    "icm": Kind(IteratedConditionalModes, BEST, "iterated conditional modes, a local search"),
    "annealing": Kind(SimulatedAnnealing, BEST, "simulated annealing"),
    "tempering": Kind(ClusterTempering, BEST, "parallel tempering with cluster moves; no bound"),
}


FULL_NAMES = {re.sub("(?<=[a-z])(?=[A-Z])", "-", kind.method.__name__).lower(): name for name, kind in METHODS.items()}
"""What else a method may be called: its class, as in tree-reweighted for trw."""


def method_name(text: str) -> str:
    """The name in :data:`METHODS` of a method given by that or by its full name."""
    return FULL_NAMES.get(text, text)


def default_method(query: str) -> str:
    """The method where none is named."""
    return "auto" if query == "MAP" else "exact"


def count(text: str) -> int:
    """A positive integer, also as 1e8."""
    value = float(text)
    if not 1 <= value <= 2**62 or value != int(value):
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text) if text.isdecimal() else int(value)


def natural(text: str) -> int:
    """0 or a positive integer."""
    return 0 if text == "0" else count(text)


def starts(text: str) -> tuple[str, ...]:
    """Names of methods, each of which the one before starts from."""
    names = tuple(map(method_name, text.split(",")))
    for place, name in enumerate(names):
        taken = [known for known, kind in METHODS.items() if "MAP" in kind.queries]
        if name not in taken:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(taken)}, got {name!r}")
        if place < len(names) - 1 and _default(METHODS[name], "start") is None:
            raise argparse.ArgumentTypeError(f"{name} starts from nothing, {names[place + 1]!r} cannot follow")
    return names


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    return tuple(float(part) for part in text.split(","))


@dataclass(frozen=True)
class Setting:
    """A setting as an option; the field of the same name of whichever methods have it."""

    type: Callable[[str], Any]
    metavar: str
    help: str


SETTINGS: dict[str, Setting] = {
    "max_table": Setting(count, "N", "the most entries of one table"),
    "max_messages": Setting(count, "N", "the most entries of messages in memory, of 8 bytes each"),
    "search_seconds": Setting(float, "SECONDS", "about how long to search for an elimination order"),
    "max_variables": Setting(count, "N", "the most variables of the program"),
    "time_limit": Setting(float, "SECONDS", "stop here with the best labelling so far, and its bound"),
    "start": Setting(starts, "M[,M…]", "a method whose labelling to start from; its own start, if it has one, follows. "
                                       "Settings are given to all methods named that have them"),
    "max_iterations": Setting(count, "N", "iterations before giving up with a warning"),
    "tolerance": Setting(float, "T", "stop where nothing changes by more than this (1e-10 where no other is named)"),
    "damping": Setting(float, "D", "from 0 (none) to below 1; 0.3 to 0.7 calms messages that oscillate"),
    "schedule": Setting(str, "S", "which messages go first: of bp flooding, sequential or residual; of mean-field "
                                  "coordinate or parallel"),
    "appearance": Setting(str, "A", "how often edges are in the trees: uniform or optimised (tighter)"),
    "restarts": Setting(natural, "N", "how many starts, of which the best result counts"),
    "block_table": Setting(count, "N", "also move blocks of nodes, by elimination within tables of so many entries"),
    "patience": Setting(count, "N", "stop after so many blocks in a row that made nothing better"),
    "hottest": Setting(float, "T", "the first temperature, in units of the mean range of a node's scores"),
    "coldest": Setting(float, "T", "the last one"),
    "moves": Setting(str, "M", "what is redrawn at a time: nodes or forests"),
    "rungs": Setting(count, "N", "temperatures side by side"),
    "runs": Setting(count, "N", "independent ones side by side"),
    "chains": Setting(count, "N", "chains side by side"),
    "warmup": Setting(int, "N", "sweeps of each chain before anything is kept"),
    "sweeps": Setting(count, "N", "sweeps after warmup, whose states are kept"),
    "order": Setting(str, "O", "chromatic, systematic, random, or of gibbs also tree"),
    "proposals": Setting(count, "N", "proposals per sweep"),
    "step_size": Setting(float, "E", "how far one step goes"),
    "leapfrog_steps": Setting(count, "N", "steps per sweep"),
    "temperatures": Setting(numbers, "1,T,…", "of the replicas, ascending from 1"),
    "steps": Setting(count, "N", "steps from no interactions to the model; of trw those of optimised appearance"),
    "max_r_hat": Setting(float, "R", "warn that chains have not mixed where R-hat is above this"),
    "seed": Setting(int, "K", "of the random numbers"),
}  # fmt: skip


def add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for every setting, whose help names the methods that have it and their defaults."""
    group = parser.add_argument_group("settings of the methods")
    for name, setting in SETTINGS.items():
        takers = {method: default for method, kind in METHODS.items() if (default := _default(kind, name)) is not None}
        same = len(set(takers.values())) == 1
        listed = ", ".join(
            method if same or not default else f"{method} ({default})" for method, default in takers.items()
        )
        shared = f" (default: {next(iter(takers.values()))})" if same and any(takers.values()) else ""
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=setting.type,
            metavar=setting.metavar,
            help=f"{listed}: {setting.help}{shared}",
        )


def _default(kind: Kind, name: str) -> str | None:
    """The default of a setting as text, empty where it depends; ``None`` where the method has no such setting."""
    found = {field.name: field.default for field in fields(kind.method)}  # type: ignore[arg-type]
    if name not in found:
        return None
    default = found[name]
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return "" if default is None else str(default)


def method_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Method:
    """The method with the settings that were given; a setting of another method is an error, not ignored."""
    if args.query not in METHODS[args.method].queries:
        asked = "draw --samples" if args.query == "SAMPLES" else f"answer --query {args.query}"
        parser.error(f"--method {args.method} cannot {asked}; methods that can: {able(args.query)}")
    given: dict[str, Any] = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    chain = [args.method, *given.get("start", ())]
    for name in given:
        needed = chain[:1] if name == "start" else chain
        if all(_default(METHODS[each], name) is None for each in needed):
            takers = ", ".join(method for method, other in METHODS.items() if _default(other, name) is not None)
            parser.error(f"--{name.replace('_', '-')} is a setting of --method {takers}, not of {args.method}")
    given.pop("start", None)
    method: Method | None = None
    for each in reversed(chain):  # the innermost start first
        own = {name: value for name, value in given.items() if _default(METHODS[each], name) is not None}
        try:
            method = METHODS[each].method(**own, **({} if method is None else {"start": method}))
        except ValueError as error:
            parser.error(f"--method {each}: {error}")
    assert method is not None
    return method


def able(query: str) -> str:
    """The methods that answer a query."""
    return ", ".join(name for name, kind in METHODS.items() if query in kind.queries)


def refused(args: argparse.Namespace, error: IntractableError) -> IntractableError:
    """A refusal in the words of the command."""
    fitting = {name: kind for name, kind in METHODS.items() if args.query in kind.queries and name != args.method}
    named = [name for name, kind in fitting.items() if getattr(kind.method, "__name__", "") in error.alternatives]
    others = " or ".join(f"--method {name}" for name in named or fitting)
    if args.method == "milp":
        need, limit = f"{error.table_bytes // 8} variables", "--max-variables"
    else:
        size = f"10^{math.log10(error.table_bytes):.1f} bytes"
        need, limit = f"a table of about {size} (treewidth at most {error.treewidth})", "--max-table"
    return IntractableError(
        f"--method {args.method} needs {need}, more than {limit} allows; pass {others}, or a larger {limit}",
        treewidth=error.treewidth,
        table_bytes=error.table_bytes,
        alternatives=error.alternatives,
    )
