"""Evidence: every form in the wild, and what is refused."""

import gzip

import pytest
import torch

import lnz
from lnz.io import NamedModel, parse_evidence, read_evidence

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
        (b"\x00\xff\x17", "expected the number of observed variables"),
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
    assert parse_evidence(text, model).tolist() == observed


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
