import itertools
import json
import re

import numpy as np
import pytest
import soundfile
import torch
import yaml

from lnz.cli import main
from lnz.io.alignments import read_textgrid
from lnz.io.checkpoints import load_checkpoint
from tests.cli.runs import QUIET, interrupted, killed_and_resumed, results

SMALL = ["--data.tones.train", 8, "--data.tones.val", 4, "--data.batch_size", 4, "--data.tones.digits", "[2,3]"]
FAST = ["--trainer.accelerator", "cpu", "--model.width", 8, "--model.dilations", "[1]", "--model.beam", 4]
TINY = [*SMALL, *FAST, "--model.prior_scale", 0.3, "--data.pauses", "true"]
RATE = 8000


def fit(*arguments):
    return main(["fit", "transcribe", *map(str, arguments)])


def evaluate(*arguments):
    """The exit code of ``lnz evaluate``."""
    return main(["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert fit(*TINY, *QUIET, "--trainer.max_epochs", 2, "--seeds", 2, "--output", folder) == 0
    return folder


@pytest.fixture
def spoken(tmp_path):
    """Four recordings of noise, one second each, in WAV and FLAC, with transcripts."""
    rng = np.random.default_rng(0)
    (tmp_path / "audio").mkdir()
    for k in range(4):
        path = tmp_path / "audio" / f"r{k}.{'wav' if k % 2 else 'flac'}"
        soundfile.write(path, 0.1 * rng.standard_normal(RATE), RATE)
    (tmp_path / "texts.tsv").write_text("".join(f"r{k}\t{'12 3 #'[k:]} 4\n" for k in range(4)))
    return tmp_path


class TestRunFolder:
    def test_holds_everything(self, run_folder):
        names = {str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if path.is_file()}
        expected = {"report.html", "picture.png", "results.json", "config.yaml"}
        expected |= {f"seed-{s}/{n}" for s in (0, 1) for n in ("results.json", "picture.png")}
        expected |= {f"seed-{s}/checkpoints/{n}.ckpt" for s in (0, 1) for n in ("last", "best")}
        assert expected <= names

    def test_results_of_each_seed(self, run_folder):
        first, second = results(run_folder)
        assert (first["seed"], second["seed"]) == (0, 1)
        for result in (first, second):
            assert result["recordings"] == [8, 4]
            assert all(rate >= 0 for rates in result["measures"].values() for rate in rates.values())
            assert result["alignment"]["words"] >= 8
            assert [point["epoch"] for point in result["history"]] == [1, 2]
            assert result["history"][-1]["val/wer"] == pytest.approx(result["measures"]["greedy"]["wer"])

    def test_report_needs_no_other_file(self, run_folder):
        page = (run_folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") == 3
        assert not re.search(r'(src|href)="(?!data:)', page)
        assert "forced alignment with label prior 0.3" in page

    def test_checkpoint_says_all_that_alignment_needs(self, run_folder):
        checkpoint = load_checkpoint(run_folder / "seed-0/checkpoints/last.ckpt")
        about = checkpoint["lnz"]
        assert about["task"] == "transcribe"
        assert about["settings"]["labels"] == sorted(" 0123456789#*")
        assert (about["settings"]["pauses"], about["settings"]["sample_rate"]) == (True, RATE)
        prior = checkpoint["state_dict"]["log_prior"]
        assert float((prior / 0.3).exp().sum()) == pytest.approx(1, abs=1e-3)

    def test_configuration_says_all(self, run_folder):
        config = yaml.safe_load((run_folder / "config.yaml").read_text())
        assert config["data"]["tones"]["train"] == 8
        assert config["model"]["prior_scale"] == 0.3

    def test_a_finished_run_is_not_run_again(self, run_folder, capsys):
        before = results(run_folder)
        assert fit("--config", run_folder / "config.yaml", *QUIET, "--ckpt_path", "last") == 0
        assert results(run_folder) == before
        assert "beam of 4" in capsys.readouterr().out


def test_a_folder_of_audio(spoken):
    options = ["--data.audio", spoken / "audio", "--data.transcripts", spoken / "texts.tsv", "--data.sample_rate", RATE]
    options += ["--data.val_list", spoken / "val.txt", *FAST, *QUIET, "--trainer.max_epochs", 1]
    (spoken / "val.txt").write_text("r1\n")
    assert fit(*options, "--output", spoken / "run") == 0
    (result,) = results(spoken / "run")
    assert result["recordings"] == [3, 1]
    assert result["alignment"] == {}


@pytest.mark.slow  # half a minute of training
def test_learns_to_hear_digits(tmp_path):
    options = ["--data.tones.train", 256, "--data.tones.val", 32, "--data.tones.noise", 0.02, "--model.width", 48]
    options += ["--model.prior_scale", 0.3, "--data.pauses", "true", "--trainer.max_epochs", 20, "--data.batch_size", 8]
    assert fit(*options, *QUIET, "--trainer.accelerator", "cpu", "--output", tmp_path / "run") == 0
    (result,) = results(tmp_path / "run")
    assert result["measures"]["greedy"]["wer"] < 0.1


class TestErrors:
    """Bad input is told in one message, before training, and with exit status 2."""

    def told(self, capsys, tmp_path, *arguments):
        assert fit(*FAST, *QUIET, "--output", tmp_path / "run", *arguments) == 2
        return capsys.readouterr().err

    def test_wrong_values(self, tmp_path, capsys):
        assert "model.prior_scale: expected at least 0, got -1" in self.told(
            capsys, tmp_path, *SMALL, "--model.prior_scale", -1
        )
        assert "none: expected a folder of audio, found nothing" in self.told(
            capsys, tmp_path, "--data.audio", tmp_path / "none", "--data.transcripts", tmp_path / "t.tsv"
        )

    def test_a_truncated_recording(self, spoken, capsys):
        wav = spoken / "audio" / "r1.wav"
        wav.write_bytes(wav.read_bytes()[:-500])
        options = ["--data.audio", spoken / "audio", "--data.transcripts", spoken / "texts.tsv"]
        assert "r1.wav: truncated: its header says 16000 bytes" in self.told(capsys, spoken, *options)

    def test_recordings_too_short_for_their_transcripts(self, spoken, capsys):
        """Told by name; or left out and counted."""
        soundfile.write(spoken / "audio" / "r0.flac", np.ones(400) * 0.1, RATE)
        (spoken / "val.txt").write_text("r1\n")
        options = ["--data.audio", spoken / "audio", "--data.transcripts", spoken / "texts.tsv"]
        options += ["--data.val_list", spoken / "val.txt", "--data.sample_rate", RATE, "--trainer.max_epochs", 1]
        message = self.told(capsys, spoken, *options)
        assert "r0.flac: 8 labels, 0 of them repeats, need 8 frames, got 3: no alignment" in message
        assert "model.zero_infinity" in message
        with pytest.warns(UserWarning, match=r"left out of training, too short for their transcripts: .*r0.flac"):
            assert fit(*FAST, *QUIET, *options, "--model.zero_infinity", "true", "--output", spoken / "run") == 0
        (result,) = results(spoken / "run")
        assert result["left_out"] == 1
        assert np.isfinite(result["history"][0]["train/loss"])


class TestEvaluate:
    def test_the_data_of_the_run_give_its_numbers(self, run_folder, capsys):
        assert evaluate(run_folder, "--data.tones.val", 4, "--data.tones.digits", "[2,3]", "--json") == 0
        again, kept = json.loads(capsys.readouterr().out), results(run_folder)
        assert again[0]["measures"] == kept[0]["measures"]
        assert again[0]["alignment"] == kept[0]["alignment"]

    def test_new_recordings(self, spoken, tmp_path, capsys):
        data = ["--data.audio", spoken / "audio", "--data.transcripts", spoken / "texts.tsv"]
        assert fit(*data, *FAST, *QUIET, "--trainer.max_epochs", 1, "--output", tmp_path / "run") == 0
        capsys.readouterr()
        assert evaluate(tmp_path / "run", *data) == 0
        assert f"4recordingsof{spoken}" in "".join(capsys.readouterr().out.split())
        (spoken / "texts.tsv").write_text("".join(f"r{k}\tnew\n" for k in range(4)))
        assert evaluate(tmp_path / "run", *data) == 2
        assert "r0" in capsys.readouterr().err


@pytest.mark.slow
class TestProcesses:
    def test_resumes_after_kill_with_the_same_results(self, tmp_path):
        """The prior and the stripes that hide features go on too."""
        killed_and_resumed("transcribe", TINY, 30, tmp_path)

    def test_interrupt_keeps_the_checkpoint_and_says_how_to_go_on(self, tmp_path):
        interrupted("transcribe", TINY, tmp_path)


class TestAlign:
    def align(self, *arguments):
        return main(["align", *map(str, arguments)])

    def test_writes_both_forms_and_pictures(self, run_folder, spoken, tmp_path, capsys):
        (spoken / "texts.tsv").write_text("".join(f"r{k}\t{k} # 4\n" for k in range(4)))
        out = tmp_path / "deep" / "out"
        options = ["--audio", spoken / "audio", "--transcripts", spoken / "texts.tsv", "--output", out]
        assert self.align(run_folder, *options, "--picture") == 0
        assert "12 words of 4 recordings aligned" in capsys.readouterr().out
        assert sorted(p.name for p in out.iterdir()) == [
            f"r{k}.{e}" for k in range(4) for e in ("TextGrid", "json", "png")
        ]
        for k in range(4):
            read = json.loads((out / f"r{k}.json").read_text())
            assert (read["text"], read["duration"], read["seconds_per_frame"]) == (f"{k} # 4", 1.0, 0.02)
            assert read["log_prob"] < 0
            words = read_textgrid(out / f"r{k}.TextGrid")["words"]
            assert [word.label for word in words] == [str(k), "#", "4"]
            assert all(0 <= a.start < a.end <= b.start < b.end <= 1 for a, b in itertools.pairwise(words))
            for word, same in zip(words, read["words"], strict=True):
                assert same["label"] == word.label
                assert (same["start"], same["end"]) == pytest.approx((word.start, word.end))
                assert 0 < same["confidence"] <= 1
            assert (out / f"r{k}.png").read_bytes().startswith(b"\x89PNG")

    def test_one_form(self, run_folder, spoken, tmp_path):
        (spoken / "texts.tsv").write_text("".join(f"r{k}\t{k} # 4\n" for k in range(4)))
        options = [run_folder, "--audio", spoken / "audio", "--transcripts", spoken / "texts.tsv"]
        for form, ending in (("textgrid", "TextGrid"), ("json", "json")):
            assert self.align(*options, "--output", tmp_path / form, "--format", form) == 0
            assert {path.suffix for path in (tmp_path / form).iterdir()} == {f".{ending}"}

    def test_errors(self, run_folder, spoken, tmp_path, capsys):
        options = ["--audio", spoken / "audio", "--transcripts", spoken / "texts.tsv", "--output", tmp_path / "out"]
        assert self.align(run_folder, *options) == 1
        assert "r0.flac: '12' is none of the labels of the training texts" in capsys.readouterr().err
        assert not list((tmp_path / "out").glob("r0.*"))
        assert self.align(run_folder, *options, "--strict") == 2
        assert capsys.readouterr().err.startswith("lnz: ")
        torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
        assert self.align(tmp_path / "other.ckpt", *options) == 2
        assert "other.ckpt: expected a checkpoint of lnz fit transcribe, got task None" in capsys.readouterr().err
        (spoken / "texts.tsv").write_text("r0\t1\n")
        assert self.align(run_folder, *options) == 2
        assert "r1.wav: no transcript in" in capsys.readouterr().err
        soundfile.write(spoken / "audio" / "r1.wav", np.ones(80) * 0.1, RATE)
        (spoken / "texts.tsv").write_text("".join(f"r{k}\t{k} # 4\n" for k in range(4)))
        assert self.align(run_folder, *options) == 1
        err = capsys.readouterr().err
        assert re.search(r"r1.wav: 7 labels, 0 of them repeats, do not fit into 0.01 s, \d frames", err)

    def test_goes_on_past_bad_recordings_and_lists_them(self, run_folder, spoken, tmp_path, capsys):
        (spoken / "texts.tsv").write_text("r0\t0 # 4\nr1\t1 # 4\nr2\t2 x 4\nr3\t3 # 4\n")
        (spoken / "audio" / "r1.wav").write_bytes(b"RIFF")
        soundfile.write(spoken / "audio" / "r3.wav", np.ones(80) * 0.1, RATE)
        options = ["--audio", spoken / "audio", "--transcripts", spoken / "texts.tsv", "--output", tmp_path / "out"]
        assert self.align(run_folder, *options) == 1
        out, err = capsys.readouterr()
        assert "3 words of 1 recordings aligned" in out
        listed = err[err.index("lnz align: ") :].splitlines()
        assert listed[0] == "lnz align: 3 of 4 recordings failed:"
        assert ["r1.wav" in listed[1], "r2.flac: 'x' is none" in listed[2], "r3.wav: 7 labels" in listed[3]] == [
            True
        ] * 3
        assert {path.stem for path in (tmp_path / "out").iterdir()} == {"r0"}
        for unknown in ("skip", "star"):
            folder = tmp_path / unknown
            assert self.align(run_folder, *options[:-1], folder, "--unknown", unknown) == 1
            assert "2 of 4 recordings failed" in capsys.readouterr().err
            words = [word["label"] for word in json.loads((folder / "r2.json").read_text())["words"]]
            assert words == (["2", "4"] if unknown == "skip" else ["2", "x", "4"])

    def test_help_has_examples(self, capsys):
        assert main(["align", "--help"]) == 0
        assert "lnz align runs/transcribe/" in capsys.readouterr().out


class TestPredict:
    def test_writes_texts(self, run_folder, spoken, tmp_path, capsys):
        out = tmp_path / "out"
        assert main(["predict", str(run_folder), "--audio", str(spoken / "audio"), "--output", str(out)]) == 0
        assert "4 recordings transcribed" in capsys.readouterr().out
        assert sorted(path.name for path in out.iterdir()) == [f"r{k}.txt" for k in range(4)]
        assert all((out / f"r{k}.txt").read_text().endswith("\n") for k in range(4))

    def test_goes_on_past_bad_recordings_and_lists_them(self, run_folder, spoken, tmp_path, capsys):
        (spoken / "audio" / "r1.wav").write_bytes(b"RIFF")
        options = ["predict", str(run_folder), "--audio", str(spoken / "audio"), "--output", str(tmp_path / "out")]
        assert main(options) == 1
        out, err = capsys.readouterr()
        assert "3 recordings transcribed" in out
        assert re.search(r"lnz predict: 1 of 4 recordings failed:\n  \S*r1.wav: ", err)
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"r{k}.txt" for k in (0, 2, 3)]
        assert main([*options, "--strict"]) == 2

    def test_what_the_network_takes(self, run_folder, tmp_path, capsys):
        assert main(["predict", str(run_folder), "--images", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
        assert "of lnz fit transcribe, which takes --audio" in capsys.readouterr().err


def test_help_has_examples(capsys):
    assert main(["fit", "transcribe", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "lnz fit transcribe --data.audio recordings" in shown
    assert "dialled digits" in shown
