"""Print the time per step of segmentation.md: ``python docs/results/steps.py [THREADS]``, from the checkout's root.

One step is the loss of 8 images of 96 × 96 pixels with 11 labels, the grid of ``configs/camvid.yaml``, and its gradient
with respect to node scores and tables: no network in it. The best of seven, after one that compiles.
"""

from __future__ import annotations

import sys
import time

import torch

from lnz import MRF, FactorGraph
from lnz.inference import BeliefPropagation, Gibbs
from lnz.tasks.segment.objectives import NAMES, OBJECTIVES, Name, Step

BATCH, SIDE, LABELS, ITERATIONS, REPEATS = 8, 96, 11, 10, 7


def milliseconds(name: Name) -> float:
    generator = torch.Generator().manual_seed(0)
    graph = FactorGraph.grid(SIDE, SIDE, LABELS, by_direction=True)
    nodes = torch.randn(BATCH, SIDE**2, LABELS, generator=generator).requires_grad_()
    tables = torch.randn(2, LABELS, LABELS, generator=generator).mul(0.3).add(torch.eye(LABELS)).requires_grad_()
    y = torch.randint(LABELS, (BATCH, SIDE**2), generator=generator)
    objective, sampler = OBJECTIVES[name], Gibbs(chains=1)
    judge = BeliefPropagation(max_iterations=ITERATIONS, tolerance=0.0)  # all of its iterations, whatever it reaches
    method = objective.train(judge, sampler) if objective.train else objective.judge(judge)
    model = MRF(graph, (nodes.detach(), *tables.detach())).model
    chains = sampler.init(model, 1, generator) if name == "pcd" else None
    step = Step(sampler, 1, generator, "iou", 1.0, chains)
    best = float("inf")
    for _ in range(REPEATS + 1):
        nodes.grad = tables.grad = None
        started = time.perf_counter()
        objective.loss(MRF(graph, (nodes, *tables), method), y, step).backward()
        best = min(best, time.perf_counter() - started)
    return 1e3 * best


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    for objective in NAMES:
        print(f"| `{objective}` | {milliseconds(objective):.0f} |", flush=True)
