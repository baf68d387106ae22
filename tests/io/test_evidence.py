"""Evidence: every form in the wild, and what is refused."""

import gzip

import pytest
import torch

import lnz
from lnz.io import NamedModel, parse_evidence, parse_variables, read_evidence, read_model

OPEN = -100


@pytest.fixture
def model():
    graph, _ = lnz.FactorGraph.grouped([2, 3, 4], [])
    states = (("no", "yes"), ("3", "4", "5"), ("a", "b", "c", "d"))
    return NamedModel("MARKOV", graph, (), ("rain", "level", "x"), states)


@pytest.fixture
def read(tmp_path, model):
    def from_text(text):
        path = tmp_path / "m.uai.evid"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_evidence(path, model)

    return from_text


@pytest.mark.parametrize(
    ("text", "observed"),
    [
        ("", [OPEN, OPEN, OPEN]),
        (" \n", [OPEN, OPEN, OPEN]),
        ("0", [OPEN, OPEN, OPEN]),
        ("0\n", [OPEN, OPEN, OPEN]),
        ("1 2 3", [OPEN, OPEN, 3]),
        ("2\n0 1\n1 2\n", [1, 2, OPEN]),
        ("2  0 1  0 1", [1, OPEN, OPEN]),
        ("1\n0", [OPEN, OPEN, OPEN]),  # one sample, nothing observed
        ("1\n2 0 1 2 3", [1, OPEN, 3]),  # one sample, two pairs
        ("1\n1 1 2", [OPEN, 2, OPEN]),
        (gzip.compress(b"1 0 1", mtime=0), [1, OPEN, OPEN]),
    ],
)
def test_forms(read, text, observed):
    got = read(text)
    assert got.dtype == torch.int64
    assert got.tolist() == observed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 3 0", r"line 1, word 2: expected a variable in \[0, 3\) in pair 0, got '3'"),
        ("1 -1 0", r"expected a variable in \[0, 3\) in pair 0, got '-1'"),
        ("2\n0 1\n1 3", r"line 3, word 5: expected a label of variable 1 in \[0, 3\) in pair 1, got '3'"),
        ("2 0 1 0 0", r"word 5: expected label 1 for variable 0 as before, got '0'"),
        ("2 0 1", "expected a variable in .* got the end of the file after 3 words"),
        ("1 0 1 2 3", "word 4: expected the end of the file after 1 pairs, got '2'"),
        ("0 0 1", "expected the end of the file after 0 pairs, got '0'"),
        ("2 0 1 1", "one sample of evidence, or pairs of a variable and a label after their number, got '2'"),
        ("1 2 0 1", "got the end of the file"),
        ("one", "expected the number of observed variables, got 'one'"),
        ("1 rain yes", "expected a variable"),
        ("999999999999", "got the end of the file"),
        (b"\x00\x17", "expected the number of observed variables"),
        (b"1 \xff 0", r"line 1, byte 3: expected UTF-8, got the byte 0xff; .* --encoding"),
        (gzip.compress(b"1 0 1", mtime=0)[:-6], "gzip"),
    ],
)
def test_malformed_files(read, text, message):
    with pytest.raises(lnz.FormatError, match=message) as error:
        read(text)
    assert "m.uai.evid" in str(error.value)


@pytest.mark.parametrize(
    ("text", "observed"),
    [
        ("", [OPEN, OPEN, OPEN]),
        ("rain=yes", [1, OPEN, OPEN]),
        (" rain = yes , x=c,", [1, OPEN, 2]),
        ("level=3", [OPEN, 0, OPEN]),  # the state named 3, not the fourth
        ("level=1", [OPEN, 1, OPEN]),  # no state of that name
        ("0=1,2=d", [1, OPEN, 3]),
        ("rain=yes,0=1", [1, OPEN, OPEN]),
    ],
)
def test_pairs(model, text, observed):
    assert parse_evidence(text, model).labels.tolist() == observed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rain", "expected NAME=STATE, got 'rain'"),
        ("rain=", "expected NAME=STATE, got 'rain='"),
        ("=yes", "expected NAME=STATE, got '=yes'"),
        ("rian=yes", r"expected a variable of the model, got 'rian' \(did you mean 'rain'\?\)"),
        ("3=yes", r"expected a variable of the model, got '3' \(rain, level, x\)"),
        ("rain=maybe", r"expected a state of rain, got 'maybe' \(no, yes\)"),
        ("rain=2", "expected a state of rain, got '2'"),
        ("rain=yes,0=no", "expected one state of 0, got both 'yes' and 'no'"),
    ],
)
def test_malformed_pairs(model, text, message):
    with pytest.raises(lnz.FormatError, match=message):
        parse_evidence(text, model)


