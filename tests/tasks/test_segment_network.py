"""``lnz fit segment`` with a network of the user's: a class that the configuration names."""

import sys
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torch.nn import functional as F

import lnz
from lnz.cli import main
from lnz.errors import FormatError
from lnz.io.checkpoints import load_checkpoint
from lnz.nn import EncoderDecoder, GridMRF
from lnz.tasks.segment.module import SegmentModule
from tests.cli.runs import QUIET, results

UNET = """
import torch
from torch import nn
from torch.nn import functional as F


def twice(before, after):
    first, second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


class UNet(nn.Module):
    def __init__(self, n_channels, n_classes, base: int = 8, steps: tuple = (2, 4), norm=nn.Identity):
        super().__init__()
        widths = [base, *(base * step for step in steps)]
        self.down = nn.ModuleList(twice(a, b) for a, b in zip([n_channels, *widths], widths))
        self.up = nn.ModuleList(twice(a + b, a) for a, b in zip(widths, widths[1:]))
        self.norm, self.last = norm(), nn.Conv2d(base, n_classes, 1)

    def forward(self, x):
        kept = []
        for down in self.down:
            x = down(x if not kept else F.max_pool2d(x, 2, ceil_mode=True))
            kept.append(x)
        kept.pop()
        for up in reversed(self.up):
            skip = kept.pop()
            x = up(torch.cat((skip, F.interpolate(x, size=skip.shape[-2:])), 1))
        return self.last(self.norm(x))


class Flat(nn.Module):
    def __init__(self, n_channels, n_classes):
        super().__init__()
        self.last = nn.Linear(n_channels, n_classes)

    def forward(self, x):
        return self.last(x.movedim(1, -1))


def function(n_channels, n_classes):
    return UNet(n_channels, n_classes)


def typed(n_channels, n_classes) -> nn.Module:
    return UNet(n_channels, n_classes)


class NoModule:
    def __init__(self, *args):
        open("executed", "w").close()
"""
TINY = ["--trainer.accelerator", "cpu", "--data.batch_size", 2, "--model.inference.max_iterations", 4]
SCENES = ["--data.scenes.size", 8, "--data.scenes.scale", 1, "--data.scenes.train", 4, "--data.scenes.val", 3]
NETWORK = ["--model.network", "my_unet.UNet", "--model.network.init_args.base", 4]


@pytest.fixture(autouse=True)
def unet(tmp_path, monkeypatch):
    """The user's module on the path."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_unet.py").write_text(UNET)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "my_unet", raising=False)
    yield lambda: import_module("my_unet")
    sys.modules.pop("my_unet", None)


def fit(*arguments):
    return main(["fit", "segment", *map(str, [*TINY, *QUIET, "--trainer.max_epochs", 2, *arguments])])


def photos(folder, size=(7, 10)):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(5):
        Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(folder / f"im{k}.png")
        Image.fromarray(rng.integers(3, size=size, dtype=np.uint8)).save(folder / f"im{k}_mask.png")
    return folder


def test_trained_judged_and_applied_by_the_command_line(tmp_path, capsys):
    """From the name of the class to predicted masks of a fresh process, which knows it by the run's config.yaml."""
    run, images = tmp_path / "run", photos(tmp_path / "photos")
    data = ["--data.images", images, "--data.mask_suffix", "_mask"]
    more = ["--model.edges", "bilateral", "--calibrate", "--data.crop", 6, "--data.flip", "true"]
    assert fit(*data, *NETWORK, *more, "--model.class_weights", "balanced", "--output", run) == 0
    shown = capsys.readouterr().out
    assert "Scores divided by temperatures" in " ".join(shown.split())
    assert "MRF IoU %" in shown  # each class, in the terminal too
    kept = load_checkpoint(run / "seed-0/checkpoints/last.ckpt")["lnz"]["settings"]
    assert kept["network"] == {"class_path": "my_unet.UNet", "init_args": {"base": 4}}
    assert len(kept["class_weights"]) == 3
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["network"]["class_path"] == "my_unet.UNet"
    sys.modules.pop("my_unet")
    assert main(["predict", str(run), "--images", str(images), "--output", str(tmp_path / "out")]) == 0
    sys.modules.pop("my_unet")
    judged = ["evaluate", str(run), *map(str, data), "--json", "--output", str(tmp_path / "judged.json")]
    assert main(judged) == 0
    for k in range(5):
        with Image.open(tmp_path / "out" / f"im{k}_mask.png") as mask:
            assert (mask.height, mask.width) == (7, 10)
    # and gone on with
    assert fit("--config", run / "config.yaml", "--trainer.max_epochs", 3, "--ckpt_path", "last") == 0
    assert (results(run)[0]["measures"]["mrf"]["miou"]) >= 0


