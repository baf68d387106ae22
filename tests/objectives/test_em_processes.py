"""EM in two processes, each with rows of its own: the same result as in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

import lnz
from lnz.nn import CategoricalEmission, GaussianEmission, HiddenMarkovModel, MixtureModel
from lnz.objectives import em


def rows() -> tuple[lnz.BayesNet, Tensor]:
    generator = torch.Generator().manual_seed(0)
    net = lnz.unrolled(3, [2, 3], [[], [0]], [[0], []]).drawn(torch.zeros(1, 6), generator)
    y = net.sample((41,), generator=generator)
    return net, y.masked_fill(torch.rand(y.shape, generator=generator) < 0.5, -100)


def vectors() -> Tensor:
    return torch.randn(6, 10, 2, generator=torch.Generator().manual_seed(0)).double().cumsum(1)


def learnt(first: int | None) -> dict[str, Any]:
    """What EM finds of the data behind ``first``, or before it; of all, where it is ``None``."""

    def part(x: Tensor, at: int) -> Tensor:
        return x if first is None else x[:at] if first == 0 else x[at:]

    net, y = rows()
    generator = torch.Generator().manual_seed(first or 0)  # of another start in each process, but for the first one's
    of_rows = em(net, part(y, 30), max_iterations=8, restarts=2, pseudocount=0.1, generator=generator, tolerance=0.0)
    x = vectors()
    mean = torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).double()
    gaussian = HiddenMarkovModel(torch.zeros(2).double(), torch.zeros(2, 2).double(), GaussianEmission(mean))
    of_frames = em(gaussian, part(x, 4), max_iterations=5, tolerance=0.0, pseudocount=0.5)
    symbols = HiddenMarkovModel(
        torch.zeros(2).double(),
        torch.zeros(2, 2).double(),
        CategoricalEmission(mean @ torch.ones(2, 3).double() * mean[:, :1]),
    )
    of_symbols = em(
        symbols, part(x[..., 0].abs().long() % 3, 4), torch.tensor([10, 3, 7, 10, 0, 9])[part(torch.arange(6), 4)]
    )
    points = em(
        MixtureModel(torch.zeros(2).double(), GaussianEmission(mean)), part(x.flatten(0, 1), 11), max_iterations=5
    )
    answers = y.clamp(max=1)
    generator = torch.Generator().manual_seed(first or 0)
    of_classes = em(
        lnz.latent_class(2, [2] * 6),
        part(answers, 30),
        max_iterations=9,
        restarts=3,
        generator=generator,
        tolerance=0.0,
    )
    found = {"rows": of_rows, "classes": of_classes, "frames": of_frames, "symbols": of_symbols, "points": points}
    return {
        name: (
            result.log_evidence,
            result.starts,
            result.bic,
            {k: v.detach() for k, v in result.model.state_dict().items()},
        )
        for name, result in found.items()
    }


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(learnt(rank), f"{folder}/{rank}.pt")
    net, y = rows()
    impossible = lnz.BayesNet([2], [[]], [torch.tensor([1.0, 0.0]).double().log()])
    try:
        em(impossible, torch.tensor([[rank]]))
    except Exception as error:
        Path(folder, f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")
    try:
        em(net, y, batch_size=5)
    except ValueError as error:
        Path(folder, f"batch{rank}.txt").write_text(str(error))
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not distributed.is_available(), reason="torch was built without torch.distributed")
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (str(tmp_path),), 2)
    wanted = learnt(None)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, (evidence, starts, bic, state) in wanted.items():
            assert found[name][0] == pytest.approx(evidence, rel=1e-9), name
            assert found[name][1] == pytest.approx(starts, rel=1e-9)
            assert found[name][2] == pytest.approx(bic, rel=1e-9)
            for key, value in state.items():
                torch.testing.assert_close(found[name][3][key], value, rtol=1e-9, atol=1e-9)
    assert "RuntimeError: em: another process failed" in (tmp_path / "0.txt").read_text()
    assert "InfeasibleError: data: expected rows of positive probability" in (tmp_path / "1.txt").read_text()
    assert "batch_size: expected None where several processes" in (tmp_path / "batch0.txt").read_text()
