"""``--engine``: its options and errors, and what is done to a shard; tests of Ray itself are in ``test_ray.py``."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from lnz.cli import main
from lnz.cli.align import build_parser as build_align
from lnz.cli.predict import build_parser as build_predict
from lnz.errors import FormatError
from lnz.io.shards import prepare_shards
from lnz.tasks.cluster.engine import Engine, spread
from lnz.tasks.cluster.work import DEATHS, Input, Shard, files_of, sharded, written
from lnz.tasks.failures import attempted

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "many_machines.md").read_text("utf-8")
COMMANDS = re.findall(r"^(lnz .*)$", GUIDE.replace("\\\n", " "), re.MULTILINE)


def lnz(*arguments) -> int:
    return main([*map(str, arguments)])


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_guide_are_commands(command):
    words = shlex.split(command)
    if words[1] in ("predict", "align"):
        arguments = {"predict": build_predict, "align": build_align}[words[1]]().parse_args(words[2:])
        assert arguments.engine == "ray"
    else:
        assert words[1] in ("fit", "evaluate", "warmup")


class TestErrors:
    """Before Ray is asked for anything."""

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["--workers", 2], "--workers: goes with --engine ray"),
            (["--address", "auto"], "--address: goes with --engine ray"),
            (["--engine", "ray", "--workers", 0], "--workers: expected a positive integer, got '0'"),
            (
                ["--engine", "ray", "--gpus-per-worker", -1],
                "--gpus-per-worker: expected a number of at least 0, got -1.0",
            ),
            (["--engine", "spark"], "--engine: expected one of"),
        ],
    )
    def test_options(self, given, message, tmp_path, capsys):
        assert lnz("predict", "x.ckpt", "--text", "x.txt", "--output", tmp_path, *given) == 2
        assert message in capsys.readouterr().err

    def test_other_commands_say_that_they_work_in_one_process(self, tmp_path, capsys):
        assert lnz("infer", "x.uai", "--engine", "ray") == 2
        assert "lnz infer works in one process" in capsys.readouterr().err
        assert lnz("evaluate", tmp_path, "--engine", "ray") == 2
        assert "lnz evaluate works in one process" in capsys.readouterr().err

    def test_a_bad_checkpoint(self, tmp_path, capsys):
        given = ["predict", tmp_path / "x.ckpt", "--text", "x.txt", "--output", tmp_path / "out", "--engine", "ray"]
        assert lnz(*given) == 2
        assert "x.ckpt: expected a checkpoint, found nothing" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("option", [["--picture"], ["--format", "srt"]])
    def test_align_writes_parquet_alone(self, option, tmp_path, capsys):
        given = ["align", "x.ckpt", "--audio", tmp_path, "--output", tmp_path / "out", "--engine", "ray", *option]
        assert lnz(*given) == 2
        assert f"{option[0]}: does not go with --engine ray" in capsys.readouterr().err

    def test_without_ray(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(ImportError, match=r"--engine ray needs (ray|pyarrow).*; .*pip install 'lnz\[ray\]'"):
            list(spread(lambda device: Halves(), [Input("a", 1)], tmp_path, Engine()))


class Halves:
    """A worker that halves even numbers."""

    columns = {"half": "integer"}  # noqa: RUF012

    def rows(self, items):
        return attempted(items, self._half)

    def _half(self, item):
        if item % 2:
            raise FormatError(f"{item}: expected an even number")
        return {"half": item // 2}


class Full(Halves):
    def rows(self, items):
        raise OSError(28, "No space left on device")


class TestShards:
    def test_inputs_are_cut_in_order(self):
        inputs = [Input("x", k) for k in range(7)]
        shards = sharded(inputs, 3)
        assert [(shard.number, shard.first, len(shard.inputs)) for shard in shards] == [(0, 0, 3), (1, 3, 3), (2, 6, 1)]
        assert [each for shard in shards for each in shard.inputs] == inputs

    def test_a_shard_done_twice_is_there_once(self, tmp_path):
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra ray")
        shard = Shard(3, 12, (Input("a", 4), Input("b", 5)))
        for _ in range(2):
            assert written(Halves(), shard, tmp_path).errors == (None, "5: expected an even number")
        assert [path.name for path in tmp_path.iterdir()] == ["part-00003.parquet"]
        assert parquet.read_table(tmp_path / "part-00003.parquet").to_pylist() == [
            {"input": 12, "source": "a", "half": 2, "error": None},
            {"input": 13, "source": "b", "half": None, "error": "5: expected an even number"},
        ]

    def test_columns_have_one_type_in_every_shard(self, tmp_path):
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra ray")
        for number, item in enumerate((1, 2)):
            written(Halves(), Shard(number, number, (Input("a", item),)), tmp_path)
        one, other = (parquet.read_schema(path) for path in tmp_path.iterdir())
        assert one.equals(other)

    def test_what_kills_workers_is_left_out(self, tmp_path):
        pytest.importorskip("pyarrow", reason="needs the extra ray")
        (tmp_path / ".part-00000.begun").write_bytes(b"." * (DEATHS - 1))
        shard = Shard(0, 0, (Input("a", 4),))
        assert written(Halves(), shard, tmp_path).errors == (None,)
        (tmp_path / ".part-00000.begun").write_bytes(b"." * DEATHS)
        (error,) = written(Halves(), shard, tmp_path).errors
        assert error.startswith("a: left out, since 5 workers died at its shard")
        assert [path.name for path in tmp_path.iterdir()] == ["part-00000.parquet"]

    def test_other_errors_stop_the_work(self, tmp_path):
        pytest.importorskip("pyarrow", reason="needs the extra ray")
        shard = Shard(0, 0, (Input("a", 4),))
        assert "No space left on device" in written(Full(), shard, tmp_path).stopped
        assert "has to lie on a file system that all share" in written(Full(), shard, tmp_path / "gone").stopped

    def test_a_folder_with_shards_is_not_mixed_with_others(self, tmp_path):
        (tmp_path / ".part-00000.begun").touch()
        prepare_shards(tmp_path)
        assert not list(tmp_path.iterdir())
        (tmp_path / "part-00000.parquet").touch()
        with pytest.raises(FormatError, match="expected a folder without shards, found part-00000.parquet"):
            prepare_shards(tmp_path)

    def test_files_of_a_folder(self, tmp_path):
        with pytest.raises(FormatError, match="expected files, found none"):
            files_of(tmp_path)
        for name in ("b.txt", "a.txt", ".hidden"):
            (tmp_path / name).touch()
        assert [path.name for path in files_of(tmp_path)] == ["a.txt", "b.txt"]
        assert files_of(tmp_path / "a.txt") == [tmp_path / "a.txt"]
