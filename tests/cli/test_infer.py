"""``lnz infer`` from the command line: output, exit codes, and one line per error."""

import csv
import gzip
import json
import math
import os
import subprocess
import sys

import pytest

from lnz import BayesNet
from lnz.cli import infer as command
from lnz.cli import main
from lnz.cli.methods import METHODS, method_name
from tests.cli.runs import less_compiling

TOY = "MARKOV 3  2 2 3  2  2 0 1  2 1 2   4 4.0 2.4 1.0 0.0   6 2.25 3.25 3.75 0 0 10\n"
LOG_Z = math.log(4 * 9.25 + 1 * 9.25 + 2.4 * 10)
# frustrated: belief propagation needs more than two iterations here
LOOP = "MARKOV 3 2 2 2 4  1 0  2 0 1  2 1 2  2 2 0   2 1 3  4 9 1 1 7  4 1 8 5 1  4 2 9 6 1\n"
WEAK = "MARKOV 3 2 2 2 4  1 0  2 0 1  2 1 2  2 2 0   2 1 3  4 2 1 1 2  4 1 2 3 1  4 2 1 2 1\n"  # chains mix quickly
ASIA = """network a { }
variable smoke { type discrete [ 2 ] { yes, no }; }
variable cough { type discrete [ 3 ] { often, rare, never }; }
probability ( smoke ) { table 0.25, 0.75; }
probability ( cough | smoke ) { (yes) 0.5, 0.3, 0.2; (no) 0.1, 0.2, 0.7; }
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "toy.uai": TOY,
        "loop.uai": LOOP,
        "weak.uai": WEAK,
        "asia.bif": ASIA,
        "toy.evid": "1 0 1",
        "zero.evid": "0",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "toy.uai.gz").write_bytes(gzip.compress(TOY.encode()))
    (tmp_path / "empty.evid").write_text("")
    return tmp_path


@pytest.fixture
def lnz(files, capsys):
    """Run ``lnz infer`` with a line of arguments: exit code, stdout, stderr but for what a cold cache adds."""

    def run(line):
        code = main(["infer", *line.split()])
        out, err = capsys.readouterr()
        return code, out, "".join(told for told in err.splitlines(True) if not told.startswith("lnz: compiling "))

    return run


def test_uai_results_on_stdout_and_both_logarithms_on_stderr(lnz):
    code, out, err = lnz("toy.uai --query PR")
    assert code == 0
    assert out.splitlines()[0] == "PR"
    assert float(out.splitlines()[1]) == pytest.approx(LOG_Z / math.log(10), abs=1e-12)
    assert err == f"ln Z = {LOG_Z:.10g}, log10 Z = {LOG_Z / math.log(10):.10g} (exact)\n"
    assert lnz("toy.uai.gz --query PR")[1] == out
    code, out, err = lnz("toy.uai --query MAP")
    assert (code, out) == (0, "MAP\n3 0 1 2\n")
    assert err == "log score = 3.17805383 (exact)\n"
    code, out, err = lnz("toy.uai --query MAR --method bp")
    assert out.startswith("MAR\n3 2 0.868")
    assert err.endswith("(bp, exact)\n")
    assert lnz("loop.uai --query MAR --method bp --damping 0.5")[2].endswith("(bp, approximate)\n")


def test_json_is_one_object(lnz):
    code, out, err = lnz("toy.uai --query MAR --json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    keys = {"ln_Z", "log10_Z", "marginals", "assignment", "log_score", "method", "exact", "diagnostics"}
    assert found.keys() == keys
    assert found["ln_Z"] == pytest.approx(LOG_Z)
    assert found["log10_Z"] == pytest.approx(LOG_Z / math.log(10))
    assert [len(row) for row in found["marginals"].values()] == [2, 2, 3]
    assert (found["method"], found["exact"], found["assignment"]) == ("exact", True, None)
    found = json.loads(lnz("toy.uai --query MAP --method enumeration --json")[1])
    assert found["assignment"] == {"0": "0", "1": "1", "2": "2"}
    assert found["log_score"] == pytest.approx(math.log(24))
    assert (found["method"], found["ln_Z"], found["marginals"]) == ("enumeration", None, None)


def test_a_bayesian_network_answers_by_name(lnz):
    found = json.loads(lnz("asia.bif --evidence cough=often --query MAR --json")[1])
    assert found["ln_Z"] == pytest.approx(math.log(0.25 * 0.5 + 0.75 * 0.1))
    assert found["marginals"]["smoke"] == pytest.approx([0.625, 0.375])
    assert found["marginals"]["cough"] == pytest.approx([1, 0, 0])
    found = json.loads(lnz("asia.bif --evidence cough=often --query MAP --json")[1])
    assert found["assignment"] == {"smoke": "yes", "cough": "often"}
    assert found["log_score"] == pytest.approx(math.log(0.125))


@pytest.mark.parametrize("evidence", ["empty.evid", "zero.evid"])
def test_empty_evidence_changes_nothing(lnz, evidence):
    assert lnz(f"toy.uai --query PR --evidence {evidence}") == lnz("toy.uai --query PR")


def test_evidence_from_a_file_and_from_pairs(lnz):
    expected = math.log10(9.25)
    for evidence in ("toy.evid", "0=1"):
        assert float(lnz(f"toy.uai --query PR --evidence {evidence}")[1].split()[1]) == pytest.approx(expected)


def test_output_goes_to_a_file_that_is_replaced_whole(lnz, files):
    target = files / "toy.PR"
    target.write_text("old")
    code, out, err = lnz("toy.uai --query PR --evidence 0=1,1=1 --output toy.PR")
    assert (code, out) == (1, "")
    assert target.read_text() == "old"
    code, out, err = lnz("toy.uai --query PR --output toy.PR")
    assert (code, out) == (0, "")
    assert err.startswith("ln Z = ")
    assert target.read_text().startswith("PR\n1.8466")


def test_an_unwritable_output_is_found_before_the_work(lnz, monkeypatch):
    monkeypatch.setattr(command, "read_model", lambda path: pytest.fail("the work started"))
    code, out, err = lnz("toy.uai --output nowhere/toy.MAR")
    assert (code, out, err) == (2, "", "lnz: nowhere/toy.MAR: no such file or directory\n")


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("none.uai", 2, "lnz: none.uai: expected a readable file, got: no such file or directory"),
        ("toy.evid", 2, "lnz: toy.evid: expected a model file whose name ends in .uai"),
        ("toy.uai --evidence none.evid", 2, "lnz: none.evid: expected a readable file"),
        ("toy.uai --evidence toy.uai", 2, "lnz: toy.uai, line 1, word 1: expected the number of observed variables"),
        ("toy.uai --evidence 3=0", 2, "lnz: evidence: expected a variable of the model, got '3'"),
        ("asia.bif --evidence cough=no", 2, "lnz: evidence: expected a state of cough, got 'no'"),
        ("toy.uai --query PR --evidence 0=1,1=1", 1, "lnz: no labelling that agrees with the evidence"),
        ("toy.uai --query MAR --evidence 0=1,1=1", 1, "lnz: no labelling that agrees with the evidence"),
        ("toy.uai --query MAP --evidence 0=1,1=1", 1, "lnz: MRF.argmax: no labelling"),
        ("loop.uai --max-table 2", 1, "lnz: "),
        (
            "toy.uai --method enumeration --max-table 2",
            1,
            "lnz: --method enumeration needs a table of about 10^2.0 bytes",
        ),
        ("toy.uai --query MPE", 2, "lnz infer: --query: expected one of 'PR', 'MAR', 'MAP', 'MMAP', got 'MPE'"),
        ("toy.uai --query MMAP", 2, "lnz infer: --query MMAP needs --map-vars"),
        ("toy.uai --query MAP --map-vars 0", 2, "lnz infer: --query MMAP needs --map-vars"),
        ("toy.uai --query MMAP --map-vars 0,7", 2, "lnz: variables: expected a variable of the model, got '7'"),
        ("toy.uai --query MMAP --map-vars 0,0", 2, "lnz: variables: expected each variable once, got '0' twice"),
        ("toy.uai --query MMAP --map-vars 0 --evidence 0=1,1=1", 1, "lnz: no labelling that agrees with the evidence"),
        ("loop.uai --query MMAP --map-vars 0 --max-table 2", 1, "lnz: --method exact needs a table of about 10^"),
        ("toy.uai --method annealling", 2, "lnz infer: --method: expected one of 'exact', 'enumeration', 'bp'"),
        (
            "toy.uai --query PR --method gibbs",
            2,
            "lnz infer: --method gibbs cannot answer --query PR; methods that can: exact, enumeration, bp, mean-field, "
            "trw, ais (see",
        ),
        (
            "toy.uai --query MAP --method ais",
            2,
            "lnz infer: --method ais cannot answer --query MAP; methods that can: exact, enumeration, bp, mean-field, "
            "auto, trws, ",
        ),
        (
            "toy.uai --query MAP --method icm --start trws,icm",
            2,
            "lnz infer: --start: trws starts from nothing, 'icm' cannot follow",
        ),
        (
            "toy.uai --query MAP --method icm --start gibbs",
            2,
            "lnz infer: --start: expected some of exact, enumeration",
        ),
        ("toy.uai --query MAP --start trws", 2, "lnz infer: --start is a setting of --method milp, icm, annealing"),
        (
            "toy.uai --query MAP --method trws --rungs 3",
            2,
            "lnz infer: --rungs is a setting of --method tempering, not",
        ),
        ("toy.uai --query MAP --time-limit 0", 2, "lnz infer: --method auto: time_limit: expected a positive number"),
        ("toy.uai --method icm", 2, "lnz infer: --method icm cannot answer --query MAR"),
        ("toy.uai --method sw", 1, "lnz: --method sw: SwendsenWang: expected a Potts model"),
        ("toy.uai --query MAP --method milp --max-variables 3", 1, "lnz: --method milp needs "),
        ("toy.uai --damping 0.5", 2, "lnz infer: --damping is a setting of --method bp, mean-field, trw, not"),
        ("toy.uai --method bp --max-table 9", 2, "lnz infer: --max-table is a setting of --method exact, enumeration"),
        (
            "toy.uai --method bp --damping 1.5",
            2,
            "lnz infer: --method bp: damping: expected None or a number in [0, 1), got 1.5",
        ),
        ("toy.uai --method bp --max-iterations 0", 2, "lnz infer: --max-iterations: expected a positive"),
        ("toy.uai --method bp --schedule random", 2, "lnz infer: --method bp: schedule: expected one of flooding"),
        ("", 2, "lnz infer: the following arguments are required: MODEL"),
    ],
)
def test_errors_are_one_line(lnz, line, code, message):
    got, out, err = lnz(line)
    assert (got, out) == (code, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_no_convergence_is_a_warning(lnz):
    code, out, err = lnz("loop.uai --query MAR --method bp --max-iterations 2 --json")
    found = json.loads(out)
    assert code == 0
    assert found["diagnostics"]["converged"] is False
    assert found["exact"] is False
    assert err.startswith("lnz: ConvergenceWarning: ")
    assert err.count("\n") == 1


def test_interruption_internal_errors_and_debug(lnz, monkeypatch):
    def broken(error):
        def read_model(path, encoding):
            raise error

        monkeypatch.setattr(command, "read_model", read_model)
        return lnz("toy.uai")

    assert broken(KeyboardInterrupt()) == (130, "", "lnz: interrupted\n")
    assert broken(MemoryError()) == (1, "", "lnz: not enough memory\n")
    assert broken(TypeError("odd\nthing")) == (1, "", "lnz: TypeError: odd thing (LNZ_DEBUG=1 shows where)\n")
    monkeypatch.setenv("LNZ_DEBUG", "1")
    with pytest.raises(TypeError, match="odd"):
        broken(TypeError("odd"))


def test_help_teaches(lnz):
    code, out, _ = lnz("--help")
    assert code == 0
    for word in ("PR", "MAR", "MAP", "examples:", "--evidence", "ln_Z", "default: exact"):
        assert word in out


def test_the_command_itself(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lnz 0.")
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("fit", "predict", "align", "infer", "examples:"))
    assert main([]) == 2
    capsys.readouterr()
    assert main(["inferr"]) == 2
    commands = "fit, evaluate, predict, align, infer, warmup, completion"
    told = f"lnz: expected a command ({commands}), got 'inferr'; see lnz --help\n"
    assert capsys.readouterr().err == told


def test_a_closed_pipe_is_quiet(files):
    read, write = os.pipe()
    os.close(read)
    line = [
        sys.executable,
        "-c",
        "import sys; from lnz.cli import main; sys.exit(main())",
        "infer",
        "toy.uai",
        "--json",
    ]
    done = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, check=False, text=True, timeout=120)
    os.close(write)
    assert (done.returncode, less_compiling(done.stderr)) == (141, "")


def test_a_refusal_names_options_not_python(lnz):
    code, out, err = lnz("loop.uai --query PR --max-table 2")
    assert (code, out) == (1, "")
    assert "--method exact needs a table of about 10^" in err
    assert err.endswith("pass --method bp or --method mean-field or --method trw, or a larger --max-table\n")
    assert "lnz.inference" not in err
    assert "--method exact or --method bp" in lnz("loop.uai --method enumeration --max-table 2")[2]


@pytest.mark.data
@pytest.mark.parametrize("name", ["Segmentation_11", "Promedus_29", "Promedus_33"])
def test_published_partition_functions_and_marginals(shared_data, files, lnz, name):
    folder = shared_data / "uai_pr_mar"
    index = json.loads((folder / "index.json").read_text())[name]
    pairs = [f"{node} {label}" for node, label in index["evid"].items()]
    (files / "e.evid").write_text("\n".join([str(len(pairs)), *pairs]))
    code, out, _ = lnz(f"{folder / name}.uai.gz --evidence e.evid --query MAR --json")
    found = json.loads(out)
    assert code == 0
    assert found["exact"]
    assert found["log10_Z"] == pytest.approx(index["log10_PR"], abs=1e-4)
    words = iter(gzip.decompress((folder / f"{name}.MAR.gz").read_bytes()).split()[2:])
    for row in found["marginals"].values():
        assert int(next(words)) == len(row)
        assert row == pytest.approx([float(next(words)) for _ in row], abs=1e-5)


SUMMING = ["bp", "mean-field", "trw", "ais --chains 500 --steps 50"]
SAMPLING = ["gibbs", "mh", "gwg --proposals 3", "langevin --step-size 3", "hmc", "pt --temperatures 1,2"]
SAMPLING = [f"{method} --chains 50 --sweeps 200" for method in SAMPLING]


@pytest.mark.parametrize("method", SUMMING + SAMPLING)
def test_every_approximation_comes_near(lnz, method):
    """On a loop of three binary variables: marginals as far off as the method's theory lets them be."""
    code, out, err = lnz(f"weak.uai --query MAR --method {method} --json")
    assert (code, err) == (0, "")
    found, exact = json.loads(out), json.loads(lnz("weak.uai --query MAR --json")[1])
    assert found["exact"] is False
    assert found["method"] == method.split()[0]
    for name, row in exact["marginals"].items():
        assert found["marginals"][name] == pytest.approx(row, abs=0.05 if method in SAMPLING else 0.15)
    if method in SAMPLING:
        assert found["ln_Z"] is None
        assert found["diagnostics"]["r_hat"] < 1.05
        assert found["diagnostics"]["ess"] > 100
    if method.startswith("ais"):
        assert abs(found["ln_Z"] - exact["ln_Z"]) < 4 * found["diagnostics"]["standard_error"] < 0.5
    if method == "mean-field":
        assert found["ln_Z"] <= exact["ln_Z"]
    if method == "trw":
        assert found["ln_Z"] >= exact["ln_Z"]


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("tree-reweighted", "trw"),
        ("annealed-importance", "ais"),
        ("metropolis-hastings", "mh"),
        ("gibbs-with-gradients", "gwg"),
        ("discrete-langevin", "langevin"),
        ("swendsen-wang", "sw"),
        ("parallel-tempering", "pt"),
        ("integer-program", "milp"),
    ],
)
def test_methods_by_their_full_names(full, short):
    assert method_name(full) == short
    assert all(method_name(name) == name for name in METHODS)


