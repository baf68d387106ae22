"""BIF networks: what is read, in which order, and what is refused."""

import gzip
import json
import math
import re

import pytest
import torch

import lnz
from lnz.io import read_bif, read_model

RAIN = """network weather { property by "hand { } ;"; }
// a comment { with braces }
variable rain { type discrete [ 2 ] { yes, no }; property position = (1, 2); }
variable level { type discrete[3] { 4, 3, High/Low }; }  /* states
   that look like numbers */
variable wet { type discrete [ 2 ] { "true", "<5" }; }
probability ( rain ) { table 0.3, 0.7; }
probability ( level | rain ) {
  (yes) 0.1, 0.2, 0.7;
  default 0.5, 0.25, 0.25;
}
probability ( wet | level, rain ) {
  (4, yes) 1.0, 0.0;  (3, yes) 0.9 0.1;  (High/Low, yes) .8, .2;
  (4, no) 0.5, 0.5;  (3, no) 1e-1, 9e-1;  (High/Low, no) 0, 1;
}
"""


def read(tmp_path, text):
    path = tmp_path / "m.bif"
    path.write_text(text)
    return read_bif(path)


def tables(model):
    """Each variable's table, by the names of its scope."""
    return {
        tuple(model.names[node] for node in nodes): table.exp()
        for scope, scores in zip(model.graph.scopes, model.scores, strict=True)
        for nodes, table in zip(scope.tolist(), scores, strict=True)
    }


def test_names_states_and_tables_keep_the_order_of_the_file(tmp_path):
    model = read(tmp_path, RAIN)
    assert model.kind == "BAYES"
    assert model.names == ("rain", "level", "wet")
    assert model.states == (("yes", "no"), ("4", "3", "High/Low"), ("true", "<5"))
    found = tables(model)
    assert found["rain",].tolist() == pytest.approx([0.3, 0.7], abs=1e-16)
    torch.testing.assert_close(
        found["rain", "level"], torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]], dtype=torch.float64)
    )
    assert found["level", "rain", "wet"][2].tolist() == [[pytest.approx(0.8), pytest.approx(0.2)], [0, 1]]
    assert model.mrf(lnz.inference.Enumeration()).log_partition.item() == pytest.approx(0, abs=1e-15)
    packed = tmp_path / "m.bif.gz"
    packed.write_bytes(gzip.compress(RAIN.encode()))
    assert read_model(packed).states == model.states


def test_a_flat_table_has_the_child_slowest_or_fastest_whichever_sums_to_one(tmp_path):
    head = "network n { } variable a { type discrete [2] {x, y}; } variable b { type discrete [3] {u, v, w}; }"
    head += "probability (a) { table 0.5 0.5; }"
    rows = torch.tensor([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]], dtype=torch.float64)
    for flat in (rows.T, rows):
        numbers = ", ".join(map(str, flat.flatten().tolist()))
        model = read(tmp_path, head + f"probability (b | a) {{ table {numbers}; }}")
        torch.testing.assert_close(tables(model)["a", "b"], rows)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("network", "netwrok", "line 1, word 1: expected a BIF file, which starts with 'network', got 'netwrok'"),
        ("variable level", "vraiable level", "line 4, word .*: expected a block 'variable' or 'probability'"),
        ("[3]", "[4]", "line 4, .*expected 4 different states of level"),
        ("{ yes, no }", "{ yes, yes }", "line 3, .*expected 2 different states of rain"),
        ("variable wet", "variable rain", "line 6, .*expected a variable that is not declared yet, got 'rain'"),
        ("( level | rain )", "( level | rian )", "line 8, .*expected variables that are declared above, not 'rian'"),
        ("( level | rain )", "( level | level )", "line 8, .*expected one table per variable"),
        ("( level | rain )", "( rain | level )", "line 8, .*expected one table per variable"),
        ("(yes) 0.1", "(maybe) 0.1", r"line 9, .*expected a state of rain \(yes, no\), not 'maybe'"),
        ("(4, yes)", "(4)", "line 13, .*expected 2 states, of level, rain"),
        ("(3, no)", "(4, no)", "line 14, .*expected each row once"),
        ("0.1, 0.2, 0.7", "0.1, 0.2", "line 9, .*expected 3 numbers, not 2"),
        ("0.1, 0.2, 0.7", "0.1, 0.2, x", "line 9, .*expected a number, got 'x'"),
        ("0.1, 0.2, 0.7", "0.1, 0.2, nan", "line 9, .*expected a finite number, got 'nan'"),
        ("0.1, 0.2, 0.7", "0.4, -0.1, 0.7", r"expected P\(level \| rain=yes\) to be non-negative .* -0.1"),
        ("0.3, 0.7", "0.3, 0.6", r"expected P\(rain\) to be non-negative and to sum to 1, got \[0.3, 0.6\]"),
        ("(3, no) 1e-1, 9e-1;", "", r"expected P\(wet \| level=3, rain=no\) to be .* got no values"),
        (
            "probability ( rain ) { table 0.3, 0.7; }",
            "",
            "expected a probability table for each variable, got none for 'rain'",
        ),
        ("( rain ) { table 0.3, 0.7;", "( rain | wet ) { default 0.3, 0.7;", "expected no directed cycle, got .*rain"),
        ("discrete[3]", "continuous[3]", "line 4, .*expected 'discrete', got 'continuous'"),
    ],
)
def test_malformed_networks(tmp_path, old, new, message):
    assert RAIN.count(old) == 1
    with pytest.raises(lnz.FormatError, match=message) as error:
        read(tmp_path, RAIN.replace(old, new))
    assert str(tmp_path / "m.bif") in str(error.value)


