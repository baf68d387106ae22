"""``lnz completion``: a script that lets a shell complete commands, options, choices and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from lnz.tasks.parsing import Strict

SUMMARY = "print a script with which a shell completes lnz's commands and options"

EXAMPLES = """examples:
  lnz completion bash > ~/.local/share/bash-completion/completions/lnz
  lnz completion zsh > ~/.zfunc/_lnz                # a folder of $fpath
  lnz completion fish > ~/.config/fish/completions/lnz.fish

The script is whole: nothing of lnz runs when a shell completes. After an upgrade of lnz, write it again."""


def main(argv: Sequence[str]) -> int:
    """Run ``lnz completion`` with the arguments that follow ``completion``; returns the exit status."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise ImportError(f"lnz completion needs {error.name}; install it with: pip install 'lnz[train]'") from error
    shell = build_parser().parse_args(argv).shell
    try:
        print(shtab.complete(command_tree(), shell))
    except ModuleNotFoundError as error:  # the options of lnz fit are those of its modules
        raise ImportError(f"lnz completion needs {error.name}; install it with: pip install 'lnz[train]'") from error
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The options of ``lnz completion``."""
    found = Strict(
        prog="lnz completion",
        description=f"{SUMMARY[0].upper()}{SUMMARY[1:]}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh", "powershell"), help="which shell it is for")
    return found


def command_tree() -> argparse.ArgumentParser:
    """Every command with its options, as plain parsers."""
    from lnz.cli import COMMANDS
    from lnz.tasks.bayesnet.run import BayesNetTask
    from lnz.tasks.em_task import parser_of as em_parser
    from lnz.tasks.evaluate import TASKS, parser_of, task_of
    from lnz.tasks.latent_class.run import LatentClassTask
    from lnz.tasks.options import TaskCLI

    root = argparse.ArgumentParser("lnz")
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers()
    tasks = [task_of(name) for name in TASKS]
    learned = [BayesNetTask(), LatentClassTask()]  # by EM
    for command in COMMANDS:
        module = import_module(f"lnz.cli.{command}")
        part = commands.add_parser(command, help=module.SUMMARY)
        if command == "fit":
            of_fit = part.add_subparsers()
            for task in tasks:
                _copy(of_fit.add_parser(task.name, help=module.TASKS[task.name][1]), TaskCLI(task, []).parser)
            for task in learned:
                _copy(of_fit.add_parser(task.name, help=module.TASKS[task.name][1]), em_parser(task))
        elif command == "evaluate":
            _copy(part, *(parser_of(task) for task in tasks))
        else:
            _copy(part, module.build_parser())
    return root


def _copy(to: argparse.ArgumentParser, *sources: argparse.ArgumentParser) -> None:
    """Add what the sources take, each option once."""
    import shtab

    seen = {"-h", "--help"}
    for action in (action for source in sources for action in source._actions):
        options = [option for option in action.option_strings if option.startswith("-") and option not in seen]
        if (action.option_strings and not options) or (not action.option_strings and action.dest in seen):
            continue
        seen.update(options or [action.dest])
        text = (action.help or "").partition(". ")[0].replace("%", "%%")
        if action.nargs == 0:
            to.add_argument(*options, action="store_true", help=text)
            continue
        kind = getattr(action, "_typehint", action.type)
        name, several = (options, None) if options else ([action.dest], action.nargs)
        added = to.add_argument(*name, nargs=several, help=text, choices=_choices(action, kind))
        if _is_path(action, kind):
            added.complete = shtab.FILE  # type: ignore[attr-defined]


def _choices(action: argparse.Action, kind: Any) -> list[str] | None:
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    listed = [str(choice) for part in _parts(kind) if get_origin(part) is Literal for choice in get_args(part)]
    return listed or (["true", "false"] if kind is bool else None)


def _is_path(action: argparse.Action, kind: Any) -> bool:
    return any(part is Path for part in _parts(kind)) or action.dest in ("model", "config", "ckpt_path", "output")


def _parts(kind: Any) -> Iterator[Any]:
    """The members of a union, or the type itself."""
    members = get_args(kind) if get_origin(kind) is not Literal else ()
    for member in members:
        yield from _parts(member)
    yield kind
