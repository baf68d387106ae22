"""Linear chains: the best labelling of every sequence of a batch."""

from __future__ import annotations

import struct
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload, require
from benchmarks.cases.chain_nll import LAYER, SHAPES, with_table

COLD = {"32x128x16": 25.0, "256x64x32": 35.0, "32x512x64": 40.0, "16x256x256": 40.0}
TARGETS = {"pytorch-crf": 35.0, "crfsuite": 6.0}


class Viterbi:
    name = "viterbi"
    title = "Chain Viterbi"
    summary = (
        "The best labelling of B chains of T steps and L labels (BxTxL), one shared L × L table of edge scores, "
        "float32; compared by its score. crfsuite, which scores features and takes one sequence at a time, gets "
        "one feature per step, weighted with the node scores, and sequences that are already made up of its own items."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        b, t, k = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        nodes = torch.randn(b, t, k, generator=generator)
        table = torch.randn(k, k, generator=generator) / 2
        return Workload(
            contenders={
                OURS: partial(_lnz, nodes, table),
                LAYER: partial(_lnz_crf, nodes, table),
                "pytorch-crf": partial(_pytorch_crf, nodes, table),
                "crfsuite": partial(_crfsuite, nodes, table),
            },
            reference=lambda: {"score": _best_scores(nodes.double(), table.double()).numpy()},
            tolerance=1e-5,
            targets=TARGETS,
            cold_targets={"pytorch-crf": COLD[shape]},
        )


def _scores(nodes: Tensor, table: Tensor, y: Any) -> Numbers:
    """The score of each labelling, in float64."""
    y = torch.as_tensor(y)
    total = nodes.double().gather(2, y[..., None]).sum((1, 2)) + table.double()[y[:, :-1], y[:, 1:]].sum(1)
    return {"score": total.numpy()}


def _lnz(nodes: Tensor, table: Tensor) -> Contender:
    return Contender(lambda: lnz.LinearChain(nodes, table).argmax(), lambda y: _scores(nodes, table, y), "lnz")


def _lnz_crf(nodes: Tensor, table: Tensor) -> Contender:
    crf = with_table(lnz.nn.LinearChainCRF(len(table), batch_first=True), table)
    return Contender(lambda: crf.decode(nodes), lambda y: _scores(nodes, table, y), "lnz")


def _pytorch_crf(nodes: Tensor, table: Tensor) -> Contender:
    torchcrf = require("torchcrf", "pytorch-crf==0.7.2")
    crf = with_table(torchcrf.CRF(len(table), batch_first=True), table)

    def call() -> list[list[int]]:
        with torch.no_grad():
            return crf.decode(nodes)

    return Contender(call, lambda y: _scores(nodes, table, y), "pytorch-crf")


def _crfsuite(nodes: Tensor, table: Tensor) -> Contender:
    """A model trained on nothing in particular, in whose file the weights are then exchanged for the scores."""
    pycrfsuite: Any = require("pycrfsuite", "python-crfsuite==0.9.12")
    b, t, k = nodes.shape
    sequences = [pycrfsuite.ItemSequence([[str(i * t + j)] for j in range(t)]) for i in range(b)]
    trainer = pycrfsuite.Trainer(verbose=False)
    every_label = (torch.arange(b * t).view(b, t) % k).tolist()
    for sequence, labels in zip(sequences, every_label, strict=True):
        trainer.append(sequence, [str(label) for label in labels])
    trainer.set_params({"max_iterations": 1, "feature.possible_transitions": True, "feature.possible_states": True})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        trainer.train(str(path))
        tagger = pycrfsuite.Tagger()
        tagger.open(str(path))
        order = [int(label) for label in tagger.labels()]
        tagger.close()
        path.write_bytes(_with_scores(path.read_bytes(), nodes.view(-1, k)[:, order], table[order][:, order]))
        tagger.open(str(path))  # reads all of it

    def call() -> list[list[str]]:
        return [tagger.tag(sequence) for sequence in sequences]

    def read(y: list[list[str]]) -> Numbers:
        return _scores(nodes, table, [[int(label) for label in labels] for labels in y])

    return Contender(call, read, "python-crfsuite")


def _with_scores(model: bytes, nodes: Tensor, table: Tensor) -> bytes:
    """A model file of crfsuite with other weights: records of kind, from, to (uint32) and weight (float64)."""
    start = model.index(b"FEAT") + 12  # behind the name, the size and the number of records
    (count,) = struct.unpack_from("<I", model, start - 4)
    kind = np.dtype([("edge", "<u4"), ("source", "<u4"), ("target", "<u4"), ("weight", "<f8")])
    records = np.frombuffer(model, kind, count, start).copy()
    if count != nodes.numel() + table.numel():
        raise RuntimeError(f"crfsuite kept {count} of {nodes.numel() + table.numel()} features")
    edge = records["edge"] == 1
    for which, scores in ((edge, table), (~edge, nodes)):
        records["weight"][which] = scores.numpy()[records["source"][which], records["target"][which]]
    return model[:start] + records.tobytes() + model[start + records.nbytes :]


def _best_scores(nodes: Tensor, table: Tensor) -> Tensor:
    """The (max, +) recursion, written out."""
    best = nodes[:, 0]
    for t in range(1, nodes.shape[1]):
        best = (best.unsqueeze(2) + table).amax(1) + nodes[:, t]
    return best.amax(1)
