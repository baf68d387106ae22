"""Embeddings that start from a file of vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lnz.cli import main
from lnz.errors import FormatError
from lnz.tasks.tag.module import TagModule
from tests.cli.runs import QUIET, results

VECTORS = "Paris 1 2 3 4\nparis 5 6 7 8\nROME 0 0 1 1\nseen -1 -1 -1 -1\nlater 9 9 9 9\n"


def module(path: Path, **options) -> TagModule:
    path.write_text(VECTORS)
    return TagModule(["A", "B"], words=["paris", "unheard"], characters=["a"], vectors=path, **options)


def test_embeddings_are_the_files(tmp_path: Path) -> None:
    made = module(tmp_path / "v", most_vectors=4)
    encoder = made.crf.encoder
    assert list(encoder.word_number) == ["paris", "rome", "seen", "unheard"]
    weight = encoder.words.weight
    assert weight[1].tolist() == [5, 6, 7, 8]  # the spelling in lower case
    assert weight[2].tolist() == [0, 0, 1, 1]
    assert weight.shape == (5, 4)
    assert not weight[4].isnan().any()
    assert torch.equal(made.softmax.encoder.words.weight, weight)
    assert list(module(tmp_path / "v", most_vectors=0).crf.encoder.word_number) == ["paris", "unheard"]


def test_they_learn_at_the_smaller_rate(tmp_path: Path) -> None:
    made = module(tmp_path / "v", learning_rate=1e-2, pretrained_rate=1e-4)
    made._trainer = type("Trainer", (), {"estimated_stepping_batches": 10})()
    _, pretrained = made.configure_optimizers()["optimizer"].param_groups
    assert pretrained["max_lr"] == 1e-4
    assert [p.shape for p in pretrained["params"]] == [made.crf.encoder.words.weight.shape] * 2


def test_fits_and_predicts_without_the_file(tmp_path: Path) -> None:
    (tmp_path / "v").write_text(VECTORS)
    (tmp_path / "x.bio").write_text("Paris\tB\nseen\tO\n\nrome\tB\n\n" * 6)
    options = ["--data.train", tmp_path / "x.bio", "--data.val", tmp_path / "x.bio", "--model.vectors", tmp_path / "v"]
    options += ["--trainer.max_epochs", 2, "--trainer.accelerator", "cpu", "--output", tmp_path / "run"]
    assert main(["fit", "tag", *map(str, options), *QUIET]) == 0
    assert len(results(tmp_path / "run")[0]["history"]) == 2
    (tmp_path / "v").unlink()
    arguments = ["--text", tmp_path / "x.bio", "--output", tmp_path / "y.bio"]
    assert main(["predict", *map(str, (tmp_path / "run", *arguments))]) == 0


def test_bad_settings(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("else 1 2\n")
    with pytest.raises(FormatError, match="expected vectors of words such as 'paris', got none of a training word"):
        TagModule(["A"], words=["paris"], vectors=tmp_path / "v")
    with pytest.raises(
        ValueError, match="model.vectors: expected a file with model.encoder words, got encoder 'image'"
    ):
        TagModule(["A"], image_size=(8, 8), vectors=tmp_path / "v")
    with pytest.raises(ValueError, match="model.most_vectors: expected an integer of at least 0, got -1"):
        TagModule(["A"], words=["else"], vectors=tmp_path / "v", most_vectors=-1)
