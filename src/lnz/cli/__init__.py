"""The command ``lnz``: which subcommand runs, and how errors leave the process.

Exit codes: 0 done, 1 the work failed, 2 wrong arguments or files, 128 + signal where one ended it (130 Ctrl-C, 141 a
closed pipe, 143 terminated). An error is one line on stderr;
``LNZ_DEBUG=1`` shows the traceback instead.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module, metadata
from typing import Any, NoReturn

from lnz.errors import FormatError, LnzError
from lnz.io.printable import printable

COMMANDS = ("fit", "evaluate", "predict", "align", "infer", "warmup", "completion")

HELP = """\
usage: lnz COMMAND [OPTIONS]
       lnz COMMAND --help
       lnz --version

The exponential softmax: train networks whose outputs interact, and answer queries about graphical models.

commands:
{commands}

examples:
  lnz fit segment                                 train on bundled scenes, compare with an independent softmax
  lnz fit tag                                     tag composed strings of digits, or files of sentences
  lnz fit parse                                   parse composed arithmetic, or treebanks in CoNLL-U files
  lnz fit density                                 train an RBM on bundled digits, draw samples from it
  lnz fit transcribe                              train on dialled digits, say when each sounds
  lnz fit bayesnet --model.net asia.bif --data.rows rows.csv
                                                  the tables of a network from rows with holes, by EM
  lnz evaluate runs/tag/… --data.val test.conllu  the same table, on new data
  lnz infer model.uai --query PR                  ln Z and log10 Z of a model file
  lnz infer asia.bif --evidence smoke=yes --json  every marginal of a Bayesian network, given what was seen
  lnz warmup chain                                compile what sequence labelling needs, ahead of its first use

exit codes: 0 done, 1 the work failed, 2 wrong arguments or files, 130 interrupted (Ctrl-C), 143 terminated.
LNZ_DEBUG=1 shows the traceback of an error.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``lnz`` with ``argv`` (default: the arguments of the process) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with _streams(), _terminable(), _logged():
            code = _dispatch(arguments)
            sys.stdout.flush()  # a pipe closed by the reader shows here, not at interpreter exit
            return code
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except BrokenPipeError:
        return _no_reader()
    except Exception as error:
        if os.environ.get("LNZ_DEBUG", "0") not in ("", "0"):
            raise
        return _failed(*_told(error))


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:<12}{_summary(name)}" for name in COMMANDS)), end="")
        return 0 if arguments else 2
    command, *rest = arguments
    if command == "--version":
        print(f"lnz {metadata.version('lnz')}")
        return 0
    if command not in COMMANDS:
        return _failed(f"expected a command ({', '.join(COMMANDS)}), got {command!r}; see lnz --help", 2)
    return import_module(f"lnz.cli.{command}").main(rest)


def _summary(command: str) -> str:
    return import_module(f"lnz.cli.{command}").SUMMARY


def _told(error: Exception) -> tuple[str, int]:
    """What to say about an error, and the exit code."""
    text = " ".join(str(error).split())
    if isinstance(error, FormatError):
        return text, 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or text).lower()}", 2
    if isinstance(error, LnzError | ImportError):
        return text, 1
    if isinstance(error, MemoryError):
        return "not enough memory", 1
    return f"{type(error).__name__}: {text} (LNZ_DEBUG=1 shows where)", 1


def _failed(message: str, code: int) -> int:
    with suppress(OSError):  # where nobody listens, the exit code is left
        print(f"lnz: {printable(message)}", file=sys.stderr)
    return code


def _no_reader() -> int:
    """The exit code after a pipe was closed; what is still to be flushed goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 141  # 128 + SIGPIPE


@contextmanager
def _streams() -> Iterator[None]:
    """Let what is written to a stream that was closed before the start (``>&-``) go nowhere."""
    closed = [name for name in ("stdout", "stderr") if getattr(sys, name) is None]
    with ExitStack() as opened:
        for name in closed:
            opened.callback(setattr, sys, name, None)
            setattr(sys, name, opened.enter_context(open(os.devnull, "w", encoding="utf-8")))
        yield


@contextmanager
def _logged() -> Iterator[None]:
    """Show what lnz logs, one line per record: that a kernel is being compiled, say."""
    logger, handler = logging.getLogger("lnz"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("lnz: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the work as an exception does, so that no half-written file is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: Any) -> NoReturn:
    raise SystemExit(128 + number)
