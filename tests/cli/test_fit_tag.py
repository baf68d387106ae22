import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from lnz.cli import main
from lnz.io.checkpoints import load_checkpoint
from lnz.io.sentences import read_sentences
from lnz.tasks.trainer import Progress
from tests.cli.paired_runs import PairedRun, calibrated
from tests.cli.runs import QUIET, interrupted, killed_and_resumed, results

FAST = ["--trainer.accelerator", "cpu", "--data.batch_size", "8", "--model.width", "8"]
TINY = [*FAST, "--model.channels", "2", "--data.strings.train", "24", "--data.strings.val", "8"]
SMALL = [*FAST, "--model.word_width", "4", "--model.character_width", "4"]


def fit(*arguments):
    return main(["fit", "tag", *map(str, arguments)])


def predict(*arguments):
    return main(["predict", *map(str, arguments)])


def names(path, count=24):
    """Sentences whose names can be told: capital letters after "Mr", and places after "in"."""
    lines = []
    for k in range(count):
        lines += [
            "Mr\tO",
            f"{'ABCDE'[k % 5]}y\tB-PER",
            f"{'VWX'[k % 3]}o\tI-PER",
            "in\tO",
            f"{'KLMN'[k % 4]}ia\tB-LOC",
            "",
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def evaluate(*arguments):
    """The exit code of ``lnz evaluate``."""
    return main(["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert fit(*TINY, *QUIET, "--trainer.max_epochs", 2, "--seeds", 2, "--output", folder) == 0
    return folder


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    """A finished run on sentences."""
    folder = tmp_path_factory.mktemp("tagger")
    options = ["--data.train", names(folder / "train.bio"), "--data.scheme", "BIO", "--data.min_count", 1]
    rate = ["--model.learning_rate", 0.05, "--trainer.max_epochs", 12]
    assert fit(*SMALL, *QUIET, *options, *rate, "--output", folder / "run") == 0
    return folder / "run"


class TestRunFolder(PairedRun):
    task, method, name = "tag", "crf", "chain"
    measures, ordered = {"accuracy", "whole", "nll", "ece"}, ("whole", "accuracy")
    pictures, data = 5, "Composed strings of handwritten digits"

    def test_configuration_says_all(self, run_folder):
        config = yaml.safe_load((run_folder / "config.yaml").read_text())
        assert config["data"]["strings"]["train"] == 24
        assert config["model"]["channels"] == 2


class TestSentences:
    def test_learns(self, tagger):
        (result,) = results(tagger)
        assert result["measures"]["crf"]["f1"] > 0.9
        assert result["history"][-1]["val/crf_score"] == pytest.approx(result["measures"]["crf"]["f1"])
        assert result["data"] == "22 training and 2 validation sentences of train.bio"
        assert "span F1" in (tagger / "report.html").read_text()

    def test_checkpoint_needs_no_other_file(self, tagger):
        settings = load_checkpoint(tagger / "seed-0/checkpoints/last.ckpt")["lnz"]["settings"]
        assert settings["tags"] == ["O", "B-LOC", "B-PER", "I-PER"]
        assert (settings["scheme"], settings["words"][:2]) == ("BIO", ["ay", "by"])

    def test_predicts_text_and_columns(self, tagger, tmp_path, capsys):
        (tmp_path / "new.txt").write_text("Mr Ay Vo in Kia\n\nin Lia\n")
        assert predict(tagger, "--text", tmp_path / "new.txt", "--output", tmp_path / "new.bio") == 0
        assert "2 sentences tagged in" in capsys.readouterr().out
        first, second = read_sentences(tmp_path / "new.bio")
        assert first.tokens == ("Mr", "Ay", "Vo", "in", "Kia")
        assert first.tags == ("O", "B-PER", "I-PER", "O", "B-LOC")
        assert second.tokens == ("in", "Lia")
        assert predict(tagger, "--text", tmp_path / "new.bio", "--output", tmp_path / "again.bio") == 0
        assert (tmp_path / "again.bio").read_text() == (tmp_path / "new.bio").read_text()

    def test_predicts_text_as_conllu_where_the_output_is_named_so(self, tagger, tmp_path):
        (tmp_path / "new.txt").write_text("Mr Ay Vo\nLia\n")
        assert predict(tagger, "--text", tmp_path / "new.txt", "--output", tmp_path / "new.conllu") == 0
        first, second = read_sentences(tmp_path / "new.conllu")
        assert (first.tokens, first.tags) == (("Mr", "Ay", "Vo"), ("O", "B-PER", "I-PER"))
        assert (second.tokens, second.tags) == (("Lia",), ("B-LOC",))

    def test_predicts_conllu(self, tagger, tmp_path):
        line = "{}\t{}\t_\t{}\t_\t_\t_\t_\t_\t_\n"
        words = [line.format(k, word, "{}") for k, word in enumerate(("Mr", "Ay", "Vo"), 1)]
        text = "# a comment\n" + line.format("1-2", "MrAy", "_") + "".join(words) + "\n"
        (tmp_path / "new.conllu").write_text(text.format("_", "_", "_"))
        assert predict(tagger, "--text", tmp_path / "new.conllu", "--output", tmp_path / "out.conllu") == 0
        assert (tmp_path / "out.conllu").read_text() == text.format("O", "B-PER", "I-PER")

    @pytest.mark.parametrize("objective", ["pseudolikelihood", "hinge", "label-adjustment"])
    def test_other_objectives(self, objective, tmp_path, capsys):
        options = ["--data.train", names(tmp_path / "x.bio"), "--data.scheme", "BIO", "--trainer.max_epochs", 1]
        assert fit(*SMALL, *QUIET, *options, "--objective", objective, "--output", tmp_path / "run") == 0
        assert f"trained by {objective}" in " ".join(capsys.readouterr().out.split())


class TestErrors:
    """Bad input is told in one message, before training, and with exit status 2."""

    def told(self, capsys, tmp_path, *arguments):
        assert fit(*QUIET, "--output", tmp_path / "run", *arguments) == 2
        return capsys.readouterr().err

    def test_files(self, tmp_path, capsys):
        assert "none.bio: expected a readable file" in self.told(
            capsys, tmp_path, "--data.train", tmp_path / "none.bio"
        )
        (tmp_path / "x.bio").write_text("a\tO\nb\n")
        assert "x.bio, line 2: expected 2 columns" in self.told(capsys, tmp_path, "--data.train", tmp_path / "x.bio")

    def test_wrong_values(self, tmp_path, capsys):
        assert "'nll', 'pseudolikelihood', 'hinge'" in self.told(capsys, tmp_path, "--objective", "em")
        assert "strings.train: expected a positive" in self.told(capsys, tmp_path, "--data.strings.train", 0)
        assert "'words' needs sentences" in self.told(capsys, tmp_path, "--model.encoder", "words")
        train = ["--data.train", names(tmp_path / "x.bio")]
        assert "model.pretrained: expected a name" in self.told(capsys, tmp_path, *train, "--model.encoder", "hf")

    def test_predict(self, run_folder, tagger, tmp_path, capsys):
        (tmp_path / "x.txt").write_text("a b\n")
        (tmp_path / "bad.conllu").write_text("1\ta\n")
        cases = {
            "expected a checkpoint trained on sentences": (run_folder, "--text", tmp_path / "x.txt"),
            "got one of strings of images": (run_folder, "--images", tmp_path),
            "of lnz fit tag, which takes --text": (tagger, "--images", tmp_path),
            "bad.conllu, line 1: expected 10 columns": (tagger, "--text", tmp_path / "bad.conllu"),
        }
        for message, arguments in cases.items():
            assert predict(*arguments, "--output", tmp_path / "out") == 2
            assert message in capsys.readouterr().err
            assert not (tmp_path / "out").exists()


def test_the_progress_bar_counts_epochs_from_1():
    bar = Progress()
    for last, shown in ((3, "Epoch 1/3"), (None, "Epoch 1"), (-1, "Epoch 1")):
        bar._trainer = SimpleNamespace(max_epochs=last, sanity_checking=False)
        assert bar._get_train_description(0).rstrip() == shown


def test_help_has_the_options_of_the_task_before_those_of_the_trainer(capsys):
    assert fit("--help") == 0
    shown = capsys.readouterr().out
    options = "--output", "--model.encoder", "--data.train", "--data.strings.noise", "--trainer.devices"
    places = [re.search(rf"\n  {option}[ ,]", shown).start() for option in options]  # a comma from Python 3.13 on
    assert places == sorted(places)


def test_help_says_that_the_data_are_composed(capsys):
    assert main(["fit", "tag", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "No tagged text comes with lnz" in shown
    assert "lnz fit tag --data.train train.bio --data.val dev.bio --data.scheme BIO" in shown


class TestCalibrate:
    def test_temperatures_are_fitted_kept_and_used(self, tmp_path, capsys):
        """The same weights without and with; a lower NLL, the same tags; each checkpoint has its own."""
        names(tmp_path / "train.bio"), names(tmp_path / "test.bio", 10)
        lines = (tmp_path / "test.bio").read_text().replace("y\tB-PER", "y\tB-LOC", 2)  # some surprises
        (tmp_path / "val.bio").write_text(lines)
        options = [*SMALL, *QUIET, "--data.train", tmp_path / "train.bio", "--data.val", tmp_path / "val.bio"]
        options += ["--data.min_count", 1, "--model.learning_rate", 0.05, "--trainer.max_epochs", 6]
        plain, run = calibrated("tag", options, tmp_path / "val.bio", tmp_path, capsys)
        for method in ("softmax", "crf"):
            before, after = plain["measures"][method], run["measures"][method]
            assert (after["accuracy"], after["f1"]) == (before["accuracy"], before["f1"])


class TestEvaluate:
    def test_the_data_of_the_run_give_its_numbers(self, run_folder, capsys):
        assert evaluate(run_folder, "--data.strings.val", 8, "--json") == 0
        again, kept = json.loads(capsys.readouterr().out), results(run_folder)
        assert [each["seed"] for each in again] == [0, 1]
        for method, measured in kept[0]["measures"].items():
            assert again[0]["measures"][method] == pytest.approx(measured, abs=1e-6)

    def test_new_sentences(self, tagger, tmp_path, capsys):
        test = names(tmp_path / "test.bio", 10)
        assert evaluate(tagger, "--data.val", test) == 0
        shown = "".join(capsys.readouterr().out.split())
        assert f"10sentencesof{test};weightsof{tagger}" in shown
        assert "spanF1%" in shown
        assert evaluate(tagger, "--data.val", test, "--json") == 0
        (result,) = json.loads(capsys.readouterr().out)
        assert predict(tagger, "--text", test, "--output", tmp_path / "tagged.bio") == 0
        gold, found = (read_sentences(path, kind="columns") for path in (test, tmp_path / "tagged.bio"))
        pairs = [(a, b) for x, y in zip(gold, found, strict=True) for a, b in zip(x.tags, y.tags, strict=True)]
        assert result["measures"]["crf"]["accuracy"] == pytest.approx(np.mean([a == b for a, b in pairs]))

    def test_wrong_input_is_told(self, run_folder, tagger, tmp_path, capsys):
        test = tmp_path / "test.bio"
        test.write_text("Mr\tO\nXy\tB-ORG\n")
        for arguments, told in {
            (tagger,): "was trained on sentences: give --data.val",
            (run_folder, "--data.val", test): "was trained on images of strings, and takes no --data.val",
            (tagger, "--data.val", test): (
                "test.bio, line 2: expected a tag of the training sentences (O, B-LOC, B-PER, I-PER), got 'B-ORG'"
            ),
            (tagger, "--data.train", test): "unrecognized arguments: --data.train",
        }.items():
            assert evaluate(*arguments) == 2
            assert told in capsys.readouterr().err


@pytest.mark.slow
class TestProcesses:
    def test_resumes_after_kill_with_the_same_results(self, tmp_path):
        """Dropout and the order of batches go on too."""
        killed_and_resumed("tag", [*TINY, "--data.strings.train", 200], 8, tmp_path)

    def test_interrupt_keeps_the_checkpoint_and_says_how_to_go_on(self, tmp_path):
        interrupted("tag", TINY, tmp_path)


@pytest.mark.slow
def test_the_chain_beats_the_softmax_on_composed_strings(tmp_path):
    """With the default settings, in every measure, by far."""
    assert fit(*QUIET, "--trainer.accelerator", "cpu", "--output", tmp_path / "run") == 0
    (result,) = results(tmp_path / "run")
    softmax, crf = (result["measures"][method] for method in ("softmax", "crf"))
    assert crf["accuracy"] > softmax["accuracy"] + 0.05
    assert crf["whole"] > softmax["whole"] + 0.05
    assert crf["nll"] < softmax["nll"] - 0.1
