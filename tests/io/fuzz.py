"""Fuzz one reader with Atheris: ``python tests/io/fuzz.py READER FOLDER [libFuzzer's options]``.

The folder holds whole files to start from. A reader gives a value or raises ``FormatError``; whatever else it raises, a
second per input or memory beyond the limit ends the process with an error and a file that shows it. Counts are printed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import torch

import lnz

with atheris.instrument_imports(include=["lnz.io"]):
    from lnz.io import NamedModel, parse_evidence, parse_variables, read_evidence, read_model, read_variables
    from lnz.io.alignments import read_textgrid
    from lnz.io.audio import read_audio
    from lnz.io.checkpoints import load_checkpoint
    from lnz.io.dependencies import read_dependencies
    from lnz.io.images import read_image
    from lnz.io.lists import read_list
    from lnz.io.masks import Coding, Legend, read_mask, read_palette
    from lnz.io.sentences import read_sentences
    from lnz.io.transcripts import read_transcripts
    from lnz.io.trees import read_trees
    from lnz.io.vectors import read_vectors
    from lnz.io.yaml import check_yaml

GRAPH = lnz.FactorGraph.grouped([2, 3, 4], [])[0]
MODEL = NamedModel("MARKOV", GRAPH, (), ("a", "b,c", "é"), (("n", "y"), ("0", "1", "2"), tuple("wxyz")))

CODING = Coding(void=3, values=(0, 1, 2), palette=Legend(("a", "b", "c"), ((0, 1, 2), (3, 4, 5), (6, 7, 8))))


def _text(parse: Callable[[str, NamedModel], Any]) -> Callable[[Path], Any]:
    return lambda path: parse(path.read_text("utf-8", "replace"), MODEL)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    **{kind: (f"m.{kind}", read_model) for kind in ("uai", "bif", "bifxml", "xdsl", "dsl", "net")},
    "evidence": ("m.evid", lambda path: read_evidence(path, MODEL)),
    "variables": ("m.query", lambda path: read_variables(path, MODEL)),
    "evidence-option": ("option", _text(parse_evidence)),
    "variables-option": ("option", _text(parse_variables)),
    "conllu": ("m.conllu", read_sentences),
    "dependencies": ("m.conllu", read_dependencies),
    "columns": ("m.bio", read_sentences),
    "text": ("m.txt", read_sentences),
    "transcripts-tsv": ("m.tsv", read_transcripts),
    "transcripts-csv": ("m.csv", read_transcripts),
    "transcripts-json": ("m.jsonl", read_transcripts),
    "trees": ("m.mrg", read_trees),
    "vectors": ("m.vec", read_vectors),
    "list": ("m.txt", lambda path: read_list(path, {"a": 1, "é": 2}, "image")),
    "textgrid": ("m.TextGrid", read_textgrid),
    "image": ("m.png", read_image),
    "mask": ("m.png", lambda path: read_mask(path, CODING)),
    "palette": ("m.txt", read_palette),
    "audio": ("m.wav", lambda path: read_audio(path, 16000)),
    "checkpoint": ("m.ckpt", load_checkpoint),
    "yaml": ("m.yaml", check_yaml),
}
"""Per reader, what its file is called, and the call."""


def main(name: str, options: list[str]) -> None:
    file, read = READERS[name]
    counts = {"inputs": 0, "refused": 0}
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name, file)
    every = int(next((o.removeprefix("-runs=") for o in options if o.startswith("-runs=")), "1000"))

    def one_input(data: bytes) -> None:
        counts["inputs"] += 1
        path.write_bytes(data)
        try:
            read(path)
        except lnz.FormatError as error:
            counts["refused"] += 1
            if len(str(error)) > 5000:
                raise OverflowError("a message of thousands of characters") from error
        if counts["inputs"] % every == 0:
            read_whole = counts["inputs"] - counts["refused"]
            os.write(1, f"{name}: {counts['inputs']} inputs, {read_whole} read, {counts['refused']} refused\n".encode())

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
