"""Which backend computes: by registration, by the tensors, by the user."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import types
import warnings
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

import lnz
from lnz import ops
from lnz.errors import MissingPackageWarning
from lnz.ops import chain, dispatch
from lnz.ops.chain.op import KERNELS
from lnz.ops.dispatch import Kernels, _ops
from lnz.ops.precision import OWN

TRITON = ("triton",) if find_spec("triton") else ()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A backend of chains for this test, of one verb, and the calls that it gets."""
    calls: list[str] = []
    module = types.ModuleType("toy_backend")

    def forward_backward(chains: chain.Chains) -> tuple[torch.Tensor, ...]:
        calls.append("forward_backward")
        B, T, L = chains.node.shape
        nothing = torch.zeros(B, T, L, dtype=chains.node.dtype)
        log_z = torch.full((B,), 42.0, dtype=torch.float64)
        return log_z, nothing, nothing.clone(), nothing.clone(), torch.ones(B, dtype=torch.bool)

    module.forward_backward = forward_backward  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_backend", module)
    monkeypatch.setattr(KERNELS, "registered", dict(KERNELS.registered))
    KERNELS.register("toy", "toy_backend", devices=("cpu",), dtypes=(torch.float32,))
    return calls


def test_a_second_backend_is_one_registration(toy: list[str]) -> None:
    assert ops.backends("chain") == ("cpu", *TRITON, "toy", "reference")
    node, edge = torch.zeros(2, 3, 4), torch.zeros(4, 4)
    assert lnz.LinearChain(node, edge).log_partition[0] < 5  # the first that serves is preferred
    assert not toy
    with ops.backend("toy"):
        p = lnz.LinearChain(node, edge)
        assert p.log_partition.tolist() == [42.0, 42.0]
        assert toy == ["forward_backward"]
        assert p.argmax().shape == (2, 3)  # a verb that it lacks is the reference's
        assert lnz.CTC(node).log_prob(torch.tensor([[1], [2]])).isfinite().all()  # as are ops that lack it
        with pytest.raises(ValueError, match="chain: backend 'toy' serves float32 on cpu, got float64 on cpu; backend"):
            _ = lnz.LinearChain(node.double(), edge.double()).log_partition


def test_tensors_choose_among_backends(toy: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    del KERNELS.registered["cpu"]
    node, edge = torch.zeros(2, 3, 4), torch.zeros(4, 4)
    assert lnz.LinearChain(node, edge).log_partition.tolist() == [42.0, 42.0]
    assert lnz.LinearChain(node.double(), edge.double()).log_partition[0] < 5
    monkeypatch.setenv("LNZ_BACKEND", "reference")
    assert lnz.LinearChain(node, edge).log_partition[0] < 5


def test_names_are_listed() -> None:
    assert ops.backends("chain") == ("cpu", *TRITON, "reference")
    assert ops.backends()["chain"] == ("cpu", *TRITON, "reference")
    with pytest.raises(ValueError, match=r"op: expected one of .*'chain'.*, got 'chian'"):
        ops.backends("chian")
    with pytest.raises(ValueError, match="name: expected the name of a backend of chain, got 'auto', which"):
        KERNELS.register("auto", "nowhere", devices=(), dtypes=())


OPS = {
    "annealing", "arborescence", "chain", "ctc", "elimination", "gibbs", "icm", "mean_field", "metropolis",
    "projective", "semi_markov", "spans", "transducer", "tree_gibbs", "trws",
}  # fmt: skip


def test_every_op_with_kernels_is_listed() -> None:
    assert {name for name, found in ops.backends().items() if "cpu" in found and found[-1] == "reference"} >= OPS


def test_backends_serve_what_they_say() -> None:
    """Each verb is where its backend's ``VERBS`` say, so that none is missed and left to the reference."""
    ops.backends()
    for kernels in _ops.values():
        for entry in kernels.registered.values():
            module = import_module(entry.module)
            for verb, file in getattr(module, "VERBS", {}).items():
                assert hasattr(import_module(f"{entry.module}.{file}"), verb), f"{entry.module}: {verb}"


def test_what_needs_an_absent_package_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KERNELS, "registered", dict(KERNELS.registered))
    served = {"devices": ("cuda",), "dtypes": (torch.float32,)}
    KERNELS.register("gpu", "nowhere", requires="no_such_package", **served)  # type: ignore[arg-type]
    assert "gpu" not in ops.backends("chain")


