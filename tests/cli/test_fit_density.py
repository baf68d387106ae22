import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from lnz.cli import main
from lnz.io.checkpoints import load_checkpoint
from tests.cli.runs import QUIET, interrupted, killed_and_resumed, results

SMALL = ["--data.size", "[4,4]", "--model.hidden", "4"]
FAST = ["--trainer.accelerator", "cpu", "--model.ais_steps", "100", "--model.picture_sweeps", "20"]
TINY = [*SMALL, *FAST]


def fit(*arguments):
    return main(["fit", "density", *map(str, arguments)])


def evaluate(*arguments):
    """The exit code of ``lnz evaluate``."""
    return main(["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert fit(*TINY, *QUIET, "--trainer.max_epochs", 3, "--seeds", 2, "--output", folder) == 0
    return folder


class TestRunFolder:
    def test_holds_everything(self, run_folder):
        names = {str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if path.is_file()}
        expected = {"report.html", "picture.png", "results.json", "config.yaml"}
        expected |= {f"seed-{s}/{n}" for s in (0, 1) for n in ("results.json", "picture.png")}
        expected |= {f"seed-{s}/checkpoints/{n}.ckpt" for s in (0, 1) for n in ("last", "best")}
        assert expected <= names

    def test_results_of_each_seed(self, run_folder):
        first, second = results(run_folder)
        assert (first["seed"], second["seed"]) == (0, 1)
        assert first["measures"]["model"] != second["measures"]["model"]
        assert first["measures"]["pixels"] == second["measures"]["pixels"]
        for result in (first, second):
            assert all(-20 < value < 0 for row in result["measures"].values() for value in row.values())
            assert result["log_z"]["low"] < result["log_z"]["exact"] < result["log_z"]["high"]
            assert [point["epoch"] for point in result["history"]] == [1, 2, 3]
            assert result["history"][-1]["val/log_likelihood"] == pytest.approx(
                result["measures"]["model"]["test"], abs=1e-3
            )

    def test_report_needs_no_other_file(self, run_folder):
        page = (run_folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") == 2
        assert not re.search(r'(src|href)="(?!data:)', page)
        assert "independent pixels" in page
        test = np.mean([result["measures"]["model"]["test"] for result in results(run_folder)])
        assert f"{test:.3f} ±" in page
        assert f"ln Z = {results(run_folder)[1]['log_z']['exact']:.3f}, exact" in page

    def test_checkpoint_keeps_the_chains(self, run_folder):
        about = load_checkpoint(run_folder / "seed-0/checkpoints/last.ckpt")["lnz"]
        assert about["task"] == "density"
        assert about["chains"]["labels"].shape == (100, 20)
        assert about["chains"]["sweeps"] == 3 * 12

    def test_configuration_says_all(self, run_folder):
        config = yaml.safe_load((run_folder / "config.yaml").read_text())
        assert config["model"]["hidden"] == 4
        assert config["data"]["size"] == [4, 4]

    def test_a_finished_run_is_not_run_again(self, run_folder, capsys):
        before = results(run_folder)
        assert fit("--config", run_folder / "config.yaml", *QUIET, "--ckpt_path", "last") == 0
        assert results(run_folder) == before
        assert "RBM, pcd" in capsys.readouterr().out


@pytest.mark.parametrize("objective", ["cd", "pcd", "nll", "pseudolikelihood"])
def test_learns_by_every_objective(objective, tmp_path):
    """Better than independent pixels on test images, soon."""
    options = ["--model.objective", objective, "--model.hidden", 8, "--trainer.max_epochs", 15, *FAST, *QUIET]
    assert fit(*options, "--output", tmp_path / "run") == 0
    (result,) = results(tmp_path / "run")
    model, pixels = result["measures"]["model"], result["measures"]["pixels"]
    assert model["pseudo"] > pixels["pseudo"] + 1
    if objective != "pseudolikelihood":
        assert model["test"] > pixels["test"] + 1
    assert result["log_z"]["low"] < result["log_z"]["exact"] < result["log_z"]["high"]


@pytest.mark.slow  # compiles exact inference
def test_a_grid_learns(tmp_path):
    options = ["--model.kind", "grid", "--data.size", "[5,4]", *FAST, *QUIET]
    assert fit(*options, "--trainer.max_epochs", 10, "--output", tmp_path / "run") == 0
    (result,) = results(tmp_path / "run")
    first, *_, last = result["history"]
    assert last["val/log_likelihood"] > first["val/log_likelihood"]
    assert result["log_z"]["exact"] == pytest.approx(result["log_z"]["annealed"], abs=0.1)


def test_a_folder_of_images(tmp_path):
    (tmp_path / "im").mkdir()
    rng = np.random.default_rng(0)
    for k in range(8):
        Image.fromarray(rng.integers(256, size=(3, 5, 3), dtype=np.uint8)).save(tmp_path / "im" / f"{k}.png")
    options = ["--data.images", tmp_path / "im", "--model.hidden", 30, *FAST, *QUIET, "--trainer.max_epochs", 1]
    assert fit(*options, "--output", tmp_path / "run") == 0
    (result,) = results(tmp_path / "run")
    assert result["log_z"]["exact"] == pytest.approx(result["log_z"]["annealed"], abs=0.1)  # 15 pixels are enumerated


class TestErrors:
    """Bad input is told in one message, before training, and with exit status 2."""

    def told(self, capsys, tmp_path, *arguments):
        assert fit(*TINY, *QUIET, "--output", tmp_path / "run", *arguments) == 2
        return capsys.readouterr().err

    def test_wrong_values(self, tmp_path, capsys):
        assert "'nll' enumerates up to 20" in self.told(
            capsys, tmp_path, "--model.objective", "nll", "--model.hidden", 40, "--data.size", "[8,8]"
        )
        assert "hidden units that are not joined" in self.told(
            capsys, tmp_path, "--model.kind", "grid", "--model.objective", "pseudolikelihood"
        )
        told = self.told(capsys, tmp_path, "--model.objective", "mle")
        assert "model.objective: expected 'cd', 'pcd', 'pseudolikelihood', 'nll', got 'mle'" in told
        assert "Union" not in told
        assert "none: expected a folder of images, found nothing" in self.told(
            capsys, tmp_path, "--data.images", tmp_path / "none"
        )

    def test_a_checkpoint_of_another_size(self, run_folder, tmp_path, capsys):
        last = run_folder / "seed-0" / "checkpoints" / "last.ckpt"
        code = fit(*FAST, *QUIET, "--output", tmp_path / "run", "--ckpt_path", last)
        assert code == 2
        told = "last.ckpt: expected a checkpoint of the model asked for, got one of height 4, not 8; width 4, not 8"
        assert told in capsys.readouterr().err


class TestEvaluate:
    def test_the_test_images_of_the_run_give_its_numbers(self, run_folder, capsys):
        assert evaluate(run_folder, "--data.size", "[4,4]", "--json") == 0
        again, kept = json.loads(capsys.readouterr().out), results(run_folder)
        for result, of in zip(again, kept, strict=True):
            assert result["log_z"] == pytest.approx(of["log_z"])
            for row in ("pixels", "model"):
                assert result["measures"][row] == pytest.approx({k: of["measures"][row][k] for k in ("test", "pseudo")})
        assert evaluate(run_folder, "--data.size", "[4,4]") == 0
        shown = "".join(capsys.readouterr().out.split())
        assert f"597bundleddigits;weightsof{run_folder}" in shown
        assert "lnP,training" not in shown

    def test_images_of_another_size_are_told(self, run_folder, tmp_path, capsys):
        Image.fromarray(np.zeros((5, 4), np.uint8)).save(tmp_path / "a.png")
        assert evaluate(run_folder, "--data.images", tmp_path) == 2
        assert "expected images of height and width [4, 4], as in training, got [5, 4]" in capsys.readouterr().err


@pytest.mark.slow
class TestProcesses:
    def test_resumes_after_kill_with_the_same_results(self, tmp_path):
        """The persistent chains and the random numbers go on too."""
        killed_and_resumed("density", [*TINY, "--trainer.max_epochs", 30], 30, tmp_path)

    def test_interrupt_keeps_the_checkpoint_and_says_how_to_go_on(self, tmp_path):
        interrupted("density", TINY, tmp_path)


def test_help_has_examples(capsys):
    assert main(["fit", "density", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "lnz fit density --model.kind grid" in shown
    assert "persistent chains" in shown
