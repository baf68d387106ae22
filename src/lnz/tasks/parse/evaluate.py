"""New sentences for a trained parser, all of them judged."""

from __future__ import annotations

from pathlib import Path

from lnz.errors import FormatError
from lnz.tasks.parse.arithmetic import Arithmetic, sentences
from lnz.tasks.parse.data import ParseLoaders
from lnz.tasks.parse.module import ParseModule
from lnz.tasks.parse.text import TreeDataset, collator


class ParseTest(ParseLoaders):
    """Sentences with trees. Without ``val``, composed validation sentences of arithmetic.

    Args:
        module: the trained one.
        val: file of CoNLL-U or bracketed trees; may be gzipped. Without it, sentences of arithmetic are composed.
        encoding: of the text in the file, as latin-1 or gbk; by default UTF-8.
        batch_size: sentences per batch.
        num_workers: processes that load batches.
        arithmetic: how sentences are composed, where no file is given.
        seed: what sentences are drawn from.

    Raises:
        FormatError: a bad file, or none for a parser that was not trained on arithmetic.
    """

    def __init__(
        self,
        module: ParseModule,
        val: Path | None = None,
        *,
        encoding: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        arithmetic: Arithmetic = Arithmetic(),  # noqa: B008  (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size: expected a positive integer, got {batch_size}")
        settings, structure = module.settings, module.structure
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.collate = collator(structure)
        if val is None:
            if not settings["composed"]:
                raise FormatError("the parser: was trained on sentences of a file: give --data.val")
            found = [structure.of_arithmetic(sentence) for sentence in sentences(arithmetic, "val", seed)]
        else:
            found = structure.read(val, settings["tag_column"], settings["single_root"], True, encoding)
        self.val = TreeDataset(structure, found, module.labels)
        self.says = f"{len(found)} sentences of {val or 'arithmetic'}"
