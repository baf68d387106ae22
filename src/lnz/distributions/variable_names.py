"""Names of variables and of their states, beside the numbers that tensors hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class VariableNames:
    """Names of N variables and of the states of each; by default their numbers, as text.

    Raises:
        ValueError: not as many names as there are variables or states, or one twice.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        variables: Sequence[str] | None = None,
        states: Sequence[Sequence[str]] | None = None,
    ) -> None:
        given = states if states is not None else [list(map(str, range(card))) for card in cardinalities]
        self.variables = tuple(map(str, range(len(cardinalities)) if variables is None else variables))
        self.states = tuple(tuple(map(str, each)) for each in given)
        if len(self.variables) != len(cardinalities) or len(set(self.variables)) < len(self.variables):
            raise ValueError(f"names: expected {len(cardinalities)} different names, got {list(self.variables)}")
        if len(self.states) != len(cardinalities):
            raise ValueError(f"states: expected names for {len(cardinalities)} variables, got {len(self.states)}")
        for name, each, card in zip(self.variables, self.states, cardinalities, strict=True):
            if len(each) != card or len(set(each)) < card:
                raise ValueError(f"states: expected {card} different states of {name!r}, got {list(each)}")
        self._number = {name: number for number, name in enumerate(self.variables)}

    def variable(self, given: int | str) -> int:
        """The number of a variable, given by its name or number."""
        if isinstance(given, str) and given in self._number:
            return self._number[given]
        if isinstance(given, int) and 0 <= given < len(self.variables):
            return given
        shown = ", ".join(self.variables[:8]) + (", …" if len(self.variables) > 8 else "")
        raise ValueError(f"expected the name or number of a variable, one of {shown}, got {given!r}")

    def state(self, variable: int, given: int | str) -> int:
        """The number of a state of a variable, given by its name or number."""
        states = self.states[variable]
        if isinstance(given, str) and given in states:
            return states.index(given)
        if isinstance(given, int) and 0 <= given < len(states):
            return given
        raise ValueError(f"expected a state of {self.variables[variable]!r}, one of {', '.join(states)}, got {given!r}")

    def numbered(self, values: Mapping[int | str, int | str]) -> dict[int, int]:
        """States by variable, all as numbers."""
        found = {}
        for name, state in values.items():
            variable = self.variable(name)
            found[variable] = self.state(variable, state)
        return found

    def evidence(
        self, given: Mapping[int | str, int | str | Mapping[int | str, float]]
    ) -> tuple[dict[int, int], dict[int, Tensor]]:
        """Observed states, and weights ``float64 [card]`` of softly observed ones, by the numbers of variables."""
        hard, soft = {}, {}
        for name, value in given.items():
            variable = self.variable(name)
            if not isinstance(value, Mapping):
                hard[variable] = self.state(variable, value)
                continue
            weights = torch.zeros(len(self.states[variable]), dtype=torch.float64)
            for state, weight in value.items():
                if not 0 <= weight < float("inf"):
                    raise ValueError(f"evidence[{name!r}]: expected weights of at least 0, got {weight} for {state!r}")
                weights[self.state(variable, state)] = weight
            soft[variable] = weights
        return hard, soft
