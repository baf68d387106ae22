import json
import re

import pytest
import yaml

from lnz.cli import main
from lnz.io.checkpoints import load_checkpoint
from lnz.io.dependencies import read_dependencies
from lnz.io.trees import read_trees
from lnz.metrics import Attachment, attachment
from tests.cli.paired_runs import PairedRun, calibrated
from tests.cli.runs import QUIET, interrupted, killed_and_resumed, results
from tests.io.test_dependencies import row

FAST = ["--trainer.accelerator", "cpu", "--data.batch_size", "8", "--model.width", "8", "--model.arc_width", "4"]
TINY = [*FAST, "--data.arithmetic.train", "24", "--data.arithmetic.val", "8", "--data.arithmetic.longest", "3"]


def fit(*arguments):
    return main(["fit", "parse", *map(str, arguments)])


def predict(*arguments):
    return main(["predict", *map(str, arguments)])


def evaluate(*arguments):
    """The exit code of ``lnz evaluate``."""
    return main(["evaluate", *map(str, arguments)])


def treebank(path, count=24):
    """Sentences whose trees can be told: the noun is the head of what stands before it, the verb that of all."""
    text = ""
    for k in range(count):
        text += f"# sent_id = {k}\n" + row(1, "the", 2, "det", "DET")
        text += row(2, "ABCDE"[k % 5], 3, "nsubj", "NOUN") + row(3, f"{'xyz'[k % 3]}s", 0, "root", "VERB") + "\n"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert fit(*TINY, *QUIET, "--trainer.max_epochs", 2, "--seeds", 2, "--output", folder) == 0
    return folder


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    """A finished run on sentences of a file, with their tags."""
    folder = tmp_path_factory.mktemp("parser")
    options = ["--data.train", treebank(folder / "train.conllu"), "--data.tag_column", "upos", "--data.min_count", 1]
    rate = ["--model.learning_rate", 0.05, "--trainer.max_epochs", 12]
    assert fit(*FAST, *QUIET, *options, *rate, "--output", folder / "run") == 0
    return folder / "run"


class TestRunFolder(PairedRun):
    task, method, name = "parse", "tree", "tree"
    measures, ordered = {"uas", "las", "tree", "nll", "ece"}, ("las", "uas")
    pictures, data = 5, "24 training and 8 validation sentences of arithmetic"

    def test_every_answer_is_a_tree(self, run_folder):
        assert all(result["measures"]["tree"]["tree"] == 1.0 for result in results(run_folder))

    def test_configuration_says_what_trees_there_are(self, run_folder):
        config = yaml.safe_load((run_folder / "config.yaml").read_text())
        assert (config["structure"], config["projective"], config["single_root"]) == ("dependency", False, True)
        assert config["data"]["arithmetic"]["train"] == 24


class TestTreebanks:
    def test_learns(self, parser):
        (result,) = results(parser)
        assert result["measures"]["tree"]["las"] > 0.9
        assert result["data"] == "22 training and 2 validation sentences of train.conllu"

    def test_checkpoint_needs_no_other_file(self, parser):
        settings = load_checkpoint(parser / "seed-0/checkpoints/last.ckpt")["lnz"]["settings"]
        assert settings["labels"] == ["det", "nsubj", "root"]
        assert (settings["tags"], settings["tag_column"]) == (["DET", "NOUN", "VERB"], "upos")

    def test_predicts_conllu(self, parser, tmp_path, capsys):
        """Heads and relations are replaced, all else is kept."""
        gold = treebank(tmp_path / "gold.conllu", 3).read_text()
        blank = re.sub(r"\t\d\t(det|nsubj|root)\t", "\t_\t_\t", gold)
        assert blank != gold
        (tmp_path / "new.conllu").write_text(blank)
        assert predict(parser, "--text", tmp_path / "new.conllu", "--output", tmp_path / "out.conllu") == 0
        assert "3 sentences parsed in" in capsys.readouterr().out
        assert (tmp_path / "out.conllu").read_text() == gold

    def test_predicts_text(self, run_folder, tmp_path):
        (tmp_path / "new.txt").write_text("1 + 2 * 3\n\n4 / ?\n")
        assert predict(run_folder, "--text", tmp_path / "new.txt", "--output", tmp_path / "out.conllu") == 0
        first, second = read_dependencies(tmp_path / "out.conllu")
        assert (first.tokens, second.tokens) == (("1", "+", "2", "*", "3"), ("4", "/", "?"))
        assert set(first.relations) <= {"left", "right", "bracket", "root"}

    @pytest.mark.parametrize("options", [["--projective", "true"], ["--single_root", "false"]])
    def test_other_trees(self, options, tmp_path, capsys):
        assert fit(*TINY, *QUIET, *options, "--trainer.max_epochs", 1, "--output", tmp_path / "run") == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert ("projective dependency trees" in shown, "any number of words under the root" in shown) == (
            options[0] == "--projective",
            options[0] == "--single_root",
        )


