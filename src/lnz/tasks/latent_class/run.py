"""``lnz fit latent-class``: what the task is, for the machinery of the tasks that learn by EM."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path

import torch

from lnz.distributions import latent_class
from lnz.distributions.latent_class import ClassModel
from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.rows import write_csv
from lnz.tasks.criteria import criteria, log_likelihood
from lnz.tasks.em_learning import Learned, learn
from lnz.tasks.em_task import CHECKPOINTS, EMTask, Finished, Run
from lnz.tasks.em_task import run as run_task
from lnz.tasks.latent_class import report
from lnz.tasks.latent_class.data import Answers, LatentClassData
from lnz.tasks.latent_class.model import LatentClassModel
from lnz.tasks.observations import Observations
from lnz.tasks.streams import generator

DESCRIPTION = """Latent class analysis: answers to items that are independent given a class that nobody saw. Each number
of classes is learned by expectation-maximisation from many random starts; missing answers are summed over. The report
compares their ln L, AIC and BIC, and shows the classes of the best. No answers come with lnz: without --data.rows, they
are sampled from three classes, with holes."""

EXAMPLES = """examples:
  answers sampled on the spot, nothing to download:
    lnz fit latent-class
  answers of a file, a row per person and a column per item, two to five classes:
    lnz fit latent-class --data.rows rows.csv --model.classes 2:5
  patterns with a column that counts them, three classes from 200 starts:
    lnz fit latent-class --data.rows patterns.csv --data.weights count --model.classes 3 --model.restarts 200
  some columns of a file, where NA stands for nothing:
    lnz fit latent-class --data.rows survey.csv --data.columns [q1,q2,q3,q4] --data.missing [NA]
  go on after Ctrl-C:
    lnz fit latent-class --config runs/short/config.yaml --resume
The run folder then holds network.bif (the model of the smallest BIC, classes by their size), memberships.csv (how
likely each row is in each class), report.html, picture.png (the classes' profiles), results.json, config.yaml and
checkpoints. lnz infer answers queries about network.bif."""


class LatentClassTask(EMTask):
    """Latent classes."""

    name = "latent-class"
    description = DESCRIPTION
    examples = EXAMPLES
    data = LatentClassData
    model = LatentClassModel

    def fit(self, run: Run) -> Finished:
        answers = run.data.answers(run.seed)
        path = run.output / "network.bif"
        try:
            empty_model(1, answers).to_bif(path)
        except ValueError as error:
            raise FormatError(f"{answers.says}: {error}") from error
        results, models = [], []
        for classes in run.model.classes:
            learned = _learned(run, classes, answers)
            assert isinstance(learned.best, ClassModel)
            best = by_size(learned.best)
            models.append(best)
            results.append(_judged(classes, learned, best, answers))
        chosen = models[results.index(report.best_of(results))]
        chosen.to_bif(path)
        write_memberships(run.output / "memberships.csv", chosen, answers.train)
        train = answers.train
        cells = train.labels.numel()
        patterns = math.prod(map(len, answers.states))
        about = report.About(
            train.total, train.missing(range(len(answers.items))), cells, patterns, answers.says, run.seed
        )
        picture = report.picture(chosen)
        return Finished(
            [dataclasses.asdict(result) for result in results],
            report.table(results, about),
            partial(report.page, results, about, chosen, picture),
            picture,
            {"network": path, "memberships": run.output / "memberships.csv"},
        )


def empty_model(classes: int, answers: Answers) -> ClassModel:
    """The model of so many classes, which differ in nothing yet."""
    name = "class"
    while name in answers.items:
        name += "_"
    numbers = [str(number + 1) for number in range(classes)]
    cards = [len(states) for states in answers.states]
    return latent_class(classes, cards, names=[name, *answers.items], states=[numbers, *answers.states])


def _learned(run: Run, classes: int, answers: Answers) -> Learned:
    model, settings = empty_model(classes, answers), run.model.settings(run.seed)
    if classes == 1:
        settings = dataclasses.replace(settings, restarts=1)  # they would all end at the same tables

    def start(number: int) -> ClassModel:
        return model.drawn(torch.empty(0), generator(run.seed, classes, number))

    with run.progress(f"{classes} classes, ", settings.restarts) as told:
        folder = run.output / CHECKPOINTS
        return learn(start, answers.train, settings, folder / f"classes-{classes}.ckpt", told, _kept, run.resume)


def _kept(best: object) -> None:
    """The checkpoint is enough: which model is written is known at the end."""


def _judged(classes: int, learned: Learned, best: ClassModel, answers: Answers) -> report.Result:
    found = criteria(learned.log_evidence[-1], empty_model(classes, answers).num_parameters(), answers.train.total)
    test = None if answers.test is None else log_likelihood(best, answers.test) / answers.test.total
    return report.Result(
        classes,
        found.log_likelihood,
        found.parameters,
        found.aic,
        found.bic,
        learned.starts,
        len(learned.log_evidence) - 1,
        learned.converged[learned.number],
        learned.seconds,
        best.log_cpts[0].exp().tolist(),
        test,
    )


def by_size(model: ClassModel) -> ClassModel:
    """The same model with its classes in the order of their size, the largest first."""
    order = model.log_cpts[0].argsort(descending=True, stable=True)
    return model.with_tables(table[order] for table in model.log_cpts)


def write_memberships(path: Path, model: ClassModel, rows: Observations) -> None:
    """Write P(class | row) of each row, in the order of the file, below the number of the likeliest class."""
    different, _ = rows.distinct
    share = torch.cat([model.classes(part) for part in different.split(2**14)])[rows.index]
    likeliest = share.argmax(-1)
    names = [model.names[0], *(f"P({model.names[0]}={state})" for state in model.states[0])]
    with atomic_write(path) as file:
        write_csv(
            file,
            names,
            ([model.states[0][k], *each] for k, each in zip(likeliest.tolist(), share.tolist(), strict=True)),
        )


run = partial(run_task, LatentClassTask())
