"""The benchmark of accelerators works without one: by the interpreter to its end, and compiled ahead."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu import interpreter  # noqa: F401  (a fixture)

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.mark.usefixtures("interpreter")
def test_the_interpreter_runs_it_to_its_end(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    command = [sys.executable, "-m", "benchmarks.gpu", "--interpreter", "--out", str(out)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the times mean nothing" in done.stdout
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert len(rows) > 10
    assert all(row["right"] == "True" for row in rows), [row for row in rows if row["right"] != "True"]
    assert {row["device"] for row in rows} == {"interpreter"}


def test_without_a_card_it_says_so() -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no accelerator" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("interpreter")
def test_every_kernel_fits_on_every_card(tmp_path: Path) -> None:
    """In a process of its own, without the interpreter: registers, spills and shared memory, read from the binaries.

    In float32, on every card of the kind; ``--compile`` alone does all dtypes, and AMD's beside, in twice the time.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.gpu", "--compile", "--out", str(tmp_path / "page.md")]
    command += ["--dtype", "float32", "--cards", "sm_80", "sm_90", "sm_100"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "sm_100" in (tmp_path / "page.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("interpreter")
def test_a_step_of_training_by_the_kernels(tmp_path: Path) -> None:
    few = [
        f"--trainer.{what}={n}" for what, n in (("max_steps", 1), ("limit_val_batches", 1), ("limit_test_batches", 1))
    ]
    command = [sys.executable, "-m", "lnz.cli", "fit", "tag", *few]
    environment = os.environ | {"LNZ_BACKEND": "triton", "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