BRACKETS = "(TOP (S (NP (DT the) (NN {})) (VP (VBZ {}s)) (. .)))\n"


@pytest.fixture(scope="module")
def span_parser(tmp_path_factory):
    """A finished run on bracketed trees, with their tags."""
    folder = tmp_path_factory.mktemp("brackets")
    (folder / "train.ptb").write_text("".join(BRACKETS.format("ABCDE"[k % 5], "xyz"[k % 3]) for k in range(24)))
    options = ["--structure", "constituency", "--data.train", folder / "train.ptb", "--data.tag_column", "tag"]
    rate = ["--model.learning_rate", 0.05, "--trainer.max_epochs", 12, "--data.min_count", 1]
    assert fit(*FAST, *QUIET, *options, *rate, "--output", folder / "run") == 0
    return folder / "run"


class TestBrackets:
    """Constituency trees."""

    def test_learns(self, span_parser):
        (result,) = results(span_parser)
        assert set(result["measures"]["tree"]) == {"f1", "tree", "nll", "ece"}
        assert result["measures"]["tree"]["f1"] > 0.9
        assert result["history"][-1]["val/tree_score"] == pytest.approx(result["measures"]["tree"]["f1"])
        assert "EVALB" in (span_parser / "report.html").read_text()

    def test_predicts_and_evaluates(self, span_parser, tmp_path, capsys):
        """Words and tags are parsed anew; trees that the file has are not read."""
        flat, gold = "(X (DT the) (NN A) (VBZ xs) (. .))\n", BRACKETS.format("A", "x")
        (tmp_path / "flat.ptb").write_text(flat)
        assert predict(span_parser, "--text", tmp_path / "flat.ptb", "--output", tmp_path / "out.ptb") == 0
        assert (tmp_path / "out.ptb").read_text() == gold
        assert "1 sentences parsed in" in capsys.readouterr().out
        assert evaluate(span_parser, "--data.val", tmp_path / "out.ptb", "--json") == 0
        (result,) = json.loads(capsys.readouterr().out)
        assert result["measures"]["tree"]["f1"] == 1.0

    def test_text_without_the_tags_that_it_was_trained_with(self, span_parser, tmp_path, capsys):
        (tmp_path / "x.txt").write_text("the A xs .\n")
        assert predict(span_parser, "--text", tmp_path / "x.txt", "--output", tmp_path / "out.ptb") == 2
        assert "x.txt: expected bracketed trees with tags" in capsys.readouterr().err

    def test_composed(self, tmp_path):
        options = ["--structure", "constituency", "--trainer.max_epochs", 1, "--output", tmp_path / "run"]
        assert fit(*TINY, *QUIET, *options) == 0
        (tmp_path / "new.txt").write_text("1 + -LRB- 2 * 3 -RRB-\n")
        assert predict(tmp_path / "run", "--text", tmp_path / "new.txt", "--output", tmp_path / "out.ptb") == 0
        (found,) = read_trees(tmp_path / "out.ptb")
        assert found.words == ("1", "+", "-LRB-", "2", "*", "3", "-RRB-")


