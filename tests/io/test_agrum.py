"""Networks read through pyAgrum: the same posteriors as pyAgrum's own, and its errors as ours."""

import gzip

import pytest
import torch

from lnz.errors import FormatError
from lnz.io import read_model

pyagrum = pytest.importorskip("pyagrum")


@pytest.fixture
def network():
    pyagrum.initRandom(7)
    return pyagrum.fastBN("A[3]->B[2]->C{x|y|z|w}<-A")


@pytest.mark.parametrize("ending", ["bifxml", "net", "dsl", "bifxml.gz"])
def test_posteriors_agree_with_pyagrum(network, tmp_path, ending):
    path = tmp_path / f"m.{ending.removesuffix('.gz')}"
    pyagrum.saveBN(network, str(path))
    if ending.endswith(".gz"):
        packed = tmp_path / f"m.{ending}"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    engine = pyagrum.LazyPropagation(network)
    engine.setEvidence({"C": 1})
    engine.makeInference()
    model = read_model(path)
    assert model.kind == "BAYES"
    assert model.states[model.nodes["C"]] == ("x", "y", "z", "w")
    seen = torch.full((3,), -100)
    seen[model.nodes["C"]] = 1
    given = model.mrf().condition(seen)
    assert given.log_partition.exp().item() == pytest.approx(engine.evidenceProbability(), abs=1e-5)
    for name, card in (("A", 3), ("B", 2)):
        expected = torch.from_numpy(engine.posterior(name).toarray())
        torch.testing.assert_close(given.node_marginals[model.nodes[name], :card], expected, atol=1e-5, rtol=0)


def test_what_pyagrum_refuses_is_a_format_error(tmp_path):
    path = tmp_path / "bad.net"
    path.write_text("net { oops")
    with pytest.raises(FormatError, match=r"bad\.net: pyAgrum cannot read it"):
        read_model(path)