def test_a_full_name_is_as_good_as_the_short_one(lnz):
    assert lnz("loop.uai --method belief-propagation --json") == lnz("loop.uai --method bp --json")


def test_chains_that_have_not_mixed_warn(lnz):
    code, out, err = lnz("loop.uai --method gibbs --chains 20 --sweeps 20 --json")
    assert code == 0
    assert json.loads(out)["diagnostics"]["mixed"] is False
    assert err.startswith("lnz: ConvergenceWarning: Gibbs: the chains have not mixed: R-hat ")
    assert err.count("\n") == 1


def test_swendsen_wang_where_pairs_are_ferromagnetic(lnz, files):
    (files / "potts.uai").write_text(
        "MARKOV 3 3 3 3 4  1 0  2 0 1  2 1 2  2 2 0   3 1 2 3 " + 2 * " 9 3 1 1 1 3 1 1 1 3" + " 9 2 1 1 1 2 1 1 1 2"
    )
    found = json.loads(lnz("potts.uai --method sw --chains 100 --sweeps 100 --json")[1])
    exact = json.loads(lnz("potts.uai --json")[1])
    assert found["marginals"]["2"] == pytest.approx(exact["marginals"]["2"], abs=0.03)


@pytest.mark.parametrize(
    "method",
    [
        "bp",
        "mean-field",
        "trws",
        "milp",
        "icm --restarts 5",
        "annealing",
        "tempering --sweeps 10 --rungs 4",
        "icm --start trws --restarts 0",
        "tempering --start annealing,trws --sweeps 10 --moves forests",
        "milp --start trws",
    ],
)
def test_best_labellings_and_what_is_proved(lnz, method):
    code, out, _ = lnz(f"loop.uai --query MAP --method {method} --json")
    found, exact = json.loads(out), json.loads(lnz("loop.uai --query MAP --json")[1])
    assert code == 0
    assert found["log_score"] == pytest.approx(exact["log_score"])
    assert found["assignment"] == exact["assignment"]
    said = found["diagnostics"]
    assert said["score"] == pytest.approx(found["log_score"])
    assert found["exact"] == said["optimal"]
    assert said["optimal"] == ("trws" in method or "milp" in method)
    assert said["gap"] is None if not said["optimal"] else said["gap"] == pytest.approx(0, abs=1e-6)
    assert said["bound"] is None if not said["optimal"] else said["bound"] == pytest.approx(said["score"])
    assert exact["diagnostics"]["optimal"]


