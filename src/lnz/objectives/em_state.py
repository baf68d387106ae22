"""A run of EM that can be saved and resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(eq=False)
class Start:
    """One start of EM: where its parameters are, and how they came there.

    Attributes:
        learner: with the parameters of the last iteration that was measured.
        log_evidence, objective: before the first iteration and after each one.
        converged: whether it stopped at a stationary point.
        finished: whether it stopped.
    """

    learner: Any
    log_evidence: list[float] = field(default_factory=list)
    objective: list[float] = field(default_factory=list)
    converged: bool = False
    finished: bool = False


@dataclass(eq=False)
class EMState:
    """What :func:`lnz.objectives.em` is at: pass one as ``state``, and it is kept up to date, iteration by iteration.

    Save it in ``progress``, and pass a saved one with the same model, data and settings to go on exactly where it was::

        state = EMState()
        em(model, data, state=state, progress=lambda *at: torch.save(state.state_dict(), "em.pt"))
        em(model, data, state=EMState.from_state_dict(torch.load("em.pt")))
    """

    starts: list[Start] = field(default_factory=list)
    running: list[Tensor] | None = None
    """The running averages of the statistics of minibatches."""
    moves: int = 0
    """How many minibatches have moved them."""
    generator: Tensor | None = None
    """The state of the generator, where there is one."""
    saved: Mapping[str, Any] | None = None
    """What it is to be resumed from."""
    stack: tuple[Any, list[int]] | None = None
    """Starts that run at once: one learner of all, and their numbers."""

    def unstack(self) -> None:
        """Give the starts that run at once their learners."""
        if self.stack is not None:
            learner, numbers = self.stack
            for number, each in zip(numbers, learner.unstacked(), strict=True):
                self.starts[number].learner = each

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers, for ``torch.save``."""
        if self.saved is not None:
            return dict(self.saved)
        self.unstack()
        return {
            "starts": [
                {
                    "parameters": {name: value.detach().clone() for name, value in parameters(start.learner).items()},
                    "log_evidence": list(start.log_evidence),
                    "objective": list(start.objective),
                    "converged": start.converged,
                    "finished": start.finished,
                }
                for start in self.starts
            ],
            "running": self.running,
            "moves": self.moves,
            "generator": self.generator,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> EMState:
        """The state that :meth:`state_dict` described."""
        return cls(saved=state)

    def resume(self, learners: list[Any], generator: torch.Generator | None) -> None:
        """Take the starts ``learners``, or those that were saved of them.

        Raises:
            ValueError: another number of starts than was saved.
        """
        saved, self.saved = self.saved, None
        if saved is None:
            self.starts = [Start(learner) for learner in learners]
            return
        if len(saved["starts"]) != len(learners):
            raise ValueError(f"state: expected one of {len(learners)} starts, got {len(saved['starts'])}")
        self.starts = [
            Start(
                with_parameters(learner, each["parameters"]),
                list(each["log_evidence"]),
                list(each["objective"]),
                bool(each["converged"]),
                bool(each["finished"]),
            )
            for learner, each in zip(learners, saved["starts"], strict=True)
        ]
        self.running, self.moves, self.generator = saved["running"], int(saved["moves"]), saved["generator"]
        if generator is not None and self.generator is not None:
            generator.set_state(self.generator)


def parameters(learner: Any) -> dict[str, Tensor]:
    """The tensors of a learner, by name.

    Raises:
        TypeError: a learner that has no ``state_dict``.
    """
    if not hasattr(learner, "state_dict"):
        raise TypeError(f"em: {type(learner).__name__} has no state_dict(), which this needs")
    return learner.state_dict()


def with_parameters(learner: Any, state: Mapping[str, Tensor]) -> Any:
    """The learner with other tensors; a module is changed in place."""
    if isinstance(learner, nn.Module):
        learner.load_state_dict(state)
        return learner
    return learner.with_state(state)
