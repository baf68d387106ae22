"""What a finished run shows: the table of measures over seeds, and a report that is one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from lnz.tasks.calibrated import calibration_line
from lnz.tasks.page import Page
from lnz.tasks.parse.structure import Name
from lnz.tasks.parse.structures import HIGHER_IS_BETTER, PERCENT, TITLES, structure_of
from lnz.tasks.versus import Versus

VERSUS = Versus("tree", "tree", TITLES, HIGHER_IS_BETTER, PERCENT, baseline="treebank grammar")
NOTES = {
    "dependency": (
        "UAS and LAS count words with the right head, and of these the ones with the right relation, as the scorer of "
        "CoNLL 2018 does for gold words: punctuation counts, subtypes of relations do not. The marginal negative "
        "log-likelihood is −ln of the probability that a word's gold head and relation have, in nats."
    ),
    "constituency": (
        "F1 counts labelled brackets as EVALB does with COLLINS.prm: tags and punctuation do not count, nor does TOP; "
        "PRT is ADVP. The marginal negative log-likelihood is −ln of the probability of what each span is, a chain of "
        "constituents or none, in nats per word. The treebank grammar is read off the training trees, made binary, its "
        "rules at their relative frequencies, given the gold tags; its answers are most probable derivations."
    ),
}
NOTE = (
    "The column of trees is the share of sentences whose answers make a tree. The gain is positive where the "
    "distribution over trees is better; its spread is over the differences seed by seed."
)


@dataclass(frozen=True)
class Result:
    """One seed's outcome; plain values, so that it can be kept as JSON.

    Attributes:
        seed: what all was drawn from.
        measures: per method ("softmax", "tree") and measure, on the validation sentences.
        seconds: of training.
        history: the logged values of each epoch.
        structure: of the trees.
        kind: what trees there are, in words.
        data: what was parsed, in words.
        temperatures: by method, that its scores were divided by; none where none were fitted.
        baseline: the measures of the grammar that is read off the training trees, where these have tags.
        reliability: per method and bin, the mean probability, the share of right answers, the share of all answers.
    """

    seed: int
    measures: dict[str, dict[str, float]]
    seconds: float
    history: list[dict[str, float]]
    structure: Name
    kind: str
    data: str
    baseline: dict[str, float] = field(default_factory=dict)
    temperatures: dict[str, float] = field(default_factory=dict)
    reliability: dict[str, list[list[float]]] = field(default_factory=dict)


def caption(results: Sequence[Result], about: str = "") -> str:
    """What was judged and how; ``about`` says on what data, by default the validation sentences of the run."""
    seeds = ", ".join(str(result.seed) for result in results)
    spread = " (mean ± standard deviation over seeds)" if len(results) > 1 else ""
    which = "" if about else " Validation sentences, weights of the last epoch."
    cost = "" if about else f" {sum(result.seconds for result in results):.0f} s for both."
    each = "word, over its heads" if results[0].structure == "dependency" else "span, over its labels"
    return (
        f"softmax: one per {each}; tree: exponential softmax over {results[0].kind}, by maximum likelihood. "
        f"{about or results[0].data}. Seed {seeds}{spread}.{which} {structure_of(results[0].structure).rules}; "
        f"marginal NLL per word, ECE the expected calibration error."
        f"{calibration_line(results[0].temperatures, VERSUS.names)}{cost}"
    )


def table(results: Sequence[Result], about: str = "") -> Table:
    """The table for a terminal."""
    return VERSUS.table("Parsing", caption(results, about), results)


def page(results: Sequence[Result], picture: bytes, config: str, about: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    structure = structure_of(results[0].structure)
    wanted = {
        "train/{}_loss": "training loss per word",
        "val/{}_score": TITLES[structure.score],
        "val/{}_nll": "marginal NLL per word",
    }
    return Page(
        title="lnz fit parse",
        headings=VERSUS.headings(VERSUS.measures(results)),
        rows=VERSUS.rows(results),
        notes=[caption(results), NOTES[structure.name], NOTE],
        picture=picture,
        picture_says=structure.picture_says,
        charts=[*VERSUS.curves(results, wanted), *VERSUS.reliability(results)],
        config=config,
        about=about,
    ).html()
