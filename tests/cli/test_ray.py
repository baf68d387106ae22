"""``--engine ray``: the same results as one process, on a local cluster of two workers, one of them killed half-way."""

import io
import json
import os
import signal
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lnz.cli import main
from lnz.io.checkpoints import load_checkpoint
from lnz.tasks.cluster.engine import Engine, spread
from lnz.tasks.cluster.work import Input, made
from lnz.tasks.failures import Failed
from lnz.tasks.parse.module import ParseModule
from lnz.tasks.segment.module import SegmentModule
from lnz.tasks.segment.predict import Labeller
from lnz.tasks.tag.module import TagModule
from lnz.tasks.tag.predict import Tagger
from lnz.tasks.transcribe.module import TranscribeModule

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'lnz[ray]'")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install 'lnz[ray]'")

WORDS = ("one", "two", "three", "four", "five")


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine; the commands join it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have the tests
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def saved(module, path: Path) -> Path:
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def tagger(tmp_path_factory) -> Path:
    """A checkpoint of a tagger of random weights."""
    torch.manual_seed(0)
    module = TagModule(["A", "B", "C"], words=list(WORDS), characters=list("abcdefghijklmnopqrstuvwxyz"))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
        for embedding in module.modules():
            if isinstance(embedding, torch.nn.Embedding) and embedding.padding_idx is not None:
                embedding.weight[embedding.padding_idx] = 0  # as training leaves it
    return saved(module, tmp_path_factory.mktemp("tagger") / "tagger.ckpt")


@pytest.fixture(scope="module")
def labeller(tmp_path_factory) -> Path:
    """A checkpoint of a network of images, of random weights."""
    torch.manual_seed(0)
    module = SegmentModule(4, 3, width=4, dilations=(1,), edges="contrast")
    with torch.no_grad():
        module.mrf[1].tables.normal_()
    return saved(module, tmp_path_factory.mktemp("labeller") / "labeller.ckpt")