def test_graph_cuts_where_pairs_are_submodular(lnz, files):
    (files / "cut.uai").write_text("MARKOV 2 2 2 3  1 0  1 1  2 0 1   2 1 3  2 5 4  4 3 1 1 3")
    found = json.loads(lnz("cut.uai --query MAP --method graph-cuts --json")[1])
    assert found["assignment"] == {"0": "1", "1": "1"}
    assert found["diagnostics"]["optimal"]
    code, _, err = lnz("loop.uai --query MAP --method graph-cuts")
    assert code == 1
    assert err.startswith("lnz: --method graph-cuts: ")


def test_a_labelling_that_is_not_proved_comes_with_its_bound(lnz, files):
    odd = "MARKOV 3 2 2 2 3  2 0 1  2 1 2  2 2 0 " + 3 * " 4 1 2 2 1"  # a frustrated triangle
    (files / "odd.uai").write_text(odd)
    code, _, err = lnz("odd.uai --query MAP --method trws")
    assert code == 0
    assert "log score = 1.386294361, no score above 2.0794" in err
    assert ", gap 0.6931 (" in err
    assert err.endswith("(trws, approximate)\n")


class TestMarginalMap:
    def test_labels_of_some_variables(self, lnz):
        """Of the toy: P(1 = 0) ∝ 5 · 9.25 against P(1 = 1) ∝ 2.4 · 10."""
        code, out, err = lnz("toy.uai --query MMAP --map-vars 1")
        assert (code, out) == (0, "MMAP\n1 1 0\n")
        assert err == f"log score = {math.log(5 * 9.25):.10g} (exact)\n"
        found = json.loads(lnz("toy.uai --query MMAP --map-vars 1 --method enumeration --json")[1])
        assert found["log_score"] == pytest.approx(math.log(5 * 9.25))
        assert found["assignment"] == {"1": "0"}

    def test_variables_from_a_file_in_its_order(self, lnz, files):
        (files / "toy.query").write_text("2 2 1")
        assert lnz("toy.uai --query MMAP --map-vars toy.query")[1] == "MMAP\n2 2 2 1 1\n"
        (files / "bad.query").write_text("2 2 2")
        code, _, err = lnz("toy.uai --query MMAP --map-vars bad.query")
        assert (code, err) == (2, "lnz: bad.query, line 1, word 3: expected each variable once, got '2'\n")

    def test_by_name_given_evidence(self, lnz):
        line = "asia.bif --query MMAP --map-vars smoke --evidence cough=often --json"
        found = json.loads(lnz(line)[1])
        assert found["assignment"] == {"smoke": "yes"}
        assert found["log_score"] == pytest.approx(math.log(0.125))
        assert found["exact"]


