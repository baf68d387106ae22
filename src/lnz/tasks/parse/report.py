"""What a finished run shows: the table of measures over seeds, and a report that is one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from lnz.tasks.page import Page
from lnz.tasks.parse.measures import HIGHER_IS_BETTER, PERCENT, TITLES
from lnz.tasks.versus import Versus

VERSUS = Versus("tree", "tree", TITLES, HIGHER_IS_BETTER, PERCENT)
NOTE = (
    "UAS and LAS count words with the right head, and of these the ones with the right relation, as the scorer of "
    "CoNLL 2018 does for gold words: punctuation counts, subtypes of relations do not. The column of trees is the "
    "share of sentences whose heads make a tree. The marginal negative log-likelihood is −ln of the probability that "
    "a word's gold head and relation have, in nats. The gain is positive where the distribution over trees is better; "
    "its spread is over the differences seed by seed."
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
    """

    seed: int
    measures: dict[str, dict[str, float]]
    seconds: float
    history: list[dict[str, float]]
    structure: str
    kind: str
    data: str


def caption(results: Sequence[Result], about: str = "") -> str:
    """What was judged and how; ``about`` says on what data, by default the validation sentences of the run."""
    seeds = ", ".join(str(result.seed) for result in results)
    spread = " (mean ± standard deviation over seeds)" if len(results) > 1 else ""
    which = "" if about else " Validation sentences, weights of the last epoch."
    cost = "" if about else f" {sum(result.seconds for result in results):.0f} s for both."
    return (
        f"softmax: one per word, over its heads; tree: exponential softmax over {results[0].kind}, by maximum "
        f"likelihood. {about or results[0].data}. Seed {seeds}{spread}.{which} Attachment by the rules of CoNLL 2018; "
        f"NLL is −ln of the marginal of gold head and relation, per word, ECE the expected calibration error.{cost}"
    )


def table(results: Sequence[Result], about: str = "") -> Table:
    """The table for a terminal."""
    return VERSUS.table("Parsing", caption(results, about), results)


def page(results: Sequence[Result], picture: bytes, config: str, about: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    wanted = {"train/{}_loss": "training loss per word", "val/{}_las": "LAS", "val/{}_nll": "marginal NLL per word"}
    return Page(
        title="lnz fit parse",
        headings=VERSUS.headings(VERSUS.measures(results)),
        rows=VERSUS.rows(results),
        notes=[caption(results), NOTE],
        picture=picture,
        picture_says="trees of some sentences: predicted arcs above, gold arcs that were missed below",
        charts=VERSUS.curves(results, wanted),
        config=config,
        about=about,
    ).html()
