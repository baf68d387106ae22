r"""
Label bias
==========

A sequence of labels can be predicted by one softmax after the other, each given the label before it, or by one softmax
over all sequences. The first is *normalised locally* (a maximum-entropy Markov model), the second *globally* (a
conditional random field). Both may have the same scores. This page shows what the local one cannot learn from them.

The task is that of Lafferty, McCallum & Pereira (2001): telling the words *rib* and *rob* apart, when letters may be
misread.
"""

import math

import matplotlib.pyplot as plt
import torch

import lnz

# %%
# Two words that begin alike
# --------------------------
#
# Five states: *rib* is read along 0, 1, 4, *rob* along 2, 3, 4. A state shows its letter with probability 29/32, and
# each of the three others with 1/32. Nothing but the middle letter tells the words apart.

LETTERS, STATES = "riob", 5
PATHS = torch.tensor([[0, 1, 4], [2, 3, 4]])
shown = torch.tensor([LETTERS.index(letter) for letter in "rirob"])
emission = torch.full((STATES, len(LETTERS)), 1 / 32).scatter(1, shown[:, None], 29 / 32)

follows = torch.full((STATES, STATES), -torch.inf)  # what may follow what
for path in PATHS:
    follows[path[:-1], path[1:]] = 0.0
first = torch.tensor([0.0, -torch.inf, 0.0, -torch.inf, -torch.inf])


