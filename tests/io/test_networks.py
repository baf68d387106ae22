"""One network in every format: the same names, states and probabilities, to the last digit."""

import gzip

import pytest
import torch

import lnz
from lnz.io import read_model

RAIN = {
    "m.bif": """network n { }
variable rain { type discrete [ 2 ] { yes, no }; }
variable level { type discrete [ 3 ] { low, mid, high }; }
variable wet { type discrete [ 2 ] { "true", "false" }; }
probability ( rain ) { table 0.2, 0.8; }
probability ( level ) { table 1e-50, 0.3, 0.7; }
probability ( wet | rain, level ) {
  (yes, low) 0.1, 0.9; (yes, mid) 0.123456789012345678, 0.876543210987654322; (yes, high) 1, 0;
  (no, low) 0.5, 0.5; (no, mid) 0.6, 0.4; (no, high) 0.7, 0.3;
}
""",
    "m.bifxml": """<?xml version="1.0" encoding="US-ASCII"?>
<!DOCTYPE BIF [ <!ELEMENT BIF ( NETWORK )*> <!ATTLIST BIF VERSION CDATA #REQUIRED> ]>
<BIF VERSION="0.3"><NETWORK><NAME>n</NAME>
<VARIABLE TYPE="nature"><NAME>rain</NAME><OUTCOME>yes</OUTCOME><OUTCOME>no</OUTCOME><PROPERTY>p</PROPERTY></VARIABLE>
<VARIABLE><NAME>level</NAME><OUTCOME>low</OUTCOME><OUTCOME>mid</OUTCOME><OUTCOME>high</OUTCOME></VARIABLE>
<VARIABLE TYPE="nature"><NAME>wet</NAME><OUTCOME>true</OUTCOME><OUTCOME>false</OUTCOME></VARIABLE>
<DEFINITION><FOR>rain</FOR><TABLE>0.2 0.8</TABLE></DEFINITION>
<DEFINITION><FOR>level</FOR><TABLE>1e-50 0.3 0.7 <!-- a comment --></TABLE></DEFINITION>
<DEFINITION><FOR>wet</FOR><GIVEN>rain</GIVEN><GIVEN>level</GIVEN>
<TABLE>0.1 0.9 0.123456789012345678 0.876543210987654322 1 0 0.5 0.5 0.6 0.4 0.7 0.3</TABLE></DEFINITION>
</NETWORK></BIF>
""",
    "m.xdsl": """<?xml version="1.0" encoding="ISO-8859-1"?>
<smile version="1.0" id="n" numsamples="1000"><nodes>
<cpt id="rain"><state id="yes" /><state id="no" /><probabilities>0.2 0.8</probabilities></cpt>
<cpt id="level"><state id="low"/><state id="mid"/><state id="high"/><probabilities>1e-50 0.3 0.7</probabilities></cpt>
<cpt id="wet"><state id="true" /><state id="false" /><parents>rain level</parents>
<probabilities>0.1 0.9 0.123456789012345678 0.876543210987654322 1 0 0.5 0.5 0.6 0.4 0.7 0.3</probabilities></cpt>
</nodes><extensions><genie version="1.0"><node id="rain"><name>Does it rain?</name></node></genie></extensions></smile>
""",
    "m.net": """net { name = "n"; node_size = (80 40); }
% a comment; with } marks
node rain { label = "Does it rain?"; position = (1 2); states = ("yes" "no"); }
discrete node level { states = ("low" "mid" "high"); }
node wet { states = ("true" "false"); }
potential ( rain ) { data = ( 0.2 0.8 ); }
potential ( level | ) { data = ( 1e-50 0.3 0.7 ); }
potential ( wet | rain level )
{ data = (((0.1 0.9)(0.123456789012345678 0.876543210987654322)(1 0)) % rain
          ((0.5 0.5)(0.6 0.4)(0.7 0.3))); }
""",
    "m.dsl": """net n {
 HEADER = { ID = n; NAME = "n; }"; };
 // a comment }
 numsamples = 1000;
 node rain { TYPE = CPT; HEADER = { ID = rain; NAME = "Does it rain?"; }; PARENTS = ();
  DEFINITION = { NAMESTATES = (yes, no); PROBABILITIES = (0.2, 0.8); }; };
 node level { TYPE = CPT; PARENTS = ();
  DEFINITION = { NAMESTATES = (low, mid, high); PROBABILITIES = (1e-50, 0.3, 0.7); }; };
 node wet { TYPE = CPT; PARENTS = (rain, level); DEFINITION = { NAMESTATES = (true, false);
  PROBABILITIES = (0.1, 0.9, 0.123456789012345678, 0.876543210987654322, 1, 0, 0.5, 0.5, 0.6, 0.4, 0.7, 0.3); }; };
};
""",
}
RAIN["m.xml"] = RAIN["m.xmlbif"] = RAIN["m.bifxml"]


