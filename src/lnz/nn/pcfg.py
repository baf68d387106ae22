"""Grammars with parameters: sentences in, the distribution over their derivations out; learnt by EM or by gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from lnz.checks import as_integers, as_labels, check_feasible, check_lengths
from lnz.distributions import PCFG
from lnz.nn.hmm_emissions import Emission, dirichlet, draw_logits, free_logits, set_logits

_AT_ONCE = 2**25  # expected counts of rules that are held together in an E step


@dataclass(frozen=True, eq=False)
class PCFGStatistics:
    """Expected counts given the sentences: what the M step of EM needs.

    Attributes:
        root: how often each nonterminal is a whole sentence, ``[NT]``.
        rules: how often each rule is used, ``[NT, S S]``.
        x: the words, ``[B, N]``; 0 over padding.
        tags: P(word i is of preterminal p | sentence), ``[B, N, PT]``; 0 over padding.
    """

    root: Tensor
    rules: Tensor
    x: Tensor
    tags: Tensor


class PCFGModel(nn.Module):
    """A probabilistic context-free grammar in Chomsky normal form, whose preterminals emit words.

    ``forward`` gives the :class:`~lnz.PCFG` of sentences, whose ln Z is ln P(sentence), its length included. Train it
    by :func:`lnz.objectives.em` (Baker 1979; Lari & Young 1990), which needs no step size, or by gradient, minimising
    ``-model(x, lengths).log_partition.mean()``. Both use the same expected counts. Symbols that start equal stay equal:
    start from random parameters, and take the best of several ``restarts``. Sentences of one word have no derivation.

    Args:
        root: logits of the nonterminal of a sentence, ``[NT]``; −inf for those that never are, which holds in training.
        rules: logits of what a nonterminal becomes, ``[NT, S, S]`` with S = NT + PT, nonterminals first; −inf for rules
            that there are not.
        emissions: of PT preterminals, such as :class:`CategoricalEmission`.

    Attributes:
        root: ``[NT]``.
        rules: ``[NT, S S]``, a row per nonterminal.
        emissions: as given.
    """

    def __init__(self, root: Tensor, rules: Tensor, emissions: Emission) -> None:
        super().__init__()
        if root.dim() != 1 or not len(root):
            raise ValueError(f"root: expected shape [NT] with NT > 0, got {list(root.shape)}")
        if rules.dim() != 3 or rules.shape[0] != len(root) or rules.shape[1] != rules.shape[2] or (
            rules.shape[1] <= len(root)
        ):  # fmt: skip
            wanted = f"[{len(root)}, S, S] with S > {len(root)}"
            raise ValueError(f"rules: expected shape {wanted}, got {list(rules.shape)}")
        if not isinstance(emissions, Emission):
            raise TypeError(f"emissions: expected an Emission, got {type(emissions).__name__}")
        self.root = nn.Parameter(root.clone())
        self.rules = nn.Parameter(rules.flatten(1).clone())
        self.emissions = emissions
        self.num_symbols = rules.shape[-1]

    def forward(self, x: Tensor, lengths: Tensor | Sequence[int] | None = None) -> PCFG:
        """The distribution over the derivations of sentences ``[*batch, N]``.

        Args:
            x: what the emissions take: word indices. What lies beyond ``lengths`` may hold anything.
            lengths: integers ``[*batch]`` in 0 … N; ``None`` is N everywhere.
        """
        rules = self.rules.log_softmax(-1).unflatten(-1, (self.num_symbols, self.num_symbols))
        return PCFG(self.root.log_softmax(-1), rules, self.emissions(_without_padding(x, lengths)), lengths)

    if TYPE_CHECKING:
        __call__ = forward

    # The two steps of EM -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def e_step(self, data: Tensor, lengths: Tensor | Sequence[int] | None = None) -> tuple[Tensor, PCFGStatistics]:
        """The summed log evidence of sentences ``[B, N]``, and the expected counts (E step).

        Raises:
            InfeasibleError: sentences of probability 0, such as those of one word, naming the batch entries.
        """
        x = _without_padding(data, lengths)
        n = torch.full(x.shape[:1], x.shape[1], device=x.device)
        n = n if lengths is None else as_integers("lengths", lengths, x.device)
        p = self(x, n)
        root, rules, tags, evidence = torch.zeros_like(self.root), torch.zeros_like(self.rules), [], []
        rows = torch.arange(len(x), device=x.device)
        for some in rows.split(max(1, _AT_ONCE // rules.numel())):
            q = PCFG(p.root, p.rules, p.preterminals[some], n[some], validate_args=False)
            evidence.append(q.log_partition)
            counts = q.marginals
            root += counts[0].sum(0)
            rules += counts[1].sum(0).flatten(1)
            tags.append(counts[2])
        total = torch.cat(evidence)
        check_feasible(total, "PCFGModel.e_step", "sentences of probability 0")
        return total.sum(), PCFGStatistics(root, rules, x, torch.cat(tags))

    @torch.no_grad()
    def m_step(self, statistics: PCFGStatistics, pseudocount: float = 0.0) -> Self:
        """Itself, with the parameters that maximise the expected log-joint and the log prior (M step).

        Args:
            statistics: of :meth:`e_step`.
            pseudocount: added to every possible root, rule and word; see the emissions for theirs.
        """
        set_logits(self.root, statistics.root, pseudocount)
        set_logits(self.rules, statistics.rules, pseudocount)
        self.emissions.maximise(statistics.x, statistics.tags, pseudocount)
        return self

    @torch.no_grad()
    def drawn(self, data: Tensor, generator: torch.Generator | None = None) -> Self:
        """Itself, with a random start for sentences ``[B, N]``: what is impossible stays so."""
        draw_logits(self.root, generator)
        draw_logits(self.rules, generator)
        self.emissions.draw_parameters(data, generator)
        return self

    def log_prior(self, pseudocount: float) -> Tensor:
        """ln of the prior density of the parameters, up to a constant; 0 where ``pseudocount`` is 0."""
        own = dirichlet(self.root, pseudocount) + dirichlet(self.rules, pseudocount)
        return own + self.emissions.log_prior(pseudocount)

    def num_parameters(self) -> int:
        """Free parameters: of roots, rules and emissions; −inf and frozen ones are not."""
        return free_logits(self.root) + free_logits(self.rules) + self.emissions.num_parameters()

    @staticmethod
    def num_observations(data: Tensor, lengths: Tensor | Sequence[int] | None = None) -> float:
        """The number of sentences."""
        return float(len(data))

    def extra_repr(self) -> str:
        return f"{len(self.root)} nonterminals, {self.num_symbols - len(self.root)} preterminals"


def _without_padding(x: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
    """Words ``[*batch, N]``, 0 over padding."""
    x = as_labels("x", x)
    if lengths is None:
        return x
    lengths = as_integers("lengths", lengths, x.device)
    if x.shape[:-1] != lengths.shape:
        raise ValueError(f"lengths: expected the batch shape of x {list(x.shape)}, got {list(lengths.shape)}")
    check_lengths(lengths, x.shape[-1])
    return x.masked_fill(torch.arange(x.shape[-1], device=x.device) >= lengths.unsqueeze(-1), 0)
