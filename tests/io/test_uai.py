"""UAI models: what is read, what is refused and how the refusal reads."""

import gzip
import math

import pytest
import torch

import lnz
from lnz.io import read_bytes, read_model, read_uai, write_uai

TOY = """MARKOV
3
2 2 3
2
2 0 1
2 1 2

4
 4.000 2.400
 1.000 0.000

6
 2.2500 3.2500 3.7500
 0.0000 0.0000 10.0000
"""


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.uai"
    path.write_text(TOY)
    return path


def refusal(tmp_path, text):
    path = tmp_path / "bad.uai"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(lnz.FormatError) as error:
        read_uai(path)
    message = str(error.value)
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_tables_are_logs_with_the_last_variable_fastest(toy):
    model = read_uai(toy)
    assert model.kind == "MARKOV"
    assert model.names == ("0", "1", "2")
    assert model.states == (("0", "1"), ("0", "1"), ("0", "1", "2"))
    assert [scope.tolist() for scope in model.graph.scopes] == [[[0, 1]], [[1, 2]]]
    assert model.scores[0].dtype == torch.float64
    assert model.scores[0].tolist() == [[[math.log(4), math.log(2.4)], [0.0, -math.inf]]]
    assert model.scores[1][0, 1].tolist() == [-math.inf, -math.inf, math.log(10)]
    p = model.mrf(lnz.inference.Enumeration())
    z = (4 + 1) * (2.25 + 3.25 + 3.75) + 2.4 * 10
    assert p.log_partition.item() == pytest.approx(math.log(z), abs=1e-12)


def test_factors_of_one_shape_are_one_group_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "m.uai"
    path.write_text("BAYES 3  2 2 2  4  1 0  2 0 1  1 2  2 2 1  2 .5 .5  4 1 2 3 4  2 1 0  4 5 6 7 8")
    model = read_uai(path)
    assert model.kind == "BAYES"
    assert [scope.tolist() for scope in model.graph.scopes] == [[[0], [2]], [[0, 1], [2, 1]]]
    torch.testing.assert_close(model.scores[1].exp()[1], torch.tensor([[5.0, 6], [7, 8]], dtype=torch.float64))


def test_gzip_is_told_by_contents(toy, tmp_path):
    packed = tmp_path / "toy.uai.gz"
    packed.write_bytes(gzip.compress(TOY.encode()))
    misnamed = tmp_path / "packed.uai"
    misnamed.write_bytes(packed.read_bytes())
    for path in (packed, misnamed):
        for a, b in zip(read_model(path).scores, read_uai(toy).scores, strict=True):
            assert torch.equal(a, b)


def test_a_constant_factor_and_no_factor(tmp_path):
    path = tmp_path / "m.uai"
    path.write_text("MARKOV 1 2 1 0 1 3.0")
    assert read_uai(path).mrf(lnz.inference.Enumeration()).log_partition.item() == pytest.approx(math.log(6))
    path.write_text("MARKOV 2 2 3 0")
    assert read_uai(path).mrf(lnz.inference.Enumeration()).log_partition.item() == pytest.approx(math.log(6))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("MARKOV", "MARKOW", ", line 1, word 1: expected MARKOV or BAYES, got 'MARKOW'"),
        ("MARKOV\n3", "MARKOV\nthree", ", line 2, word 2: expected the number of variables, got 'three'"),
        ("MARKOV\n3", "MARKOV\n-3", ", line 2, word 2: expected the number of variables, got '-3'"),
        ("2 2 3", "2 0 3", ", line 3, word 4: expected the cardinality of variable 1, a positive integer, got '0'"),
        ("2 0 1", "2 0 3", ", line 5, word 9: expected a variable of factor 0 in [0, 3), got '3'"),
        ("2 0 1", "2 0 0", ", line 5, word 9: expected distinct variables in the scope of factor 0, got '0'"),
        ("2 1 2", "9 1 2", ", line 6, word 10: expected the scope size of factor 1, at most 3, got '9'"),
        ("\n4\n", "\n5\n", ", line 8, word 13: expected the table size of factor 0, 4 by its scope, got '5'"),
        ("2.400", "", ", line 13, word 18: expected the table size of factor 1, 6 by its scope, got '2.2500'"),
        ("3.2500", "-3.25", ", line 13, word 20: expected a finite, non-negative table value, got '-3.25'"),
        ("3.2500", "nan", ", line 13, word 20: expected a finite, non-negative table value, got 'nan'"),
        ("3.2500", "inf", ", line 13, word 20: expected a finite, non-negative table value, got 'inf'"),
        ("3.2500", "3,25", ", line 13, word 20: expected a number, got '3,25'"),
        ("3.2500", "3_2", ", line 13, word 20: expected a number, got '3_2'"),
        (
            "10.0000",
            "10.0 7",
            ", line 14, word 25: expected the end of the file after the tables of 2 factors, got '7'",
        ),
        ("10.0000", "", ": expected a table of 6 values for factor 1, got the end of the file after 23 words"),
    ],
)
def test_malformed_files_say_where_and_what(tmp_path, old, new, expected):
    assert TOY.count(old) == 1 or old in ("2 0 1", "2 1 2")
    assert refusal(tmp_path, TOY.replace(old, new, 1)) == expected


