"""What every run of ``lnz fit`` leaves that judges a structured method beside a softmax, whatever the task."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image

from lnz.cli import main
from lnz.io.checkpoints import load_checkpoint
from tests.cli.runs import QUIET, results


class PairedRun:
    """Of the fixture ``run_folder``, a finished run of two seeds and two epochs."""

    task: ClassVar[str]
    method: ClassVar[str]
    """The structured one, among the measures."""
    name: ClassVar[str]
    """Of it, as it is shown."""
    measures: ClassVar[set[str]]
    ordered: ClassVar[tuple[str, str]]
    """Two measures, the first of which is never above the second."""
    pictures: ClassVar[int]
    """In the report."""
    data: ClassVar[str]
    """What the report says of the data."""

    def test_holds_everything(self, run_folder: Path) -> None:
        found = {str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if path.is_file()}
        expected = {"report.html", "picture.png", "results.json", "config.yaml"}
        expected |= {f"seed-{s}/{n}" for s in (0, 1) for n in ("results.json", "picture.png")}
        expected |= {f"seed-{s}/checkpoints/{n}.ckpt" for s in (0, 1) for n in ("last", "best")}
        assert expected <= found
        assert any("tfevents" in name for name in found)

    def test_results_of_each_seed(self, run_folder: Path) -> None:
        kept, method = results(run_folder), self.method
        low, high = self.ordered
        assert [result["seed"] for result in kept] == [0, 1]
        for result in kept:
            assert set(result["measures"]) == set(result["reliability"]) == {"softmax", method}
            for measured in result["measures"].values():
                assert set(measured) == self.measures
                assert 0 <= measured[low] <= measured[high] <= 1
            assert [point["epoch"] for point in result["history"]] == [1, 2]
            nll = result["history"][-1][f"val/{method}_nll"]
            assert nll == pytest.approx(result["measures"][method]["nll"], rel=1e-4)
            for bins in result["reliability"].values():
                assert sum(share for _, _, share in bins) == pytest.approx(1.0)
        assert kept[0]["measures"] != kept[1]["measures"]

    def test_report_needs_no_other_file(self, run_folder: Path) -> None:
        page = (run_folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") == self.pictures
        assert not re.search(r'(src|href)="(?!data:)', page)
        nll = np.mean([result["measures"][self.method]["nll"] for result in results(run_folder)])
        assert f"{nll:.4f} ±" in page
        assert self.data in page

    def test_picture_is_one(self, run_folder: Path) -> None:
        with Image.open(run_folder / "picture.png") as picture:
            assert picture.width > 500

    def test_configuration_leaves_out_what_comes_from_the_data(self, run_folder: Path) -> None:
        config = yaml.safe_load((run_folder / "config.yaml").read_text())
        assert not {"tags", "labels", "words", "characters"} & set(config["model"])

    def test_a_finished_run_is_not_run_again(self, run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = results(run_folder)
        assert main(["fit", self.task, "--config", str(run_folder / "config.yaml"), *QUIET, "--ckpt_path", "last"]) == 0
        assert results(run_folder) == before
        assert f"gain of {self.name}" in capsys.readouterr().out

    def test_one_that_is_finished_cannot_go_on_for_longer(
        self, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its learning rate has fallen to 0."""
        last = run_folder / "seed-0/checkpoints/last.ckpt"
        more = ["--ckpt_path", str(last), "--trainer.max_epochs", "3", "--seeds", "1", "--output", str(tmp_path / "x")]
        assert main(["fit", self.task, "--config", str(run_folder / "config.yaml"), *QUIET, *more]) == 2
        assert re.search(
            r"ckpt_path: expected a run of \d+ steps as asked for, got one of \d+", capsys.readouterr().err
        )


def calibrated(
    task: str, options: Sequence[Any], validation: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results without and with ``--calibrate``: the same weights, temperatures kept in the checkpoints and used."""
    arguments = [str(option) for option in options]
    assert main(["fit", task, *arguments, "--output", str(folder / "plain")]) == 0
    capsys.readouterr()
    assert main(["fit", task, *arguments, "--output", str(folder / "run"), "--calibrate"]) == 0
    shown = capsys.readouterr().out
    (plain,), (run,) = results(folder / "plain"), results(folder / "run")
    for method in run["measures"]:
        assert re.search(rf"temperature of {method}: [\d.]+ \(NLL .* → ", shown)
        assert run["measures"][method]["nll"] < plain["measures"][method]["nll"]
    assert "temperaturesthatwerefittedontherun'svalidationdata:softmax" in "".join(shown.split())
    kept = {name: load_checkpoint(folder / f"run/seed-0/checkpoints/{name}.ckpt") for name in ("last", "best")}
    assert kept["last"]["lnz"]["temperatures"] == run["temperatures"]
    assert kept["best"]["lnz"]["temperatures"].keys() == run["measures"].keys()
    assert plain["temperatures"] == {}
    assert main(["evaluate", str(folder / "run"), "--data.val", str(validation), "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)
    assert again["temperatures"] == run["temperatures"]
    for method, measured in run["measures"].items():
        assert again["measures"][method] == pytest.approx(measured, abs=1e-6)
    weights = load_checkpoint(folder / "plain/seed-0/checkpoints/last.ckpt")["state_dict"]
    assert all((weights[name] == value).all() for name, value in kept["last"]["state_dict"].items())
    return plain, run
