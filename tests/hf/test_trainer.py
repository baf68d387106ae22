"""Transformers' Trainer: one process and two, half precision, gradient checkpointing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs the extra transformers")
pytest.importorskip("accelerate", reason="needs the extra transformers")

from lnz.hf import CRFForTokenClassification  # noqa: E402
from tests.hf import training  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
    ],
    ids=["plain", "bf16", "checkpointing", "accumulation"],
)
def test_learns(options, tmp_path: Path) -> None:
    found = training.train(tmp_path, **options)
    assert found["after"]["eval_loss"] < 0.5 * found["before"]["eval_loss"]
    assert found["after"]["eval_f1"] > max(found["before"]["eval_f1"], 0.6)
    again = CRFForTokenClassification.from_pretrained(tmp_path / "model")
    assert again.config.scheme == "BIO"


SGD = {"optim": "sgd", "learning_rate": 0.2, "max_steps": 40, "train_sampling_strategy": "sequential"}
"""The same batches in any number of processes; and Adam would blow up gradients that are rounding errors."""


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    kept = []
    for size, steps in ((8, 1), (4, 2)):
        options = {"gradient_accumulation_steps": steps, "per_device_train_batch_size": size, **SGD}
        training.train(tmp_path / str(size), **options)
        kept.append(CRFForTokenClassification.from_pretrained(tmp_path / str(size) / "model").state_dict())
    for name, value in kept[0].items():
        torch.testing.assert_close(kept[1][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_processes_are_one(checkpointing: bool, tmp_path: Path) -> None:
    """The same weights after 40 steps, the same metrics of 21 sentences, and the same predictions in order."""
    root = Path(training.__file__).resolve().parents[2]
    results = []
    for processes, size in ((1, 8), (2, 4)):
        folder = tmp_path / str(processes)
        options = {"per_device_train_batch_size": size, "gradient_checkpointing": checkpointing, **SGD}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += [training.__file__, str(folder), *(f"{name}={json.dumps(value)}" for name, value in options.items())]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root / 'src'}"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        results.append(json.loads((folder / "results.json").read_text()))
    one, two = results
    assert one["after"]["eval_f1"] > 0.5
    for name in ("eval_f1", "eval_precision", "eval_recall", "eval_accuracy"):
        assert two["after"][name] == one["after"][name]
    assert two["tags"] == one["tags"]
    assert len(two["score"]) == 21
    words = torch.tensor(one["tags"]) != -100  # elsewhere the trainer pads
    marginals = [torch.tensor(each["marginals"])[words] for each in results]
    torch.testing.assert_close(marginals[1], marginals[0], rtol=1e-3, atol=1e-4)
    weights = [
        CRFForTokenClassification.from_pretrained(tmp_path / str(each) / "model").state_dict() for each in (1, 2)
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)
