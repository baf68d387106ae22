import json
import os
import re
import signal

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lnz.cli import main
from lnz.io.checkpoints import load_checkpoint
from lnz.io.images import read_image
from lnz.io.masks import read_mask
from lnz.tasks.segment.module import SegmentModule
from tests.cli.runs import QUIET, finished, interrupted, killed_and_resumed, results, start

TINY = [
    *("--trainer.accelerator", "cpu", "--data.batch_size", "2", "--model.width", "4"),
    *("--data.scenes.size", "8", "--data.scenes.scale", "1", "--data.scenes.train", "8", "--data.scenes.val", "5"),
    *("--model.inference.max_iterations", "4"),
]


def fit(*arguments):
    return main(["fit", "segment", *map(str, arguments)])


def folder_of_three(photos, seed=0, labels=3):
    """Four images of two sizes with masks of three classes, and 9 for void in two pixels of each."""
    photos.mkdir()
    rng = np.random.default_rng(seed)
    for k in range(4):
        size = (5, 6) if k else (4, 7)
        Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(photos / f"im{k}.png")
        mask = rng.integers(labels, size=size, dtype=np.uint8)
        mask[0, :2] = 9
        Image.fromarray(mask).save(photos / f"im{k}_mask.png")
    return photos


def evaluate(*arguments):
    """The exit code of ``lnz evaluate``."""
    return main(["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert fit(*TINY, *QUIET, "--trainer.max_epochs", 2, "--seeds", 2, "--output", folder) == 0
    return folder


class TestRunFolder:
    def test_holds_everything(self, run_folder):
        names = {str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if path.is_file()}
        expected = {"report.html", "picture.png", "results.json", "config.yaml"}
        expected |= {f"seed-{s}/{n}" for s in (0, 1) for n in ("results.json", "picture.png")}
        expected |= {f"seed-{s}/checkpoints/{n}.ckpt" for s in (0, 1) for n in ("last", "best")}
        assert expected <= names
        assert any("tfevents" in name for name in names)

    def test_results_of_each_seed(self, run_folder):
        kept = results(run_folder)
        assert [result["seed"] for result in kept] == [0, 1]
        for result in kept:
            assert {"softmax", "mrf"} == set(result["measures"])
            for measured in result["measures"].values():
                assert 0 <= measured["accuracy"] <= 1
                assert 0 <= measured["miou"] <= 1
                assert measured["nll"] > 0
            assert [point["epoch"] for point in result["history"]] == [1, 2]
        assert kept[0]["measures"] != kept[1]["measures"]

    def test_report_needs_no_other_file(self, run_folder):
        page = (run_folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") == 5
        assert not re.search(r'(src|href)="(?!data:)', page)
        assert "dilations:" in page
        nll = np.mean([result["measures"]["mrf"]["nll"] for result in results(run_folder)])
        assert f"{nll:.4f} ±" in page

    def test_picture_is_one(self, run_folder):
        with Image.open(run_folder / "picture.png") as picture:
            assert picture.width > 500

    def test_configuration_says_all(self, run_folder):
        config = yaml.safe_load((run_folder / "config.yaml").read_text())
        assert config["seeds"] == 2
        assert config["data"]["scenes"]["size"] == 8
        assert config["output"] == str(run_folder)

    def test_checkpoint_holds_plain_values_only(self, run_folder):
        assert load_checkpoint(run_folder / "seed-0/checkpoints/last.ckpt")["lnz"]["task"] == "segment"

    def test_a_finished_run_is_not_run_again(self, run_folder, capsys):
        before = results(run_folder)
        assert fit("--config", run_folder / "config.yaml", *QUIET, "--ckpt_path", "last") == 0
        assert results(run_folder) == before
        assert "gain" in capsys.readouterr().out

    def test_a_finished_run_is_not_overwritten(self, run_folder, capsys):
        before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
        for arguments in (["--output", run_folder], ["--config", run_folder / "config.yaml"]):
            assert fit(*TINY, *QUIET, *arguments) == 2
            assert "holds a finished run; choose another --output, or replace it by --overwrite" in (
                capsys.readouterr().err
            )
        assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before

    def test_no_curve_without_its_line(self, tmp_path, capsys):
        """Without a terminal, a line per epoch with what the progress bar would show, and nothing else."""
        output = tmp_path / "run[/b] :smile:"
        assert fit(*TINY, "--trainer.max_epochs", 2, "--output", output) == 0
        lines = capsys.readouterr().out.splitlines()
        epochs = [line for line in lines if line.startswith("epoch ")]
        assert [line.split("  ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
        assert all(re.search(r"  train/mrf_loss \d\.\d+  .*\(\d+ s\)$", line) for line in epochs)
        assert not any("\r" in line or "it/s" in line for line in lines)
        assert f"picture: {output / 'picture.png'}" in lines  # names are no markup
        # a run that was stopped is not overwritten either, but with --overwrite; that leaves nothing of it behind
        (output / "results.json").unlink()
        (output / ".picture.png.0123abcd.tmp").touch()
        (output / "seed-0/checkpoints/.last.ckpt.0123abcd.tmp").touch()
        (output / "seed-7").mkdir()
        assert fit(*TINY, *QUIET, "--output", output) == 2
        assert "holds a run that was stopped; go on with it by --ckpt_path last" in capsys.readouterr().err
        assert fit(*TINY, *QUIET, "--output", output, "--overwrite", "--ckpt_path", "last") == 2
        assert "a run that --ckpt_path goes on with is not to be replaced" in capsys.readouterr().err
        assert fit(*TINY, *QUIET, "--trainer.max_epochs", 1, "--output", output, "--overwrite") == 0
        assert [point["epoch"] for point in results(output)[0]["history"]] == [1]
        assert not (output / "seed-7").exists()
        assert not list(output.rglob("*.tmp"))


class TestStoppedWhileJudged:
    """A signal after the last epoch: told, the conventional exit code, and only the judging is done again."""

    def stopped(self, stop, folder, monkeypatch, capsys):
        """The exit code, and the result of going on."""
        step = SegmentModule.validation_step

        def judged(module, *arguments):
            if module.trainer.state.fn == "validate":
                stop()
            return step(module, *arguments)

        before = signal.getsignal(signal.SIGINT)
        monkeypatch.setattr(SegmentModule, "validation_step", judged)
        try:
            code = fit(*TINY, *QUIET, "--trainer.max_epochs", 2, "--output", folder)
        finally:
            signal.signal(signal.SIGINT, before)  # the trainer ignores it from then on
        told = capsys.readouterr().err
        assert f"go on with: lnz fit segment --config {folder / 'config.yaml'} --ckpt_path last" in told
        assert not list(folder.rglob("*.tmp"))
        monkeypatch.setattr(SegmentModule, "validation_step", step)
        kept = (folder / "seed-0/checkpoints/last.ckpt").read_bytes()
        assert fit("--config", folder / "config.yaml", *QUIET, "--ckpt_path", "last") == 0
        assert (folder / "seed-0/checkpoints/last.ckpt").read_bytes() == kept
        (result,) = results(folder)
        assert [point["epoch"] for point in result["history"]] == [1, 2]
        assert result["seconds"] > 0
        return code, told, result

    def test_interrupted_and_terminated(self, run_folder, tmp_path, monkeypatch, capsys):
        def interrupt():
            raise KeyboardInterrupt

        code, told, result = self.stopped(interrupt, tmp_path / "a", monkeypatch, capsys)
        assert (code, "lnz fit: stopped; go on" in told) == (130, True)
        assert result["measures"] == results(run_folder)[0]["measures"]
        code, told, result = self.stopped(
            lambda: os.kill(os.getpid(), signal.SIGTERM), tmp_path / "b", monkeypatch, capsys
        )
        assert (code, "lnz fit: terminated; go on" in told) == (143, True)
        assert result["measures"] == results(run_folder)[0]["measures"]


def test_trains_on_a_folder_with_void_and_two_sizes(tmp_path):
    photos = folder_of_three(tmp_path / "photos")
    options = ["--data.images", photos, "--data.mask_suffix", "_mask", "--data.void_label", 9, "--data.flip", "true"]
    small = ["--model.width", 4, "--trainer.accelerator", "cpu", "--trainer.max_epochs", 1, "--data.val_fraction", 0.5]
    for edges in ("contrast", "full"):
        output = tmp_path / edges
        assert fit(*options, *small, *QUIET, "--model.edges", edges, "--output", output) == 0
        assert 0 < results(output)[0]["measures"]["mrf"]["nll"] < 10


def test_trains_by_the_objective_asked_for(tmp_path, capsys):
    """And keeps what it carries from step to step: here a chain per training image."""
    output = tmp_path / "run"
    more = ["--model.steps", 2, "--model.sampler.warmup", 3, "--trainer.max_epochs", 1]
    assert fit(*TINY, *QUIET, *more, "--objective", "pcd", "--output", output) == 0
    assert "trained by pcd" in " ".join(capsys.readouterr().out.split())
    (result,) = results(output)
    assert (result["objective"], result["step_seconds"] > 0) == ("pcd", True)
    kept = load_checkpoint(output / "seed-0/checkpoints/last.ckpt")["lnz"]
    assert len(kept["chains"]) == 8
    assert (kept["settings"]["objective"], kept["settings"]["steps"]) == ("pcd", 2)


@pytest.mark.slow
def test_every_objective_in_one_table(tmp_path, capsys):
    from lnz.tasks.segment.objectives import COMPARED

    output = tmp_path / "run"
    wide = ["--trainer.max_epochs", 1, "--output", output]
    assert fit(*TINY, *QUIET, *wide, "--objective", "all") == 0
    written = (output / "comparison.md").read_text()
    rows = [line.split(" | ") for line in written.splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows[2:]] == list(COMPARED)
    pixels = results(output / "nll-trw")[0]["measures"]["mrf"]["accuracy"]
    assert rows[3][1] == f"{100 * pixels:.2f}"
    alone = results(output / "softmax")[0]["measures"]
    assert alone["mrf"] == pytest.approx(alone["softmax"], abs=1e-6)
    capsys.readouterr()
    assert (
        fit("--config", output / "nll-bp/config.yaml", *QUIET, *wide, "--objective", "all", "--ckpt_path", "last") == 0
    )
    assert (output / "comparison.md").read_text() == written


@pytest.mark.parametrize("command", [["fit", "--help"], ["fit", "segment", "--help"]])
def test_help_has_examples(command, capsys):
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert "lnz fit segment --data.images" in shown


class TestErrors:
    """Bad input is told in one message, before training, and with exit status 2."""

    def told(self, capsys, *arguments):
        assert fit(*TINY, *QUIET, *arguments) == 2
        return capsys.readouterr().err

    def test_unwritable_run_folder(self, tmp_path, capsys):
        (tmp_path / "file").write_text("kept")
        message = self.told(capsys, "--output", tmp_path / "file" / "run")
        assert re.search(r"file/run: run folder cannot be written: not a directory", message)
        assert (tmp_path / "file").read_text() == "kept"

    def test_missing_folder(self, tmp_path, capsys):
        options = ["--data.images", tmp_path / "none", "--data.mask_suffix", "_mask", "--output", tmp_path / "run"]
        assert "none: expected a folder of images, found nothing" in self.told(capsys, *options)

    def test_wrong_values(self, tmp_path, capsys):
        output = ["--output", tmp_path / "run"]
        assert "batch_size: expected a positive integer, got 0" in self.told(capsys, "--data.batch_size", 0, *output)
        assert "seeds: expected a positive integer, got 0" in self.told(capsys, "--seeds", 0, *output)
        assert "'shared', 'contrast', 'full'" in self.told(capsys, "--model.edges", "potts", *output)
        assert "'nll', 'nll-bp', 'nll-trw', 'mean-field'" in self.told(capsys, "--objective", "em", *output)
        schedule = ["--objective", "label-adjustment", "--model.epsilon", 0]
        assert "expected positive numbers, got 0" in self.told(capsys, *schedule, *output)
        assert "--modle.edges" in self.told(capsys, "--modle.edges", "full", *output)
        assert "trainer: You selected an invalid accelerator name" in self.told(
            capsys, "--trainer.accelerator", "gpux", *output
        )

    def test_checkpoints(self, tmp_path, capsys):
        output = ["--output", tmp_path / "run"]
        assert "none.ckpt: expected a checkpoint, found nothing" in self.told(
            capsys, "--ckpt_path", tmp_path / "none.ckpt", *output
        )
        (tmp_path / "bad.ckpt").write_bytes(b"PK\x03\x04 cut off")
        assert "bad.ckpt: cannot be read as a checkpoint" in self.told(
            capsys, "--ckpt_path", tmp_path / "bad.ckpt", *output
        )
        assert "'last' needs --output" in self.told(capsys, "--ckpt_path", "last")

    def test_checkpoint_of_another_architecture(self, run_folder, tmp_path, capsys):
        kept = run_folder / "seed-0/checkpoints/last.ckpt"
        before = kept.read_bytes()
        message = self.told(capsys, "--model.width", 6, "--ckpt_path", kept, "--output", tmp_path / "run")
        assert "last.ckpt: expected a checkpoint of the model asked for, got one of width 4, not 6" in message
        assert kept.read_bytes() == before

    def test_unknown_task(self, capsys):
        assert main(["fit", "paint"]) == 2
        assert "no task 'paint'; tasks are: segment" in capsys.readouterr().err


class TestCalibrate:
    def test_temperatures_are_fitted_kept_and_used(self, run_folder, tmp_path, capsys):
        assert fit(*TINY, *QUIET, "--trainer.max_epochs", 2, "--output", tmp_path / "run", "--calibrate") == 0
        assert re.search(r"temperature of mrf: [\d.]+ \(NLL .* → .*, ECE .* → ", capsys.readouterr().out)
        (run,), plain = results(tmp_path / "run"), results(run_folder)[0]
        last = tmp_path / "run/seed-0/checkpoints/last.ckpt"
        assert load_checkpoint(last)["lnz"]["temperatures"] == run["temperatures"]
        assert run["temperatures"].keys() == {"softmax", "mrf"}
        for method in ("softmax", "mrf"):
            assert run["measures"][method]["nll"] < plain["measures"][method]["nll"]
        assert evaluate(last, *TestEvaluate.SCENES, "--json") == 0
        (again,) = json.loads(capsys.readouterr().out)
        assert again["measures"]["mrf"] == pytest.approx(run["measures"]["mrf"], abs=1e-6)
        module = SegmentModule.from_checkpoint(load_checkpoint(last), str(last))
        image = torch.rand(1, 1, 8, 8)
        _, certainty = module.predict_step({"image": image}, 0)
        wanted = module.mrf(image).tempered(run["temperatures"]["mrf"]).node_marginals.amax(-1)
        torch.testing.assert_close(certainty.flatten(1), wanted.detach())


class TestEvaluate:
    """The table of ``fit`` on other data than those of the run."""

    SCENES = ("--data.scenes.size", 8, "--data.scenes.scale", 1, "--data.scenes.val", 5, "--data.batch_size", 2)

    def test_the_data_of_the_run_give_its_numbers(self, run_folder, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")  # no number is folded there
        assert evaluate(run_folder / "seed-0/checkpoints/last.ckpt", *self.SCENES, "--json") == 0
        (result,) = json.loads(capsys.readouterr().out)
        kept = results(run_folder)[0]
        for key in ("seed", "objective", "converged", "void"):
            assert result[key] == kept[key]
        for method, measured in kept["measures"].items():
            assert result["measures"][method] == pytest.approx(measured, abs=1e-6)
        # a run folder: all its seeds, on the same data
        assert evaluate(run_folder, *self.SCENES, "--output", tmp_path / "both.json") == 0
        shown = "".join(capsys.readouterr().out.split())  # long paths are folded
        both = json.loads((tmp_path / "both.json").read_text())
        assert [each["seed"] for each in both] == [0, 1]
        nll = [each["measures"]["mrf"]["nll"] for each in both]
        assert f"{np.mean(nll):.4f}±{np.std(nll, ddof=1):.4f}" in shown
        said = f"Seed 0, 1 (mean ± standard deviation over seeds). 5 composed scenes; weights of {run_folder};"
        assert said.replace(" ", "") in shown

    def test_a_folder_with_void(self, tmp_path, capsys):
        photos = folder_of_three(tmp_path / "photos")
        data = ["--data.images", photos, "--data.mask_suffix", "_mask", "--data.void_label", 9]
        more = ["--data.num_classes", 3, "--model.width", 4, "--trainer.max_epochs", 1, "--trainer.accelerator", "cpu"]
        assert fit(*data, *more, *QUIET, "--output", tmp_path / "run") == 0
        new = folder_of_three(tmp_path / "new", seed=1)
        capsys.readouterr()
        data[1] = new
        assert evaluate(tmp_path / "run", *data, "--json") == 0
        (result,) = json.loads(capsys.readouterr().out)
        module = SegmentModule.from_checkpoint(load_checkpoint(tmp_path / "run/seed-0/checkpoints/last.ckpt"), "it")
        gold = [read_mask(path) for path in sorted(new.glob("*_mask.png"))]
        found = [module.predict_step({"image": read_image(new / f"im{k}.png")[None]}, 0)[0][0] for k in range(4)]
        a, b = (torch.cat([each.flatten() for each in side]) for side in (gold, found))
        seen = a != 9
        assert result["void"] == pytest.approx(float((~seen).float().mean()))
        a, b = a[seen], b[seen]
        assert result["measures"]["mrf"]["accuracy"] == pytest.approx(float((a == b).float().mean()))
        for label in range(3):
            both, either = ((a == label) & (b == label)).sum(), ((a == label) | (b == label)).sum()
            of = result["classes"][str(label)]
            assert of["mrf"] == (pytest.approx(float(both / either)) if either else None)
            assert of["share"] == pytest.approx(float((a == label).float().mean()))

    def test_the_report_has_a_table_of_classes_and_says_what_void_is(self, tmp_path):
        photos = folder_of_three(tmp_path / "photos", labels=2)  # class 2 is nowhere
        data = ["--data.images", photos, "--data.mask_suffix", "_mask", "--data.void_label", 9]
        more = ["--data.num_classes", 3, "--model.width", 4, "--trainer.max_epochs", 1, "--trainer.accelerator", "cpu"]
        assert fit(*data, *more, *QUIET, "--output", tmp_path / "run") == 0
        page = (tmp_path / "run/report.html").read_text()
        (result,) = results(tmp_path / "run")
        assert f"{100 * result['void']:.2f} % of the pixels are void: they have no gold label" in page
        rows = re.findall(r"<tr><th>(\d)</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", page)
        assert [row[0] for row in rows] == ["0", "1", "2"]
        for name, share, *ious in rows:
            of = result["classes"][name]
            assert share == f"{100 * of['share']:.2f}"
            shown = ["–" if of[m] is None else f"{100 * of[m]:.2f}" for m in ("softmax", "mrf")]
            assert ious == shown

    def test_wrong_input_is_told(self, run_folder, tmp_path, capsys):
        for arguments, told in {
            ("--jso",): "unrecognized arguments: --jso; did you mean --json?",
            ("--data.image", "x"): "did you mean --data.images or --data.image_list?",
            ("--data.batch_size", 0): "data.batch_size: expected a positive integer, got 0",
            ("--data.scenes.labels", "digit"): "expected 2 classes, as in training, got 11",
            ("--data.images", folder_of_three(tmp_path / "x"), "--data.mask_suffix", "_mask", "--data.void_label", 9): (
                "expected labels in [0, 2), or 9 for void, got [2]"
            ),
        }.items():
            assert evaluate(run_folder, *arguments) == 2
            assert told in capsys.readouterr().err
        assert evaluate("--data.seed", 1) == 2
        assert "expected a checkpoint or run folder first, got '--data.seed'" in capsys.readouterr().err
        assert evaluate(tmp_path / "none") == 2
        assert "none: expected a checkpoint, found nothing" in capsys.readouterr().err


@pytest.mark.slow
class TestProcesses:
    """Runs that are killed, interrupted, or spread over processes."""

    def test_resumes_after_kill_with_the_same_results(self, tmp_path):
        killed_and_resumed("segment", TINY, 6, tmp_path)

    def test_interrupt_keeps_the_checkpoint_and_says_how_to_go_on(self, tmp_path):
        interrupted("segment", TINY, tmp_path)

    def test_two_processes(self, tmp_path):
        """Both processes train one model, and the measures are those of all images, each once."""
        parallel = ["--trainer.strategy", "ddp", "--trainer.devices", 2]
        output = ["--trainer.max_epochs", 2, *TINY, *QUIET, "--output", tmp_path / "run", "--calibrate"]
        shown = finished(start("segment", *output, *parallel, folder=tmp_path))
        assert shown.count("temperature of mrf: ") == 1
        assert shown.count("gain of MRF") == 1
        (result,) = results(tmp_path / "run")
        assert 0 <= result["converged"] <= 1
        # the same weights judged by one process alone
        again = ["--trainer.max_epochs", 2, "--ckpt_path", tmp_path / "run/seed-0/checkpoints/last.ckpt", "--calibrate"]
        finished(start("segment", *again, *TINY, *QUIET, "--output", tmp_path / "alone", folder=tmp_path))
        (alone,) = results(tmp_path / "alone")
        for method in ("softmax", "mrf"):
            assert alone["measures"][method] == pytest.approx(result["measures"][method], abs=1e-6)
            assert alone["temperatures"][method] == pytest.approx(result["temperatures"][method], rel=1e-5)
