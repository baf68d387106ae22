"""UAI-2014 models: published ln Z and marginals, by exact inference with its default settings.

A few small models run by default and some twenty with ``-m slow``. All 73 take several minutes and 3 GB of memory:
``LNZ_ALL_UAI=1 pytest -m slow tests/inference/test_uai_models.py``; docs/results/uai.md has what came out.
"""

from __future__ import annotations

import gzip
import json
import math
import os
from pathlib import Path

import pytest
import torch

import lnz
from lnz.io import read_uai

pytestmark = pytest.mark.data

SMALL = ["Promedus_13", "Promedus_15", "Promedus_29", "Promedus_33"]
PUBLISHED = ["Segmentation_11", "Promedus_11", "Grids_11", "CSP_11", "DBN_11", "Alchemy_11"]
OTHERS = [
    "CSP_13",
    "Grids_13",
    "ObjectDetection_11",
    "ObjectDetection_15",
    "ObjectDetection_49",
    "ObjectDetection_51",
    "Pedigree_11",
    "Pedigree_13",
    "Promedus_27",
    "Segmentation_13",
]
REFUSED = ["linkage_15"]
"""Those of which no order is known within the limits."""
REACHED = ["linkage_13", "linkage_17", "linkage_25", "linkage_27"]
"""Those that the first order of a search would refuse, and one within its seconds does not."""


def read_marginals(path: Path) -> list[list[float]]:
    with gzip.open(path, "rt") as file:
        word = iter(file.read().split()[1:])
    return [[float(next(word)) for _ in range(int(next(word)))] for _ in range(int(next(word)))]


def load(folder: Path, name: str) -> lnz.MRF:
    """The model given its evidence."""
    model = read_uai(folder / f"{name}.uai.gz")
    observed = torch.full((model.graph.num_nodes,), -100)
    for node, label in published(folder)[name]["evid"].items():
        observed[int(node)] = label
    return lnz.MRF(model.graph, model.scores).condition(observed)


def published(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "index.json").read_text())


def last_place(value: float) -> float:
    """Half a unit in the last place of a number printed to six digits or, where the file has more, to those."""
    decimals = len(repr(value).partition(".")[2])
    return max(0.5 * 10.0**-decimals, 0.5 * 10.0 ** (math.floor(math.log10(abs(value))) - 5))


def check(folder: Path, name: str) -> None:
    known = published(folder)[name]
    p = load(folder, name)
    found = p.log_partition.item() / math.log(10)
    assert found == pytest.approx(known["log10_PR"], abs=max(1e-4, 1.01 * last_place(known["log10_PR"])))
    if "log10_PR_exact_ve" in known:
        assert found == pytest.approx(known["log10_PR_exact_ve"], abs=1e-9)
    reference = folder / f"{name}.MAR.gz"
    if reference.exists():
        for ours, theirs in zip(p.node_marginals, read_marginals(reference), strict=True):
            expected = torch.tensor(theirs, dtype=torch.float64)
            torch.testing.assert_close(ours[: len(theirs)], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_small_models(name, shared_data):
    check(shared_data / "uai_pr_mar", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED + OTHERS)
def test_larger_models(name, shared_data):
    check(shared_data / "uai_pr_mar", name)


@pytest.mark.slow
def test_small_messages_answer_what_has_large_tables(shared_data):
    """Tables of 2³² entries, messages of half a GiB: half a minute on one core."""
    folder, name = shared_data / "uai_pr_mar", "2bitcomp_5.cnf"
    with torch.no_grad():
        found = load(folder, name).log_partition.item() / math.log(10)
    assert found == pytest.approx(
        published(folder)[name]["log10_PR"], abs=last_place(published(folder)[name]["log10_PR"])
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", REACHED)
def test_orders_are_searched_for(name, shared_data):
    """Answers take minutes; that there is a plan says that they are given."""
    p = load(shared_data / "uai_pr_mar", name)
    found = p.diagnostics
    assert found["largest_table"] <= p.inference.max_table
    assert found["message_entries_at_once"] <= p.inference.max_messages


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_models_beyond_reach_are_refused(name, shared_data):
    with pytest.raises(lnz.IntractableError, match="BeliefPropagation"):
        load(shared_data / "uai_pr_mar", name).log_partition  # noqa: B018


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif("LNZ_ALL_UAI" not in os.environ, reason="takes minutes; set LNZ_ALL_UAI=1")
def test_every_model_is_answered_or_refused(shared_data):
    folder = shared_data / "uai_pr_mar"
    refused = []
    for name in published(folder):
        try:
            check(folder, name)
        except lnz.IntractableError:
            refused.append(name)
    assert set(refused) >= set(REFUSED)
    assert not set(refused) & {*SMALL, *PUBLISHED, *OTHERS}