@pytest.mark.parametrize("words", range(24))
def test_every_truncation_is_refused(tmp_path, words):
    message = refusal(tmp_path, " ".join(TOY.split()[:words]))
    assert ("the end of the file" if words else "an empty file") in message


def test_counts_beyond_the_file_are_refused_at_once(tmp_path):
    assert "cardinalities of 999999999999 variables" in refusal(tmp_path, "MARKOV 999999999999 2 2")
    assert "scopes of 99999999999 factors" in refusal(tmp_path, "MARKOV 1 2 99999999999 1 0")
    forty = " ".join(map(str, range(40)))
    assert "a table of 1099511627776 values" in refusal(tmp_path, f"MARKOV 40 {'2 ' * 40} 1 40 {forty} 1099511627776 1")
    assert "number of variables" in refusal(tmp_path, "MARKOV " + "9" * 5000)


def test_junk_and_unreadable_files(tmp_path):
    assert "expected MARKOV or BAYES" in refusal(tmp_path, bytes(range(128)) * 20)
    assert ", line 2, byte 118: expected UTF-8, got the byte 0x80; " in refusal(tmp_path, bytes(range(256)) * 20)
    assert len(refusal(tmp_path, b"\xff" * 100_000)) < 300
    assert "corrupt or truncated" in refusal(tmp_path, gzip.compress(TOY.encode())[:-12])
    assert "corrupt or truncated" in refusal(tmp_path, b"\x1f\x8b" + bytes(range(200)))
    broken = bytearray(gzip.compress(TOY.encode()))
    broken[40] ^= 0xFF
    assert "corrupt or truncated" in refusal(tmp_path, bytes(broken))
    with pytest.raises(lnz.FormatError, match=r"nowhere\.uai: expected a readable file, got: no such file"):
        read_uai(tmp_path / "nowhere.uai")
    with pytest.raises(lnz.FormatError, match="is a directory"):
        read_bytes(tmp_path)


def test_unknown_ending_names_the_known_ones(tmp_path):
    with pytest.raises(lnz.FormatError, match=r"ends in \.uai, \.bif, .* \(\.gz may follow\), got '\.txt'"):
        read_model(tmp_path / "model.txt.gz")


def test_what_is_written_is_read_back(tmp_path):
    generator = torch.Generator().manual_seed(1)
    graph, _ = lnz.FactorGraph.grouped([2, 3, 2], [(0, 1), (), (2,), (1, 2, 0), (1, 0)])
    scores = [
        torch.randn(f, *labels, generator=generator, dtype=torch.float64)
        for f, labels in zip(graph.num_factors, graph.labels, strict=True)
    ]
    scores[0][0, 0, 1] = -math.inf
    path = tmp_path / "m.uai"
    write_uai(path, graph, scores)
    model = read_uai(path)
    assert model.graph.cardinalities == graph.cardinalities
    for a, b in zip(model.graph.scopes, graph.scopes, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(model.scores, scores, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_compact_scores_are_written_in_full_and_impossible_ones_refused(tmp_path):
    graph = lnz.FactorGraph.grid(2, 2, 2)
    table = torch.tensor([[0.5, 0.0], [0.0, 0.5]], dtype=torch.float64)
    weighted = lnz.Weighted(torch.arange(1.0, 5.0, dtype=torch.float64), table)
    path = tmp_path / "m.uai"
    write_uai(path, graph, (torch.zeros(2, dtype=torch.float64), weighted))
    torch.testing.assert_close(read_uai(path).scores[1], weighted.expand())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no batch dimensions"):
        write_uai(path, graph, (torch.zeros(5, 4, 2), torch.zeros(2, 2)))
    with pytest.raises(ValueError, match="below 709"):
        write_uai(path, graph, (torch.full((2,), 710.0), torch.zeros(2, 2)))
    with pytest.raises(ValueError, match="MARKOV or BAYES"):
        write_uai(path, graph, (torch.zeros(2), torch.zeros(2, 2)), kind="FOREST")  # type: ignore[arg-type]
    assert path.read_bytes() == before


@pytest.mark.data
def test_published_files_are_read(shared_data):
    for path in sorted((shared_data / "uai_pr_mar").glob("*.uai.gz"))[::8]:
        model = read_uai(path)
        text = gzip.decompress(path.read_bytes()).split()
        assert model.graph.num_nodes == int(text[1])
        assert sum(model.graph.num_factors) == int(text[2 + model.graph.num_nodes])
        values = sum(scores.numel() for scores in model.scores)
        arities = sum(f * len(labels) for f, labels in zip(model.graph.num_factors, model.graph.labels, strict=True))
        assert len(text) == 3 + model.graph.num_nodes + 2 * sum(model.graph.num_factors) + arities + values
