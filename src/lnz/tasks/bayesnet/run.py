"""``lnz fit bayesnet``: what the task is, for the machinery of the tasks that learn by EM."""

from __future__ import annotations

import dataclasses
from functools import partial

from lnz.distributions import BayesNet
from lnz.errors import FormatError
from lnz.tasks.bayesnet import report
from lnz.tasks.bayesnet.data import BayesNetData
from lnz.tasks.bayesnet.model import BayesNetModel
from lnz.tasks.bayesnet.network import HIDDEN, example, read_network, start_of, with_latent
from lnz.tasks.em_learning import learn
from lnz.tasks.em_task import CHECKPOINTS, EMTask, Finished, Run
from lnz.tasks.em_task import run as run_task

DESCRIPTION = """Learn the tables of a Bayesian network from rows with holes, by expectation-maximisation: exact
expected counts of every table given what each row holds, then their relative frequencies, which never lowers the
likelihood.
Variables may be missing in some rows, or hidden in all. No rows come with lnz: without --data.rows, they are sampled
from the network, with holes, and the report compares what was learned with their source on as many test rows."""

EXAMPLES = """examples:
  a small network whose cause is hidden, rows sampled on the spot, nothing to download:
    lnz fit bayesnet
  rows of a file, columns and states by name, an empty cell is missing:
    lnz fit bayesnet --model.net alarm.bif --data.rows rows.csv
  a Parquet file with a column of counts, and rows to judge by:
    lnz fit bayesnet --model.net asia.bif --data.rows rows.parquet --data.weights count --data.test test.csv
  hidden variables: one of the network, with three states, and a new one above all variables:
    lnz fit bayesnet --model.net asia.bif --data.rows rows.csv --model.latent either=3,kind=a:b --model.restarts 10
  from random tables, with a prior that keeps probabilities off 0:
    lnz fit bayesnet --model.net asia.bif --data.rows rows.csv --model.start random --model.pseudocount 0.5
  go on after Ctrl-C, from the last iteration:
    lnz fit bayesnet --config runs/short/config.yaml --resume
The run folder then holds network.bif, report.html, picture.png (ln L by iteration), results.json, config.yaml and a
checkpoint. lnz infer answers queries about network.bif, and samples from it."""


class BayesNetTask(EMTask):
    """The tables of a Bayesian network."""

    name = "bayesnet"
    description = DESCRIPTION
    examples = EXAMPLES
    data = BayesNetData
    model = BayesNetModel

    def fit(self, run: Run) -> Finished:
        data, model = run.data, run.model
        net, latent = wired(data, model)
        observed = data.observed(net, latent, run.seed)
        cells = [v for v in range(len(net.names)) if v not in observed.hidden]
        from_tables = model.start == "tables" or (model.start is None and observed.source is None)
        start = partial(start_of, net, observed.hidden, seed=run.seed, from_tables=from_tables)
        path = run.output / "network.bif"
        try:
            net.to_bif(path)
        except ValueError as error:
            raise FormatError(f"{model.net}: {error}") from error
        with run.progress("", model.restarts) as told:
            learned = learn(
                start,
                observed.train,
                model.settings(run.seed),
                run.output / CHECKPOINTS / "last.ckpt",
                told,
                lambda best: best.to_bif(path),
                run.resume,
            )
        fitted, first = learned.best, start(learned.number)
        assert fitted is not None
        parameters = first.num_parameters()  # before any of them became 0
        labels, weights = observed.train.distinct
        used = weights > 0
        found = {
            "independent": report.independent(net, observed),
            "start": report.measures(first, observed),
            "fitted": report.measures(fitted, observed, parameters),
        }
        if observed.source is not None:
            found["source"] = report.measures(observed.source, observed)
        result = report.Result(
            observed.train.total,
            observed.train.missing(cells),
            len(observed.train.labels) * len(cells),
            [net.names[v] for v in observed.hidden],
            found,
            learned.starts,
            learned.number,
            len(learned.log_evidence) - 1,
            learned.converged[learned.number],
            learned.seconds,
            learned.log_evidence,
            report.changes(first, fitted, fitted.e_step(labels[used], weights=weights[used])[1]),
            observed.says,
            run.seed,
        )
        histories = [[evidence for evidence, _ in points] for points in learned.history]
        picture = report.picture(histories, learned.number)
        return Finished(
            dataclasses.asdict(result),
            report.table(result),
            partial(report.page, result, picture),
            picture,
            {"network": path},
        )


def wired(data: BayesNetData, model: BayesNetModel) -> tuple[BayesNet, list[str]]:
    """The network with its hidden variables, and their names."""
    if model.net is None:
        if data.rows is not None:
            raise FormatError("data.rows: needs model.net, the network whose variables the columns are")
        net, hidden = example(), [HIDDEN]
    else:
        net, hidden = read_network(model.net, model.encoding), []
    return with_latent(net, model.latent), list(dict.fromkeys([*hidden, *model.latent]))


run = partial(run_task, BayesNetTask())
