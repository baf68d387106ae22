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
from lnz.inference import Auto, Method
from lnz.io import read_uai

pytestmark = pytest.mark.data

SECONDS = 60.0
PROVED = {
    *(f"Segmentation_{number}" for number in (11, 13, 15, 17, 19)),
    *(f"Promedas_{number}" for number in (51, 57, 61, 69, 71)),
    *("ProteinFolding_11", "wcsp_11", "wcsp_13"),
}
BETTER = {  # than the best that came with the models
    *(f"ObjectDetection_{number}" for number in (11, 17)),
    *(f"ProteinFolding_{number}" for number in (19, 23)),
}
GOOD = {*(f"Grids_{number}" for number in (19, 21, 23, 25, 27, 29)), "wcsp_15"}
"""Within a thousandth of the best known score."""


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
    p = load(folder, name, Auto(SECONDS))
    found, best = log10_score(p), known(folder)[name]["best_log10"]
    assert found <= p.diagnostics["bound"].item() / math.log(10) + 1e-6
    if name in PROVED:
        assert p.diagnostics["optimal"]
        assert found == pytest.approx(best, abs=2e-6)
    elif name in BETTER:
        assert found > best
    else:
        assert found >= best - 0.001 * abs(best)


@pytest.mark.parametrize("name", ["Segmentation_13", "Segmentation_19", "ProteinFolding_11"])
def test_small_models(name, shared_data):
    check(shared_data, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Segmentation_15", "Segmentation_17", "Promedas_61", "Promedas_71", "wcsp_13"])
def test_larger_models(name, shared_data):
    check(shared_data, name)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif("LNZ_ALL_UAI" not in os.environ, reason="takes minutes; set LNZ_ALL_UAI=1")
@pytest.mark.parametrize("name", sorted(PROVED | BETTER | GOOD))
def test_every_model(name, shared_data):
    check(shared_data, name)