class TestSamples:
    def test_ancestral_samples_by_name(self, lnz, files):
        code, out, err = lnz("asia.bif --samples 4000 --seed 3")
        assert (code, err) == (0, "")
        head, *rows = csv.reader(out.splitlines())
        assert head == ["smoke", "cough"]
        assert len(rows) == 4000
        often = sum(row == ["yes", "often"] for row in rows) / 4000
        assert often == pytest.approx(0.125, abs=0.03)
        assert lnz("asia.bif --samples 4000 --seed 3")[1] == out
        assert lnz("asia.bif --samples 4000 --seed 4")[1] != out

    @pytest.mark.parametrize("method", ["exact", "enumeration", "gibbs"])
    def test_given_evidence_hard_and_soft(self, lnz, method):
        more = " --warmup 20 --sweeps 40" if method == "gibbs" else ""
        line = f"asia.bif --samples 2000 --method {method} --seed 1{more} --evidence "
        rows = list(csv.DictReader(lnz(line + "cough=often")[1].splitlines()))
        assert {row["cough"] for row in rows} == {"often"}
        marginals = json.loads(lnz("asia.bif --evidence cough=often --json")[1])["marginals"]["smoke"]
        share = sum(row["smoke"] == "yes" for row in rows) / 2000
        assert share == pytest.approx(marginals[0], abs=0.05)
        soft = list(csv.DictReader(lnz(line + "smoke=1:0")[1].splitlines()))
        assert {row["smoke"] for row in soft} == {"yes"}

    def test_to_a_file_and_as_json(self, lnz, files):
        assert lnz("asia.bif --samples 5 --seed 1 --output rows.csv") == (0, "", "")
        rows = list(csv.DictReader((files / "rows.csv").read_text().splitlines()))
        found = json.loads(lnz("asia.bif --samples 5 --seed 1 --json")[1])
        assert found == {"samples": rows, "method": "exact"}
        code, out, _ = lnz("toy.uai --samples 3")
        assert code == 0
        assert out.splitlines()[0] == "0,1,2"
        assert len(out.splitlines()) == 4

    @pytest.mark.parametrize(
        ("line", "code", "message"),
        [
            ("asia.bif --samples 0", 2, "--samples: expected a positive integer, got '0'"),
            ("asia.bif --samples 3 --query MAR", 2, "--samples: is asked for instead of --query and --map-vars"),
            ("asia.bif --samples 3 --method bp", 2, "--method bp cannot draw --samples; methods that can: exact"),
            ("toy.uai --samples 3 --evidence 0=1,1=1", 1, "lnz: MRF.sample"),
            ("loop.uai --samples 3 --max-table 2", 1, "lnz: --method exact needs a table of about 10^"),
        ],
    )
    def test_what_cannot_be_drawn_is_told(self, lnz, line, code, message):
        found, out, err = lnz(line)
        assert (found, out) == (code, "")
        assert message in err