def read(tmp_path, name, text, **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_model(path, **options)


def tables(model):
    """Each variable's table ``[*parents, child]``, by its name."""
    return {
        model.names[nodes[-1]]: table.exp()
        for scope, scores in zip(model.graph.scopes, model.scores, strict=True)
        for nodes, table in zip(scope.tolist(), scores, strict=True)
    }


@pytest.mark.parametrize("name", RAIN)
def test_every_format_reads_the_same_network_in_full_precision(tmp_path, name):
    model = read(tmp_path, name, RAIN[name])
    assert model.kind == "BAYES"
    assert model.names == ("rain", "level", "wet")
    assert model.states == (("yes", "no"), ("low", "mid", "high"), ("true", "false"))
    found = tables(model)
    close = {"rtol": 4e-15, "atol": 0}  # of exp(log(p))
    torch.testing.assert_close(found["rain"], torch.tensor([0.2, 0.8], dtype=torch.float64), **close)
    torch.testing.assert_close(found["level"], torch.tensor([1e-50, 0.3, 0.7], dtype=torch.float64), rtol=1e-13, atol=0)
    assert found["wet"][0, 1, 0].item() == pytest.approx(0.123456789012345678, rel=4e-15)
    assert found["wet"][:, :, 1].tolist() == [
        pytest.approx([0.9, 0.876543210987654322, 0], rel=4e-15),
        pytest.approx([0.5, 0.4, 0.3], rel=4e-15),
    ]


@pytest.mark.parametrize("name", RAIN)
def test_byte_order_marks_gzip_and_utf16_are_read(tmp_path, name):
    text = RAIN[name].replace('encoding="US-ASCII"', "").replace('encoding="ISO-8859-1"', "")
    expected = tables(read(tmp_path, name, text))
    for data in (b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16")):
        for packed, ending in ((data, ""), (gzip.compress(data), ".gz")):
            for key, table in tables(read(tmp_path, name + ending, packed)).items():
                assert torch.equal(table, expected[key])


@pytest.mark.parametrize("name", RAIN)
@pytest.mark.parametrize("encoding", ["latin-1", "gbk"])
def test_names_in_other_encodings(tmp_path, name, encoding):
    word = {"latin-1": "Gefühl", "gbk": "下雨"}[encoding]
    text = RAIN[name].replace("rain", word).replace(f"it {word}?", "?")
    text = text.replace('encoding="US-ASCII"', "").replace('encoding="ISO-8859-1"', "")
    assert read(tmp_path, name, text).names[0] == word
    assert read(tmp_path, name, text.encode(encoding), encoding=encoding).names[0] == word
    with pytest.raises(lnz.FormatError, match=rf"{name}, line \d, byte \d+: expected ") as error:
        read(tmp_path, name, text.encode(encoding))
    assert "expected UTF-8, got the byte 0x" in str(error.value)
    assert "--encoding" in str(error.value)
    with pytest.raises(lnz.FormatError, match="encoding: expected the name of a text encoding, .* got 'no-such'"):
        read(tmp_path, name, text, encoding="no-such")
    if RAIN[name].startswith("<"):  # XML says what it is
        declared = f'<?xml version="1.0" encoding="{encoding}"?>' + text[text.index("?>") + 2 :]
        assert read(tmp_path, name, declared.encode(encoding)).names[0] == word


@pytest.mark.parametrize("name", RAIN)
def test_every_truncation_is_refused(tmp_path, name):
    whole = RAIN[name].rstrip().removesuffix(";")
    for end in range(0, len(whole), 11):
        with pytest.raises(lnz.FormatError, match=f"m.{name.split('.')[1]}"):
            read(tmp_path, name, whole[:end])


def test_deterministic_nodes_are_read(tmp_path):
    xdsl = RAIN["m.xdsl"].replace('<cpt id="wet">', '<deterministic id="wet">')
    head, tail = xdsl.split("<parents>rain level</parents>")
    states = "true false true false false true"
    tail = f"<resultingstates>{states}</resultingstates></deterministic>" + tail[tail.index("</cpt>") + 6 :]
    dsl = RAIN["m.dsl"].replace("node wet { TYPE = CPT", "node wet { TYPE = TRUTHTABLE")
    dsl = (
        dsl[: dsl.index("  PROBABILITIES = (0.1, 0.9, 0.12")]
        + f"RESULTINGSTATES = ({states.replace(' ', ', ')}); }}; }}; }};"
    )
    for name, text in (("m.xdsl", f"{head}<parents>rain level</parents>{tail}"), ("m.dsl", dsl)):
        model = read(tmp_path, name, text)
        assert tables(model)["wet"][..., 0].tolist() == [[1, 0, 1], [0, 0, 1]]
        assert tables(model)["wet"].sum(-1).tolist() == [[1, 1, 1], [1, 1, 1]]
        with pytest.raises(lnz.FormatError, match="expected a state of 'wet' in its table, got 'damp'"):
            read(
                tmp_path,
                name,
                text.replace(states, states.replace("true", "damp")).replace(
                    states.replace(" ", ", "), states.replace(" ", ", ").replace("true", "damp")
                ),
            )
        with pytest.raises(lnz.FormatError, match="expected 6 states in the table of 'wet', got 5"):
            read(tmp_path, name, text.replace("false true<", "false<").replace("false, true)", "false)"))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("m.xdsl", '<cpt id="level">', '<noisymax id="level">', "<deterministic>, got 'level', a <noisymax>"),
        ("m.xdsl", '<cpt id="rain">', '<decision id="rain">', "got 'rain', a <decision>"),
        ("m.xdsl", "</nodes>", "</nodes><dynamic numslices='3' />", "got <dynamic>, which is not read"),
        ("m.xdsl", "<probabilities>0.2", "<equation>x</equation><probabilities>0.2", "in node 'rain', got <equation>"),
        ("m.xdsl", "0.2 0.8", "0.2 0.7 0.1", "expected 2 numbers in the table of 'rain', got 3"),
        ("m.xdsl", "0.2 0.8", "0.2 1_0", "node rain, line 1, word 2: expected a number, got '1_0'"),
        ("m.xdsl", "rain level</parents>", "rain rain</parents>", "one table of 'wet', over different variables"),
        ("m.xdsl", 'state id="no"', 'state id="yes"', "expected different states of 'rain', got"),
        ("m.bifxml", '"nature"><NAME>rain', '"utility"><NAME>rain', "type nature, got 'rain' of type 'utility'"),
        ("m.bifxml", "<FOR>rain</FOR>", "<FOR>rian</FOR>", "a variable that is declared in the table of 'rian'"),
        ("m.bifxml", "<FOR>rain</FOR><TABLE>0.2 0.8</TABLE>", "<FOR>rain</FOR>", "got 1 <FOR> and 0 <TABLE>"),
        ("m.bifxml", "BIF", "BIX", "expected the element <BIF>, got <BIX>"),
        ("m.bifxml", "<!ELEMENT BIF", '<!ENTITY a "b"><!ELEMENT BIF', "line 2: expected no entity, got 'a'"),
        ("m.bifxml", "0.2 0.8", "0.2 0.7", r"P\(rain\) to be non-negative and to sum to 1, got \[0.2, 0.7\]"),
        ("m.net", "node wet", "utility wet", "others are not read, got 'utility'"),
        ("m.net", "discrete node", "continuous node", "got 'continuous'"),
        ("m.net", "net {", "class n {", "expected a NET file, which starts with 'net', got 'class'"),
        ("m.net", "data = ( 0.2 0.8 )", 'model_data = ("x")', "'data' in the potential of 'rain', got model_data"),
        ("m.net", "(1 0)", "(1 0 0)", "expected rows of 2 numbers in the potential of 'wet', got one of 3"),
        ("m.net", "( 0.2 0.8 )", "( 0.2 0.8 ", "expected numbers in balanced parentheses in the potential of 'rain'"),
        ("m.net", "0.2 0.8", "0.2 nan", "expected finite numbers in the potential of 'rain', got 'nan'"),
        ("m.net", "( rain )", "( rain level )", r"of one variable given others, got \(rain level\)"),
        ("m.dsl", "node level { TYPE = CPT", "node level { TYPE = NOISY_MAX", "got 'level' of type 'NOISY_MAX'"),
        ("m.dsl", "(0.2, 0.8)", "(0.2, x)", "node rain, line 1, word 2: expected a number, got 'x'"),
        ("m.bif", "0.2, 0.8", "0.2, 0.8, 0.1", "expected 2 numbers, not 3"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(tmp_path, name, old, new, message):
    assert old in RAIN[name]
    text = RAIN[name].replace(old, new)
    if (old, kind := new[1:].partition(" ")[0]) in (('<cpt id="level">', "noisymax"), ('<cpt id="rain">', "decision")):
        at = text.index("</cpt>", text.index(new))
        text = text[:at] + f"</{kind}>" + text[at + len("</cpt>") :]
    with pytest.raises(lnz.FormatError, match=message) as error:
        read(tmp_path, name, text)
    assert str(tmp_path / name) in str(error.value)


def test_o3prm_is_refused_by_name(tmp_path):
    with pytest.raises(lnz.FormatError, match=r"m\.o3prm: O3PRM is not read"):
        read(tmp_path, "m.o3prm", "class n { }")


@pytest.mark.parametrize("ending", ["bifxml", "net", "dsl"])
def test_tables_agree_with_pyagrum(tmp_path, ending):
    pyagrum = pytest.importorskip("pyagrum")
    pyagrum.initRandom(7)
    network = pyagrum.fastBN("A[3]->B[2]->C{x|y|z|w}<-A")
    path = tmp_path / f"m.{ending}"
    pyagrum.saveBN(network, str(path))
    model = read_model(path)
    assert model.states[model.nodes["C"]] == ("x", "y", "z", "w")
    for scope, scores in zip(model.graph.scopes, model.scores, strict=True):
        for nodes, table in zip(scope.tolist(), scores, strict=True):
            theirs = network.cpt(model.names[nodes[-1]])
            names = [model.names[node] for node in nodes]
            ours = table.exp().permute([names.index(axis) for axis in reversed(theirs.names)])
            torch.testing.assert_close(
                ours, torch.from_numpy(theirs.toarray()), rtol=1e-5, atol=0
            )  # they write 6 digits


def one_row(row):
    """A BIF network of one variable."""
    count = len(row.split())
    labels = ", ".join(f"s{k}" for k in range(count))
    head = f"network n {{ }} variable a {{ type discrete [{count}] {{ {labels} }}; }}"
    return f"{head} probability (a) {{ table {row}; }}"


def test_xdsl_by_agrum_has_its_parents_in_another_order(tmp_path):
    pyagrum = pytest.importorskip("pyagrum")
    path = tmp_path / "m.xdsl"
    pyagrum.saveBN(pyagrum.fastBN("A->B->C"), str(path))
    assert set(read_model(path).names) == {"A", "B", "C"}
    pyagrum.saveBN(pyagrum.fastBN("A[3]->C<-B"), str(path))
    with pytest.raises(lnz.FormatError, match=r"m\.xdsl: written by aGrUM, which lists parents in another order"):
        read_model(path)


class TestRounding:
    def test_rounded_rows_change_no_other_variable(self, tmp_path):
        """A hundred barren children whose rows say .333 .333 .333: P(H) stays what its table says."""
        text = "network n { } variable H { type discrete [2] {y, n}; } probability (H) { table .5 .5; }"
        for k in range(100):
            text += f"variable c{k} {{ type discrete [3] {{a, b, c}}; }}"
            text += f"probability (c{k} | H) {{ (y) .333 .333 .333; (n) .3 .3 .4; }}"
        with pytest.warns(lnz.errors.NormalizationWarning) as warned:
            model = read(tmp_path, "m.bif", text)
        assert len(warned) == 1
        assert "100 rows of its tables do not sum to 1; normalized, the largest deviation is 0.001, of P(c" in str(
            warned[0].message
        )
        marginals = model.mrf().node_marginals
        assert marginals[0, :2].tolist() == pytest.approx([0.5, 0.5], abs=1e-12)
        assert model.mrf().log_partition.item() == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize(("row", "state"), [(".33 .33 .33", 1 / 3), (".17 .17 .17 .17 .17 .17", 1 / 6)])
    def test_two_digits_are_enough(self, tmp_path, row, state):
        with pytest.warns(lnz.errors.NormalizationWarning, match=r"1 row of its tables does not sum to 1"):
            model = read(tmp_path, "m.bif", one_row(row))
        assert tables(model)["a"].tolist() == pytest.approx([state] * len(row.split()), rel=1e-14)

    def test_more_than_rounding_is_an_error(self, tmp_path):
        for row in (".3 .6", ".32 .32 .32", ".9 .12"):
            with pytest.raises(lnz.FormatError, match="sum to 1"):
                read(tmp_path, "m.bif", one_row(row))

    @pytest.mark.parametrize("name", RAIN)
    def test_every_format_normalizes(self, tmp_path, name):
        rounded = RAIN[name].replace("0.3 0.7", "0.3 0.699").replace("0.3, 0.7", "0.3, 0.699")
        with pytest.warns(lnz.errors.NormalizationWarning, match=r"deviation is 0.001, of P\(level\)"):
            model = read(tmp_path, name, rounded)
        assert tables(model)["level"][1:].tolist() == pytest.approx([0.3 / 0.999, 0.699 / 0.999], rel=1e-14)


def test_a_flat_table_is_read_in_the_order_in_which_its_rows_are_exact(tmp_path):
    head = "network n { } variable a { type discrete [3] {x, y, z}; } variable b { type discrete [3] {u, v, w}; }"
    head += "probability (a) { table .2 .3 .5; } probability (b | a) { table %s; }"
    fastest = read(tmp_path, "m.bif", head % ".1 .2 .7 .705 .1 .195 .2 .7 .1")
    assert tables(fastest)["b"].tolist() == [
        pytest.approx(row, rel=1e-14) for row in ([0.1, 0.2, 0.7], [0.705, 0.1, 0.195], [0.2, 0.7, 0.1])
    ]
    slowest = read(tmp_path, "m.bif", head % ".1 .705 .2 .2 .1 .7 .7 .195 .1")
    for key, table in tables(slowest).items():
        torch.testing.assert_close(table, tables(fastest)[key], rtol=1e-14, atol=0)
    both = read(tmp_path, "m.bif", head % ".1 .2 .7 .2 .7 .1 .7 .1 .2")  # either order: that of the format
    assert tables(both)["b"][0].tolist() == pytest.approx([0.1, 0.2, 0.7])
    uneven = read(tmp_path, "m.bif", head % ".1 .2 .7 .7 .1 .2 .2 .7 .1")  # exact in both: the child is slowest
    assert tables(uneven)["b"][0].tolist() == pytest.approx([0.1, 0.7, 0.2])


def test_the_last_semicolon_of_a_dsl_file_may_be_missing_and_nothing_may_stand_there_instead(tmp_path):
    text = RAIN["m.dsl"].rstrip().removesuffix(";")
    assert read(tmp_path, "m.dsl", text).names == ("rain", "level", "wet")
    for more in ("x", "; ;", "; x"):
        with pytest.raises(lnz.FormatError, match="the network"):
            read(tmp_path, "m.dsl", text + more)
