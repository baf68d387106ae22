"""torchaudio's aligner, run in the environment that has it: ``python torchaudio_worker.py THREADS``.

Reads log-probabilities and targets (an ``.npz``, whose path is the first line of standard input) once; then, for every
further line, aligns the sequences one by one and writes the path of the alignments and scores back. No lnz here: torch
may be another than ours.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import torchaudio


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    folder = sys.stdin.readline().rstrip("\n")
    given = np.load(f"{folder}/in.npz")
    log_probs, targets = torch.from_numpy(given["log_probs"]), torch.from_numpy(given["targets"])
    print(f"{torchaudio.__version__} with torch {torch.__version__}", flush=True)
    for line in sys.stdin:
        align = torchaudio.functional.forced_align  # takes a batch of one
        found = [align(x[None], y[None], blank=0) for x, y in zip(log_probs, targets, strict=True)]
        if line.strip() == "save":
            np.save(f"{folder}/out.npy", torch.cat([z for z, _ in found]).numpy())
        print("done", flush=True)


if __name__ == "__main__":
    main()
