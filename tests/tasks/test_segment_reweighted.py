"""The default objective: belief propagation, and the tree-reweighted one once that does not converge, said aloud."""

import json
import logging

import pytest
import torch

from lnz.cli import main
from lnz.inference import BeliefPropagation, TreeReweighted
from lnz.io.checkpoints import load_checkpoint
from lnz.tasks.segment.module import SegmentModule
from tests.cli.runs import QUIET, results

TINY = ["--trainer.accelerator", "cpu", "--data.batch_size", 2, "--model.width", 4, "--trainer.max_epochs", 3]
SCENES = ["--data.scenes.size", 8, "--data.scenes.scale", 1, "--data.scenes.train", 8, "--data.scenes.val", 3]


def fit(*arguments):
    return main(["fit", "segment", *map(str, [*TINY, *SCENES, *QUIET, *arguments])])


def words(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_takes_over_where_belief_propagation_does_not_converge(tmp_path, capsys, caplog):
    run = tmp_path / "run"
    with caplog.at_level(logging.WARNING, "lnz"):
        assert fit("--model.inference.max_iterations", 2, "--seeds", 2, "--output", run) == 0
    shown, page = words(capsys), (run / "report.html").read_text()
    for seed, result in enumerate(results(run)):
        epoch, share = result["reweighted"]["epoch"], result["reweighted"]["share"]
        assert result["objective"] == "nll"
        assert 0 <= share < 0.9
        converged = [point["train/converged"] for point in result["history"]]
        assert converged[int(epoch) - 1] == pytest.approx(share)
        assert all(before >= 0.9 for before in converged[: int(epoch) - 1])
        said = f"seed {seed}: tree-reweighted belief propagation, which took over after epoch {epoch:.0f}, in which"
        assert said in shown
        assert said in page
        assert (
            f"after epoch {epoch:.0f}, tree-reweighted belief propagation takes over training and beliefs"
            in caplog.text
        )
    file = run / "seed-0/checkpoints/last.ckpt"
    module = SegmentModule.from_checkpoint(load_checkpoint(file), str(file))
    assert isinstance(module.mrf[1].inference, TreeReweighted)
    assert module.mrf[1].inference.max_iterations == 2


def test_goes_on_after_a_stop(tmp_path, capsys):
    run = tmp_path / "run"
    assert fit("--model.inference.max_iterations", 2, "--output", run) == 0
    first = results(run)[0]["reweighted"]
    (run / "results.json").unlink()
    (run / "seed-0/results.json").unlink()
    again = ["--config", run / "config.yaml", "--ckpt_path", "last"]
    assert main(["fit", "segment", *map(str, again)]) == 0
    assert results(run)[0]["reweighted"] == first
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 0
    assert f"which took over after epoch {first['epoch']:.0f}" in words(capsys)


def test_stays_where_belief_propagation_converges(tmp_path, capsys):
    run = tmp_path / "run"
    more = ["--model.inference.max_iterations", 200, "--model.learning_rate", 0.002]
    assert fit(*more, "--output", run) == 0
    (result,) = json.loads((run / "results.json").read_text())
    assert result["reweighted"] == {}
    assert all(point["train/converged"] >= 0.9 for point in result["history"])
    assert "Training and beliefs by belief propagation. Beliefs converged on 100.0 %" in words(capsys)


def test_trains_and_judges_as_nll_trw_from_then_on():
    bp = BeliefPropagation(max_iterations=7, tolerance=1e-4)
    torch.manual_seed(0)
    switched = SegmentModule(3, 1, width=4, dilations=(1,), inference=bp)
    torch.manual_seed(0)
    wanted = SegmentModule(3, 1, width=4, dilations=(1,), inference=bp, objective="nll-trw")
    with torch.no_grad():
        switched.mrf[1].tables.normal_()
        wanted.mrf[1].tables.copy_(switched.mrf[1].tables)
    batch = {"image": torch.randn(2, 1, 4, 5), "labels": torch.randint(3, (2, 4, 5))}
    for module in (switched, wanted):
        module.log = lambda *args, **kwargs: None
    assert switched.training_step(batch, 0) != wanted.training_step(batch, 0)
    switched.reweight(1, 0.5)
    torch.testing.assert_close(switched.training_step(batch, 0), wanted.training_step(batch, 0))
    switched.eval()
    wanted.eval()
    torch.testing.assert_close(switched.beliefs(batch["image"])[0]["mrf"], wanted.beliefs(batch["image"])[0]["mrf"])
