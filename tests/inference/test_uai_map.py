"""UAI-2014 MAP models: best labellings against the best known ones.

A quick subset runs by default. All 24: ``LNZ_ALL_UAI=1 pytest -m slow tests/inference/test_uai_map.py``;
docs/results/map.md has what came out.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch

import lnz
from lnz.inference import TRWS, Exact, IntegerProgram, IteratedConditionalModes, Method, SimulatedAnnealing
from lnz.io import read_uai

pytestmark = pytest.mark.data

ANNEALED = IteratedConditionalModes(0, SimulatedAnnealing(2000, chains=8, start=TRWS()), block_table=2**12, patience=5)
FORESTS = IteratedConditionalModes(
    0,
    SimulatedAnnealing(4000, chains=8, moves="forests", coldest=0.04, start=TRWS()),
    block_table=2**16,
    patience=10,
)
PROVED: dict[str, Method] = {
    **{f"Segmentation_{number}": TRWS() for number in (11, 13, 15, 17, 19)},
    **{f"Promedas_{number}": IntegerProgram() for number in (51, 57, 61, 69, 71)},
    "ProteinFolding_11": Exact(),
}
BETTER: dict[str, Method] = {  # than the best that came with the models; a local search from many starts
    **{f"ObjectDetection_{number}": IteratedConditionalModes(2000, TRWS()) for number in (11, 17)},
    **{f"ProteinFolding_{number}": IteratedConditionalModes(2000, TRWS()) for number in (19, 23)},
}
GOOD: dict[str, Method] = {  # not always the best known: how far off, as a fraction, is for the results page
    **{f"Grids_{number}": FORESTS for number in (19, 21, 23, 25, 29)},
    "Grids_27": ANNEALED,
    **{f"wcsp_{number}": SimulatedAnnealing(2000, chains=8) for number in (11, 13, 15)},
}
METHODS = PROVED | BETTER | GOOD
SHORT = {"Grids_21": 0.0025, "Grids_27": 0.004}
"""How far below the best known score a grid may end, as a fraction; the others, 0.0005."""


def known(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "uai_map" / "index.json").read_text())


def load(folder: Path, name: str, method: Method) -> lnz.MRF:
    model = read_uai(folder / "uai_map" / f"{name}.uai.gz")
    observed = torch.full((model.graph.num_nodes,), -100)
    for node, label in known(folder)[name]["evid"].items():
        observed[int(node)] = label
    return lnz.MRF(model.graph, model.scores, method).condition(observed)


def log10_score(p: lnz.MRF) -> float:
    return p.score(p.argmax()).item() / math.log(10)


def check(folder: Path, name: str) -> None:
    p = load(folder, name, METHODS[name])
    found, best = log10_score(p), known(folder)[name]["best_log10"]
    bound = p.diagnostics.get("bound", torch.tensor(math.inf)).item() / math.log(10)
    assert found <= bound + 1e-6
    if name in PROVED:
        assert p.diagnostics["optimal"]
        assert found == pytest.approx(best, abs=2e-6)
    elif name in BETTER:
        assert found > best
    elif name.startswith("Grids"):
        assert found >= best - SHORT.get(name, 0.0005) * abs(best)


@pytest.mark.parametrize("name", ["Segmentation_13", "Segmentation_19", "Promedas_71"])
def test_small_models(name, shared_data):
    check(shared_data, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Segmentation_11", "Segmentation_15", "Segmentation_17", "Promedas_61"])
def test_larger_models(name, shared_data):
    check(shared_data, name)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif("LNZ_ALL_UAI" not in os.environ, reason="takes minutes; set LNZ_ALL_UAI=1")
@pytest.mark.parametrize("name", METHODS)
def test_every_model(name, shared_data):
    check(shared_data, name)
