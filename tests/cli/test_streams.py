"""What is printed: whole, harmless on a terminal, and without complaint where nobody reads."""

import json
import os
import subprocess
import sys

import pytest

from lnz.cli import main
from lnz.io.printable import json_printable, printable
from tests.cli.runs import less_compiling

NETWORK = """network n {{ }}
variable "{name}" {{ type discrete [ 2 ] {{ yes, no }}; }}
probability ( "{name}" ) {{ table 0.25, 0.75; }}
"""


class TestPrintable:
    def test_escapes_marks_and_halves(self):
        assert printable("a\x1b[2Jb\x9bc\x7f\u202e\udcff") == r"a\x1b[2Jb\x9bc\x7f\u202e\udcff"

    def test_leaves_text_alone(self):
        for text in ("plain", "Grüße, 中文 α≠β 🙂", "two\nlines\tand a tab"):
            assert printable(text) == text

    def test_json_means_the_same(self):
        value = {"a\x9b\u202e\x7f": ["中", "\U000e0001", "tab\t"]}
        shown = json_printable(json.dumps(value, ensure_ascii=False))
        assert json.loads(shown) == value
        assert all(c.isprintable() for c in shown)


class TestTerminalEscapes:
    """Names in files reach the terminal as text."""

    def test_of_variables(self, tmp_path, capsys):
        (tmp_path / "n.bif").write_text(NETWORK.format(name="a\x1b]0;title\x07b"), encoding="utf-8")
        assert main(["infer", str(tmp_path / "n.bif"), "--json"]) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert list(json.loads(shown)["marginals"]) == ["a\x1b]0;title\x07b"]
        assert main(["infer", str(tmp_path / "n.bif"), "--evidence", "a\x1b]0;title\x07b=maybe"]) == 2
        assert "\x1b" not in capsys.readouterr().err

    def test_of_files_and_arguments(self, tmp_path, capsys):
        for arguments in (["infer", "no\x1b[2J.uai"], ["infer", "x", "--\x1b[2J"], ["fit", "\x1b[2J"], ["\x1b[2J"]):
            assert main(arguments) == 2
            told = capsys.readouterr().err
            assert "\x1b" not in told
            assert r"\x1b[2J" in told


@pytest.mark.skipif(os.name == "nt", reason="POSIX shells")
class TestNobodyReads:
    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        script = command.replace("LNZ", f"'{sys.executable}' -m lnz.cli")
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300, check=False)

    def test_a_pipe_closed_by_its_reader(self):
        done = self.run("LNZ --help | true; echo ${PIPESTATUS[0]}")
        assert done.stdout.strip() in ("141", "0")  # 0 where all was written before the reader left
        assert done.stderr == ""

    def test_a_pipe_closed_during_training(self, tmp_path):
        fit = "LNZ fit segment --trainer.accelerator cpu --trainer.max_epochs 1000 --data.scenes.train 4"
        small = "--data.scenes.size 8 --data.scenes.scale 1 --data.scenes.val 2 --model.width 4"
        done = self.run(f"{fit} {small} --output {tmp_path}/run | head -n 2; echo ${{PIPESTATUS[0]}}")
        *shown, code = done.stdout.splitlines()
        assert [line.split()[:2] for line in shown] == [["epoch", "1/1000"], ["epoch", "2/1000"]]
        assert (code, less_compiling(done.stderr)) == ("141", "")

    def test_streams_closed_from_the_start(self, tmp_path):
        (tmp_path / "n.bif").write_text(NETWORK.format(name="a"), encoding="utf-8")
        done = self.run(f"LNZ infer {tmp_path}/n.bif >&-; echo $?; LNZ infer {tmp_path}/n.bif 2>&- >/dev/null; echo $?")
        assert done.stdout.split() == ["0", "0"]
        assert "ln Z = " in done.stderr
        assert "Error" not in done.stderr
