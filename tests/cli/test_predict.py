import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from lnz.cli import main
from lnz.cli.predict import checkpoint_of
from lnz.io.checkpoints import load_checkpoint
from lnz.io.masks import read_mask
from lnz.tasks.segment.module import SegmentModule


@pytest.fixture
def trained(tmp_path):
    """A run folder with a checkpoint of random weights, and the module."""
    module = SegmentModule(4, 3, width=4, dilations=(1,), edges="contrast").eval()
    with torch.no_grad():
        module.mrf[1].tables.normal_()
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    folder = tmp_path / "run" / "seed-3" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(checkpoint, folder / "last.ckpt")
    return tmp_path / "run", module


@pytest.fixture
def photos(tmp_path):
    """Two images of different sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a", (5, 7)), ("b", (6, 4))):
        Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def predict(*arguments):
    return main(["predict", *map(str, arguments)])


def test_writes_labels_and_confidence_of_the_largest_marginal(trained, photos, tmp_path, capsys):
    run, module = trained
    out = tmp_path / "deep" / "out"
    assert predict(run, "--images", photos, "--output", out) == 0
    assert "2 images labelled" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == [
        *("a_confidence.png", "a_mask.png", "b_confidence.png", "b_mask.png")
    ]
    for name in ("a", "b"):
        pixels = np.array(Image.open(photos / f"{name}.png"))
        image = torch.from_numpy(pixels).movedim(-1, 0).float() / 255
        beliefs = module.beliefs(image[None])[0]["mrf"][0]
        assert torch.equal(read_mask(out / f"{name}_mask.png"), beliefs.argmax(0))
        with Image.open(out / f"{name}_confidence.png") as written:
            confidence = np.array(written).astype(np.float64) / 65535
        np.testing.assert_allclose(confidence, beliefs.amax(0).numpy(), atol=1e-4)


def test_confidence_as_arrays_or_not_at_all(trained, photos, tmp_path):
    run, _ = trained
    assert predict(run, "--images", photos, "--output", tmp_path / "x", "--confidence", "npy") == 0
    assert np.load(tmp_path / "x" / "b_confidence.npy").shape == (6, 4)
    assert predict(run, "--images", photos, "--output", tmp_path / "y", "--confidence", "none") == 0
    assert sorted(p.name for p in (tmp_path / "y").iterdir()) == ["a_mask.png", "b_mask.png"]


@pytest.mark.parametrize("form", ["values", "colours"])
def test_masks_have_the_values_and_colours_of_those_trained_on(tmp_path, form):
    """Trained from masks of 0 and 255, or of colours; predicted masks hold the same."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    (tmp_path / "palette.txt").write_text("9 9 9 ground\n200 0 0 fire $1\n")
    for k in range(3):
        bright = rng.integers(2, size=(6, 5), dtype=np.uint8)
        Image.fromarray(255 * np.stack([bright] * 3, -1)).save(folder / f"im{k}.png")
        mask = (
            255 * bright if form == "values" else np.where(bright[..., None], [200, 0, 0], [9, 9, 9]).astype(np.uint8)
        )
        Image.fromarray(mask).save(folder / f"im{k}_mask.png")
    coding = {"values": ["--data.label_values", "[0,255]"], "colours": ["--data.palette", tmp_path / "palette.txt"]}
    options = ["--data.images", folder, "--data.mask_suffix", "_mask", *coding[form], "--trainer.max_epochs", "2"]
    options += ["--trainer.enable_progress_bar", "false", "--output", tmp_path / "run"]
    assert main(["fit", "segment", *map(str, options)]) == 0
    names = {"values": ["0", "255"], "colours": ["ground", "fire $1"]}[form]
    legend = load_checkpoint(checkpoint_of(tmp_path / "run"))["lnz"]["legend"]
    assert list(legend["names"]) == names
    assert predict(tmp_path / "run", "--images", folder, "--output", tmp_path / "out") == 0
    given = ["--data.images", folder, "--data.mask_suffix", "_mask", "--json", "--output", tmp_path / "judged.json"]
    assert main(["evaluate", *map(str, [tmp_path / "run", *given])]) == 0
    (judged,) = json.loads((tmp_path / "judged.json").read_text())
    assert list(judged["classes"]) == names
    with Image.open(tmp_path / "out" / "im0_mask.png") as image:
        assert image.mode == {"values": "L", "colours": "P"}[form]
        shown = np.unique(np.array(image.convert("RGB")).reshape(-1, 3), axis=0).tolist()
    assert all(
        colour in ([0] * 3, [255] * 3) if form == "values" else colour in ([9] * 3, [200, 0, 0]) for colour in shown
    )


