"""Taggers on sparse features: templates, the encoder, learning from the shell, checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lnz.cli import main
from lnz.errors import FormatError
from lnz.io.checkpoints import load_checkpoint
from lnz.io.sentences import read_sentences
from lnz.tasks.tag.feature_encoder import FeatureEncoder
from lnz.tasks.tag.feature_fit import FeatureLearning
from lnz.tasks.tag.module import TagModule
from lnz.tasks.tag.templates import DEFAULT, Templates
from tests.cli.runs import QUIET, results

SENTENCES = [["Ada", "met", "Ada"], ["met"], ["the", "2nd", "Ada"]]


class TestTemplates:
    def test_equal_features_have_equal_hashes_and_others_do_not(self) -> None:
        hashes = Templates(["w[0]", "w[-1]", "lower[0]|w[1]", "bias"]).hashes(SENTENCES)
        assert hashes.shape == (7, 4)
        assert hashes[0, 0] == hashes[2, 0] == hashes[6, 0]  # Ada
        assert hashes[0, 1] == hashes[3, 1] == hashes[4, 1]  # the start of a sentence
        assert len(np.unique(hashes[:, 1])) == 5  # start, Ada, met, the, 2nd
        assert len(np.unique(hashes[:, 2])) == 6  # Ada ends two sentences
        assert len(np.unique(hashes[:, 3])) == 1
        assert len(np.unique(hashes)) == 4 + 5 + 6 + 1

    def test_a_sentence_does_not_see_its_neighbours(self) -> None:
        templates = Templates(DEFAULT)
        together = templates.hashes(SENTENCES)
        apart = np.concatenate([templates.hashes([words]) for words in SENTENCES])
        assert np.array_equal(together, apart)
        assert templates.hashes([]).shape == templates.hashes([[]]).shape == (0, len(DEFAULT))

    def test_they_stay_the_same(self) -> None:
        """In other processes and versions: checkpoints hold them."""
        assert Templates(["w[0]", "shape[-1]|s2[0]"]).hashes([["Ada", "é2"]]).tolist() == FIXED

    @pytest.mark.parametrize("text", ["x[0]", "w", "w[a]", "", "w[0]|"])
    def test_bad(self, text: str) -> None:
        with pytest.raises(FormatError, match=r"model.templates: expected 'bias', or w, lower, .*, got "):
            Templates([text])


FIXED = [[-2024644854146725247, -8592905658065157693], [-3400232554290092457, 1847732401813683861]]


class TestEncoder:
    def test_scores_are_sums_of_weights(self) -> None:
        encoder = FeatureEncoder(["w[0]", "bias"], 2)
        encoder.learn_features(SENTENCES)
        assert encoder.weight.shape == (5, 2)
        with torch.no_grad():
            encoder.weight.normal_()
        new = [["Ada", "new"], ["2nd"]]
        scores = encoder({"tokens": new})
        bias = encoder.weight[torch.from_numpy(encoder.matrix([["new"]]).indices)].sum(0)
        torch.testing.assert_close(scores[0, 1], bias)
        ada = encoder.weight[torch.from_numpy(encoder.matrix([["Ada"]]).indices)].sum(0)
        torch.testing.assert_close(scores[0, 0], ada)
        assert scores[1, 1].tolist() == [0.0, 0.0]
        scores.sum().backward()
        assert encoder.weight.grad is not None

    def test_comes_back_from_a_state(self) -> None:
        encoder, again = (FeatureEncoder(DEFAULT, 3) for _ in range(2))
        encoder.learn_features(SENTENCES, min_count=2)
        torch.nn.init.normal_(encoder.weight)
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(again({"tokens": SENTENCES}), encoder({"tokens": SENTENCES}))


TEXT = "Ada\tB-PER\nLovelace\tI-PER\nmet\tO\nher\tO\n\nLondon\tB-LOC\nmet\tO\nAda\tB-PER\n\nthe\tO\ncat\tO\n\n"


@pytest.mark.parametrize("algorithm", ["lbfgs", "adam"])
def test_fits_predicts_and_evaluates(algorithm: str, tmp_path: Path) -> None:
    data = tmp_path / "x.bio"
    data.write_text(TEXT * 6)
    options = ["--data.train", data, "--data.val", data, "--data.scheme", "BIO", "--model", "features"]
    options += ["--model.learning.algorithm", algorithm, "--model.learning.c1", 0.01, "--model.learning.c2", 0.01]
    options += ["--model.learning_rate", 0.1, "--trainer.accelerator", "cpu", "--output", tmp_path / "run"]
    assert main(["fit", "tag", *map(str, options), *QUIET]) == 0
    (result,) = results(tmp_path / "run")
    assert result["measures"]["crf"]["f1"] == 1.0
    assert len(result["history"]) == (1 if algorithm == "lbfgs" else 12)
    assert main(["predict", str(tmp_path / "run"), "--text", str(data), "--output", str(tmp_path / "y.bio")]) == 0
    assert [s.tags for s in read_sentences(tmp_path / "y.bio")] == [s.tags for s in read_sentences(data)]
    assert main(["evaluate", str(tmp_path / "run"), "--data.val", str(data)]) == 0
    again = ["fit", "tag", "--config", str(tmp_path / "run" / "config.yaml"), "--ckpt_path", "last", *QUIET]
    assert main(again) == 0


def test_the_chain_keeps_the_scheme_while_it_is_learnt(tmp_path: Path) -> None:
    """What the scheme forbids is no part of Z: gold taggings are as probable as they can be."""
    data = tmp_path / "x.bio"
    data.write_text("a\tB-X\nb\tI-X\n\na\tO\nb\tO\n\n" * 5)
    options = ["--data.train", data, "--data.val", data, "--data.scheme", "BIO", "--model=features"]
    options += ["--model.templates", '["w[0]"]', "--model.learning.c1", 0, "--model.learning.c2", 1e-4]
    options += ["--trainer.accelerator", "cpu", "--output", tmp_path / "run"]
    assert main(["fit", "tag", *map(str, options), *QUIET]) == 0
    (path,) = (tmp_path / "run").glob("seed-0/checkpoints/last.ckpt")
    module = TagModule.from_checkpoint(load_checkpoint(path), str(path))
    with torch.no_grad():
        p = module.crf({"tokens": [["a", "b"]], "lengths": torch.tensor([2])})
    tags = torch.tensor([[module.tags.index(tag) for tag in ("B-X", "I-X")]])
    assert p.log_prob(tags).exp().item() == pytest.approx(0.5, abs=0.02)


def test_bad_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="learning.algorithm: expected 'lbfgs' or 'adam', got 'x'"):
        FeatureLearning("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model.learning: 'lbfgs' is for objective nll, got 'hinge'"):
        TagModule(["A", "B"], encoder="features", objective="hinge")
    assert main(["fit", "tag", "--model", "features", "--output", str(tmp_path / "run")]) == 2
    assert "'features' needs sentences: give data.train" in capsys.readouterr().err
