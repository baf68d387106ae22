"""Brute force: every labelling listed one by one, in plain Python. Shares no code with the library it judges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

IGNORE = -100


@dataclass(frozen=True)
class Labelling:
    """One labelling y, flattened, its score s(y), and per score tensor the indices of the parts that y uses."""

    y: tuple[int, ...]
    score: float
    parts: tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True)
class Oracle:
    """Every labelling of every batch entry (in flat order), and the shapes of the marginals without their batch."""

    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    part_shapes: tuple[tuple[int, ...], ...]
    entries: tuple[tuple[Labelling, ...], ...]

    def _tensor(self, values: Sequence[object]) -> Tensor:
        rows = torch.tensor(values, dtype=torch.float64)
        return rows.reshape((*self.batch_shape, *rows.shape[1:]))

    @property
    def log_partition(self) -> Tensor:
        return self._tensor([log_sum(y.score for y in entry) for entry in self.entries])

    @property
    def feasible(self) -> bool:
        return bool(torch.isfinite(self.log_partition).all())

    def probabilities(self, entry: int) -> list[float]:
        scores = [y.score for y in self.entries[entry]]
        weights = [math.exp(score - max(scores)) for score in scores]  # ln 2 is lost beside a ln Z of 1e30
        return [weight / math.fsum(weights) for weight in weights]

    def log_probs(self, entry: int) -> list[float]:
        """ln P(y) of each labelling: from differences of scores, which are exact where these are huge."""
        scores = [y.score for y in self.entries[entry]]
        rest = math.log(math.fsum(math.exp(score - max(scores)) for score in scores))
        return [(score - max(scores)) - rest for score in scores]

    @property
    def all_log_probs(self) -> Tensor:
        """ln P(y) of all :meth:`labellings`, ``[K, *batch]``."""
        each = [self.log_probs(b) for b in range(len(self.entries))]
        K = max(map(len, each))
        return self._tensor([[*row, *[-math.inf] * (K - len(row))] for row in each]).movedim(-1, 0)

    @property
    def marginals(self) -> list[Tensor]:
        return self._summed_over_parts(self.probabilities)

    @property
    def entropy_gradient(self) -> list[Tensor]:
        """The derivative of the entropy by the score of each part: the covariance of −ln P(y) with using the part."""

        def covariances(b: int) -> list[float]:
            ps = self.probabilities(b)
            mean = math.fsum(p * math.log(p) for p in ps if p > 0)
            return [p * (mean - math.log(p)) if p > 0 else 0.0 for p in ps]

        return self._summed_over_parts(covariances)

    def _summed_over_parts(self, weights: Callable[[int], list[float]]) -> list[Tensor]:
        found = []
        for i, shape in enumerate(self.part_shapes):
            table = torch.zeros(len(self.entries), *shape, dtype=torch.float64)
            for b, entry in enumerate(self.entries):
                for y, weight in zip(entry, weights(b), strict=True):
                    for part in y.parts[i]:
                        table[(b, *part)] += weight
            found.append(table.reshape((*self.batch_shape, *shape)))
        return found

    def topk(self, k: int) -> Tensor:
        """The k best scores ``[k, *batch]``, −inf beyond the possible labellings."""
        if not self.entries:
            return torch.zeros(k, *self.batch_shape, dtype=torch.float64)
        best = [sorted((y.score for y in entry), reverse=True)[:k] for entry in self.entries]
        return self._tensor([row + [-math.inf] * (k - len(row)) for row in best]).movedim(-1, 0)

    def score_of(self, entry: int, y: Sequence[int]) -> float:
        """The score of a labelling of one batch entry; raises KeyError if it is none."""
        return {labelling.y: labelling.score for labelling in self.entries[entry]}[tuple(y)]

    @property
    def entropy(self) -> Tensor:
        return self.kl(None)

    def kl(self, other: Oracle | None) -> Tensor:
        """KL divergence to ``other``; the entropy if that is ``None``."""
        rows = []
        for b in range(len(self.entries)):
            ps = self.probabilities(b)
            if other is None:
                rows.append(-math.fsum(p * math.log(p) for p in ps if p > 0))
                continue
            qs = other.log_probs(b)
            rows.append(math.fsum(p * (math.log(p) - q) for p, q in zip(ps, qs, strict=True) if p > 0))
        return self._tensor(rows)

    @property
    def log_count(self) -> Tensor:
        return self._tensor([safe_log(sum(y.score > -math.inf for y in entry)) for entry in self.entries])

    def tempered(self, temperature: float) -> Oracle:
        cooled = (tuple(replace(y, score=y.score / temperature) for y in entry) for entry in self.entries)
        return replace(self, entries=tuple(cooled))

    def condition(self, observed: Tensor) -> Oracle:
        """Only the labellings that agree with ``observed`` ``[*batch, *event]`` wherever it is not −100."""
        rows = observed.reshape(len(self.entries), math.prod(self.event_shape)).tolist()
        kept = (
            tuple(y for y in entry if all(a in (IGNORE, b) or b == IGNORE for a, b in zip(row, y.y, strict=True)))
            for entry, row in zip(self.entries, rows, strict=True)
        )
        return replace(self, entries=tuple(kept))

    def labellings(self) -> tuple[Tensor, Tensor]:
        """All labellings ``int64 [K, *batch, *event]`` and their scores ``[K, *batch]``; short lists end in −inf."""
        if not self.entries:
            shape = (1, *self.batch_shape)
            return torch.zeros(*shape, *self.event_shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.float64)
        K = max(map(len, self.entries))
        lists = [[*entry, *[replace(entry[-1], score=-math.inf)] * (K - len(entry))] for entry in self.entries]
        y = torch.tensor([[labelling.y for labelling in entry] for entry in lists], dtype=torch.int64)
        scores = self._tensor([[labelling.score for labelling in entry] for entry in lists])
        return y.reshape((*self.batch_shape, K, *self.event_shape)).movedim(len(self.batch_shape), 0), scores.movedim(
            -1, 0
        )


def log_sum(scores: object) -> float:
    scores = list(scores)  # type: ignore[call-overload]
    top = max(scores, default=-math.inf)
    return top if top == -math.inf else top + math.log(math.fsum(math.exp(s - top) for s in scores))


def safe_log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def per_entry(batch_shape: Sequence[int], enumerate_one: Callable[[tuple[int, ...]], list[Labelling]]):
    indices = itertools.product(*map(range, batch_shape))
    return tuple(tuple(enumerate_one(index)) for index in indices)


def softmax(scores: Tensor) -> Oracle:
    *batch, L = scores.shape

    def one(index: tuple[int, ...]) -> list[Labelling]:
        return [Labelling((label,), scores[(*index, label)].item(), (((label,),),)) for label in range(L)]

    return Oracle(tuple(batch), (), ((L,),), per_entry(batch, one))


def linear_chain(node: Tensor, edge: Tensor, lengths: Tensor | None) -> Oracle:
    T, L = node.shape[-2:]
    steps = max(0, T - 1)
    shapes = [node.shape[:-2], edge.shape[:-3]] + ([] if lengths is None else [lengths.shape])
    batch = torch.broadcast_shapes(*shapes)
    node = node.expand(*batch, T, L)
    edge = edge.expand(*batch, steps, L, L)
    lengths = torch.tensor(T).expand(batch) if lengths is None else lengths.expand(batch)

    def one(index: tuple[int, ...]) -> list[Labelling]:
        x, a, n = node[index].tolist(), edge[index].tolist(), int(lengths[index])
        found = []
        for y in itertools.product(range(L), repeat=n):
            nodes = tuple((t, y[t]) for t in range(n))
            edges = tuple((t, y[t], y[t + 1]) for t in range(n - 1))
            score = math.fsum([*(x[t][k] for t, k in nodes), *(a[t][k][m] for t, k, m in edges)]) if n else 0.0
            found.append(Labelling((*y, *[IGNORE] * (T - n)), score, (nodes, edges)))
        return found

    return Oracle(tuple(batch), (T,), ((T, L), (steps, L, L)), per_entry(batch, one))


def second_order_chain(node: Tensor, edge: Tensor, triple: Tensor, lengths: Tensor | None) -> Oracle:
    T, L = node.shape[-2:]
    steps = max(0, T - 2)
    shapes = [node.shape[:-2], edge.shape[:-3], triple.shape[:-4]] + ([] if lengths is None else [lengths.shape])
    batch = torch.broadcast_shapes(*shapes)
    triple = triple.expand(*batch, steps, L, L, L)
    chain = linear_chain(node.expand(*batch, T, L), edge, lengths)

    def one(index: tuple[int, ...], entry: tuple[Labelling, ...]) -> tuple[Labelling, ...]:
        found = []
        for y in entry:
            n = len(y.parts[0])
            triples = tuple((t, *y.y[t : t + 3]) for t in range(n - 2))
            score = y.score + sum(triple[(*index, *part)].item() for part in triples)
            found.append(Labelling(y.y, score, (*y.parts, triples)))
        return tuple(found)

    indices = itertools.product(*map(range, batch))
    entries = tuple(one(index, entry) for index, entry in zip(indices, chain.entries, strict=True))
    return Oracle(chain.batch_shape, (T,), (*chain.part_shapes, (steps, L, L, L)), entries)


def factor_graph(cardinalities: Sequence[int], scopes: Sequence[Tensor], tables: Sequence[Tensor]) -> Oracle:
    """``tables`` holds the scores of each group written out, ``[*batch, F, L1, …, Lk]``, batch shapes broadcasting."""
    sizes = [
        [cardinalities[n] for n in scope[0].tolist()]
        if len(scope)
        else list(table.shape[table.dim() - scope.shape[1] :])
        for scope, table in zip(scopes, tables, strict=True)
    ]
    shapes = [(len(scope), *size) for scope, size in zip(scopes, sizes, strict=True)]
    batch = torch.broadcast_shapes(*(t.shape[: max(0, t.dim() - len(s))] for t, s in zip(tables, shapes, strict=True)))
    full = [table.expand(*batch, *shape) for table, shape in zip(tables, shapes, strict=True)]

    def one(index: tuple[int, ...]) -> list[Labelling]:
        found = []
        for y in itertools.product(*map(range, cardinalities)):
            parts = tuple(
                tuple((f, *(y[n] for n in nodes)) for f, nodes in enumerate(scope.tolist())) for scope in scopes
            )
            terms = [full[g][(*index, *part)].item() for g, group in enumerate(parts) for part in group]
            found.append(Labelling(y, sum(terms), parts))
        return found

    return Oracle(tuple(batch), (len(cardinalities),), tuple(shapes), per_entry(batch, one))


def bayes_net(cardinalities: Sequence[int], parents: Sequence[Sequence[int]], tables: Sequence[Tensor]) -> Oracle:
    """``tables [*batch, *parents, card]`` of scores, one per variable."""
    shapes = [tuple(cardinalities[n] for n in (*above, v)) for v, above in enumerate(parents)]
    batch = torch.broadcast_shapes(*(t.shape[: t.dim() - len(s)] for t, s in zip(tables, shapes, strict=True)))
    full = [table.expand(*batch, *shape) for table, shape in zip(tables, shapes, strict=True)]

    def one(index: tuple[int, ...]) -> list[Labelling]:
        found = []
        for y in itertools.product(*map(range, cardinalities)):
            parts = tuple((tuple(y[n] for n in (*above, v)),) for v, above in enumerate(parents))
            found.append(Labelling(y, sum(full[v][(*index, *part)].item() for v, (part,) in enumerate(parts)), parts))
        return found

    return Oracle(tuple(batch), (len(cardinalities),), tuple(shapes), per_entry(batch, one))


def hidden_markov(initial: Tensor, transition: Tensor, emission: Tensor, lengths: Tensor | None) -> Oracle:
    T, K = emission.shape[-2:]
    steps = max(0, T - 1)
    shapes = [initial.shape[:-1], transition.shape[:-3], emission.shape[:-2]]
    batch = torch.broadcast_shapes(*shapes, *([] if lengths is None else [lengths.shape]))
    initial, emission = initial.expand(*batch, K), emission.expand(*batch, T, K)
    transition = transition.expand(*batch, steps, K, K)
    lengths = torch.tensor(T).expand(batch) if lengths is None else lengths.expand(batch)

    def one(index: tuple[int, ...]) -> list[Labelling]:
        pi, a, x, n = initial[index].tolist(), transition[index].tolist(), emission[index].tolist(), int(lengths[index])
        found = []
        for z in itertools.product(range(K), repeat=n):
            starts = ((z[0],),) if n else ()
            pairs = tuple((t, z[t], z[t + 1]) for t in range(n - 1))
            nodes = tuple((t, z[t]) for t in range(n))
            terms = [*(pi[k] for (k,) in starts), *(a[t][j][k] for t, j, k in pairs), *(x[t][k] for t, k in nodes)]
            found.append(Labelling((*z, *[IGNORE] * (T - n)), sum(terms), (starts, pairs, nodes)))
        return found

    return Oracle(tuple(batch), (T,), ((K,), (steps, K, K), (T, K)), per_entry(batch, one))


def semi_markov(segment: Tensor, edge: Tensor, lengths: Tensor | None) -> Oracle:
    """Every way to cut n steps into segments of at most W steps, with every label of each."""
    T, W, L = segment.shape[-3:]
    steps = max(0, T - 1)
    shapes = [segment.shape[:-3], edge.shape[:-3]] + ([] if lengths is None else [lengths.shape])
    batch = torch.broadcast_shapes(*shapes)
    segment, edge = segment.expand(*batch, T, W, L), edge.expand(*batch, steps, L, L)
    lengths = torch.tensor(T).expand(batch) if lengths is None else lengths.expand(batch)

    def cuts(n: int) -> list[list[int]]:
        return [[]] if n == 0 else [[w, *rest] for w in range(1, min(W, n) + 1) for rest in cuts(n - w)]

    def one(index: tuple[int, ...]) -> list[Labelling]:
        s, a, n = segment[index].tolist(), edge[index].tolist(), int(lengths[index])
        found = []
        for widths in cuts(n):
            starts = [sum(widths[:i]) for i in range(len(widths))]
            for labels in itertools.product(range(L), repeat=len(widths)):
                y = [-1] * n + [IGNORE] * (T - n)
                for t, label in zip(starts, labels, strict=True):
                    y[t] = label
                parts = tuple((t, w - 1, label) for t, w, label in zip(starts, widths, labels, strict=True))
                joints = tuple((starts[i] - 1, labels[i - 1], labels[i]) for i in range(1, len(widths)))
                terms = [*(s[t][w][k] for t, w, k in parts), *(a[t][j][k] for t, j, k in joints)]
                found.append(Labelling(tuple(y), sum(terms), (parts, joints)))
        return found

    return Oracle(tuple(batch), (T,), ((T, W, L), (steps, L, L)), per_entry(batch, one))


def brackets(i: int, j: int) -> list[list[tuple[int, int]]]:
    """The spans of every binary tree on words i … j."""
    if i == j:
        return [[(i, i)]]
    return [[(i, j), *left, *right] for k in range(i, j) for left in brackets(i, k) for right in brackets(k + 1, j)]


def as_table(N: int, n: int, spans: dict[tuple[int, int], int]) -> tuple[int, ...]:
    """Labels of spans as a flat labelling ``[N N]``."""
    cells = itertools.product(range(N), repeat=2)
    return tuple(spans.get((i, j), -1) if max(i, j) < n else IGNORE for i, j in cells)


def constituency(scores: Tensor, lengths: Tensor | None) -> Oracle:
    """Every binary tree on n words, with every label of each of its spans."""
    N, L = scores.shape[-2:]
    batch = torch.broadcast_shapes(scores.shape[:-3], () if lengths is None else lengths.shape)
    scores = scores.expand(*batch, N, N, L)
    lengths = torch.tensor(N).expand(batch) if lengths is None else lengths.expand(batch)

    def one(index: tuple[int, ...]) -> list[Labelling]:
        s, n = scores[index].tolist(), int(lengths[index])
        found = []
        for spans in brackets(0, n - 1) if n else [[]]:
            for labels in itertools.product(range(L), repeat=len(spans)):
                parts = tuple((i, j, k) for (i, j), k in zip(spans, labels, strict=True))
                y = as_table(N, n, {(i, j): k for i, j, k in parts})
                found.append(Labelling(y, math.fsum(s[i][j][k] for i, j, k in parts) if n else 0.0, (parts,)))
        return found

    return Oracle(tuple(batch), (N, N), ((N, N, L),), per_entry(batch, one))


def context_free(root: Tensor, rules: Tensor, words: Tensor, lengths: Tensor | None) -> Oracle:
    """Every derivation of n words: a binary tree with a nonterminal per longer span and a preterminal per word."""
    NT, (N, PT) = root.shape[-1], words.shape[-2:]
    S = NT + PT
    shapes = [root.shape[:-1], rules.shape[:-3], words.shape[:-2]] + ([] if lengths is None else [lengths.shape])
    batch = torch.broadcast_shapes(*shapes)
    root, rules, words = root.expand(*batch, NT), rules.expand(*batch, NT, S, S), words.expand(*batch, N, PT)
    lengths = torch.tensor(N).expand(batch) if lengths is None else lengths.expand(batch)

    def one(index: tuple[int, ...]) -> list[Labelling]:
        r, g, x, n = root[index].tolist(), rules[index].tolist(), words[index].tolist(), int(lengths[index])
        found = []
        for spans in brackets(0, n - 1) if n > 1 else [[]] if not n else []:
            for labels in itertools.product(*(range(PT if i == j else NT) for i, j in spans)):
                y = dict(zip(spans, labels, strict=True))
                symbols = {(i, j): label + NT * (i == j) for (i, j), label in y.items()}
                splits = [(i, k, j) for i, j in spans for k in range(i, j) if (i, k) in y and (k + 1, j) in y]
                used = [(symbols[i, j], symbols[i, k], symbols[k + 1, j]) for i, k, j in splits]
                tags = tuple((i, y[i, i]) for i in range(n))
                top = ((y[0, n - 1],),) if n else ()
                terms = [*(r[a] for (a,) in top), *(g[a][b][c] for a, b, c in used), *(x[i][p] for i, p in tags)]
                found.append(Labelling(as_table(N, n, y), math.fsum(terms), (top, tuple(used), tags)))
        return found

    return Oracle(tuple(batch), (N, N), ((NT,), (NT, S, S), (N, PT)), per_entry(batch, one))


def spanning_tree(edges: Sequence[Sequence[int]], num_nodes: int, scores: Tensor) -> Oracle:
    """Every set of edges without a cycle that joins as many nodes as all of them do."""

    def joined(chosen: Sequence[int]) -> int:
        """How many components there are with these edges."""
        group = list(range(num_nodes))
        for e in chosen:
            a, b = (group[node] for node in edges[e])
            group = [a if g == b else g for g in group]
        return len(set(group))

    wanted = joined(range(len(edges)))
    trees = [
        chosen for chosen in itertools.combinations(range(len(edges)), num_nodes - wanted) if joined(chosen) == wanted
    ]

    def one(index: tuple[int, ...]) -> list[Labelling]:
        table, found = scores[index].tolist(), []
        for tree in trees:
            y = tuple(int(e in tree) for e in range(len(edges)))
            found.append(Labelling(y, sum(table[e] for e in tree), (tuple((e,) for e in tree),)))
        return found

    batch = scores.shape[:-1]
    return Oracle(tuple(batch), (len(edges),), ((len(edges),),), per_entry(batch, one))


def dependency_tree(
    scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool, labelled: bool = False
) -> Oracle:
    """Every choice of a head (and a label) per word that is a tree."""
    own = 3 if labelled else 2
    M = scores.shape[-own]
    batch = torch.broadcast_shapes(scores.shape[:-own], () if lengths is None else lengths.shape)
    scores = scores.expand(*batch, *scores.shape[-own:])
    lengths = torch.tensor(M - 1).expand(batch) if lengths is None else lengths.expand(batch)
    R = scores.shape[-1] if labelled else 1

    def above(heads: Sequence[int], word: int) -> set[int]:
        seen: set[int] = set()
        while word and word not in seen:
            seen.add(word)
            word = heads[word]
        return seen if not word else {-1}

    def good(heads: Sequence[int]) -> bool:
        n = len(heads) - 1
        chains = [above(heads, word) for word in range(1, n + 1)]
        if any(-1 in chain for chain in chains):
            return False
        if n and single_root and sum(heads[word] == 0 for word in range(1, n + 1)) != 1:
            return False
        if not projective:
            return True
        # a word between another one and its head hangs somewhere under that head; the root is the head of all
        return all(
            heads[d] == 0 or heads[d] in chains[between - 1]
            for d in range(1, n + 1)
            for between in range(min(d, heads[d]) + 1, max(d, heads[d]))
        ) and all(
            not (d < x < heads[x] or heads[x] < x < d) or heads[x] == 0 or not min(x, heads[x]) < d < max(x, heads[x])
            for d in range(1, n + 1)
            if heads[d] == 0
            for x in range(1, n + 1)
        )

    def one(index: tuple[int, ...]) -> list[Labelling]:
        table, n = scores[index].tolist(), int(lengths[index])
        found = []
        for heads in itertools.product(*[[h for h in range(n + 1) if h != d] for d in range(1, n + 1)]):
            if not good([0, *heads]):
                continue
            for labels in itertools.product(range(R), repeat=n):
                arcs = [(d + 1, h, r) for d, (h, r) in enumerate(zip(heads, labels, strict=True))]
                if labelled:
                    y = [0, 0, *(value for _, h, r in arcs for value in (h, r)), *[IGNORE] * (2 * (M - 1 - n))]
                    parts = tuple(arcs)
                    score = sum(table[d][h][r] for d, h, r in arcs)
                else:
                    y = [0, *heads, *[IGNORE] * (M - 1 - n)]
                    parts = tuple((d, h) for d, h, _ in arcs)
                    score = sum(table[d][h] for d, h, _ in arcs)
                found.append(Labelling(tuple(y), score, (parts,)))
        return found

    event = (M, 2) if labelled else (M,)
    return Oracle(tuple(batch), event, (tuple(scores.shape[-own:]),), per_entry(batch, one))