def test_config_file_and_short_name_of_ours(tmp_path):
    config = {"model": {"network": {"class_path": "EncoderDecoder", "init_args": {"width": 8, "depth": 2}}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert fit("--config", tmp_path / "c.yaml", *SCENES, "--output", tmp_path / "a") == 0
    settings = load_checkpoint(tmp_path / "a/seed-0/checkpoints/last.ckpt")["lnz"]["settings"]
    assert settings["network"] == {
        "class_path": "lnz.nn.encoder_decoder.EncoderDecoder",
        "init_args": {"width": 8, "depth": 2},
    }
    module = SegmentModule.from_checkpoint(load_checkpoint(tmp_path / "a/seed-0/checkpoints/last.ckpt"), "elsewhere")
    assert isinstance(module.softmax.network, EncoderDecoder)


def test_in_a_plain_loop(unet):
    """Without the command line: anybody's network, a grid on top of it, and the loss falls."""
    torch.manual_seed(0)
    network, grid = unet().UNet(3, 3, base=8), GridMRF(None, 3, edges="bilateral")
    image = torch.rand(4, 3, 9, 7)
    gold = (image.sum(1) * 1.5).long().clamp(max=2)
    optimizer = torch.optim.Adam([*network.parameters(), *grid.parameters()], 0.02)
    losses = []
    for _ in range(30):
        loss = lnz.objectives.nll(grid(network(image), image), gold, reduction="per_node")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert grid(network(image), image).pixel_labels.shape == (4, 9, 7)


def made(network, **kwargs):
    torch.manual_seed(0)
    return SegmentModule(3, 2, network=network, **kwargs)


def test_both_start_equal_and_share_nothing(unet):
    module = made(partial(unet().UNet, base=4, steps=[2])).eval()
    image = torch.randn(2, 2, 5, 6)
    beliefs, _ = module.beliefs(image)
    torch.testing.assert_close(beliefs["softmax"], beliefs["mrf"])
    mrf, softmax = ({id(p) for p in part.parameters()} for part in (module.mrf, module.softmax))
    assert not mrf & softmax
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    again = SegmentModule.from_checkpoint(checkpoint, "x.ckpt")
    assert torch.equal(again.beliefs(image)[0]["mrf"], beliefs["mrf"])


class TestCheckpointsRunNothing:
    """A checkpoint names the class of its network, and that is never enough to import or to call anything."""

    def checkpoint(self, unet, path, **init_args):
        module = made(unet().UNet)
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        checkpoint["lnz"]["settings"]["network"] = {"class_path": path, "init_args": init_args}
        return checkpoint

    def test_a_module_that_nobody_has_named(self, unet):
        checkpoint = self.checkpoint(unet, "my_unet.UNet")
        sys.modules.pop("my_unet")
        with pytest.raises(FormatError, match=r"x\.ckpt: .*my_unet\.UNet, which nobody but the checkpoint has named"):
            SegmentModule.from_checkpoint(checkpoint, "x.ckpt")
        assert "my_unet" not in sys.modules

    @pytest.mark.parametrize("path", ["my_unet.NoModule", "my_unet.function", "builtins.exec", "subprocess.Popen"])
    def test_what_is_no_network(self, unet, path, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        checkpoint = self.checkpoint(unet, path)
        with pytest.raises(FormatError, match="which is no subclass of torch.nn.Module"):
            SegmentModule.from_checkpoint(checkpoint, "x.ckpt")
        assert not (tmp_path / "executed").exists()

    def test_a_checkpoint_that_has_left_its_run(self, tmp_path, capsys):
        assert fit(*SCENES, *NETWORK, "--output", tmp_path / "run") == 0
        alone = tmp_path / "alone.ckpt"
        (tmp_path / "run/seed-0/checkpoints/last.ckpt").rename(alone)
        sys.modules.pop("my_unet")
        images = ["--images", str(photos(tmp_path / "photos")), "--output", str(tmp_path / "out")]
        assert main(["predict", str(alone), *images]) == 2
        assert "keep it in its run folder, whose config.yaml names the class" in capsys.readouterr().err


class TestErrors:
    def test_what_is_not_a_class_of_a_module(self, unet):
        class Local(nn.Module):
            pass

        with pytest.raises(ValueError, match=r"model\.network: expected a subclass of torch.nn.Module, got .*NoModule"):
            made(unet().NoModule)
        with pytest.raises(ValueError, match=r"model\.network: expected a class of a module, .* got .*<locals>\.Local"):
            made(Local)
        with pytest.raises(ValueError, match="init_args.norm: expected numbers, texts, lists and mappings.* got type"):
            made(partial(unet().UNet, norm=nn.ReLU))

    def test_scores_of_another_shape(self, unet):
        module = made(unet().Flat)
        with pytest.raises(
            ValueError, match=r"model\.network: expected scores of shape \[1, 3, 4, 5\] .*, got \[1, 4, 5, 3\]"
        ):
            module.softmax(torch.zeros(1, 2, 4, 5))

    def test_options_that_do_not_go_together(self, unet):
        with pytest.raises(ValueError, match="width, dilations: are of the small network"):
            made(unet().UNet, width=4)
        with pytest.raises(ValueError, match="edges: expected 'shared' or 'bilateral' of a model.network, got 'full'"):
            made(unet().UNet, edges="full")

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (
                ["--model.network", "my_unet.NoModule"],
                "name of a subclass of Module, got 'my_unet.NoModule'",
            ),
            (["--model.network", "my_unet.function"], "a subclass of Module, got 'my_unet.function'"),
            (["--model.network", "my_unet.typed"], "a subclass of torch.nn.Module, got <function typed"),
            (
                ["--model.network", "nowhere.UNet"],
                "'nowhere.UNet' (No module named 'nowhere'; is it on PYTHONPATH?",
            ),
            ([*NETWORK, "--model.network.init_args.bass", "3"], "--model.network: has no setting 'bass'"),
            ([*NETWORK, "--model.edges", "full"], "edges: expected 'shared' or 'bilateral'"),
            ([*NETWORK, "--model.width", "4"], "width, dilations: are of the small network"),
        ],
    )
    def test_on_the_command_line(self, options, told, tmp_path, capsys):
        assert fit(*SCENES, *options, "--output", tmp_path / "run") == 2
        message = capsys.readouterr().err
        assert told in message
        assert message.count("\n") == 1


def test_help_lists_no_classes_of_torch(capsys):
    assert main(["fit", "segment", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--model.network NETWORK class of the network, lnz.nn.EncoderDecoder or one of your own" in shown
    assert "torch.nn.Identity" not in shown


class TestClassWeights:
    def test_shift_of_the_scores_in_training(self, unet):
        """Of the softmax: the population's best scores are those of cross-entropy with these weights."""
        weights = torch.tensor([1.0, 2.0, 8.0])
        module = made(unet().UNet, class_weights=weights.tolist())
        torch.testing.assert_close(module.shift, -weights.log())
        share = torch.tensor([0.7, 0.2, 0.1])  # P(label) where all pixels look alike
        learnt = share.log() - module.shift  # what makes the shifted softmax equal to it
        weighted = share * weights / (share * weights).sum()  # the minimiser of weighted cross-entropy
        torch.testing.assert_close(learnt.softmax(0), weighted)

    def test_loss_of_both_methods(self, unet):
        module = made(unet().UNet, class_weights=[1, 2, 4], objective="nll-bp")
        logged = {}
        module.log = lambda name, value, **kwargs: logged.update({name: value})
        batch = {"image": torch.randn(2, 2, 3, 4), "labels": torch.randint(3, (2, 3, 4))}
        module.training_step(batch, 0)
        scores = module.softmax(batch["image"]) + module.shift[:, None, None]
        wanted = F.cross_entropy(scores, batch["labels"])
        torch.testing.assert_close(logged["train/softmax_loss"], wanted)
        torch.testing.assert_close(logged["train/mrf_loss"], wanted)  # edge scores are still 0
        beliefs = module.beliefs(batch["image"])[0]["mrf"]
        torch.testing.assert_close(beliefs, module.softmax(batch["image"]).softmax(1).detach())  # without the shift

    def test_balanced(self):
        module = SegmentModule(4, 1, class_weights="balanced", class_counts=[30, 10, 0, 20])
        assert module.settings["class_weights"] == pytest.approx([0.5, 1.5, 1.0, 0.75])

    @pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 0.0, 1.0], [1.0, float("inf"), 1.0]])
    def test_bad(self, weights):
        with pytest.raises(ValueError, match="class_weights: expected 'balanced' or 3 positive numbers, one per class"):
            SegmentModule(3, 1, class_weights=weights)
        with pytest.raises(ValueError, match="'balanced' needs the pixels of each class"):
            SegmentModule(3, 1, class_weights="balanced")