@pytest.fixture
def quoted():
    graph, _ = lnz.FactorGraph.grouped([2, 3], [])
    return NamedModel("MARKOV", graph, (), ("a,b", 'x="y"'), (("<=1", "1,2"), ("p:q:r", "ä", "c")))


@pytest.mark.parametrize(
    ("text", "observed"),
    [
        ('"a,b"=<=1', [0, OPEN]),
        ('"a,b"="1,2", "x=""y"""=c', [1, 2]),
        ('1="p:q:r"', [OPEN, 0]),
        ("1=p:q:r", [OPEN, 0]),  # a state of that name, not three weights
        ("1=a\u0308", [OPEN, 1]),  # composed differently
    ],
)
def test_quoted_names(quoted, text, observed):
    assert parse_evidence(text, quoted).labels.tolist() == observed
    assert not parse_evidence(text, quoted).likelihoods


def test_quoted_variables(quoted):
    assert parse_variables('"x=""y""","a,b"', quoted) == (1, 0)
    with pytest.raises(lnz.FormatError, match="variables: expected a closing quote, got '\"a,b'"):
        parse_variables('"a,b', quoted)
    with pytest.raises(lnz.FormatError, match="evidence: expected a closing quote"):
        parse_evidence('"a,b=1', quoted)
    with pytest.raises(lnz.FormatError, match="expected a variable of the model, got '9999"):
        parse_variables("9" * 5000, quoted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "rain=0.7:0.2:0.1",
            r"expected a state of rain, or 2 non-negative weights with : between them, .* \(no, yes\)",
        ),
        ("rain=0.7:x", "got '0.7:x'"),
        ("rain=0.7:-1", "got '0.7:-1'"),
        ("rain=0:0", "got '0:0'"),
        ("rain=0.7:inf", "got '0.7:inf'"),
        ("rain=0.7:nan", "got '0.7:nan'"),
        ("rain=1:2,rain=3:1", "expected soft evidence of rain once, got 'rain=3:1' too"),
    ],
)
def test_malformed_soft_evidence(model, text, message):
    with pytest.raises(lnz.FormatError, match=message):
        parse_evidence(text, model)


def test_soft_evidence_multiplies_the_model(tmp_path):
    """Pearl's virtual evidence on a chain a → b: P(a) ∝ P(a) Σ_b P(b | a) λ(b), by hand."""
    path = tmp_path / "m.uai"
    path.write_text("BAYES 2 2 2 2  1 0  2 0 1  2 .4 .6  4 .9 .1 .2 .8")
    model = read_model(path)
    labels, likelihoods = parse_evidence("1=0.7:0.3", model)
    assert labels.tolist() == [OPEN, OPEN]
    assert likelihoods == {1: (0.7, 0.3)}
    p = model.with_likelihoods(likelihoods).mrf()
    weights = [0.4 * (0.9 * 0.7 + 0.1 * 0.3), 0.6 * (0.2 * 0.7 + 0.8 * 0.3)]
    assert p.log_partition.exp().item() == pytest.approx(sum(weights), rel=1e-14)
    assert p.node_marginals[0].tolist() == pytest.approx([w / sum(weights) for w in weights], rel=1e-14)
    assert model.with_likelihoods({}) is model
    both = parse_evidence("0=1,1=0.7:0.3", model)
    given = model.with_likelihoods(both.likelihoods).mrf().condition(both.labels)
    assert given.log_partition.exp().item() == pytest.approx(weights[1], rel=1e-14)
    hard = parse_evidence("1=1:0", model)
    assert model.with_likelihoods(hard.likelihoods).mrf().node_marginals[1].tolist() == [1, 0]


def test_byte_order_marks_and_encodings(read):
    for text in (b"\xef\xbb\xbf1 0 1", "1 0 1".encode("utf-16")):
        assert read(text).tolist() == [1, OPEN, OPEN]
