# ruff: noqa: T201, SIM105, E501
"""Draw one-token mutants of the sources and see whether the tests notice them.

    python -m tests.mutants --count 300 --seed 1 --jobs 2 --out mutants.jsonl
    python -m tests.mutants --show 17 --seed 1           # what mutant 17 changes

A mutant changes one operator, constant, default or name of a reduction in one module. It lives in memory only: a child
process, forked from one that has imported torch already, finds the changed source through an import hook, so that no
file changes and no kernel is compiled anew. First the tests of the module's own name run, then those of its package; a
mutant that both pass has survived. Lines already in ``--out`` are not run again, so that a run can be interrupted.
Survivors that cannot change any result are listed, with the reason, in ``tests/mutants_equivalent.txt``.

Much faster where it is known which tests reach which line (of what runs at import, the names decide as before):

    pip install coverage pytest-cov
    pytest -m "not slow" --cov=lnz --cov-context=test --cov-report=
    python -m tests.mutants --coverage .coverage
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    "distributions/**/*.py",
    "inference/**/*.py",
    "nn/**/*.py",
    "io/**/*.py",
    "metrics/**/*.py",
    "ops/**/reference.py",
)
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.txt")
SECONDS = 120  # of one test: a mutant that loops for ever is noticed
LONGEST = 120  # seconds of one round of tests; where none has failed until then, the mutant is said to live

COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "%", ast.Mod: "//"}
NAMES = {
    "min": "max", "max": "min", "amin": "amax", "amax": "amin", "argmin": "argmax", "argmax": "argmin",
    "any": "all", "all": "any", "floor": "ceil", "ceil": "floor",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """``path[start:end]`` replaced by ``new``, in characters."""

    path: str
    line: int
    start: int
    end: int
    old: str
    new: str

    @property
    def key(self) -> str:
        return f"{self.path}:{self.line}: {self.old.strip()} -> {self.new.strip()} @{self.start}"

    def apply(self) -> str:
        source = (ROOT / self.path).read_text()
        return source[: self.start] + self.new + source[self.end :]


def mutants_of(path: Path) -> Iterator[Mutant]:
    """All one-token mutants of a file, outside annotations, docstrings and messages."""
    source = path.read_text()
    tree = ast.parse(source)
    offsets = [0]
    for line in source.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    encoded = source.encode()

    def at(line: int, column: int) -> int:
        return len(encoded[: offsets[line - 1] + column].decode())

    def between(a: ast.AST, b: ast.AST, new: str) -> Iterator[Mutant]:
        start, end = at(a.end_lineno, a.end_col_offset), at(b.lineno, b.col_offset)  # type: ignore[attr-defined]
        gap = source[start:end]
        token = gap.strip("() \n\\\t")
        if token and "#" not in gap and ")" not in token and "(" not in token:
            begin = start + gap.index(token)
            yield Mutant(name, a.end_lineno, begin, begin + len(token), token, new)  # type: ignore[attr-defined]

    def whole(node: ast.AST, new: str) -> Iterator[Mutant]:
        start, end = at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
        yield Mutant(name, node.lineno, start, end, source[start:end], new)  # type: ignore[attr-defined]

    name = path.relative_to(ROOT).as_posix()
    skipped = set(_skipped(tree))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
                yield from between(left, right, COMPARISONS[type(op)])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                yield from between(left, right, ARITHMETIC[type(op)])
            case ast.BoolOp(op=op, values=[left, right]):
                yield from between(left, right, "or" if isinstance(op, ast.And) else "and")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield from whole(node, f"bool({ast.unparse(operand)})")
            case ast.Constant(value=bool(value)):
                yield from whole(node, str(not value))
            case ast.Constant(value=int(value)):
                yield from whole(node, str(value + 1))
            case ast.Constant(value=float(value)) if value:
                yield from whole(node, repr(value * 2))
            case ast.Attribute(attr=attr) if attr in NAMES:
                yield from whole(node, f"{ast.unparse(node.value)}.{NAMES[attr]}")
            case ast.Name(id=word, ctx=ast.Load()) if word in NAMES:
                yield from whole(node, NAMES[word])


def _skipped(tree: ast.AST) -> Iterator[int]:
    """Nodes of annotations, decorators (frozen or not, a result is the same), imports, f-strings, raises and assertions: words for people and checkers."""
    for node in ast.walk(tree):
        parts: list[Any] = []
        match node:
            case ast.arg(annotation=annotation):
                parts = [annotation]
            case ast.AnnAssign(annotation=annotation):
                parts = [annotation]
            case ast.FunctionDef(returns=returns, decorator_list=decorators):
                parts = [returns, *decorators]
            case ast.ClassDef(decorator_list=decorators):
                parts = list(decorators)
            case ast.JoinedStr() | ast.Raise() | ast.Assert() | ast.Import() | ast.ImportFrom():
                parts = [node]
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                parts = [node]
        for part in parts:
            if part is not None:
                yield from (id(inner) for inner in ast.walk(part))


def drawn(count: int, seed: int, only: str) -> list[Mutant]:
    """As many of each module as it has places, of all modules together."""
    package = ROOT / "src" / "lnz"
    paths = sorted({p for pattern in SOURCES for p in package.glob(pattern) if only in p.as_posix()})
    places = [mutant for path in paths for mutant in mutants_of(path)]
    return random.Random(seed).sample(places, min(count, len(places)))


class Changed(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Finds one module with a changed source."""

    def __init__(self, mutant: Mutant) -> None:
        self.path = str(ROOT / mutant.path)
        parts = Path(mutant.path).with_suffix("").parts[1:]
        self.package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.package else parts)
        self.source = mutant.apply().encode()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name,
            self.path,
            loader=self,
            submodule_search_locations=[str(Path(self.path).parent)] if self.package else None,
        )

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str) -> bytes:
        return self.source

    def path_stats(self, path: str) -> Any:
        raise OSError  # so that no bytecode is read or written


