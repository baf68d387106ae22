"""What a sampler answers as an inference method: estimates from its chains, and how far to trust them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lnz.caching import cached_property
from lnz.errors import ConvergenceWarning, warn
from lnz.inference.base import Solution, check_reverse_mode
from lnz.inference.sampling.joint_counts import count, empty_tables, shaped
from lnz.inference.sampling.mixing import Mixing, mixing
from lnz.ops.conditionals.alone import node_scores
from lnz.scores import Model

if TYPE_CHECKING:
    from lnz.inference.sampling.sampler import Chains, Sampler

MONITORED = 16
"""R-hat and ESS look at the score and at this many nodes, evenly spread."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """What one run of the chains leaves behind; S kept sweeps of n chains.

    Attributes:
        nodes: how often each chain had each label at each node, ``[n, *batch, N, L]``, as frequencies.
        groups: per group the frequencies of joint labels ``[*batch, F, L1, …, Lk]``, or ``None`` where not asked for.
        mixing: what the monitored statistics say.
        chains: as they ended.
    """

    nodes: Tensor
    groups: tuple[Tensor, ...] | None
    mixing: Mixing
    chains: Chains


class SamplerSolution(Solution):
    """Estimates from chains.

    O(S · F) time; memory that of the answers, of a frequency per chain, node and label, and of a few statistics per
    kept sweep. All chains are run when the first estimate is asked for, and once more when marginals of groups are
    asked for after those of nodes.
    """

    exact = False

    def __init__(self, model: Model, sampler: Sampler) -> None:
        super().__init__(model)
        self.sampler = sampler
        self.method = type(sampler).__name__
        self._transition = sampler.plan(model)

    @property
    def log_partition(self) -> Tensor:
        raise TypeError(
            f"{self.method} has no ln Z, nor log_prob; AnnealedImportance() estimates it by sampling, "
            "Exact() computes it wherever its tables fit"
        )

    def require_feasible(self, what: str) -> None:
        """Raise :class:`~lnz.InfeasibleError` where no labelling to start from was found."""
        _ = self._start

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.sampler.seed)

    @cached_property
    def _start(self) -> Chains:
        return self.sampler.init(self.model, self.sampler.chains, self._generator())

    @cached_property
    def _node_estimates(self) -> Estimates:
        return self._run(groups=False)

    @cached_property
    def _all_estimates(self) -> Estimates:
        return self._run(groups=True)

    @property
    def _estimates(self) -> Estimates:
        return self._all_estimates if "_all_estimates" in vars(self) else self._node_estimates

    def _run(self, groups: bool) -> Estimates:
        """Run the chains from their start, always with the same random numbers."""
        check_reverse_mode(self.method, self.model)
        model, sampler, generator = self.centred[0], self.sampler, self._generator().manual_seed(self.sampler.seed + 1)
        n, graph = sampler.chains, model.graph
        shape = (n, *model.batch_shape, graph.num_nodes, graph.max_cardinality)
        nodes = torch.zeros(shape, dtype=model.dtype, device=model.device)
        tables = empty_tables(model) if groups else []
        watched = torch.linspace(
            0, max(0, graph.num_nodes - 1), min(MONITORED, graph.num_nodes), device=model.device
        ).long()
        scores, labels_seen = [], []
        with torch.no_grad():
            chains = self._transition(self._start, sampler.warmup, generator)
            for _ in range(sampler.sweeps):
                chains = self._transition(chains, 1, generator)
                labels = chains.labels
                nodes.scatter_add_(-1, labels[..., None], nodes.new_ones(()).expand(*labels.shape, 1))
                if groups:
                    count(tables, model, labels)
                scores.append(model.precise_score(labels))
                labels_seen.append(labels[..., watched])
        draws = _statistics(torch.stack(scores), torch.stack(labels_seen))
        free = self._free
        free = torch.cat((free.any(-1, keepdim=True), free[..., watched]), -1)
        found = mixing(draws, free, sampler.max_r_hat)
        total = n * sampler.sweeps
        joint = shaped([table / total for table in tables], self.model) if groups else None
        self._warn_unless_mixed(found)
        return Estimates(nodes / sampler.sweeps, joint, found, chains)

    @cached_property
    def _free(self) -> Tensor:
        """Which nodes have two labels or more to choose from, ``bool [*batch, N]``."""
        with torch.no_grad():
            possible = torch.isfinite(node_scores(self.model)).sum(-1) > 1
        return possible.expand(*self.model.batch_shape, self.model.graph.num_nodes)

    def _warn_unless_mixed(self, found: Mixing) -> None:
        bad = ~found.mixed
        if bad.any():
            which = "" if bad.dim() == 0 else f" of {int(bad.sum())} of {bad.numel()} batch entries"
            warn(
                f"{self.method}: the chains{which} have not mixed: {found.why}, after {self.sampler.warmup} + "
                f"{self.sampler.sweeps} sweeps of {self.sampler.chains} chains; more sweeps, more chains, or another "
                "sampler, may help",
                ConvergenceWarning,
            )

    @property
    def marginals(self) -> tuple[Tensor, ...]:
        """Per group, how often each joint label was seen, ``[*batch, F, L1, …, Lk]``."""
        tables = self._all_estimates.groups
        assert tables is not None
        return tables

    @cached_property
    def node_marginals(self) -> Tensor:
        return self._estimates.nodes.mean(0).to(self.model.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """The states of n chains after ``warmup`` sweeps from starts of their own: independent, and as good as that.

        Whether that was enough is what the ``chains`` of the diagnostics say, which are run the first time.
        """
        _ = self._estimates  # warns
        return self.draw(n, generator)

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """:meth:`sample` without diagnostics and their warnings."""
        with torch.no_grad():
            return self._transition(self.sampler.init(self.model, n, generator), self.sampler.warmup, generator).labels

    @property
    def diagnostics(self) -> dict[str, Any]:
        """How the run behind the marginals went.

        - ``r_hat``, ``ess``: ``[*batch]``, the worst over the monitored statistics: the score s(y), and for up to 16
          nodes, evenly spread, the indicator of the label most often seen there. Statistics that never change in any
          chain say nothing and are left out; NaN where none does.
        - ``mixed``: ``bool [*batch]``, whether ``r_hat`` is at most ``max_r_hat``, and ``ess`` at least ten a chain.
          Where no statistic changed, or of one chain any did not, that is not known, and not mixed.
        - ``why``: in words, why chains have not mixed; empty where all have.
        - ``standard_error``: ``[*batch, N, L]``, the Monte Carlo standard error of ``node_marginals``, from the spread
          of the chains' own means. NaN, not known, with one chain, and where every state of every chain had the label
          or none had, though the node's own scores allow both.
        - ``chains``, ``warmup``, ``sweeps``: the settings; and what the sampler itself reports.
        """
        estimates, found = self._estimates, self._estimates.mixing
        return {
            "r_hat": found.r_hat,
            "ess": found.ess,
            "mixed": found.mixed,
            "why": found.why,
            "standard_error": self._standard_error(estimates.nodes),
            "chains": self.sampler.chains,
            "warmup": self.sampler.warmup,
            "sweeps": self.sampler.sweeps,
            **self.sampler.report(estimates.chains),
        }

    def _standard_error(self, nodes: Tensor) -> Tensor:
        n = len(nodes)
        if n == 1 or not nodes.numel():  # torch warns of a standard deviation of nothing
            return nodes[0] * math.nan
        error = nodes.std(0) / math.sqrt(n)
        constant = ((nodes == 0).all(0) | (nodes == 1).all(0)) & self._free[..., None]
        return error.masked_fill(constant & torch.isfinite(node_scores(self.model)), math.nan)


def _statistics(scores: Tensor, labels: Tensor) -> Tensor:
    """``[S, n, *batch]`` scores and ``[S, n, *batch, K]`` labels to the statistics ``[S, n, *batch, 1 + K]``."""
    modal = labels.flatten(0, 1).mode(0).values
    return torch.cat((scores[..., None], (labels == modal).to(scores.dtype)), -1)