class TestNetworksByName:
    """Soft evidence and marginal MAP of a BIF file, beside the same network in Python and by hand."""

    def test_soft_evidence(self, lnz):
        found = json.loads(lnz("asia.bif --evidence cough=0.2:0.3:0.9 --json")[1])
        one = json.loads(lnz("asia.bif --json")[1])["marginals"]
        assert one != found["marginals"]
        net = BayesNet.from_bif("asia.bif")
        weights = dict(zip(net.states[1], (0.2, 0.3, 0.9), strict=False))
        wanted = net.query(["smoke"], {"cough": weights})["smoke"]
        assert found["marginals"]["smoke"] == pytest.approx(list(wanted.values()))

    @pytest.mark.parametrize("evidence", ["", "cough=often", "smoke=0.3:0.9"])
    def test_marginal_map(self, lnz, evidence):
        line = f"asia.bif --query MMAP --map-vars cough --json {f'--evidence {evidence}' if evidence else ''}"
        found = json.loads(lnz(line)[1])
        net = BayesNet.from_bif("asia.bif")
        by_name = {"": {}, "cough=often": {"cough": "often"}, "smoke=0.3:0.9": {"smoke": {0: 0.3, 1: 0.9}}}[evidence]
        assignment, value = net.marginal_map(["cough"], by_name)
        assert found["assignment"] == assignment
        assert found["log_score"] == pytest.approx(value)


def test_a_long_search_shows_its_progress_and_a_short_one_does_not(lnz, monkeypatch):
    monkeypatch.setattr("lnz.cli.search.QUIET", 0.0)
    code, out, err = lnz("toy.uai --query MAP --json")
    found = json.loads(out)
    assert (code, found["method"], found["exact"]) == (0, "auto", True)
    assert found["diagnostics"]["stages"] == ["Exact"]
    assert err == "     0 s  Exact: log score 3.17805383, no score above 3.17805383, gap 0\n"
    monkeypatch.setattr("lnz.cli.search.QUIET", 1e9)
    assert lnz("toy.uai --query MAP --json")[2] == ""
