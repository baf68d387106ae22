"""Log-probabilities of frames that another program has written, and the names of their classes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lnz.errors import FormatError
from lnz.io.files import normalized, read_text

NAMES = ("log_probs", "emissions", "logits")
"""What the tensor is called in a file of several."""
BLANKS = ("<blank>", "<blk>", "<pad>", "[PAD]", "<eps>", "<b>", "_", "-")
"""What a blank is called in tables of tokens, the likeliest first."""
SEPARATORS = ("|", "<space>", " ")
"""What stands between words in tables of tokens."""


def read_emissions(path: Path) -> Tensor:
    """Scores of classes at each frame, ``[T, C]``, from a ``.npy`` or ``.safetensors`` file; ``[1, T, C]`` serves too.

    Nothing but numbers is read: no pickled objects.

    Raises:
        FormatError: the file is missing, cut short, of another kind, or holds something else.
    """
    if not path.is_file():
        raise FormatError(f"{path}: expected a file of emissions, found {'a folder' if path.is_dir() else 'nothing'}")
    if path.suffix not in (".npy", ".safetensors"):
        raise FormatError(f"{path}: expected a file whose name ends in .npy or .safetensors")
    try:
        found = _from_npy(path) if path.suffix == ".npy" else _from_safetensors(path)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        if isinstance(error, FormatError):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FormatError(f"{path}: cannot be read as {path.suffix[1:]} ({reason})") from error
    scores = found[0] if found.dim() == 3 and len(found) == 1 else found
    if scores.dim() != 2 or not scores.is_floating_point() or not scores.numel():
        got = f"{str(found.dtype).removeprefix('torch.')} of shape {list(found.shape)}"
        raise FormatError(f"{path}: expected floating point scores of shape [T, C], got {got}")
    bad = ~(scores < torch.inf)  # NaN too
    if bad.any():
        frame, label = bad.nonzero()[0].tolist()
        raise FormatError(f"{path}: expected finite scores or -inf, got {scores[frame, label]} at frame {frame}")
    return scores if scores.dtype == torch.float64 else scores.float()


def _from_npy(path: Path) -> Tensor:
    array = np.load(path, allow_pickle=False)
    if array.dtype.kind not in "fiu":
        raise FormatError(f"{path}: expected floating point scores, got {array.dtype}")
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))


def _from_safetensors(path: Path) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    names = list(tensors) if len(tensors) == 1 else [name for name in NAMES if name in tensors]
    if not names:
        listed = ", ".join(list(tensors)[:8]) or "none"
        raise FormatError(f"{path}: expected one tensor, or one called {' or '.join(NAMES)}, got {listed}")
    return tensors[names[0]]


def read_tokens(path: Path) -> list[str]:
    """The names of classes, in order: a line each, or lines of name and number, or JSON of numbers by name.

    Raises:
        FormatError: with the file and the line: a name twice, no name, or numbers that are not 0, 1, 2 …
    """
    text = read_text(path)
    if text.lstrip().startswith("{"):
        try:
            listed = list(json.loads(text).items())
        except ValueError as error:
            raise FormatError(f"{path}: cannot be read as a JSON object ({error})") from error
        named = [(f"{path}", name, number) for name, number in listed]
    else:
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        split = [re.fullmatch(r"(.+)[ \t](\d+)", line) for line in lines]
        numbered = all(split)
        named = []
        for k, (line, pair) in enumerate(zip(lines, split, strict=True)):
            name, number = (pair[1], int(pair[2])) if numbered and pair else (line, k)
            if not name:
                raise FormatError(f"{path}, line {k + 1}: expected the name of a token, got none")
            named.append((f"{path}, line {k + 1}", name, number))
    tokens: dict[int, str] = {}
    for where, name, number in named:
        if type(number) is not int or not 0 <= number < len(named) or number in tokens:
            raise FormatError(f"{where}: expected each of the classes 0 to {len(named) - 1} once, got {number!r}")
        if normalized(name) in tokens.values():
            raise FormatError(f"{where}: {name!r} is there already")
        tokens[number] = normalized(name)
    return [tokens[k] for k in range(len(tokens))]


def read_words(path: Path, encoding: str | None = None) -> list[tuple[str, int]]:
    """The words of a text, which stand between blanks, and the line of each.

    Raises:
        FormatError: the file cannot be read, or has no word.
    """
    lines = normalized(read_text(path, encoding)).splitlines()
    words = [(word, number) for number, line in enumerate(lines, 1) for word in line.split()]
    if not words:
        raise FormatError(f"{path}: expected a text, found no word")
    return words
