"""``lnz fit bayesnet``: what the run folder holds, rows matched by names, resuming, and what bad input is told."""

import csv
import json
import math
import re
import signal
from contextlib import contextmanager

import pytest
import torch
import yaml

import lnz
from lnz.cli import main
from lnz.objectives import em
from lnz.tasks import em_task
from lnz.tasks.bayesnet.network import example, parse_latent, start_of, with_latent
from tests.cli.runs import finished, results, start, wait_for

NET = """network cough { }
variable smoke { type discrete [ 2 ] { yes, no }; }
variable cough { type discrete [ 3 ] { never, rarely, often }; }
variable xray { type discrete [ 2 ] { dark, clear }; }
probability ( smoke ) { table 0.5, 0.5; }
probability ( cough | smoke ) { (yes) 0.2, 0.3, 0.5; (no) 0.7, 0.2, 0.1; }
probability ( xray | smoke ) { (yes) 0.6, 0.4; (no) 0.1, 0.9; }
"""
ROWS = "cough,smoke,xray\noften,yes,dark\nnever,,clear\nrarely,no,\n,yes,clear\noften,,dark\nnever,no,clear\n"
LABELS = [[0, 2, 0], [-100, 0, 1], [1, 1, -100], [0, -100, 1], [-100, 2, 0], [1, 0, 1]]


def fit(*arguments):
    return main(["fit", "bayesnet", *map(str, arguments)])


@pytest.fixture
def files(tmp_path):
    (tmp_path / "net.bif").write_text(NET)
    (tmp_path / "rows.csv").write_text(ROWS)
    return tmp_path


