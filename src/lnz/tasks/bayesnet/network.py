"""The network that is learned: from a file, with hidden variables added or resized, and where each start begins."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lnz.distributions import BayesNet
from lnz.errors import FormatError
from lnz.io import read_model
from lnz.io.evidence import split_items, unquoted
from lnz.tasks.streams import generator

_LATENT = re.compile(r'((?:"(?:[^"]|"")*"|[^"=])+)=(.+)', re.DOTALL)
MOST_STATES = 1000
HIDDEN = "infection"


def example() -> BayesNet:
    """A small network of symptoms whose cause, ``infection``, nobody sees: what is sampled where no file is given."""

    def rows(*probabilities: object) -> Tensor:
        return torch.tensor(probabilities, dtype=torch.float64).log()

    return BayesNet(
        [3, 2, 3, 2, 2, 2, 2],
        [[1], [], [0], [0], [0], [2, 0], [0]],
        [
            rows([0.75, 0.2, 0.05], [0.5, 0.25, 0.25]),
            rows(0.6, 0.4),
            rows([0.93, 0.05, 0.02], [0.6, 0.35, 0.05], [0.15, 0.35, 0.5]),
            rows([0.9, 0.1], [0.3, 0.7], [0.25, 0.75]),
            rows([0.95, 0.05], [0.35, 0.65], [0.6, 0.4]),
            rows(*([[a, 1 - a] for a in row] for row in ((0.9, 0.7, 0.4), (0.6, 0.5, 0.3), (0.4, 0.3, 0.1)))),
            rows([0.99, 0.01], [0.97, 0.03], [0.2, 0.8]),
        ],
        names=[HIDDEN, "winter", "fever", "cough", "sneezing", "fatigue", "test"],
        states=[
            ["none", "cold", "flu"], ["no", "yes"], ["none", "low", "high"],
            ["no", "yes"], ["no", "yes"], ["no", "yes"], ["negative", "positive"],
        ],
    )  # fmt: skip


def read_network(path: Path, encoding: str | None = None) -> BayesNet:
    """The network of a file, in any format that ``lnz infer`` reads.

    Raises:
        FormatError: the file cannot be read, or holds another model.
    """
    try:
        return read_model(path, encoding).bayes_net()
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from error


def parse_latent(text: str) -> dict[str, tuple[str, ...]]:
    """Hidden variables and their states, of ``NAME=3,NAME=low:high``; a number names the states 0, 1, 2, …

    Raises:
        ValueError: anything else, or a name twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for item in split_items("model.latent", text):
        parts = _LATENT.fullmatch(item)
        name, states = ("", "") if parts is None else (unquoted(parts[1]), parts[2].strip())
        listed = tuple(states.split(":"))
        if states.isdecimal() and 1 <= int(states) <= MOST_STATES:
            listed = tuple(map(str, range(int(states))))
        elif len(listed) < 2 or not all(listed) or len(set(listed)) < len(listed):
            raise ValueError(
                f"model.latent: expected NAME=STATES, a number up to {MOST_STATES} or names with : between them, got "
                f"{item!r}"
            )
        if name in found:
            raise ValueError(f"model.latent: expected each variable once, got {name!r} twice")
        found[name] = listed
    return found


def with_latent(net: BayesNet, latent: Mapping[str, Sequence[str]]) -> BayesNet:
    """The network with hidden variables of these states.

    A variable that the network has gets the states; where their number is another, its table and those of its children
    are uniform, for a start to draw. A variable that it lacks is added as a parent of all others: a mixture of networks
    of one structure (Thiesson, Meek, Chickering & Heckerman 1998).
    """
    names, states = list(net.names), [list(each) for each in net.states]
    parents, tables = [list(each) for each in net.parents], list(net.log_cpts)
    for name, listed in latent.items():
        if name not in names:
            parents = [[len(names), *above] for above in parents]
            tables = [table.expand(len(listed), *table.shape) for table in tables]
            parents.append([])
            tables.append(torch.zeros(len(listed), dtype=torch.float64).log_softmax(-1))
            names.append(name)
            states.append(list(listed))
            continue
        variable = names.index(name)
        if len(states[variable]) != len(listed):
            cards = [len(listed) if v == variable else len(each) for v, each in enumerate(states)]
            for v in (variable, *_children(parents, variable)):
                shape = [cards[node] for node in (*parents[v], v)]
                tables[v] = torch.zeros(shape, dtype=torch.float64).log_softmax(-1)
        states[variable] = (
            list(listed) if not _is_count(listed) or len(states[variable]) != len(listed) else states[variable]
        )
    made = BayesNet(
        [len(each) for each in states], parents, tables, names=names, states=states, inference=net.inference
    )
    return made.tie(net.ties) if net.ties else made


def start_of(net: BayesNet, hidden: Collection[int], number: int, seed: int, from_tables: bool) -> BayesNet:
    """Where start ``number`` begins, a function of that and ``seed``: the first from the tables, all others drawn.

    The states of a hidden variable that nothing tells apart stay alike for ever; its table and those of its children
    are drawn in any case. What is impossible stays so.

    Args:
        net: the network.
        hidden: variables without any observation.
        number: of the start, from 0.
        seed: of the run.
        from_tables: whether the first start begins at the tables of ``net``.
    """
    drawn = net.drawn(torch.empty(0), generator(seed, number))
    if number or not from_tables:
        return drawn
    alike = {v for variable in hidden if _alike(net, variable) for v in (variable, *_children(net.parents, variable))}
    if not alike:
        return net
    alike |= {v for group in net.ties if alike & set(group) for v in group}  # a table that is shared is drawn for all
    return net.with_tables(drawn.log_cpts[v] if v in alike else table for v, table in enumerate(net.log_cpts))


def _alike(net: BayesNet, variable: int) -> bool:
    """Whether no child tells any two states of a variable apart."""
    for child in _children(net.parents, variable):
        table = net.log_cpts[child].exp().movedim(net.parents[child].index(variable), 0)
        if not torch.allclose(table, table[:1].expand_as(table), rtol=0.0, atol=1e-6):
            return False
    return net.cardinalities[variable] > 1


def _children(parents: Sequence[Sequence[int]], variable: int) -> list[int]:
    return [child for child, above in enumerate(parents) if variable in above]


def _is_count(states: Sequence[str]) -> bool:
    return list(states) == [str(number) for number in range(len(states))]
