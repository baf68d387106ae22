"""Every reader under the fuzzer: a value or a FormatError, in bounded time and memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from lnz.io.alignments import Interval, write_textgrid
from lnz.io.checkpoints import AtomicCheckpointIO
from tests.io.test_dependencies import TEXT as DEPENDENCIES
from tests.io.test_networks import RAIN
from tests.io.test_sentences import CONLLU

pytest.importorskip("atheris", reason="the fuzzer has wheels for Linux only")

RUNS = 3000
LIMITS = ["-max_len=8192", "-timeout=10", "-rss_limit_mb=2048", "-max_total_time=120", "-seed=1"]

TEXTS = {
    "uai": ["MARKOV 3 2 2 3 2 2 0 1 3 1 2 0 4 1 2.4 1e-3 0 12 " + "1 " * 12, "BAYES 1 2 1 1 0 2 .5 .5"],
    **{kind: [RAIN[f"m.{kind}"]] for kind in ("bif", "bifxml", "xdsl", "dsl", "net")},
    "evidence": ["2 0 1 1 2", "1\n2 0 1 2 3", ""],
    "variables": ["2 0 2", "1 1"],
    "evidence-option": ['a=y,"b,c"=0.5:1:2', "é=x, 0=1"],
    "variables-option": ['a,"b,c",é', "0,1"],
    "conllu": [CONLLU],
    "dependencies": [CONLLU, DEPENDENCIES],
    "columns": ["# id 1\nEU B-ORG\nis O\n\n-DOCSTART- O\n\n# newdoc\n# O\n", "a\tb\tO\n"],
    "text": ["one two\nthree\n"],
    "transcripts-tsv": ["a\tone two\nb.wav\tthree\n", "path\tsentence\na\tone\n", "84-1 IT WAS\n"],
    "transcripts-csv": ['file_name,text\na.wav,"one, ""two""\n"\n'],
    "transcripts-json": ['{"audio_filepath": "a.wav", "text": "one", "duration": 1.5}\n'],
    "trees": ["( (S (NP a) b)\n)\n(X (Y c))", "(S (A x))"],
    "vectors": ["2 3\na 1 2 3\nb -1 0.5 2e3\n", "a 1 2\nb c 3 4\n"],
    "list": ["# held out\na.png\n\nx/é\n"],
    "palette": ["# CamVid\n64 128 64\tAnimal\n0, 0, 0, Void\n"],
    "yaml": ["model: &m {width: 3, dilations: [1, 2]}\nother: *m\nseeds: 3\n"],
}


def seeds(name, folder):
    """Whole files for the fuzzer to start from."""
    for k, text in enumerate(TEXTS.get(name, [])):
        (folder / str(k)).write_bytes(text.encode())
    if name in ("image", "mask"):
        colours = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
        labels = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2))
        for picture in (colours, labels, colours.convert("P"), colours.convert("RGBA")):
            for ending in ("png", "gif", "bmp", "tiff", "webp"):
                picture.convert(picture.mode).save(folder / f"{picture.mode}.{ending}")
        for ending in ("jpg", "ppm"):
            colours.save(folder / f"c.{ending}")
    elif name == "vectors":
        rows = b"".join(word + b" " + np.arange(3, dtype="<f4").tobytes() + b"\n" for word in (b"a", b"b"))
        (folder / "binary").write_bytes(b"2 3\n" + rows)
    elif name == "audio":
        for ending in ("wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64"):
            soundfile.write(folder / f"a.{ending}", 0.1 * np.sin(np.arange(400)), 8000)
    elif name == "textgrid":
        write_textgrid(folder / "a", 1.0, {"words": [Interval(0.1, 0.3, 'a "b"')], "phones": []})
    elif name == "checkpoint":
        AtomicCheckpointIO().save_checkpoint(
            {"state_dict": {"w": torch.ones(3)}, "lnz": {"task": "tag", "settings": {"x": [1, None]}}}, folder / "a"
        )


NAMES = [*TEXTS, "image", "mask", "audio", "textgrid", "checkpoint"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_reads_or_refuses(tmp_path, name, capsys):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seeds(name, corpus)
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), name, str(corpus), f"-runs={RUNS}", *LIMITS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]  # Atheris prints what was raised on stdout
    count = done.stderr.rpartition("Done ")[2].partition(" ")[0]
    assert int(count) > 0
    with capsys.disabled():
        sys.stdout.write(f"\n{done.stdout.strip() or f'{name}: {count} inputs within the time'}\n")
