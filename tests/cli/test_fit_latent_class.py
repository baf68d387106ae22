"""``lnz fit latent-class``: published likelihoods, what the run folder holds, resuming, and what bad input is told."""

import csv
import math
import re

import pytest
import torch
import yaml

import lnz
from lnz.cli import main
from lnz.tasks import em_task
from lnz.tasks.latent_class.model import parse_classes
from tests.cli.runs import results

ROWS = "a,b,c,d\n" + "".join(
    f"{a},{b},{c},{d}\n" * count
    for a, b, c, d, count in [
        ("no", "no", "2", "x", 8),
        ("yes", "yes", "10", "y", 7),
        ("yes", "no", "10", "y", 3),
        ("no", "", "1", "x", 3),
        ("no", "yes", "2", "", 2),
    ]
)


def fit(*arguments):
    return main(["fit", "latent-class", *map(str, arguments)])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "rows.csv").write_text(ROWS)
    options = ["--data.rows", folder / "rows.csv", "--data.test", folder / "rows.csv", "--model.restarts", 4]
    assert fit(*options, "--model.classes", "1:3", "--output", folder / "done") == 0
    return folder / "done"


class TestRunFolder:
    def test_holds_everything(self, run_folder):
        names = {str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if path.is_file()}
        files = {"report.html", "picture.png", "results.json", "config.yaml", "network.bif", "memberships.csv"}
        assert names == files | {f"checkpoints/classes-{classes}.ckpt" for classes in (1, 2, 3)}

    def test_results_of_each_number_of_classes(self, run_folder):
        one, two, three = results(run_folder)
        assert [of["classes"] for of in (one, two, three)] == [1, 2, 3]
        assert [len(of["starts"]) for of in (one, two, three)] == [1, 4, 4]
        assert [of["parameters"] for of in (one, two, three)] == [5, 11, 17]  # 1 + 1 + 2 + 1 by class, and the classes
        assert one["log_likelihood"] < two["log_likelihood"] < three["log_likelihood"] + 1e-6
        for of in (one, two, three):
            assert of["bic"] == pytest.approx(of["parameters"] * math.log(23) - 2 * of["log_likelihood"])
            assert of["test"] == pytest.approx(of["log_likelihood"] / 23)
            assert of["shares"] == sorted(of["shares"], reverse=True)
        # one class is independence: the frequencies of each column
        frequencies = ((13, 10), (11, 9), (10, 10, 3), (11, 10))
        wanted = sum(n * math.log(n / sum(counts)) for counts in frequencies for n in counts)
        assert one["log_likelihood"] == pytest.approx(wanted)

    def test_the_network_is_that_of_the_smallest_bic(self, run_folder):
        net = lnz.BayesNet.from_bif(run_folder / "network.bif")
        best = min(results(run_folder), key=lambda of: of["bic"])
        assert net.names == ("class", "a", "b", "c", "d")
        assert net.states[0] == tuple(str(k + 1) for k in range(best["classes"]))
        assert net.states[3] == ("1", "2", "10")  # numbers in their order
        assert net.log_cpts[0].exp().tolist() == pytest.approx(best["shares"])
        states = {name: number for number, name in enumerate(net.states[3])}
        rows = list(csv.DictReader(ROWS.splitlines()))
        y = torch.full((len(rows), 5), -100)
        for row, cells in enumerate(rows):
            for column, name in enumerate("abcd", 1):
                known = states if name == "c" else {state: k for k, state in enumerate(net.states[column])}
                y[row, column] = known.get(cells[name], -100)
        assert float(net.log_prob(y).sum()) == pytest.approx(best["log_likelihood"])
        written = list(csv.reader((run_folder / "memberships.csv").open()))
        assert written[0] == ["class", *(f"P(class={state})" for state in net.states[0])]
        share = net.condition(y).node_marginals[:, 0, : best["classes"]]
        found = torch.tensor([[float(cell) for cell in row[1:]] for row in written[1:]]).double()
        torch.testing.assert_close(found, share, rtol=1e-9, atol=1e-9)
        assert [row[0] for row in written[1:]] == [net.states[0][k] for k in share.argmax(-1).tolist()]

    def test_report_needs_no_other_file(self, run_folder):
        page = (run_folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") == 2
        assert not re.search(r'(src|href)="(?!data:)', page)
        assert "Profiles" in page
        assert "c: 10" in page

    def test_configuration_says_all(self, run_folder):
        """The colon is no number of base 60, as which YAML would read it."""
        config = yaml.safe_load((run_folder / "config.yaml").read_text())
        assert config["model"]["classes"] == "1:3"

    def test_the_order_of_rows_changes_nothing(self, run_folder, tmp_path):
        head, *rows = ROWS.splitlines()
        (tmp_path / "rows.csv").write_text("\n".join([head, *rows[::-1]]) + "\n")
        again = ["--config", run_folder / "config.yaml", "--data.rows", tmp_path / "rows.csv", "--output"]
        assert fit(*again, tmp_path / "run") == 0
        for one, two in zip(results(run_folder), results(tmp_path / "run"), strict=True):
            assert one["starts"] == two["starts"]
        forth = (run_folder / "memberships.csv").read_text().splitlines()
        back = (tmp_path / "run/memberships.csv").read_text().splitlines()
        assert forth[1:] == back[:0:-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "published"),
    [
        ("carcinoma", ["--model.classes", "2:3"], {2: -317.2568, 3: -293.705}),
        ("pleural", ["--model.classes", "2", "--data.weights", "count"], {2: -891.1428}),
    ],
)
def test_published_likelihoods(shared_data, tmp_path, name, options, published):
    assert fit("--data.rows", shared_data / f"latent_class/{name}.csv", *options, "--output", tmp_path / "run") == 0
    for of in results(tmp_path / "run"):
        assert of["log_likelihood"] == pytest.approx(published[of["classes"]], abs=1e-3)
        assert len(of["starts"]) == 50
        assert of["converged"]