def test_every_truncation_is_refused(tmp_path):
    for end in range(0, len(RAIN.rstrip()), 7):
        with pytest.raises(lnz.FormatError):
            read(tmp_path, RAIN[:end])


def test_junk_is_refused(tmp_path):
    path = tmp_path / "m.bif"
    for junk in (b"", bytes(range(256)) * 9, gzip.compress(RAIN.encode())[:-9], b'network n {} variable " {'):
        path.write_bytes(junk)
        with pytest.raises(lnz.FormatError, match=r"m\.bif"):
            read_bif(path)
    with pytest.raises(lnz.FormatError, match="at least one variable"):
        read(tmp_path, "network nothing { }")


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "asia",
        "cancer",
        "earthquake",
        "survey",
        "sachs",
        "child",
        "alarm",
        "insurance",
        "hailfinder",
        "water",
        "win95pts",
    ],
)
def test_published_networks_and_their_posteriors(shared_data, name):
    path = shared_data / "bayesnets" / f"{name}.bif.gz"
    model = read_bif(path)
    declared = re.findall(r"variable\s+(\S+)\s*{[^{]*{([^}]*)}", gzip.decompress(path.read_bytes()).decode())
    assert model.names == tuple(variable for variable, _ in declared)
    assert model.states == tuple(tuple(state.strip() for state in states.split(",")) for _, states in declared)
    cases = json.loads((shared_data / "bayesnets" / "posteriors_exact.json").read_text())[name]
    observed = torch.full((len(cases), len(model.names)), -100)
    for row, case in zip(observed, cases, strict=True):
        for variable, state in case["evidence"].items():
            row[model.nodes[variable]] = model.states[model.nodes[variable]].index(state)
    p = model.mrf().condition(observed)
    marginals = p.node_marginals
    for case, z, rows, seen in zip(cases, p.log_partition, marginals, observed, strict=True):
        assert z.item() / math.log(10) == pytest.approx(case["log10_prob_evidence"], abs=1e-6)
        for variable, expected in case["marginals"].items():
            row = rows[model.nodes[variable]]
            assert row[: len(expected)].tolist() == pytest.approx(expected, abs=1e-6)
            assert not row[len(expected) :].any()
        for node in (seen >= 0).nonzero().flatten().tolist():
            assert rows[node].tolist() == pytest.approx(
                [float(label == seen[node]) for label in range(len(rows[node]))]
            )


@pytest.mark.data
@pytest.mark.parametrize("name", ["asia", "alarm", "sachs", "water"])
def test_tables_agree_with_pyagrum(shared_data, tmp_path, name):
    pyagrum = pytest.importorskip("pyagrum")
    path = tmp_path / f"{name}.bif"
    path.write_bytes(gzip.decompress((shared_data / "bayesnets" / f"{name}.bif.gz").read_bytes()))
    network = pyagrum.loadBN(str(path))
    for scope, table in tables(read_bif(path)).items():
        theirs = network.cpt(scope[-1])
        ours = table.permute([scope.index(axis) for axis in reversed(theirs.names)])
        torch.testing.assert_close(ours, torch.from_numpy(theirs.toarray()), rtol=0, atol=1e-7)  # theirs are float32


def test_a_variable_of_one_state_is_a_constant(tmp_path):
    model = read(
        tmp_path,
        "network n { } variable a { type discrete [ 1 ] { always }; } variable b { type discrete [ 2 ] { yes, no }; }\n"
        "probability ( a ) { table 1.0; } probability ( b | a ) { (always) 0.25, 0.75; }",
    )
    p = lnz.MRF(model.graph, model.scores)
    assert p.node_marginals.tolist() == [pytest.approx([1.0, 0.0]), pytest.approx([0.25, 0.75])]
    with pytest.raises(lnz.errors.FormatError, match="number of states of a"):
        read(tmp_path, "network n { } variable a { type discrete [ 0 ] { }; } probability ( a ) { table; }")


def test_what_stands_in_a_variable_in_the_wrong_place_is_named(tmp_path):
    with pytest.raises(lnz.errors.FormatError, match="expected 'type' or 'property', got 'kind'"):
        read(tmp_path, "network n { } variable a { kind discrete [ 2 ] { x, y }; }")
