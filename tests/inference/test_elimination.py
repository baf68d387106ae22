"""Plans: orders, cliques and the junction tree."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lnz
from lnz.inference.exact.elimination import Work, breadth_first, frontier, greedy, interaction_graph, least_width
from lnz.inference.exact.junction_tree import junction_tree
from lnz.inference.exact.order_search import Limits, find_order


def grid_neighbours(height: int, width: int) -> list[set[int]]:
    graph = lnz.FactorGraph.grid(height, width, 2)
    return interaction_graph(graph.num_nodes, [nodes for scope in graph.scopes for nodes in scope.tolist()])


@st.composite
def wirings(draw: st.DrawFn) -> tuple[list[int], list[list[int]]]:
    cards = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    scope = st.lists(st.integers(0, len(cards) - 1), max_size=3, unique=True)
    return cards, draw(st.lists(scope, max_size=16))


@given(wirings())
def test_junction_tree(wiring):
    cards, scopes = wiring
    neighbours = interaction_graph(len(cards), scopes)
    found = find_order(neighbours, cards, range(len(cards)), Limits(2**30))
    assert found is not None
    order = found.order
    assert least_width(neighbours, range(len(cards))) <= order.width
    assert sorted(order.nodes) == list(range(len(cards)))
    tree = junction_tree(order, cards)
    eliminated = [node for c in tree for node in c.nodes[len(c.nodes) - c.eliminated :]]
    assert sorted(eliminated) == list(range(len(cards)))
    for scope in scopes:  # every factor fits into some clique
        assert any(set(scope) <= set(c.nodes) for c in tree)
    for place, clique in enumerate(tree):  # the separator lies in the parent, which comes later
        separator = clique.nodes[: len(clique.nodes) - clique.eliminated]
        if clique.parent < 0:
            assert not separator
        else:
            assert clique.parent > place
            assert set(separator) <= set(tree[clique.parent].nodes)
    largest = max(math.prod([cards[node] for node in c.nodes]) for c in tree)
    assert largest == order.largest


@pytest.mark.parametrize("rule", ["min-weight", "min-fill", "weighted min-fill"])
def test_trees_have_width_one(rule):
    neighbours = interaction_graph(50, [(n, (n - 1) // 2) for n in range(1, 50)])
    order = greedy(rule, neighbours, [2] * 50, range(50), 2**20)
    assert order is not None
    assert order.width == 1


@pytest.mark.parametrize("side", [3, 5, 8])
def test_grids_beat_a_sweep(side):
    """The sweep along the longer side has the least width; others have wider tables, but fewer entries in all."""
    nodes, cards = range(side * (side + 2)), [2] * side * (side + 2)
    found = find_order(grid_neighbours(side + 2, side), cards, nodes, Limits(2**24))
    assert found is not None
    order = found.order
    assert order.width >= side
    assert order.total <= len(nodes) * 2 ** (side + 1)


def test_max_table_decides_for_the_narrow_order():
    found = find_order(grid_neighbours(20, 8), [2] * 160, range(160), Limits(2**9))
    assert found is not None
    assert found.excess == 1
    assert found.order.width == 8


def test_the_best_order_is_found_where_none_keeps_the_limits():
    found = find_order(grid_neighbours(20, 8), [2] * 160, range(160), Limits(2**8, seconds=0.5))
    assert found is not None
    assert found.order.width == 8
    assert found.excess == 2


def test_restarts_go_on_for_the_seconds_of_the_search():
    """Of a wiring by chance: restarts find smaller tables than the rules at once."""
    drawn = random.Random(1)
    neighbours = interaction_graph(60, [drawn.sample(range(60), 2) for _ in range(150)])
    short, long = (find_order(neighbours, [2] * 60, range(60), Limits(2**10, seconds=s)) for s in (1e-3, 0.3))
    assert short is not None
    assert long is not None
    assert short.excess > long.excess > 1


@pytest.mark.parametrize(
    ("neighbours", "width"),
    [
        (interaction_graph(5, []), 0),
        (interaction_graph(50, [(n, (n - 1) // 2) for n in range(1, 50)]), 1),
        (interaction_graph(12, [range(12)]), 11),
        (interaction_graph(10, [(i, j) for i in range(5) for j in range(5, 10)]), 5),
    ],
)
def test_least_width(neighbours, width):
    assert least_width(neighbours, range(len(neighbours))) == width


def test_plans_are_deterministic():
    neighbours = grid_neighbours(9, 9)
    first, second = (find_order(neighbours, [2] * 81, range(81), Limits(2**24)) for _ in range(2))
    assert first == second


def test_frontier_bounds_a_sweep():
    neighbours = grid_neighbours(30, 7)
    by_row = range(210)
    assert frontier(neighbours, [2] * 210, by_row) == (2**8, 7)
    assert sorted(breadth_first(neighbours, by_row)) == list(by_row)


def test_greedy_stops_at_the_limit():
    neighbours = grid_neighbours(8, 8)
    assert greedy("min-fill", neighbours, [2] * 64, range(64), 2**8) is None
    assert greedy("min-fill", neighbours, [2] * 64, range(64), 2**20, max_total=10) is None
    assert greedy("min-fill", neighbours, [2] * 64, range(64), work=Work(100)) is None


def test_cut_nodes_are_left_out():
    scopes = [(0, 1, 2), (2, 3)]
    assert interaction_graph(4, scopes, frozenset({2})) == [{1}, {0}, set(), set()]
    assert torch.tensor([len(n) for n in interaction_graph(4, scopes)]).tolist() == [2, 2, 3, 1]
