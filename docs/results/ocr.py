"""Print the tables of the handwritten words in tagging.md: ``python docs/results/ocr.py DATA [FOLD …]``.

DATA is the folder that holds ``ocr_letters``; the numbers of folds choose some of the ten.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lnz.objectives import nll
from lnz.tasks.streams import generator
from lnz.tasks.tag.image_encoder import ImageEncoder
from lnz.tasks.tag.network import Tagger
from lnz.typing import IGNORE

LETTERS, HEIGHT, WIDTH = 26, 16, 8
L2 = 3e-4
"""Of the linear models, times half the squared weights, per letter: chosen on one fold's training words, see below."""
EPOCHS, BATCH, RATE = 10, 32, 4e-3
NAMES = ("linear, softmax", "linear, chain", "convolutional, softmax", "convolutional, chain")

Words = dict[str, Tensor]
"""``image`` ``[B, T, 16, 8]`` of 0 and 1, ``tags`` ``int64 [B, T]`` (−100 beyond the word), ``lengths`` ``[B]``."""


class Pixels(nn.Module):
    """The pixels themselves: what linear models see."""

    width = HEIGHT * WIDTH

    def forward(self, batch: Words) -> Tensor:
        return batch["image"].flatten(2)


def read(folder: Path) -> tuple[Words, Tensor]:
    """All words, and the fold of each: its number modulo ten."""
    with np.load(folder / "ocr_letters" / "ocr_letters_train.npz", allow_pickle=False) as file:
        pixels, letters, number = file["X"], file["y"].astype(np.int64), file["word"].astype(np.int64)
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    lengths = np.diff(np.append(starts, len(number)))
    word = np.repeat(np.arange(len(starts)), lengths)
    place = np.arange(len(number)) - starts[word]
    image = torch.zeros(len(starts), int(lengths.max()), HEIGHT, WIDTH)
    tags = torch.full(image.shape[:2], IGNORE)
    image[word, place] = torch.from_numpy(pixels.reshape(-1, HEIGHT, WIDTH)).float()
    tags[word, place] = torch.from_numpy(letters)
    return {"image": image, "tags": tags, "lengths": torch.from_numpy(lengths)}, torch.from_numpy(number[starts] % 10)


def part(words: Words, which: Tensor) -> Words:
    """Some of the words, without more padding than they need."""
    chosen = {name: values[which] for name, values in words.items()}
    longest = int(chosen["lengths"].max())
    return {"image": chosen["image"][:, :longest], "tags": chosen["tags"][:, :longest], "lengths": chosen["lengths"]}


def loss_of(network: Tagger, words: Words) -> Tensor:
    """The negative log-likelihood per letter."""
    p = network(words)
    if network.crf is None:
        return F.cross_entropy(p.node_scores.flatten(0, 1), words["tags"].flatten(), ignore_index=IGNORE)
    return nll(p, words["tags"], "sum") / words["lengths"].sum()


def fit_linear(words: Words, chain: bool, l2: float = L2) -> Tagger:
    """To the optimum, by L-BFGS on all words at once: the loss is convex."""
    network = Tagger(Pixels(), LETTERS, chain)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=200, history_size=20, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(network, words)
        for name, parameter in network.named_parameters():
            if not name.endswith("bias"):
                loss = loss + l2 / 2 * parameter.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return network


def fit_convolutional(words: Words, chain: bool, seed: int) -> Tagger:
    """By Adam with a one-cycle rate; both networks of a fold have one initialisation, order and dropout."""
    torch.manual_seed(seed)
    network = Tagger(ImageEncoder((HEIGHT, WIDTH), channels=16, width=128, dropout=0.3), LETTERS, chain)
    count = len(words["lengths"])
    steps = EPOCHS * -(-count // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    torch.manual_seed(seed)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(count, generator=generator(seed, epoch)).split(BATCH):
            optimizer.zero_grad()
            loss_of(network, part(words, batch)).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def judged(network: Tagger, words: Words) -> tuple[float, float]:
    """The shares of letters and of whole words that the best labelling gets right."""
    right = (network(words).argmax() == words["tags"]) | (words["tags"] == IGNORE)
    letters = (right & (words["tags"] != IGNORE)).sum() / words["lengths"].sum()
    return float(letters), float(right.all(1).float().mean())


def main(folder: Path, folds: list[int]) -> None:
    words, fold = read(folder)
    kept: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    started = time.perf_counter()
    for k in folds:
        train, test = part(words, fold != k), part(words, fold == k)
        fits: list[Callable[[], Tagger]] = [
            lambda train=train: fit_linear(train, chain=False),
            lambda train=train: fit_linear(train, chain=True),
            lambda train=train, k=k: fit_convolutional(train, False, seed=k),
            lambda train=train, k=k: fit_convolutional(train, True, seed=k),
        ]
        said = []
        for name, fit in zip(NAMES, fits, strict=True):
            kept[name].append(judged(fit(), test))
            said.append(f"{100 * kept[name][-1][0]:.2f} {100 * kept[name][-1][1]:.2f}")
        passed = time.perf_counter() - started
        print(f"fold {k}: {len(test['lengths'])} words; letters, words: {' | '.join(said)}; {passed:.0f} s", flush=True)
    print("\n| | letters % | words % |\n|---|--:|--:|")
    for name, values in kept.items():
        print(f"| {name} | {' | '.join(cell(column) for column in zip(*values, strict=True))} |")
    print(f"\nMean ± standard deviation over {len(folds)} folds; {time.perf_counter() - started:.0f} s.")


def cell(shares: tuple[float, ...]) -> str:
    spread = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * statistics.fmean(shares):.1f}{spread}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(fold) for fold in sys.argv[2:]] or list(range(10)))
