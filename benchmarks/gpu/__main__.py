"""``python -m benchmarks.gpu``: check the kernels on a card, measure them, write CSV.

``--interpreter`` runs the same on the CPU by Triton's interpreter, at toy sizes: to know that the command works.
``--compile`` compiles every kernel for cards that are not there, and writes the page of what they need.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 where an answer of lnz is wrong or a kernel does not fit, or 2 where there is no card."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("cases", nargs="*", default=["*"], metavar="CASE", help="what to run; * and ? match")
    parser.add_argument("--interpreter", action="store_true", help="on the CPU, at toy sizes")
    parser.add_argument("--compile", action="store_true", help="compile for cards that are not there")
    parser.add_argument(
        "--cards", nargs="+", metavar="CARD", help="for these: sm_80, sm_90, sm_100, gfx942 (default: all)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float64"),
        help="compile in this one: float32, bfloat16 or float64 (default: all)",
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring each case (default 20)")
    parser.add_argument("--out", type=Path, help="the CSV file, or with --compile the page")
    options = parser.parse_args(arguments)
    if options.interpreter:
        os.environ["TRITON_INTERPRET"] = "1"  # before a kernel is imported
    if options.compile:
        from benchmarks.gpu import page

        return page.compile_all(options.out, options.cards or tuple(page.TARGETS), options.dtype)
    return _measure(options)


def _measure(options: argparse.Namespace) -> int:
    import torch

    from benchmarks.gpu import cases, measure
    from lnz.ops import backend

    if not options.interpreter and not torch.accelerator.is_available():
        print("no accelerator that torch knows; --interpreter tries the command on the CPU", file=sys.stderr)
        return 2
    device = torch.device("cpu") if options.interpreter else torch.accelerator.current_accelerator()
    assert device is not None
    name = "interpreter" if options.interpreter else torch.get_device_module(device).get_device_name()
    rows, wrong = [], []
    print(f"{name}, torch {torch.__version__}", flush=True)
    with backend("triton"):
        for make in cases.every(device, options.interpreter):
            case = make()
            if not any(fnmatch.fnmatch(case.name, pattern) for pattern in options.cases):
                continue
            print(case.name, flush=True)
            found = measure.run(case, device, name, 0.0 if options.interpreter else options.seconds)
            rows += found
            wrong += [case.name for row in found if row.contender == "lnz" and not row.right]
            for row in found:
                if row.right and not options.interpreter:
                    print(f"  {row.contender}: {row.ms:.3f} ms, {row.ratio:.2f} times lnz's", flush=True)
    if options.out:
        measure.write(options.out, rows)
    if options.interpreter:
        print("interpreted: the answers count, the times mean nothing")
    if wrong:
        print(f"WRONG, and not measured: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
