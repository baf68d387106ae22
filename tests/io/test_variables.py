"""Files of query variables: numbers from 0 on, each once."""

import pytest
import torch

import lnz
from lnz.errors import FormatError
from lnz.io import NamedModel, read_variables
from lnz.io.model import numbered


def model() -> NamedModel:
    graph = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [1, 2]]))
    return NamedModel("MARKOV", graph, (torch.zeros(3, 2), torch.zeros(2, 2, 2)), *numbered([2, 2, 2]))


def test_the_first_and_the_last_variable_may_be_asked_for(tmp_path):
    path = tmp_path / "m.query"
    path.write_text("2 0 2\n")
    assert read_variables(path, model()) == (0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 3", r"a variable in \[0, 3\)"),
        ("1 -1", r"a variable in \[0, 3\)"),
        ("2 1 1", "each variable once"),
        ("0", "number of query"),
        ("2 1", "a variable in"),
    ],
)
def test_others_are_refused(tmp_path, text, message):
    path = tmp_path / "m.query"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_variables(path, model())