def tests_for(mutant: Mutant) -> list[list[str]]:
    """Files of tests in rounds: of the module's name, then of its package and of what stands right above it."""
    relative = Path(mutant.path).relative_to("src/lnz")
    words = [relative.stem] if relative.stem not in ("reference", "__init__", "base") else []
    words += [part for part in relative.parts[1:-1] if part != "cpu"]
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    named = [
        t for t in tests if any(t.stem in (f"test_{w}", f"test_{w}s") or t.stem.startswith(f"test_{w}_") for w in words)
    ]
    top = relative.parts[0] if len(relative.parts) > 1 else ""
    nearby = {
        "ops": ("ops", "distributions", "inference"),
        "distributions": ("distributions", "objectives", "nn"),
        "inference": ("inference", "distributions", "objectives"),
        "nn": ("nn", "tasks"),
        "io": ("io", "cli", "tasks"),
        "": ("objectives", "tasks", "inference", "."),
    }[top]
    first = [t for t in named if t.parent.name in (top, "tests", *nearby)]
    rest = [t for folder in nearby for t in sorted((ROOT / "tests" / folder).glob("test_*.py")) if t not in first]
    return [[str(t) for t in group] for group in (first, rest) if group]


SLOWEST = (
    "compiles_in_one_graph",
    "opcheck",
    "test_guide_commands",
    "test_readme",
    "memory",
)  # parts of names of tests that are hardly ever the only ones to see a mutant
MOST = 100  # tests of one mutant, of those that reach its line


def reaching(mutant: Mutant, data: Any) -> list[list[str]]:
    """The tests that reach the line of a mutant, those in files of its module's name first; none at import."""
    of_line = data.contexts_by_lineno(str(ROOT / mutant.path))
    last = max((line for line in of_line if line <= mutant.line), default=None)  # a statement starts above its parts
    contexts = {name.partition("|")[0] for line in {mutant.line, last} for name in of_line.get(line, [])} - {""}
    contexts = {name for name in contexts if not any(slow in name for slow in SLOWEST)} or contexts
    if not contexts:
        return []
    first = tests_for(mutant)[0]
    named = sorted(name for name in contexts if str(ROOT / name.partition("::")[0]) in first)
    others = sorted(contexts - set(named))
    random.Random(0).shuffle(others)  # of all kinds
    return [group[:MOST] for group in (named, others) if group]


def survives(mutant: Mutant, data: Any = None) -> bool:
    groups = reaching(mutant, data) if data is not None else []
    return all(_passes(mutant, group) for group in groups or tests_for(mutant))


def _passes(mutant: Mutant, tests: list[str]) -> bool:
    status, pid = 0, os.fork()
    if not pid:
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1), os.dup2(null, 2)
            sys.meta_path.insert(0, Changed(mutant))
            import pytest

            code = pytest.main(
                ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--timeout", str(SECONDS), *tests]
            )
        except BaseException:
            code = 1
        os._exit(int(code) if int(code) in (0, 1) else 2)
    found, deadline = 0, time.monotonic() + LONGEST
    while not found and time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
    try:
        os.killpg(pid, signal.SIGKILL)  # what tests have started, and what takes longer than LONGEST
    except ProcessLookupError:
        pass
    if not found:
        os.waitpid(pid, 0)
    return not found or os.waitstatus_to_exitcode(status) == 0


def equivalent() -> set[str]:
    """Keys of the mutants that are known to change nothing, without the place in the file."""
    if not EQUIVALENT.exists():
        return set()
    lines = EQUIVALENT.read_text().splitlines()
    return {line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--only", default="", help="a part of the path of the modules to draw from")
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--coverage", help="a file that says which tests reach which line")
    parser.add_argument("--show", type=int, help="print one mutant as a line of its file, and stop")
    arguments = parser.parse_args()
    mutants = drawn(arguments.count, arguments.seed, arguments.only)
    if arguments.show is not None:
        mutant = mutants[arguments.show]
        print(mutant.key, mutant.apply().splitlines()[mutant.line - 1], sep="\n")
        return
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    data: Any = None
    if arguments.coverage:
        from coverage import CoverageData

        data = CoverageData(arguments.coverage)
        data.read()
    done = {}
    if arguments.out.exists():
        done = {row["key"]: row["survived"] for row in map(json.loads, arguments.out.read_text().splitlines())}
    ahead = [mutant for mutant in mutants if mutant.key not in done]

    def judge(mutant: Mutant) -> None:
        start = time.monotonic()
        survived = survives(mutant, data)
        row = {"key": mutant.key, "survived": survived, "seconds": round(time.monotonic() - start, 1)}
        done[mutant.key] = survived
        with arguments.out.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(
            f"{len(done)}/{len(mutants)} {'SURVIVED' if survived else 'caught  '} {row['seconds']:6.1f} s  {mutant.key}",
            flush=True,
        )

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(judge, ahead))
    known = equivalent()
    lived = [key for key, survived in done.items() if survived and key.split(" @")[0] not in known]
    print(
        f"{len(done)} mutants: {len(done) - sum(done.values())} caught, {sum(done.values()) - len(lived)} equivalent, {len(lived)} lived"
    )


if __name__ == "__main__":
    main()
