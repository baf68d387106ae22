"""Print the tables of map.md and draw its picture: ``python docs/results/map.py DATA``, from the root of the checkout.

DATA is the folder that holds ``uai_map`` and ``mrf_stereo``; names of models after it choose some of them.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, ".")
from lnz.inference import Auto
from tests.inference.test_trws import stereo
from tests.inference.test_uai_map import BETTER, GOOD, PROVED, SECONDS, known, load, log10_score


def row(folder: Path, name: str) -> str:
    p = load(folder, name, Auto(SECONDS))
    started = time.perf_counter()
    found = log10_score(p)
    seconds = time.perf_counter() - started
    said, best = p.diagnostics, known(folder)[name]["best_log10"]
    bound, last = said["bound"].item() / math.log(10), said["stages"][-1]
    difference = "as good" if abs(found - best) < 2e-6 else f"{found - best:+.4f}"
    proved = f"yes, by `{last}`" if said["optimal"] else "no"
    return f"| {name} | {found:.6f} | {bound:.4f} | {best:.6f} | {difference} | {proved} | {seconds:.0f} |"


def picture(folder: Path, to: Path) -> str:
    from PIL import Image

    p = stereo(folder)
    started = time.perf_counter()
    y = p.argmax()
    seconds, said = time.perf_counter() - started, p.diagnostics
    image = (y.reshape(288, 384) * 16).to(torch.uint8).numpy()
    Image.fromarray(image).save(to, optimize=True)
    iterations, energy, bound = int(said["iterations"]), -said["score"].item(), -said["bound"].item()
    return f"energy {energy:.0f}, lower bound {bound:.0f}, {iterations} iterations, {seconds:.1f} s"


if __name__ == "__main__":
    data = Path(sys.argv[1])
    print(picture(data, Path(__file__).with_name("stereo.png")))
    for model in sys.argv[2:] or sorted(PROVED | BETTER | GOOD):
        print(row(data, model), flush=True)