def test_sampled_answers_have_three_classes(tmp_path):
    options = ["--data.sampled", 1500, "--data.holes", 0.1, "--model.restarts", 3, "--model.classes", "2:4"]
    assert fit(*options, "--model.max_iterations", 200, "--output", tmp_path / "run") == 0
    found = results(tmp_path / "run")
    assert min(found, key=lambda of: of["bic"])["classes"] == 3
    assert found[1]["shares"] == pytest.approx([0.5, 0.3, 0.2], abs=0.06)


def test_a_stopped_run_goes_on(run_folder, tmp_path, monkeypatch):
    options = ["--config", run_folder / "config.yaml", "--output", tmp_path / "run"]

    def stopping(self, about, starts):
        if about.startswith("3"):
            raise KeyboardInterrupt
        return progress(self, about, starts)

    progress = em_task.Run.progress
    with monkeypatch.context() as patch:
        patch.setattr(em_task.Run, "progress", stopping)
        assert fit(*options) == 130
    assert fit(*options) == 2  # it holds a run that was stopped
    assert fit(*options, "--resume") == 0
    assert [of["starts"] for of in results(tmp_path / "run")] == [of["starts"] for of in results(run_folder)]


class TestErrors:
    def told(self, capsys, tmp_path, text, *more):
        (tmp_path / "rows.csv").write_text(text)
        assert fit("--data.rows", tmp_path / "rows.csv", "--output", tmp_path / "run", *more) == 2
        return capsys.readouterr().err

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,b\nx,1\nx,2\n", "column a: expected an item with 2 to 100 different answers, got only 'x'"),
            ("a,b\n,1\n,2\n", "column a: expected an item with 2 to 100 different answers, got none"),
            ("a\n" + "".join(f"{k}\n" for k in range(200)), "got 200 of them; --data.columns names the columns"),
            ("a,b\n", "expected at least one row"),
            ('"a""b"\n1\n2\n', "expected names without quotation marks"),
        ],
    )
    def test_answers(self, tmp_path, capsys, text, message):
        assert message in self.told(capsys, tmp_path, text)

    @pytest.mark.parametrize("text", ["0", "5:2", "two", "2:", "1:2000"])
    def test_numbers_of_classes(self, tmp_path, capsys, text):
        message = f"model.classes: expected a number of classes, as 3, or from:to, as 2:5, got {text!r}"
        assert message in self.told(capsys, tmp_path, ROWS, "--model.classes", text)

    def test_test_rows_of_other_answers(self, tmp_path, capsys):
        (tmp_path / "test.csv").write_text(ROWS.replace("yes", "oui"))
        told = self.told(capsys, tmp_path, ROWS, "--data.test", tmp_path / "test.csv")
        assert "test.csv, line 10, column a: expected a state of a, or nothing, got 'oui' (no, yes)" in told


def test_numbers_of_classes_have_both_ends():
    assert list(parse_classes("2:5")) == [2, 3, 4, 5]
    assert list(parse_classes("3")) == [3]


def test_help_has_examples(capsys):
    assert main(["fit", "latent-class", "--help"]) == 0
    assert "lnz fit latent-class --data.rows rows.csv --model.classes 2:5" in capsys.readouterr().out