def words(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and letters, both [count, 3]; three words of five are *rib*."""
    generator = torch.Generator().manual_seed(seed)
    y = PATHS[(torch.rand(count, generator=generator) > 0.6).long()]
    x = torch.multinomial(emission[y].flatten(0, 1), 1, generator=generator).reshape(y.shape)
    return y, x


train_y, train_x = words(2000, 0)
test_y, test_x = words(500, 1)
for path, letters in zip(test_y[:5].tolist(), test_x[:5].tolist(), strict=True):
    print("states", path, "letters", "".join(LETTERS[letter] for letter in letters))

# %%
# The same scores, normalised in two ways
# ---------------------------------------
#
# A label is scored by the letter that is read and by the label before it:
# :math:`s(y) = \sum_t n[x_t, y_t] + \sum_t e[y_{t-1}, y_t]`. Locally, each label has a softmax over these,
# :math:`P(y_t \mid y_{t-1}, x_t)`: a :class:`lnz.Autoregressive` whose context are the letters. Globally, the sum goes
# into the softmax over all sequences: a :class:`lnz.LinearChain`.


class Scores(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.node = torch.nn.Parameter(torch.zeros(len(LETTERS), STATES))
        self.edge = torch.nn.Parameter(torch.zeros(STATES + 1, STATES))  # the last row: what comes first
        self.register_buffer("possible", torch.cat((follows, first[None])))

    def forward(self, prefix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Scores of each next label, [R, t, STATES], given the one before it and the letter at hand."""
        return self.node[x[:, : prefix.shape[1]]] + (self.edge + self.possible)[prefix]

    def local(self, x: torch.Tensor) -> lnz.Autoregressive:
        return lnz.Autoregressive(self, STATES, max_length=3, context=x)

    def chain(self, x: torch.Tensor) -> lnz.LinearChain:
        table = self.edge + self.possible
        return lnz.LinearChain(self.node[x], table[:-1]).with_boundary_scores(start=table[-1])


def trained(scores: Scores, kind: str) -> Scores:
    """By maximum likelihood, ``scores.local`` or ``scores.chain``."""
    optimiser = torch.optim.LBFGS(scores.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = -getattr(scores, kind)(train_x).log_prob(train_y).mean()
        value = value + 1e-4 * sum(each.square().sum() for each in scores.parameters())  # keeps them finite
        value.backward()
        return value

    optimiser.step(loss)
    return scores.requires_grad_(False)


local, chain = trained(Scores(), "local"), trained(Scores(), "chain")
predicted = {"local": local.local(test_x).beam(10)[0][0], "global": chain.chain(test_x).argmax()}

# %%
# The least possible share of errors, in expectation, is that of the likelier word, given the middle letter. The paper
# reports 42 % for the local and 4.6 % for the global model.

joint = torch.tensor([[0.6], [0.4]]) * emission[PATHS[:, 1]]  # [word, middle letter]
least = 1 - joint.amax(0).sum().item()
wrong = {name: (y != test_y).any(-1).double().mean().item() for name, y in predicted.items()}
print(f"words wrong: local {wrong['local']:.1%}, global {wrong['global']:.1%}, least possible {least:.1%}")

assert wrong["local"] > 0.35
assert abs(wrong["global"] - least) < 4 * math.sqrt(least * (1 - least) / 500)

# %%
# Why
# ---
#
# States 0 and 2 have one successor each, which gets all of the probability whatever is read,
# :math:`P(1 \mid 0, x) = 1`. The decision falls at the first letter, which is the same in both words, and is never
# revised. A chain multiplies scores that are not normalised at each step, so that the middle letter speaks for one path
# or the other.

middle = torch.tensor([[LETTERS.index("r"), letter, LETTERS.index("b")] for letter in range(len(LETTERS))])
of_rib = {
    "local": local.local(middle).log_prob(PATHS[0]).exp(),
    "global": chain.chain(middle).log_prob(PATHS[0].expand(4, 3)).exp(),
    "truth": joint[0] / joint.sum(0),
}
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for place, (name, probability) in enumerate(of_rib.items()):
    left.bar(torch.arange(4) + 0.27 * (place - 1), probability, 0.27, label=name)
left.set(title="P(rib), given the middle letter", xticks=range(4), xticklabels=LETTERS, ylim=(0, 1))
left.legend()
right.bar([*wrong, "least"], [*wrong.values(), least], color=["C0", "C1", "C2"])
right.set(title="share of words wrong")
plt.show()

spread = {name: (each.max() - each.min()).item() for name, each in of_rib.items()}
assert spread["local"] < 1e-3  # the middle letter changes nothing
assert spread["global"] > 0.8

# %%
# A locally normalised model is a special case of a globally normalised one: with the log-probabilities of its softmaxes
# as edge scores, a chain is the same distribution, and its Z is 1. The reverse needs softmaxes that see what comes.

table = (local.edge + local.possible)[None] + local.node[:, None, :]  # [letter, label before, label]
log_q = table.log_softmax(-1).nan_to_num(-torch.inf)  # nothing follows state 4
same = lnz.LinearChain(torch.zeros(len(test_x), 3, STATES), log_q[test_x[:, 1:], :-1])
same = same.with_boundary_scores(start=log_q[test_x[:, 0], -1])
torch.testing.assert_close(same.log_prob(test_y), local.local(test_x).log_prob(test_y), atol=1e-5, rtol=1e-4)

# %%
# The other remedy
# ----------------
#
# The trouble is not the softmaxes, but that the first of them has not seen the middle letter. Let it look at all
# letters, and it decides as well. A network that reads the whole input before it writes does that (an encoder and a
# decoder); one that reads as it writes, as in recognising speech while it is spoken, cannot, and is where to normalise
# globally (:class:`lnz.CTC` and :class:`lnz.Transducer` do).


class SeesAll(Scores):
    def __init__(self) -> None:
        super().__init__()
        self.ahead = torch.nn.Parameter(torch.zeros(3, len(LETTERS), STATES))  # of each letter, for the first label

    def forward(self, prefix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        scores = super().forward(prefix, x)
        seen = self.ahead[torch.arange(3), x].sum(1)
        return torch.cat((scores[:, :1] + seen[:, None], scores[:, 1:]), 1)


ahead = trained(SeesAll(), "local")
found = ahead.local(test_x).beam(10)[0][0]
wrong_ahead = (found != test_y).any(-1).double().mean().item()
print(f"words wrong: local, with all letters seen {wrong_ahead:.1%}")
assert wrong_ahead < wrong["global"] + 0.02
