"""What a finished run shows: the table of measures over seeds, and a report that is one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from lnz.tasks.calibrated import calibration_line
from lnz.tasks.page import Page
from lnz.tasks.tag.measures import HIGHER_IS_BETTER, PERCENT, TITLES
from lnz.tasks.versus import Versus

VERSUS = Versus("crf", "chain", TITLES, HIGHER_IS_BETTER, PERCENT)
NOTE = (
    "The marginal negative log-likelihood is −ln of the probability that a token's gold tag has, in nats. "
    "The gain is positive where the chain is better; its spread is over the differences seed by seed."
)


@dataclass(frozen=True)
class Result:
    """One seed's outcome; plain values, so that it can be kept as JSON.

    Attributes:
        seed: what all was drawn from.
        measures: per method ("softmax", "crf") and measure, on the validation sequences; "f1" where tags mark spans.
        seconds: of training.
        history: the logged values of each epoch.
        objective: what the chain was trained by.
        data: what was tagged, in words.
        temperatures: by method, that its scores were divided by; none where none were fitted.
        reliability: per method and bin, the mean probability, the share of right labels, the share of all labels.
    """

    seed: int
    measures: dict[str, dict[str, float]]
    seconds: float
    history: list[dict[str, float]]
    objective: str
    data: str
    temperatures: dict[str, float] = field(default_factory=dict)
    reliability: dict[str, list[list[float]]] = field(default_factory=dict)


def caption(results: Sequence[Result], about: str = "") -> str:
    """What was judged and how; ``about`` says on what data, by default the validation sequences of the run."""
    seeds = ", ".join(str(result.seed) for result in results)
    spread = " (mean ± standard deviation over seeds)" if len(results) > 1 else ""
    what = about or results[0].data
    which = "Best labellings" if about else "Validation sequences, best labellings, weights of the last epoch"
    cost = "" if about else f" {sum(result.seconds for result in results):.0f} s for both."
    return (
        f"softmax: one per position, independent; chain: exponential softmax over whole taggings, trained by "
        f"{results[0].objective}. {what}. Seed {seeds}{spread}. {which}; NLL is −ln of the gold tag's marginal, per "
        f"token, ECE the expected calibration error.{calibration_line(results[0].temperatures, VERSUS.names)}{cost}"
    )


def table(results: Sequence[Result], about: str = "") -> Table:
    """The table for a terminal."""
    return VERSUS.table("Tagging", caption(results, about), results)


def page(results: Sequence[Result], picture: bytes, config: str, about: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    score = "span F1" if "f1" in results[0].measures["crf"] else "token accuracy"
    wanted = {"train/{}_loss": "training loss per token", "val/{}_score": score, "val/{}_nll": "marginal NLL per token"}
    return Page(
        title="lnz fit tag",
        headings=VERSUS.headings(VERSUS.measures(results)),
        rows=VERSUS.rows(results),
        notes=[caption(results), NOTE],
        picture=picture,
        picture_says="marginals of the tags of some sequences, gold and best tags, scores of transitions",
        charts=[*VERSUS.curves(results, wanted), *VERSUS.reliability(results)],
        config=config,
        about=about,
    ).html()