def test_a_run_folder_stands_for_its_first_seed(tmp_path):
    for seed in (10, 9):
        (tmp_path / f"seed-{seed}" / "checkpoints").mkdir(parents=True)
        (tmp_path / f"seed-{seed}" / "checkpoints" / "last.ckpt").touch()
    assert checkpoint_of(tmp_path) == tmp_path / "seed-9" / "checkpoints" / "last.ckpt"


def test_help_has_examples(capsys):
    assert main(["predict", "--help"]) == 0
    assert "lnz predict runs/segment" in capsys.readouterr().out


class TestErrors:
    def told(self, capsys, *arguments):
        assert predict(*arguments) == 2
        return capsys.readouterr().err

    def test_no_checkpoint(self, photos, tmp_path, capsys):
        message = self.told(capsys, tmp_path, "--images", photos, "--output", tmp_path / "out")
        assert re.search(r"seed-0/checkpoints/last\.ckpt: expected a checkpoint, found nothing", message)
        assert not (tmp_path / "out").exists()

    def test_truncated_checkpoint(self, trained, photos, tmp_path, capsys):
        file = checkpoint_of(trained[0])
        file.write_bytes(file.read_bytes()[:500])
        message = self.told(capsys, file, "--images", photos, "--output", tmp_path / "out")
        assert "last.ckpt: cannot be read as a checkpoint" in message

    def test_another_kind_of_checkpoint(self, photos, tmp_path, capsys):
        torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
        message = self.told(capsys, tmp_path / "other.ckpt", "--images", photos, "--output", tmp_path / "out")
        assert "expected a checkpoint of lnz fit segment or tag or parse or transcribe, got task None" in message

    def test_no_images(self, trained, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        message = self.told(capsys, trained[0], "--images", tmp_path / "empty", "--output", tmp_path / "out")
        assert "empty: expected images" in message

    def test_truncated_image_keeps_what_is_written(self, trained, photos, tmp_path, capsys):
        data = (photos / "b.png").read_bytes()
        (photos / "b.png").write_bytes(data[: len(data) // 2])
        options = trained[0], "--images", photos, "--output", tmp_path / "out"
        assert "b.png: cannot be read as an image" in self.told(capsys, *options, "--strict")
        assert read_mask(tmp_path / "out" / "a_mask.png").shape == (5, 7)

    def test_goes_on_past_bad_images_and_lists_them(self, trained, photos, tmp_path, capsys):
        (photos / "a.png").write_bytes((photos / "a.png").read_bytes()[:40])
        assert predict(trained[0], "--images", photos, "--output", tmp_path / "out", "--confidence", "none") == 1
        out, err = capsys.readouterr()
        assert "1 images labelled" in out
        assert re.search(r"lnz predict: 1 of 2 images failed:\n  \S*a.png: cannot be read as an image", err)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["b_mask.png"]

    def test_unwritable_output(self, trained, photos, tmp_path, capsys):
        (tmp_path / "file").write_text("kept")
        message = self.told(capsys, trained[0], "--images", photos, "--output", tmp_path / "file" / "out")
        assert "file/out: not a directory" in message
        assert (tmp_path / "file").read_text() == "kept"