def test_what_an_accelerator_lacks_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_ops", dict(_ops))
    kernels = Kernels("of this test")
    dispatch._warn_of_missing.cache_clear()
    kernels.register("gpu", "nowhere", devices=("meta",), dtypes=(torch.float32,), requires="no_such_package")
    accelerated = torch.zeros(2, device="meta")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.find("solve", torch.zeros(2)) is None  # not what it would serve
        with ops.backend("reference"):
            assert kernels.find("solve", accelerated) is None  # nor where plain torch is meant
    with pytest.warns(MissingPackageWarning, match=r"no_such_package is not installed: .*pip install 'lnz\[gpu\]'"):
        assert kernels.find("solve", accelerated) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.find("solve", accelerated) is None


def test_a_backend_may_serve_further_devices_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_ops", dict(_ops))
    kernels = Kernels("of this test")
    places: list[str] = []
    kernels.register("slow", "nowhere", devices=(), dtypes=(torch.float32,), by_name=lambda: places)
    assert kernels.serving(torch.zeros(2)) == "reference"
    with ops.backend("slow"):
        with pytest.raises(ValueError, match="of this test: backend 'slow' serves float32 on , got float32 on cpu"):
            kernels.serving(torch.zeros(2))
        places.append("cpu")
        assert kernels.serving(torch.zeros(2)) == "slow"
    assert kernels.serving(torch.zeros(2)) == "reference"


def test_backend_is_chosen_by_context_and_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LNZ_BACKEND", raising=False)
    x = torch.zeros(1)
    assert KERNELS.serving(x) == "cpu"
    assert KERNELS.serving(x.half()) == "reference"
    with ops.backend("reference"):
        assert KERNELS.serving(x) == "reference"
        with ops.backend("auto"):
            assert KERNELS.serving(x) == "cpu"
        assert KERNELS.serving(x) == "reference"
    monkeypatch.setenv("LNZ_BACKEND", "reference")
    assert KERNELS.serving(x) == "reference"
    with ops.backend("cpu"):
        assert KERNELS.serving(x) == "cpu"
    monkeypatch.setenv("LNZ_BACKEND", "fast")
    with pytest.raises(ValueError, match="LNZ_BACKEND: expected one of 'auto', 'reference', 'cpu', .*got 'fast'"):
        KERNELS.serving(x)
    with (
        pytest.raises(ValueError, match="backend: expected one of 'auto', 'reference', 'cpu', .*got 'cuda'"),
        ops.backend("cuda"),
    ):
        pass


def test_backend_concerns_only_its_own_thread_and_task() -> None:
    seen = []

    async def other() -> str:
        return KERNELS.serving(torch.zeros(1))

    async def main() -> str:
        task = asyncio.create_task(other())
        with ops.backend("reference"):
            return await task

    with ops.backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(KERNELS.serving(torch.zeros(1))))
        thread.start()
        thread.join()
    assert seen == ["cpu"]
    assert asyncio.run(main()) == "cpu"


def test_choosing_costs_little_and_is_traced() -> None:
    node, edge = torch.zeros(2, 3, 4), torch.zeros(1, 1, 4, 4)
    KERNELS.find("viterbi", node, edge)
    start = time.process_time()
    for _ in range(1000):
        KERNELS.find("viterbi", node, edge)
    assert time.process_time() - start < 0.05  # 50 µs each, where about 3 are usual

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return 2 * x if KERNELS.serving(x) == "cpu" else x

    compiled = torch.compile(doubled, fullgraph=True, backend="eager")
    assert torch.equal(compiled(node + 1), 2 * (node + 1))


def test_the_pass_says_which_rung_it_took() -> None:
    done = chain.forward_backward(chain.Chains(torch.zeros(2, 3, 4), torch.zeros(1, 1, 4, 4), torch.tensor([3, 1])))
    assert (done.rung == OWN).all()


def test_a_name_may_be_that_of_one_op_only() -> None:
    own = Kernels("of this test")
    own.register("only-here", "lnz.ops.chain.cpu", devices=("cpu",), dtypes=(torch.float64,))
    try:
        with ops.backend("only-here"):
            assert own.serving(torch.zeros(1, dtype=torch.float64)) == "only-here"
            assert KERNELS.serving(torch.zeros(1)) == "cpu"
    finally:
        ops.dispatch._ops.pop("of this test")
