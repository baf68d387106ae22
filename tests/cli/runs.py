"""Runs of ``lnz fit`` as processes of their own: started, killed, interrupted, gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lnz.io.checkpoints import load_checkpoint

QUIET = ["--trainer.enable_progress_bar", "false"]


def less_compiling(said: str) -> str:
    """What a process said, whether or not its kernels lay on disk already."""
    return "".join(line for line in said.splitlines(True) if not line.startswith("lnz: compiling "))


def start(*arguments: Any, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """``lnz fit``, as a user would start it."""
    # what a shell starts in the background ignores Ctrl-C, and these tests may themselves run there
    hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{hear}; import sys; from lnz.cli import main; sys.exit(main(sys.argv[1:]))"
    script = folder / "lnz_process.py"  # a file, since DDP starts its processes from it
    script.write_text(code)
    return subprocess.Popen(
        [sys.executable, str(script), "fit", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
    )


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def results(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "results.json").read_text())


def wait_for(path: Path, process: subprocess.Popen[str], seconds: int = 240) -> None:
    """Until ``path`` exists."""
    for _ in range(seconds * 100):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"{path} did not appear")


def killed_and_resumed(task: str, options: Sequence[Any], epochs: int, folder: Path) -> None:
    """``kill -9`` in the middle, then ``--ckpt_path last``: the same measures and curves as a run left alone."""
    options = [task, "--trainer.max_epochs", epochs, *options, *QUIET]
    whole, broken = folder / "whole", folder / "broken"
    finished(start(*options, "--output", whole, folder=folder))
    process = start(*options, "--output", broken, folder=folder)
    wait_for(broken / "seed-0" / "checkpoints" / "last.ckpt", process)
    process.kill()
    process.wait()
    assert not (broken / "results.json").exists()
    assert load_checkpoint(broken / "seed-0" / "checkpoints" / "last.ckpt")["epoch"] + 1 < epochs
    finished(start(task, "--config", broken / "config.yaml", "--ckpt_path", "last", folder=folder))
    (a,), (b,) = results(whole), results(broken)
    assert a["measures"] == b["measures"]
    assert a["history"] == b["history"]


def interrupted(task: str, options: Sequence[Any], folder: Path) -> None:
    """Ctrl-C keeps the last checkpoint, and tells how to go on."""
    run = folder / "run"
    process = start(task, "--trainer.max_epochs", 1000, *options, *QUIET, "--output", run, folder=folder)
    last = run / "seed-0" / "checkpoints" / "last.ckpt"
    wait_for(last, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert f"go on with: lnz fit {task} --config {run / 'config.yaml'} --ckpt_path last" in output
    assert "Traceback" not in output
    load_checkpoint(last)