class TestErrors:
    """Bad input is told in one message, before training, and with exit status 2."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (row(1, "a", 2) + row(2, "b", 1), "x.conllu, line 1: expected a tree, got a cycle: words 1, 2"),
            (row(1, "a", 0) + row(2, "b", 0), "x.conllu, line 2: expected one word with head 0, got a second"),
            (row(1, "a", 5), "x.conllu, line 1: expected a head in 0 … 1"),
            ("1\ta\n", "x.conllu, line 1: expected 10 columns"),
        ],
    )
    def test_files(self, text, message, tmp_path, capsys):
        (tmp_path / "x.conllu").write_text(text + "\n")
        assert fit(*QUIET, "--output", tmp_path / "run", "--data.train", tmp_path / "x.conllu") == 2
        assert message in capsys.readouterr().err

    def test_wrong_values(self, tmp_path, capsys):
        for message, arguments in {
            "arithmetic.train: expected a positive": ("--data.arithmetic.train", 0),
            "structure: expected one of 'constituency', 'dependency'": ("--structure", "spans"),
            "structure: projective and single_root are of dependency trees": (
                "--structure",
                "constituency",
                "--projective",
                "true",
            ),
            "--model.decode: expected one of 'mbr', 'argmax'": ("--model.decode", "best"),
            "--model.projective: is set by --projective": ("--model.projective", "true"),
        }.items():
            assert fit(*QUIET, "--output", tmp_path / "run", *arguments) == 2
            assert message in capsys.readouterr().err

    def test_predict(self, parser, tmp_path, capsys):
        (tmp_path / "x.txt").write_text("a b\n")
        (tmp_path / "bad.conllu").write_text("1\ta\n")
        cases = {
            "of lnz fit parse, which takes --text": ("--images", tmp_path),
            "x.txt: expected CoNLL-U with tags (upos), which the parser was trained with": (
                "--text",
                tmp_path / "x.txt",
            ),
            "bad.conllu, line 1: expected 10 columns": ("--text", tmp_path / "bad.conllu"),
        }
        for message, arguments in cases.items():
            assert predict(parser, *arguments, "--output", tmp_path / "out") == 2
            assert message in capsys.readouterr().err
            assert not (tmp_path / "out").exists()


class TestCalibration:
    def test_dependency_trees(self, tmp_path, capsys):
        """Also where a validation sentence has crossing arcs, which trees without them give no probability."""
        train, val = treebank(tmp_path / "train.conllu"), treebank(tmp_path / "val.conllu", 11)
        crossing = row(1, "the", 3, "det", "DET") + row(2, "A", 4, "nsubj", "NOUN")
        crossing += row(3, "B", 4, "nsubj", "NOUN") + row(4, "xs", 0, "root", "VERB")
        val.write_text(val.read_text() + crossing + "\n" + row(1, "the", 3, "det") + row(2, "A", 0, "root")
                       + row(3, "xs", 2, "dep") + "\n")  # fmt: skip
        options = ["--data.train", train, "--data.val", val, "--projective", "true", "--trainer.max_epochs", 4]
        plain, run = calibrated("parse", [*FAST, *QUIET, *options, "--model.decode", "argmax"], val, tmp_path, capsys)
        for method in ("softmax", "tree"):
            assert run["measures"][method]["uas"] == plain["measures"][method]["uas"]
        assert predict(tmp_path / "run", "--text", val, "--output", tmp_path / "out.conllu") == 0

    def test_constituency_trees(self, tmp_path, capsys):
        texts = {
            name: "".join(BRACKETS.format("ABCDE"[k % 5], "xyz"[k % 3]) for k in range(count))
            for name, count in (("train", 24), ("val", 9))
        }
        texts["val"] += "(TOP (S (NP (DT the)) (VP (NN A) (VBZ xs)) (. .)))\n"  # a surprise
        for name, text in texts.items():
            (tmp_path / f"{name}.ptb").write_text(text)
        options = [*FAST, *QUIET, "--structure", "constituency", "--data.min_count", 1, "--trainer.max_epochs", 8]
        options += ["--data.train", tmp_path / "train.ptb", "--data.val", tmp_path / "val.ptb"]
        options += ["--model.learning_rate", 0.05]
        calibrated("parse", options, tmp_path / "val.ptb", tmp_path, capsys)


class TestEvaluate:
    def test_the_data_of_the_run_give_its_numbers(self, run_folder, capsys):
        assert evaluate(run_folder, "--data.arithmetic.val", 8, "--data.arithmetic.longest", 3, "--json") == 0
        again, kept = json.loads(capsys.readouterr().out), results(run_folder)
        assert [each["seed"] for each in again] == [0, 1]
        for method, measured in kept[0]["measures"].items():
            assert again[0]["measures"][method] == pytest.approx(measured, abs=1e-6)

    def test_new_sentences(self, parser, tmp_path, capsys):
        """As many words are right as in the file that predict writes."""
        test = treebank(tmp_path / "test.conllu", 10)
        assert evaluate(parser, "--data.val", test) == 0
        assert f"10sentencesof{test};weightsof{parser}" in "".join(capsys.readouterr().out.split())
        assert evaluate(parser, "--data.val", test, "--json") == 0
        (result,) = json.loads(capsys.readouterr().out)
        assert predict(parser, "--text", test, "--output", tmp_path / "parsed.conllu") == 0
        total = Attachment()
        for gold, found in zip(*map(read_dependencies, (test, tmp_path / "parsed.conllu")), strict=True):
            sides = (list(zip(each.heads, each.relations, strict=True)) for each in (gold, found))
            total += attachment(*sides)
        assert result["measures"]["tree"]["uas"] == pytest.approx(total.uas)
        assert result["measures"]["tree"]["las"] == pytest.approx(total.las)

    def test_wrong_input_is_told(self, parser, capsys):
        assert evaluate(parser) == 2
        assert "was trained on sentences of a file: give --data.val" in capsys.readouterr().err


@pytest.mark.slow
class TestProcesses:
    def test_resumes_after_kill_with_the_same_results(self, tmp_path):
        """Dropout and the order of batches go on too."""
        killed_and_resumed("parse", [*TINY, "--data.arithmetic.train", 200], 8, tmp_path)

    def test_interrupt_keeps_the_checkpoint_and_says_how_to_go_on(self, tmp_path):
        interrupted("parse", TINY, tmp_path)


@pytest.mark.slow
def test_constituency_trees_beat_the_softmax_on_composed_sentences(tmp_path):
    """With the default settings, in all but what a softmax per span is trained for."""
    run = tmp_path / "run"
    assert fit(*QUIET, "--structure", "constituency", "--trainer.accelerator", "cpu", "--output", run) == 0
    (result,) = results(run)
    softmax, tree = (result["measures"][method] for method in ("softmax", "tree"))
    assert tree["f1"] > max(0.85, softmax["f1"])
    assert tree["tree"] == 1.0 > softmax["tree"]


@pytest.mark.slow
def test_trees_beat_the_softmax_on_composed_sentences(tmp_path):
    """With the default settings: every output is a tree, and more of it is right."""
    assert fit(*QUIET, "--trainer.accelerator", "cpu", "--output", tmp_path / "run") == 0
    (result,) = results(tmp_path / "run")
    softmax, tree = (result["measures"][method] for method in ("softmax", "tree"))
    assert tree["las"] > 0.9
    assert tree["tree"] == 1.0 > softmax["tree"] + 0.05
    assert tree["nll"] < softmax["nll"]
