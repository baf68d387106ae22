"""Small files are small work: what asks for more is refused at once, and what is real is read."""

import gzip
import time
import zlib

import pytest

import lnz
from lnz.io import Limits, allowing, parse_evidence, read_model
from lnz.io.files import read_bytes
from lnz.io.yaml import check_yaml

BIF = "network n { } " + "".join(f"variable v{k} {{ type discrete [2] {{a, b}}; }} " for k in range(70))


def with_parents(count):
    parents = ", ".join(f"v{k}" for k in range(1, count + 1))
    roots = "".join(f"probability (v{k}) {{ table .5 .5; }} " for k in range(1, 70))
    return BIF + roots + f"probability (v0 | {parents}) {{ default .5 .5; }}"


XML = '<?xml version="1.0"?><BIF VERSION="0.3"><NETWORK>'
LAUGHS = "<!DOCTYPE BIF [" + '<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + k)} "{f"&{chr(97 + k)};" * 10}">' for k in range(9)
) + "]>"  # fmt: skip

TABLES = "".join(
    f"probability (v{k} | {', '.join(f'v{j}' for j in range(22) if j != k)}) {{ default .5 .5; }}" for k in range(70)
)
CPTS = "".join(
    f"<cpt id='v{k}'><state id='a'/><state id='b'/><parents>{' '.join(f'v{j}' for j in range(k))}</parents>"
    "<probabilities>1</probabilities></cpt>"
    for k in range(40)
)

SMALL = {
    "states.uai": ("MARKOV 1 1000000000000 0", r"at most 16,777,216 numbers in tables, got 1,000,000,000,000"),
    "variables.uai": ("MARKOV 1000000000 2 2", "the cardinalities of 1000000000 variables"),
    "many.uai": ("MARKOV 99 2" + " 1" * 97 + " 10000000 0", "at most 16,777,216 numbers in tables"),
    "factors.uai": ("MARKOV 1 2 1000000000 1 0", "the scopes of 1000000000 factors"),
    "scope.uai": (
        f"MARKOV 2000 {'2 ' * 2000} 1 2000 {' '.join(map(str, range(2000)))} 1 1",
        "at most 60 variables in a table, got 2,000",
    ),
    "ones.uai": (
        f"MARKOV 70 {'1 ' * 70} 1 70 {' '.join(map(str, range(70)))} 1 1",
        "at most 60 variables in a table, got 70",
    ),
    "past-1e308.uai": (
        f"MARKOV 60 {'999999 ' * 60} 1 60 {' '.join(map(str, range(60)))} 1 1",
        "numbers in tables|a table of 9",
    ),
    "digits.uai": ("MARKOV 1 " + "9" * 5000 + " 0", "the cardinality of variable 0"),
    "25.bif": (with_parents(25), "at most 16,777,216 numbers in tables, got 67,108,864"),
    "59.bif": (with_parents(59), "at most 16,777,216 numbers in tables"),
    "64.bif": (with_parents(64), "at most 60 variables in a table, got 65"),
    "sum.bif": (
        BIF + TABLES,
        "at most 16,777,216 numbers in tables",
    ),
    "comment.bif": ("network n { } " + "/* " * 300_000, "expected a block"),
    "quote.bif": ("network n { } " + '"' * 600_001, "expected a block"),
    "braces.dsl": ("net n { a = " + "{ b = " * 1000, "at most 64 levels of nesting, got 65"),
    "braces.net": ("net { a = " + "{ b = " * 1000, "at most 64 levels of nesting, got 65"),
    "comment.dsl": ("net n { " + "/* " * 300_000, "expected"),
    "laughs.bifxml": (LAUGHS + '<BIF VERSION="0.3">&j;</BIF>', "expected no entity, got 'a'"),
    "deep.bifxml": (XML + "<X>" * 100_000, "at most 64 levels of nesting, got 65"),
    "deep.xdsl": ("<smile>" + "<X>" * 100_000, "at most 64 levels of nesting, got 65"),
    "states.xdsl": (f"<smile><nodes>{CPTS}</nodes></smile>", "expected 2 numbers in the table of 'v0', got 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_refused_at_once(tmp_path, name):
    text, message = SMALL[name]
    path = tmp_path / name
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(lnz.FormatError, match=message) as error:
        read_model(path)
    assert time.process_time() - start < 5
    assert len(str(error.value)) < 2000


def test_gzip_bombs(tmp_path):
    path = tmp_path / "m.uai.gz"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b"1 " * 2**19
    path.write_bytes(b"".join(packer.compress(block) for _ in range(300)) + packer.flush())
    assert path.stat().st_size < 10**6
    with pytest.raises(lnz.FormatError, match=r"m\.uai\.gz: expected at most 268,435,456 bytes after decompression"):
        read_model(path)
    path.write_bytes(gzip.compress(b"MARKOV 1 2 0"))
    with allowing(unpacked=8, per_byte=0), pytest.raises(lnz.FormatError, match="at most 8 bytes"):
        read_bytes(path)
    assert read_bytes(path) == b"MARKOV 1 2 0"


def test_what_is_trusted_may_ask_for_more(tmp_path):
    path = tmp_path / "m.bif"
    path.write_text(with_parents(10))
    assert read_model(path).graph.num_nodes == 70
    with allowing(numbers=1000, per_byte=0) as allowed:
        assert allowed == Limits(numbers=1000, per_byte=0)
        with pytest.raises(
            lnz.FormatError, match=r"at most 1,000 numbers .* lnz.io.allowing\(numbers=…\) permits more"
        ):
            read_model(path)
    assert read_model(path).graph.num_nodes == 70


def test_numbers_of_thousands_of_digits_are_no_names(tmp_path):
    path = tmp_path / "m.uai"
    path.write_text("MARKOV 1 2 0")
    with pytest.raises(lnz.FormatError, match="expected a variable of the model, got '999"):
        parse_evidence("9" * 5000 + "=1", read_model(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join([f'*{chr(97 + k)}'] * 10)}]\n" for k in range(9)),
            "expected at most 65,536 values",
        ),
        ("a: &a [*a]", r"expected no alias of what holds it, got \*a"),
        ("[" * 1000, "expected at most 64 levels of nesting"),
        ("seeds: " + "9" * 5000, "expected numbers of at most 300 digits, got 5000"),
        ("a: [1", "cannot be read as YAML"),
    ],
)
def test_yaml(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(lnz.FormatError, match=rf"config\.yaml: {message}"):
        check_yaml(path)
    path.write_text("model: &m {width: 3}\nother: *m\n")
    check_yaml(path)
