"""``lnz evaluate`` and ``lnz predict`` on the networks that learning by EM leaves: new rows, judged and filled in."""

import csv
import json

import pytest
import torch

import lnz
from lnz.cli import main

ROWS = "rain,who,grass\nno,1,dry\nno,2,dry\nyes,3,wet\n,4,wet\nyes,5,\nno,6,wet\n"


@pytest.fixture
def net():
    tables = [[0.6, 0.4], [[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.1, 0.9]]]
    return lnz.BayesNet(
        [2, 2, 2],
        [[], [0], [0]],
        [torch.tensor(table, dtype=torch.float64).log() for table in tables],
        names=["cloud", "rain", "grass"],
        states=[["no", "yes"], ["no", "yes"], ["dry", "wet"]],
    )


@pytest.fixture
def folder(tmp_path, net):
    (tmp_path / "run").mkdir()
    net.to_bif(tmp_path / "run/network.bif")
    (tmp_path / "rows.csv").write_text(ROWS)
    return tmp_path


LABELS = torch.tensor([[-100, 0, 0], [-100, 0, 0], [-100, 1, 1], [-100, -100, 1], [-100, 1, -100], [-100, 0, 1]])


def evaluate(folder, *options, model="run"):
    return main(["evaluate", str(folder / model), "--data.rows", str(folder / "rows.csv"), *map(str, options)])


@pytest.mark.parametrize("model", ["run", "run/network.bif"])
def test_new_rows_are_judged(folder, net, capsys, model):
    options = ["--data.columns", "[rain,grass]", "--json", "--output", folder / "found.json"]
    assert evaluate(folder, *options, model=model) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((folder / "found.json").read_text())
    value = float(net.log_prob(LABELS).sum())
    assert found["measures"]["fitted"]["log_likelihood"] == pytest.approx(value)
    assert found["measures"]["fitted"]["per_row"] == pytest.approx(value / 6)
    alone = sum(n * torch.tensor(n / 5).log() for n in (3, 2)) + sum(n * torch.tensor(n / 5).log() for n in (2, 3))
    assert found["measures"]["independent"]["log_likelihood"] == pytest.approx(float(alone))
    assert (found["rows"], found["missing"], found["cells"], found["hidden"]) == (6, 2, 12, ["cloud"])
    assert evaluate(folder, "--data.columns", "[rain,grass]") == 0
    assert "learned" in capsys.readouterr().out


def test_rows_count_as_often_as_a_column_says(folder, net, capsys):
    assert evaluate(folder, "--data.weights", "who", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    weights = torch.arange(1, 7, dtype=torch.float64)
    assert found["measures"]["fitted"]["log_likelihood"] == pytest.approx(float(net.log_prob(LABELS) @ weights))
    assert found["rows"] == 21


def test_rows_are_filled_in(folder, net, capsys):
    out = folder / "filled.csv"
    assert main(["predict", str(folder / "run"), "--rows", str(folder / "rows.csv"), "--output", str(out)]) == 0
    assert "6 rows filled in" in capsys.readouterr().out
    written = list(csv.DictReader(out.open()))
    assert list(written[0]) == ["rain", "who", "grass", "cloud", "P(cloud=no)", "P(cloud=yes)"]
    share = net.condition(LABELS).node_marginals
    best = share.argmax(-1)
    for row, cells in enumerate(written):
        assert cells["who"] == str(row + 1)
        for variable, name in enumerate(net.names):
            assert cells[name] == net.states[variable][int(best[row, variable])]
        assert [float(cells[f"P(cloud={state})"]) for state in ("no", "yes")] == share[row, 0].tolist()


def test_texts_that_stand_for_nothing(folder, capsys):
    (folder / "rows.csv").write_text("rain,grass\nNA,wet\n?,dry\n")
    given = ["predict", str(folder / "run"), "--rows", str(folder / "rows.csv"), "--output", str(folder / "out.csv")]
    assert main([*given, "--missing", "NA", "--missing", "?"]) == 0
    assert [row["rain"] for row in csv.DictReader((folder / "out.csv").open())] == ["yes", "no"]
    assert main(given) == 2
    assert "line 2, column rain: expected a state of rain, or nothing, got 'NA'" in capsys.readouterr().err


def test_a_run_of_latent_classes_is_judged_and_its_classes_are_told(folder, capsys):
    (folder / "rows.csv").write_text("a,b\n" + "no,x\n" * 9 + "yes,y\n" * 7 + "no,y\n")
    run, rows = str(folder / "classes"), str(folder / "rows.csv")
    assert main(["fit", "latent-class", "--data.rows", rows, "--model.classes", "2", "--output", run]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--data.rows", rows, "--json"]) == 0
    learned = json.loads((folder / "classes/results.json").read_text())[0]
    found = json.loads(capsys.readouterr().out)["measures"]["fitted"]
    assert found["log_likelihood"] == pytest.approx(learned["log_likelihood"])
    assert main(["predict", run, "--rows", rows, "--output", str(folder / "told.csv")]) == 0
    told = list(csv.DictReader((folder / "told.csv").open()))
    kept = list(csv.DictReader((folder / "classes/memberships.csv").open()))
    assert [row["class"] for row in told] == [row["class"] for row in kept]
    assert [float(row["P(class=1)"]) for row in told] == pytest.approx([float(row["P(class=1)"]) for row in kept])
    capsys.readouterr()
    assert main(["evaluate", f"{run}/checkpoints/classes-2.ckpt"]) == 2
    assert "of a run that learns by EM: pass its run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x,y\n1,2\n", "expected a column for a variable"),
        ("grass,rain\nwet,yes\ndry,yes\ndry,\n", "line 3: has probability 0 under"),
        ("grass\nblue\n", "line 2, column grass: expected a state of grass, or nothing, got 'blue'"),
    ],
)
def test_rows_that_make_no_sense(folder, capsys, rows, message):
    sure = [torch.tensor([0.5, 0.5]).double().log(), torch.eye(2).double().log()]
    net = lnz.BayesNet([2, 2], [[], [0]], sure, names=["rain", "grass"], states=[["no", "yes"], ["dry", "wet"]])
    net.to_bif(folder / "run/network.bif")
    (folder / "rows.csv").write_text(rows)
    out = str(folder / "out.csv")
    assert main(["predict", str(folder / "run"), "--rows", str(folder / "rows.csv"), "--output", out]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out.csv").exists()


def test_models_and_input_must_fit(folder, capsys):
    given = [str(folder / "run"), "--text", str(folder / "rows.csv"), "--output", str(folder / "out")]
    assert main(["predict", *given]) == 2
    assert "a network of rows, which takes --rows" in capsys.readouterr().err
    assert main(["evaluate", str(folder / "run")]) == 2