def sentences(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    lines = (" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(count))
    (folder / "text.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder / "text.txt"


def images(folder: Path, count: int, size: int = 6) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        pixels = rng.integers(256, size=(size, size + k % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"im{k:03}.png")
    return folder


def lnz(*arguments) -> int:
    return main([*map(str, arguments)])


def rows(folder: Path) -> list[dict]:
    """Of all shards, in the order of their numbers."""
    return [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def columns(path: Path) -> list[list[str]]:
    """The tags of a file of columns."""
    return [[line.split("\t")[1] for line in part.splitlines()] for part in path.read_text().strip().split("\n\n")]


class Killed:
    """A worker whose first process is killed in the middle of a shard, once that of another is there."""

    def __init__(self, make, marker: Path, always: bool, device: str) -> None:
        self.worker, self.marker, self.always = make(device), marker, always
        self.columns, self.shards = self.worker.columns, 0

    def rows(self, items):
        found = list(self.worker.rows(items))
        self.shards += 1
        if self.always or (self.shards == 2 and not self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return found


def killed(make, marker: Path, always: bool = False):
    return partial(Killed, make, marker, always)


def worked_on(make, inputs, output, size: int) -> list:
    return list(spread(make, inputs, output, Engine(workers=2, shard_size=size)))


@pytest.mark.slow
@pytest.mark.parametrize("count", [40, 1000])
def test_a_killed_worker_loses_and_doubles_no_sentence(cluster, tagger, tmp_path, count):
    text = sentences(tmp_path, count)
    assert lnz("predict", tagger, "--text", text, "--output", tmp_path / "one.bio") == 0
    make, read = partial(made, Tagger, tagger, {}), Tagger(load_checkpoint(tagger), "").read(text)
    inputs = [Input(str(text), sentence) for sentence in read]
    done = worked_on(killed(make, tmp_path / "died"), inputs, tmp_path / "shards", max(2, count // 20))
    assert (tmp_path / "died").exists()
    assert done == [None] * count
    found = rows(tmp_path / "shards")
    assert [row["input"] for row in found] == list(range(count))
    assert [row["tokens"] for row in found] == [line.split() for line in text.read_text().splitlines()]
    assert [row["tags"] for row in found] == columns(tmp_path / "one.bio")
    assert len({tuple(row["tags"]) for row in found}) > 10
    assert not [path for path in (tmp_path / "shards").iterdir() if path.suffix != ".parquet"]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(12, 6), (200, 16)])
def test_a_killed_worker_loses_and_doubles_no_image(cluster, labeller, tmp_path, count, size):
    folder = images(tmp_path / "photos", count, size)
    (folder / "im005.png").write_bytes(b"no image")
    assert lnz("predict", labeller, "--images", folder, "--output", tmp_path / "one") == 1
    make = partial(made, Labeller, labeller, {})
    inputs = [Input(str(path), path) for path in sorted(folder.iterdir())]
    done = worked_on(killed(make, tmp_path / "died"), inputs, tmp_path / "shards", max(2, count // 20))
    assert (tmp_path / "died").exists()
    assert sorted(isinstance(each, Failed) for each in done) == [False] * (count - 1) + [True]
    found = rows(tmp_path / "shards")
    assert [row["source"] for row in found] == [str(path) for path in sorted(folder.iterdir())]
    for row in found:
        stem = Path(row["source"]).stem
        if stem == "im005":
            assert "im005.png: cannot be read as an image" in row["error"]
            assert row["mask"] is None
            continue
        assert row["error"] is None
        assert row["mask"] == (tmp_path / "one" / f"{stem}_mask.png").read_bytes()
        one, shard = (
            np.array(Image.open(source)).astype(int)
            for source in (tmp_path / "one" / f"{stem}_confidence.png", io.BytesIO(row["confidence"]))
        )
        np.testing.assert_allclose(one, shard, atol=1)


@pytest.mark.slow
def test_an_input_that_always_kills_is_left_out(cluster, tagger, tmp_path):
    text = sentences(tmp_path, 2)
    make, read = partial(made, Tagger, tagger, {}), Tagger(load_checkpoint(tagger), "").read(text)
    inputs = [Input(str(text), sentence) for sentence in read]
    inputs[1] = Input("deadly", inputs[1].item)
    done = worked_on(killed(make, tmp_path / "died", always=True), inputs, tmp_path / "shards", 1)
    assert len(done) == 2
    assert {str(each.error).partition(":")[0] for each in done} == {str(text), "deadly"}
    assert "left out, since 5 workers died at its shard" in rows(tmp_path / "shards")[1]["error"]
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["part-00000.parquet", "part-00001.parquet"]


@pytest.mark.slow
def test_the_command_takes_lists_and_lists_what_failed(cluster, labeller, tmp_path, capsys):
    """Relative paths of a Parquet list; two files of one name; one that is not there."""
    pa = pytest.importorskip("pyarrow")
    images(tmp_path / "a", 3), images(tmp_path / "b", 1)
    listed = ["a/im000.png", "a/im002.png", "b/im000.png", "gone.png"]
    parquet.write_table(pa.table({"path": listed}), tmp_path / "list.parquet")
    (tmp_path / "list.txt").write_text("# some\n" + "\n".join(listed))
    options = ["--engine", "ray", "--workers", 2, "--shard-size", 1, "--confidence", "none"]
    for name in ("list.parquet", "list.txt"):
        out = tmp_path / f"out-{name}"
        assert lnz("predict", labeller, "--images", tmp_path / name, "--output", out, *options) == 1
        said = capsys.readouterr()
        assert f"3 images labelled in {out}" in said.out
        assert "lnz predict: 1 of 4 images failed:" in said.err
        assert "gone.png: cannot be read as an image" in said.err
        assert [row["source"] for row in rows(out)] == [str(tmp_path / path) for path in listed]
        assert [row["confidence"] for row in rows(out)] == [None] * 4
        assert len(list(out.iterdir())) == 4
    with_strict = ["predict", labeller, "--images", tmp_path / "list.txt", "--output", tmp_path / "s", *options]
    assert lnz(*with_strict, "--strict") == 1
    assert "gone.png: cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_takes_folders_and_parquet_of_sentences(cluster, tagger, tmp_path, capsys):
    pa = pytest.importorskip("pyarrow")
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("one two\n\nthree\n")
    (texts / "b.conllu").write_text("1\tfour\t_\t_\t_\t_\t_\t_\t_\t_\n\n")
    parquet.write_table(pa.table({"text": ["five one", "two"], "id": [1, 2]}), texts / "c.parquet")
    options = ["--engine", "ray", "--workers", 1]
    assert lnz("predict", tagger, "--text", texts, "--output", tmp_path / "out", *options) == 0
    assert "5 sentences tagged in" in capsys.readouterr().out
    found = rows(tmp_path / "out")
    assert [row["tokens"] for row in found] == [["one", "two"], ["three"], ["four"], ["five", "one"], ["two"]]
    assert [Path(row["source"]).name for row in found] == ["a.txt", "a.txt", "b.conllu", "c.parquet", "c.parquet"]
    assert lnz("predict", tagger, "--text", texts / "c.parquet", "--output", tmp_path / "one.bio") == 0
    assert columns(tmp_path / "one.bio") == [row["tags"] for row in found[3:]]
    assert lnz("predict", tagger, "--text", texts, "--output", tmp_path / "out", *options) == 2
    assert "expected a folder without shards, found part-00000.parquet" in capsys.readouterr().err


@pytest.mark.slow
def test_trees_equal_those_of_one_process(cluster, tmp_path):
    torch.manual_seed(0)
    module = ParseModule(["dep", "root"], words=list(WORDS), characters=list("abcdefghijklmnopqrstuvwxyz"), width=8)
    with torch.no_grad():
        for network in module.networks.values():  # biaffine forms begin as 0
            network.scorer.arc.normal_()
            network.scorer.label.normal_()
    checkpoint, text = saved(module, tmp_path / "parser.ckpt"), sentences(tmp_path, 20)
    assert lnz("predict", checkpoint, "--text", text, "--output", tmp_path / "one.conllu") == 0
    given = ["--output", tmp_path / "out", "--engine", "ray", "--shard-size", 6]
    assert lnz("predict", checkpoint, "--text", text, *given) == 0
    whole = [part.splitlines() for part in (tmp_path / "one.conllu").read_text().strip().split("\n\n")]
    one = [[line.split("\t") for line in lines if line[0] != "#"] for lines in whole]
    found = rows(tmp_path / "out")
    assert [row["heads"] for row in found] == [[int(fields[6]) for fields in each] for each in one]
    assert [row["relations"] for row in found] == [[fields[7] for fields in each] for each in one]
    assert [row["tokens"] for row in found] == [[fields[1] for fields in each] for each in one]


@pytest.mark.slow
def test_texts_and_alignments_equal_those_of_one_process(cluster, tmp_path, capsys):
    """Of recordings in a Parquet list with their texts, one of which has no such letters."""
    soundfile = pytest.importorskip("soundfile", reason="needs the extra audio")
    pa = pytest.importorskip("pyarrow")
    torch.manual_seed(0)
    checkpoint = saved(
        TranscribeModule([" ", "a", "b"], "characters", 8000, width=8, dilations=(1,)), tmp_path / "t.ckpt"
    )
    (tmp_path / "audio").mkdir()
    rng, texts = np.random.default_rng(0), ["ab a", "b", "a  ba b", "xyz"]
    names = [f"audio/r{k}.wav" for k in range(4)]
    for name in names:
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(6000), 8000)
    listed = tmp_path / "list.parquet"
    parquet.write_table(pa.table({"path": names, "text": texts}), listed)
    ray_options = ["--engine", "ray", "--shard-size", 2]

    assert lnz("predict", checkpoint, "--audio", listed, "--output", tmp_path / "one") == 0
    assert lnz("predict", checkpoint, "--audio", listed, "--output", tmp_path / "texts", *ray_options) == 0
    written = [(tmp_path / "one" / f"r{k}.txt").read_text()[:-1] for k in range(4)]
    assert [row["text"] for row in rows(tmp_path / "texts")] == written

    align = ["align", checkpoint, "--audio", listed]
    assert lnz(*align, "--format", "json", "--output", tmp_path / "aligned") == 1
    capsys.readouterr()
    assert lnz(*align, "--output", tmp_path / "shards", *ray_options) == 1
    said = capsys.readouterr()
    assert f"3 recordings aligned in {tmp_path / 'shards'}" in said.out
    assert "lnz align: 1 of 4 recordings failed:" in said.err
    found = rows(tmp_path / "shards")
    assert "r3.wav" in found[3]["error"]
    for k, row in enumerate(found[:3]):
        one = json.loads((tmp_path / "aligned" / f"r{k}.json").read_text())
        assert row["text"] == one["text"] == " ".join(texts[k].split())
        assert row["log_prob"] == pytest.approx(one["log_prob"], rel=1e-4)
        for tier in ("words", "characters"):
            for a, b in zip(row[tier], one[tier], strict=True):
                assert {name: a[name] for name in b} == pytest.approx(b, abs=1e-4)
