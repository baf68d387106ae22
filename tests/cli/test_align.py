"""``lnz align`` of emissions and of pretrained networks: its formats, and its errors by file and line."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import lnz
from lnz.cli import main
from lnz.io.alignments import read_textgrid
from lnz.tasks.transcribe.emissions import emissions_of
from tests.nn.test_word_alignment import ALPHABET, TEXT, emissions


@pytest.fixture
def talk(tmp_path):
    """A folder with emissions, tokens and a text of two lines."""
    x, _ = emissions(TEXT, 500, 20)
    np.save(tmp_path / "talk.npy", x.numpy())
    save_file({"log_probs": x, "other": torch.zeros(1)}, tmp_path / "talk.safetensors")
    (tmp_path / "tokens.txt").write_text("".join(f"{c}\n" for c in ALPHABET))
    (tmp_path / "talk.txt").write_text(f"{' '.join(TEXT[:6])}\n\n{' '.join(TEXT[6:])}\n")
    return tmp_path


def run(folder, *options, emissions="talk.npy", tokens="tokens.txt", text="talk.txt"):
    files = ["--emissions", folder / emissions, "--tokens", folder / tokens, "--text", folder / text]
    rest = ["--output", folder / "out", "--seconds-per-frame", 0.02, *options]
    return main(["align", *map(str, (*files, *rest))])


def expected(folder, **options):
    x = torch.from_numpy(np.load(folder / "talk.npy"))
    return lnz.align(x.log_softmax(-1), TEXT, ALPHABET, seconds_per_frame=0.02, **options)


@pytest.mark.parametrize("name", ["talk.npy", "talk.safetensors"])
def test_textgrid_and_json_hold_what_align_gives(talk, capsys, name):
    assert run(talk, emissions=name) == 0
    assert f"{len(TEXT)} words aligned in {talk / 'out'}, 0 in doubt" in capsys.readouterr().out
    words = expected(talk)
    grid = read_textgrid(talk / "out" / "talk.TextGrid")["words"]
    read = json.loads((talk / "out" / "talk.json").read_text())
    assert (read["source"], read["text"], read["left_out"]) == (name, " ".join(TEXT), [])
    assert (read["duration"], read["seconds_per_frame"]) == (pytest.approx(10.0), 0.02)
    for word, interval, entry in zip(words, grid, read["words"], strict=True):
        assert interval[:3] == (pytest.approx(word.start), pytest.approx(word.end), word.text)
        assert entry == {
            "label": word.text,
            **{key: pytest.approx(getattr(word, key)) for key in ("start", "end", "confidence", "acoustic")},
        }


def test_srt_and_ctm(talk):
    assert run(talk, "--format", "srt") == run(talk, "--format", "ctm") == 0
    words = expected(talk)
    cues = (talk / "out" / "talk.srt").read_text().strip().split("\n\n")
    for k, (word, cue) in enumerate(zip(words, cues, strict=True), 1):
        number, times, label = cue.split("\n")
        assert (int(number), label) == (k, word.text)
        seconds = []
        for time in times.split(" --> "):
            h, m, s, ms = map(int, re.split("[:,]", time))
            seconds.append(3600 * h + 60 * m + s + ms / 1000)
        assert seconds == [pytest.approx(word.start), pytest.approx(word.end)]
    lines = (talk / "out" / "talk.ctm").read_text().splitlines()
    for word, line in zip(words, lines, strict=True):
        name, channel, start, duration, label, confidence = line.split()
        assert (name, channel, label) == ("talk", "1", word.text)
        assert float(start) == pytest.approx(word.start)
        assert float(duration) == pytest.approx(word.end - word.start)
        assert float(confidence) == pytest.approx(word.confidence, abs=1e-4)


def test_words_that_were_not_said_are_listed(talk, capsys):
    (talk / "talk.txt").write_text(" ".join([*TEXT[:4], "zebra", *TEXT[4:]]))
    assert run(talk) == 0
    assert "1 in doubt" in capsys.readouterr().out
    assert run(talk, "--skip-cost", "5") == 0
    assert f"{len(TEXT)} words aligned in {talk / 'out'}, 1 left out, 0 in doubt" in capsys.readouterr().out
    read = json.loads((talk / "out" / "talk.json").read_text())
    (entry,) = read["left_out"]
    assert (entry["label"], entry["index"]) == ("zebra", 4)
    (talk / "talk.txt").write_text(" ".join(["@", *TEXT[3:]]))
    assert run(talk, "--star", "@") == 0
    assert read_textgrid(talk / "out" / "talk.TextGrid")["words"][0].label == "@"


@pytest.mark.parametrize("form", ["lines", "numbers", "json"])
def test_forms_of_tokens(talk, form):
    tokens = [*ALPHABET, "|"]
    x = torch.cat((torch.from_numpy(np.load(talk / "talk.npy")), torch.full((500, 1), -3.0)), 1)
    np.save(talk / "talk.npy", x.numpy())
    written = {
        "lines": "".join(f"{c}\n" for c in tokens),
        "numbers": "".join(f"{c} {k}\n" for k, c in reversed(list(enumerate(tokens)))),
        "json": json.dumps({c: k for k, c in enumerate(tokens)}),
    }
    (talk / "tokens.txt").write_text(written[form])
    assert run(talk, "--format", "json") == 0
    read = json.loads((talk / "out" / "talk.json").read_text())["words"]
    separated = lnz.align(x.log_softmax(-1), TEXT, tokens, seconds_per_frame=0.02, separator=27)
    assert [word["start"] for word in read] == [pytest.approx(word.start) for word in separated]
    assert run(talk, "--format", "json", "--separator", "") == 0
    read = json.loads((talk / "out" / "talk.json").read_text())["words"]
    assert [word["start"] for word in read] == [pytest.approx(w.start) for w in expected_of(x, tokens)]


def expected_of(x, tokens):
    return lnz.align(x.log_softmax(-1), TEXT, tokens, seconds_per_frame=0.02)


def test_errors_of_files_name_file_and_line(talk, capsys):
    def error(**options):
        code = run(talk, **options)
        return code, capsys.readouterr().err

    (talk / "unknown.txt").write_text("when the\nquïck fox\n")
    code, message = error(text="unknown.txt")
    assert code == 2
    assert "unknown.txt, line 2: expected characters among the tokens, got 'ï' in 'quïck'" in message
    (talk / "few.txt").write_text("_\na\nb\n")
    assert "few.txt: expected 27 tokens, as" in error(tokens="few.txt")[1]
    (talk / "twice.txt").write_text("_\na\na\n")
    assert "twice.txt, line 3: 'a' is there already" in error(tokens="twice.txt")[1]
    (talk / "gap.txt").write_text("_\n\na\n")
    assert "gap.txt, line 2: expected the name of a token, got none" in error(tokens="gap.txt")[1]
    (talk / "numbers.txt").write_text("_ 0\na 2\n")
    assert "numbers.txt, line 2: expected each of the classes 0 to 1 once, got 2" in error(tokens="numbers.txt")[1]
    (talk / "empty.txt").write_text("\n")
    assert "empty.txt: expected a text, found no word" in error(text="empty.txt")[1]
    np.save(talk / "flat.npy", np.zeros(5))
    assert (
        "flat.npy: expected floating point scores of shape [T, C], got float64 of shape [5]"
        in error(emissions="flat.npy")[1]
    )
    np.save(talk / "nan.npy", np.full((5, 27), np.nan))
    assert "nan.npy: expected finite scores or -inf, got nan at frame 0" in error(emissions="nan.npy")[1]
    np.save(talk / "objects.npy", np.array([{}]), allow_pickle=True)
    assert "objects.npy: cannot be read as npy" in error(emissions="objects.npy")[1]
    for ending in ("npy", "safetensors"):
        (talk / f"cut.{ending}").write_bytes((talk / f"talk.{ending}").read_bytes()[:100])
        assert f"cut.{ending}: cannot be read as {ending}" in error(emissions=f"cut.{ending}")[1]
    assert "none.npy: expected a file of emissions, found nothing" in error(emissions="none.npy")[1]
    np.save(talk / "short.npy", np.zeros((5, 27)))
    code, message = error(emissions="short.npy")
    assert code == 1
    assert "short.npy: expected at least" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("align --output o", "expected a model, --hf-model or --emissions, got none of them"),
        ("align m --emissions e --output o", "expected one of a model, --hf-model and --emissions, got a model and"),
        ("align m --output o", "--audio: needed with a model"),
        ("align --emissions e --text t --seconds-per-frame 1 --output o", "--tokens: needed with --emissions"),
        ("align m --audio a --skip-cost 1 --output o", "--skip-cost: does not go with a model"),
        ("align --hf-model m --audio a --picture --output o", "--picture: does not go with --hf-model"),
        (
            "align --emissions e --text t --tokens k --seconds-per-frame 0 --output o",
            "--seconds-per-frame: expected a number above 0, got 0.0",
        ),
    ],
)
def test_options_that_do_not_go_together(arguments, message, capsys):
    assert main(arguments.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 10_000, 16_000 * 30, 16_000 * 71 + 123])
def test_windows_of_long_recordings_make_one_row_of_frames(count):
    """A network that hears half a frame to either side gives what it gives of the whole recording."""
    waveform = torch.randn(count, generator=torch.Generator().manual_seed(0))

    def network(samples):
        frames = torch.nn.functional.pad(samples, (0, -len(samples) % 320)).reshape(-1, 320).sum(1)
        return torch.nn.functional.pad(frames, (1, 1)).unfold(0, 3, 1)

    torch.testing.assert_close(emissions_of(waveform, 16_000, 320, network), network(waveform))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A CTC model of a few hundred weights, in a folder as transformers saves it."""
    transformers = pytest.importorskip("transformers", reason="needs the extra transformers")
    folder = tmp_path_factory.mktemp("hf")
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4} | {c: 5 + k for k, c in enumerate("ABCD")}
    (folder / "v.json").write_text(json.dumps(vocabulary))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "v.json"))
    extractor = transformers.Wav2Vec2FeatureExtractor()
    config = transformers.Wav2Vec2Config(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_feat_extract_layers=7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    for part in (tokenizer, extractor, transformers.Wav2Vec2ForCTC(config)):
        part.save_pretrained(folder)
    return folder


def test_pretrained_networks(pretrained, tmp_path, capsys):
    soundfile = pytest.importorskip("soundfile", reason="needs the extra audio")
    audio = tmp_path / "audio"
    audio.mkdir()
    for name in ("r0", "r1"):
        soundfile.write(audio / f"{name}.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    (tmp_path / "texts.tsv").write_text("r0\tAB CD\nr1\tAX\n")
    options = ["--audio", audio, "--transcripts", tmp_path / "texts.tsv", "--output", tmp_path / "out"]
    assert main(["align", "--hf-model", *map(str, (pretrained, *options))]) == 1
    out, err = capsys.readouterr()
    assert "2 words of 1 recordings aligned" in out
    assert "r1.wav: expected characters that the tokenizer has, got others in 'AX'" in err
    read = json.loads((tmp_path / "out" / "r0.json").read_text())
    assert read["seconds_per_frame"] == 0.02
    assert [word["label"] for word in read["words"]] == ["AB", "CD"]
    assert main(["align", "--hf-model", *map(str, (tmp_path / "nothing", *options))]) == 2
    assert "--hf-model: expected a folder, found nothing" in capsys.readouterr().err
    assert main(["align", "--hf-model", *map(str, (audio, *options))]) == 2
    assert "--hf-model: cannot load a CTC model from" in capsys.readouterr().err


def test_pretrained_networks_need_transformers(tmp_path, monkeypatch, capsys):
    soundfile = pytest.importorskip("soundfile", reason="needs the extra audio")
    monkeypatch.setitem(sys.modules, "transformers", None)
    soundfile.write(tmp_path / "r0.wav", np.zeros(16_000), 16_000)
    (tmp_path / "t.tsv").write_text("r0\tAB\n")
    options = ["--audio", tmp_path, "--transcripts", tmp_path / "t.tsv", "--output", tmp_path / "out"]
    assert main(["align", "--hf-model", *map(str, (tmp_path, *options))]) == 1
    assert "--hf-model needs transformers: pip install 'lnz[transformers]'" in capsys.readouterr().err