def options(folder, **more):
    given = {"model.net": folder / "net.bif", "data.rows": folder / "rows.csv", "output": folder / "run", **more}
    return [part for name, value in given.items() for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert fit("--data.sampled", 300, "--model.restarts", 2, "--model.max_iterations", 20, "--output", folder) == 0
    return folder


class TestRunFolder:
    def test_holds_everything(self, run_folder):
        names = {str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if path.is_file()}
        wanted = {"report.html", "picture.png", "results.json", "config.yaml", "network.bif", "checkpoints/last.ckpt"}
        assert names == wanted
        net = lnz.BayesNet.from_bif(run_folder / "network.bif")
        assert net.names == example().names
        assert net.states == example().states

    def test_results(self, run_folder):
        found = results(run_folder)
        assert set(found["measures"]) == {"independent", "start", "fitted", "source"}
        assert found["hidden"] == ["infection"]
        assert found["cells"] == 300 * 6
        assert 0.15 < found["missing"] / found["cells"] < 0.25
        assert len(found["starts"]) == 2
        fitted = found["measures"]["fitted"]
        assert fitted["log_likelihood"] == pytest.approx(max(found["starts"]))
        assert fitted["log_likelihood"] == pytest.approx(found["history"][-1])
        assert fitted["log_likelihood"] > found["measures"]["independent"]["log_likelihood"]
        assert fitted["bic"] == pytest.approx(29 * math.log(300) - 2 * fitted["log_likelihood"])
        assert all(b >= a - 1e-9 for a, b in zip(found["history"], found["history"][1:], strict=False))

    def test_report_needs_no_other_file(self, run_folder):
        page = (run_folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") == 1
        assert not re.search(r'(src|href)="(?!data:)', page)
        assert "Tables that changed most" in page
        assert "Never observed: infection." in page

    def test_configuration_says_all(self, run_folder):
        config = yaml.safe_load((run_folder / "config.yaml").read_text())
        assert config["data"]["sampled"] == 300
        assert config["model"]["restarts"] == 2

    def test_the_seed_decides(self, run_folder, tmp_path):
        again = ["--config", run_folder / "config.yaml", "--output"]
        assert fit(*again, tmp_path / "same") == 0
        assert fit(*again, tmp_path / "other", "--seed", 1) == 0
        assert results(tmp_path / "same")["history"] == results(run_folder)["history"]
        assert results(tmp_path / "other")["history"] != results(run_folder)["history"]

    def test_a_finished_run_is_not_overwritten(self, run_folder, capsys):
        before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
        assert fit("--output", run_folder) == 2
        assert "holds a finished run; choose another --output, or replace it by --overwrite" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before


def test_rows_are_matched_by_names_and_learned_by_em(files, capsys):
    """Columns and states in another order than those of the network: the numbers are those of em itself."""
    assert fit(*options(files, **{"model.tolerance": 0, "model.max_iterations": 7, "model.pseudocount": 0.5})) == 0
    net = lnz.BayesNet.from_bif(files / "net.bif")
    wanted = em(net, torch.tensor(LABELS), tolerance=0.0, max_iterations=7, pseudocount=0.5)
    found = results(files / "run")
    assert found["history"] == pytest.approx(list(wanted.log_evidence), abs=1e-12)
    assert found["measures"]["fitted"]["aic"] == pytest.approx(wanted.aic)
    assert found["measures"]["fitted"]["bic"] == pytest.approx(wanted.bic)
    learned = lnz.BayesNet.from_bif(files / "run/network.bif")
    for one, two in zip(learned.log_cpts, wanted.model.log_cpts, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    assert (found["rows"], found["missing"], found["cells"]) == (6, 4, 18)
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 of 18 cells missing (22.2 %)" in shown
    assert "7 iterations, not converged" in shown


def test_counts_test_rows_and_the_order_of_rows(files):
    """A count says how often a row is there; the order of rows changes nothing, to the last bit."""
    rows = list(csv.reader(ROWS.splitlines()))
    counts = [2, 1, 3, 1, 2, 1]
    with (files / "counted.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*rows[0], "n"], *([*row, n] for row, n in zip(rows[1:], counts, strict=True))])
    repeated = [row for row, n in zip(rows[1:], counts, strict=True) for _ in range(n)]
    for name, order in (("repeated", repeated), ("turned", repeated[::-1])):
        with (files / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([rows[0], *order])
    histories = []
    for name in ("repeated", "turned"):
        more = {"data.rows": files / f"{name}.csv", "data.test": files / "rows.csv", "output": files / name}
        assert fit(*options(files, **more)) == 0
        histories.append(results(files / name)["history"])
    assert histories[0] == histories[1]
    more = {"data.rows": files / "counted.csv", "data.weights": "n", "output": files / "counts"}
    assert fit(*options(files, **more)) == 0
    assert results(files / "counts")["history"] == histories[0]
    assert results(files / "counts")["rows"] == 10
    net = lnz.BayesNet.from_bif(files / "repeated/network.bif")
    test = float(net.log_prob(torch.tensor(LABELS)).mean())
    assert results(files / "repeated")["measures"]["fitted"]["test"] == pytest.approx(test)


def test_parquet_gives_what_csv_gives(files):
    pa = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    rows = list(csv.DictReader(ROWS.splitlines()))
    table = {name: [row[name] or None for row in rows] for name in rows[0]}
    parquet.write_table(pa.table(table), files / "rows.parquet")
    assert fit(*options(files, output=files / "one")) == 0
    assert fit(*options(files, output=files / "two", **{"data.rows": files / "rows.parquet"})) == 0
    assert results(files / "one")["history"] == results(files / "two")["history"]


def test_hidden_variables(files):
    """One that has a column that is not read, one with other states, and a new one above all."""
    assert fit(*options(files, **{"model.latent": "smoke=3,kind=mild:bad", "model.max_iterations": 30})) == 0
    net = lnz.BayesNet.from_bif(files / "run/network.bif")
    assert net.names == ("smoke", "cough", "xray", "kind")
    assert net.states[0] == ("0", "1", "2")
    assert net.states[3] == ("mild", "bad")
    assert net.parents == ((3,), (3, 0), (3, 0), ())
    found = results(files / "run")
    assert found["hidden"] == ["smoke", "kind"]
    assert not torch.allclose(net.log_cpts[1][0], net.log_cpts[1][1], atol=1e-2)  # no table stays uniform
    assert found["history"][-1] > found["history"][0]


def test_states_that_nothing_tells_apart_are_drawn():
    net = with_latent(example(), parse_latent("infection=4"))
    first = start_of(net, [0], 0, seed=0, from_tables=True)
    assert first.cardinalities[0] == 4
    children = [v for v, above in enumerate(net.parents) if 0 in above]
    for v in children:
        assert not torch.allclose(first.log_cpts[v], net.log_cpts[v])
    assert torch.equal(first.log_cpts[1], net.log_cpts[1])
    kept = start_of(example(), [0], 0, seed=0, from_tables=True)
    assert all(torch.equal(a, b) for a, b in zip(kept.log_cpts, example().log_cpts, strict=True))
    again = start_of(net, [0], 3, seed=0, from_tables=True)
    assert torch.equal(again.log_cpts[1], start_of(net, [0], 3, seed=0, from_tables=True).log_cpts[1])
    assert not torch.equal(again.log_cpts[1], start_of(net, [0], 2, seed=0, from_tables=True).log_cpts[1])


class TestErrors:
    """Bad input is told in one message, before anything is learned, with exit status 2."""

    def told(self, capsys, files, **more):
        assert fit(*options(files, **more)) == 2
        return capsys.readouterr().err

    def test_rows(self, files, capsys):
        bad = files / "bad.csv"
        bad.write_text("smoke,cough\nyes,often\nno,oftn\n")
        told = self.told(capsys, files, **{"data.rows": bad})
        message = (
            f"{bad}, line 3, column cough: expected a state of cough, or nothing, got 'oftn' (did you mean 'often'?)"
        )
        assert message in told
        bad.write_text("smoke,caugh\nyes,often\n")
        told = self.told(capsys, files, **{"data.rows": bad})
        assert "column 'caugh' is no variable of the network (did you mean 'cough'?)" in told
        bad.write_text("smoke,n\nyes,3\nno,many\n")
        told = self.told(capsys, files, **{"data.rows": bad, "data.weights": "n"})
        assert f"{bad}, line 3, column n: expected a count of at least 0, got 'many'" in told
        bad.write_text("smoke,n\nyes,0\n")
        assert "expected counts that are not all 0" in self.told(
            capsys, files, **{"data.rows": bad, "data.weights": "n"}
        )
        assert "--data.weights: no column 'm'" in self.told(capsys, files, **{"data.weights": "m"})
        assert "nothing: expected a readable file" in self.told(capsys, files, **{"data.rows": files / "nothing"})

    def test_texts_that_stand_for_nothing(self, files):
        (files / "na.csv").write_text("smoke,cough,id\nyes,NA,7\nno,often,8\n")
        more = {"data.rows": files / "na.csv", "data.missing": "[NA]", "data.columns": "[smoke,cough]"}
        assert fit(*options(files, **more)) == 0
        assert results(files / "run")["missing"] == 1

    def test_impossible_rows_are_told_by_line(self, files, capsys):
        (files / "net.bif").write_text(NET.replace("0.6, 0.4; (no) 0.1, 0.9", "0, 1; (no) 0, 1"))
        told = self.told(capsys, files)
        assert f"{files / 'rows.csv'}, line 2: has probability 0 under the network that learning starts from" in told

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"model.latent": "smoke"}, "model.latent: expected NAME=STATES"),
            ({"model.latent": "smoke=2,smoke=3"}, "model.latent: expected each variable once, got 'smoke' twice"),
            ({"model.restarts": 0}, "model.restarts: expected a positive integer, got 0"),
            ({"model.pseudocount": -1}, "model.pseudocount: expected a finite number of at least 0, got -1"),
            ({"model.start": "middle"}, "--model.start: expected one of 'tables', 'random', got 'middle'"),
            ({"data.holes": 1}, "data.holes: expected a number in [0, 1), got 1"),
            ({"model.nett": 1}, "unrecognized arguments: --model.nett 1; did you mean --model.net"),
        ],
    )
    def test_options(self, files, capsys, more, message):
        assert message in self.told(capsys, files, **more)

    def test_what_goes_together(self, files, capsys):
        assert fit("--data.rows", files / "rows.csv", "--output", files / "run") == 2
        assert "data.rows: needs model.net" in capsys.readouterr().err
        assert fit("--data.weights", "n", "--output", files / "run") == 2
        assert "data.weights: needs data.rows" in capsys.readouterr().err
        assert fit("--resume") == 2
        assert "resume: needs --output" in capsys.readouterr().err
        (files / "net.uai").write_text("MARKOV 2 2 2 1 2 0 1 4 1 2 3 4")
        assert fit(*options(files, **{"model.net": files / "net.uai"})) == 2
        assert "net.uai: expected a Bayesian network" in capsys.readouterr().err


@pytest.mark.parametrize("after", [1, 4, 9, 13])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(files, monkeypatch, after):
    """Ctrl-C after some iterations, in the first start or a later one: the same numbers in the end."""
    more = {"model.restarts": 3, "model.max_iterations": 5, "model.tolerance": 0, "model.latent": "smoke=2"}
    assert fit(*options(files, output=files / "whole", **more)) == 0
    progress = em_task.Run.progress

    @contextmanager
    def stopping(self, about, starts):
        left = iter(range(after - 1))
        with progress(self, about, starts) as tell:

            def counted(*arguments):
                tell(*arguments)
                if next(left, None) is None:
                    raise KeyboardInterrupt

            yield counted

    with monkeypatch.context() as patch:
        patch.setattr(em_task.Run, "progress", stopping)
        assert fit(*options(files, output=files / "broken", **more)) == 130
    assert not (files / "broken/results.json").exists()
    assert lnz.BayesNet.from_bif(files / "broken/network.bif").names == ("smoke", "cough", "xray")
    assert fit("--config", files / "broken/config.yaml", "--resume") == 0
    whole, broken = results(files / "whole"), results(files / "broken")
    for name in ("history", "starts", "best", "iterations", "changed"):
        assert whole[name] == broken[name]
    assert (files / "whole/network.bif").read_bytes() == (files / "broken/network.bif").read_bytes()


def test_a_checkpoint_of_other_rows_is_refused(files, capsys):
    assert fit(*options(files)) == 0
    (files / "rows.csv").write_text(ROWS + "often,yes,dark\n")
    assert fit(*options(files), "--resume") == 2
    assert "last.ckpt: expected the checkpoint of this run, got one of other rows" in capsys.readouterr().err


@pytest.mark.slow
def test_interrupt_keeps_the_last_iteration_and_says_how_to_go_on(tmp_path):
    run = tmp_path / "run"
    process = start("bayesnet", "--model.restarts", 10**6, "--data.sampled", 200, "--output", run, folder=tmp_path)
    wait_for(run / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert f"go on with: lnz fit bayesnet --config {run / 'config.yaml'} --resume" in output
    assert "Traceback" not in output
    lnz.BayesNet.from_bif(run / "network.bif")
    again = start("bayesnet", "--config", run / "config.yaml", "--resume", "--model.restarts", 2, folder=tmp_path)
    finished(again)
    assert json.loads((run / "results.json").read_text())["measures"]["fitted"]["log_likelihood"] < 0


def test_help_has_examples(capsys):
    assert main(["fit", "bayesnet", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "lnz fit bayesnet --model.net alarm.bif --data.rows rows.csv" in shown
    assert "--model.latent" in shown
