"""The networks of a segmentation: the small one of this task, and any other, which a checkpoint keeps by name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from lnz.errors import FormatError
from lnz.io.yaml import check_yaml
from lnz.nn import ConvNet, GridMRF

Factory = Callable[[int, int], nn.Module]
"""``(in_channels, num_classes)`` to a network from images ``[B, in_channels, H, W]`` to scores
``[B, num_classes, H, W]``: a class, or :func:`functools.partial` of one."""
Grid = Callable[[int | None], GridMRF]
"""The last layer, given the channels of its features; ``None`` where it takes scores."""
Description = Mapping[str, Any]
"""``class_path`` and ``init_args`` of a network, plain values for a checkpoint; the two numbers come before them."""


class Scores(nn.Module):
    """A network of the user's, whose scores are checked."""

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.network, self.num_classes = network, num_classes

    def forward(self, image: Tensor) -> Tensor:
        scores = self.network(image)
        B, _, H, W = image.shape
        wanted = [B, self.num_classes, H, W]
        if not isinstance(scores, Tensor) or list(scores.shape) != wanted:
            got = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(
                f"model.network: expected scores of shape {wanted} of an image {[*image.shape]}, got {got}"
            )
        return scores


class Joined(nn.Sequential):
    """Scores of pixels, joined by a :class:`~lnz.nn.GridMRF`, whose edges may look at the image."""

    def forward(self, image: Tensor) -> Any:
        scores, grid = self
        return grid(scores(image), image if grid.edges == "bilateral" else None)


def small(
    in_channels: int, num_classes: int, width: int, dilations: Sequence[int], grid: Grid
) -> tuple[nn.Module, nn.Module]:
    """A :class:`~lnz.nn.ConvNet` that ends in a grid, and one that ends in scores; of equal weights, none shared."""
    trunk, last = ConvNet(in_channels, width, dilations), grid(width)
    other, scores = ConvNet(in_channels, width, dilations), nn.Conv2d(width, num_classes, 1)
    assert last.nodes is not None  # its node scores are computed from features
    other.load_state_dict(trunk.state_dict())
    scores.load_state_dict(last.nodes.state_dict())
    return nn.Sequential(trunk, last), nn.Sequential(other, scores)


def given(description: Description, in_channels: int, num_classes: int, grid: Grid) -> tuple[nn.Module, nn.Module]:
    """The network described, once joined by a grid and once by itself; of equal weights, none shared."""
    cls = known_class(description["class_path"])
    joined, alone = (cls(in_channels, num_classes, **description["init_args"]) for _ in range(2))
    alone.load_state_dict(joined.state_dict())
    return Joined(Scores(joined, num_classes), grid(None)), Scores(alone, num_classes)


def described(network: Factory | Description) -> dict[str, Any]:
    """A network by its class and the arguments that differ from their defaults.

    Raises:
        ValueError: no subclass of :class:`torch.nn.Module`, or one that cannot be named, or arguments that are no plain
            values, which a checkpoint could not keep.
    """
    if isinstance(network, Mapping):
        return {"class_path": str(network["class_path"]), "init_args": dict(network.get("init_args") or {})}
    cls: Any = network
    arguments: dict[str, Any] = {}
    if isinstance(network, partial):  # of the class, or of jsonargparse's function that makes it
        cls = next((part for part in (network.func, *network.args) if inspect.isclass(part)), network.func)
        arguments = dict(network.keywords)
    path = f"{cls.__module__}.{cls.__qualname__}" if inspect.isclass(cls) else repr(cls)
    if not inspect.isclass(cls) or not issubclass(cls, nn.Module):
        raise ValueError(f"model.network: expected a subclass of torch.nn.Module, got {path}")
    if "<locals>" in path:
        raise ValueError(f"model.network: expected a class of a module, by which checkpoints can name it, got {path}")
    parameters = inspect.signature(cls).parameters
    kept = {name: value for name, value in arguments.items() if not _is_default(parameters.get(name), value)}
    for name, value in kept.items():
        if not _is_plain(value):
            raise ValueError(
                f"model.network.init_args.{name}: expected numbers, texts, lists and mappings, which a checkpoint can "
                f"keep, got {type(value).__name__}"
            )
    return {"class_path": path, "init_args": kept}


def known_class(path: str) -> type[nn.Module]:
    """The class of that name, in a module that has been imported; nothing is imported for it.

    Raises:
        FormatError: there is none, or it is no :class:`torch.nn.Module`.
    """
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if found is None:
        raise FormatError(
            f"its network is of the class {path}, which nobody but the checkpoint has named: keep it in its run "
            "folder, whose config.yaml names the class, or import that first"
        )
    if not inspect.isclass(found) or not issubclass(found, nn.Module):
        raise FormatError(f"its network is {path}, which is no subclass of torch.nn.Module")
    return found


def import_of_run(source: str) -> None:
    """Import the class of the network that the configuration of a run names, ``source`` being one of its checkpoints.

    A checkpoint itself is never followed to code.

    Raises:
        FormatError: the configuration cannot be read, or its class not be imported.
    """
    config = Path(source).resolve().parent.parent.parent / "config.yaml"
    if not config.is_file():
        return
    check_yaml(config)
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    model = content.get("model") if isinstance(content, dict) else None
    network = model.get("network") if isinstance(model, dict) else None
    path = network.get("class_path") if isinstance(network, dict) else network
    if isinstance(path, str) and "." in path:
        try:
            import_module(path.rpartition(".")[0])
        except ImportError as error:
            raise FormatError(
                f"{config}: model.network: cannot import {path} ({error}); is it on PYTHONPATH?"
            ) from error


def _is_default(parameter: inspect.Parameter | None, value: Any) -> bool:
    if parameter is None or parameter.default is parameter.empty:
        return False
    return value is parameter.default or (_is_plain(value) and value == parameter.default)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
