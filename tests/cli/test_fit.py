import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lnz.cli import main
from lnz.io.checkpoints import load_checkpoint

TINY = [
    *("--trainer.accelerator", "cpu", "--data.batch_size", "2", "--model.width", "4"),
    *("--data.scenes.size", "8", "--data.scenes.scale", "1", "--data.scenes.train", "8", "--data.scenes.val", "5"),
    *("--model.inference.max_iterations", "4"),
]
QUIET = ["--trainer.enable_progress_bar", "false"]


def fit(*arguments):
    return main(["fit", "segment", *map(str, arguments)])


def start(*arguments, **environment):
    """A process of its own, as a user would start it."""
    # what a shell starts in the background ignores Ctrl-C, and these tests may themselves run there
    hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{hear}; import sys; from lnz.cli import main; sys.exit(main(sys.argv[1:]))"
    script = Path(environment.pop("folder")) / "lnz_process.py"  # a file, since DDP starts its processes from it
    script.write_text(code)
    return subprocess.Popen(
        [sys.executable, str(script), "fit", "segment", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
    )


def finished(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def results(folder):
    return json.loads((folder / "results.json").read_text())


def wait_for(path, process, seconds=240):
    """Until ``path`` exists."""
    for _ in range(seconds * 100):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"{path} did not appear")


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
        assert page.count("data:image/png;base64,") == 4
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


def test_trains_on_a_folder_with_void_and_two_sizes(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        size = (5, 6) if k else (4, 7)
        Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(photos / f"im{k}.png")
        mask = rng.integers(3, size=size, dtype=np.uint8)
        mask[0, :2] = 9
        Image.fromarray(mask).save(photos / f"im{k}_mask.png")
    options = ["--data.images", photos, "--data.mask_suffix", "_mask", "--data.void_label", 9, "--data.flip", "true"]
    small = ["--model.width", 4, "--trainer.accelerator", "cpu", "--trainer.max_epochs", 1, "--data.val_fraction", 0.5]
    for edges in ("contrast", "full"):
        output = tmp_path / edges
        assert fit(*options, *small, *QUIET, "--model.edges", edges, "--output", output) == 0
        assert 0 < results(output)[0]["measures"]["mrf"]["nll"] < 10


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
        assert "--modle.edges" in self.told(capsys, "--modle.edges", "full", *output)

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

    def test_unknown_task(self, capsys):
        assert main(["fit", "paint"]) == 2
        assert "no task 'paint'; tasks are: segment" in capsys.readouterr().err


@pytest.mark.slow
class TestProcesses:
    """Runs that are killed, interrupted, or spread over processes."""

    def test_resumes_after_kill_with_the_same_results(self, tmp_path):
        """kill -9 in the middle, then --ckpt_path last: the same measures and curves as a run left alone."""
        epochs = ["--trainer.max_epochs", 6, *TINY, *QUIET]
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        finished(start(*epochs, "--output", whole, folder=tmp_path))
        process = start(*epochs, "--output", broken, folder=tmp_path)
        wait_for(broken / "seed-0" / "checkpoints" / "last.ckpt", process)
        process.kill()
        process.wait()
        assert not (broken / "results.json").exists()
        stopped_at = load_checkpoint(broken / "seed-0" / "checkpoints" / "last.ckpt")["epoch"] + 1
        assert stopped_at < 6
        finished(start("--config", broken / "config.yaml", "--ckpt_path", "last", folder=tmp_path))
        (a,), (b,) = results(whole), results(broken)
        assert a["measures"] == b["measures"]
        assert a["history"] == b["history"]

    def test_interrupt_keeps_the_checkpoint_and_says_how_to_go_on(self, tmp_path):
        run = tmp_path / "run"
        process = start("--trainer.max_epochs", 1000, *TINY, *QUIET, "--output", run, folder=tmp_path)
        last = run / "seed-0" / "checkpoints" / "last.ckpt"
        wait_for(last, process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 130, output
        assert f"go on with: lnz fit segment --config {run / 'config.yaml'} --ckpt_path last" in output
        assert "Traceback" not in output
        load_checkpoint(last)

    def test_two_processes(self, tmp_path):
        """Both processes train one model, and the measures are those of all images, each once."""
        parallel = ["--trainer.strategy", "ddp", "--trainer.devices", 2]
        output = ["--trainer.max_epochs", 2, *TINY, *QUIET, "--output", tmp_path / "run"]
        shown = finished(start(*output, *parallel, folder=tmp_path))
        assert shown.count("gain of MRF") == 1
        (result,) = results(tmp_path / "run")
        assert 0 <= result["converged"] <= 1
        # the same weights judged by one process alone
        again = ["--trainer.max_epochs", 2, "--ckpt_path", tmp_path / "run/seed-0/checkpoints/last.ckpt"]
        finished(start(*again, *TINY, *QUIET, "--output", tmp_path / "alone", folder=tmp_path))
        (alone,) = results(tmp_path / "alone")
        for method in ("softmax", "mrf"):
            assert alone["measures"][method] == pytest.approx(result["measures"][method], abs=1e-6)
