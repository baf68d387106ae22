r"""
Forced alignment
================

Given a recording and what is said in it, *when* is each part said? A network trained with connectionist temporal
classification was never told, and yet it knows: its loss sums over all alignments :math:`z` that spell the text
:math:`y`, and the distribution over them given the text,

.. math:: P(z \mid y) = \frac{\prod_t \mathrm{softmax}(x_t)[z_t]}{Q(y)} \quad \text{for the } z \text{ that spell } y,

has a best member, marginals and samples, all exact. This page makes speech-like sounds whose bounds are known, trains
on sounds and texts alone, and looks at how far the alignments are off.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import lnz
from lnz import nn, plot

RATE = 8000
FORMANTS = {"a": (750, 1250), "i": (300, 2250), "u": (330, 800), "m": (250, 1000)}  # s is noise
LETTERS = "aimsu"  # classes 1 to 5; 0 is the blank

# %%
# Speech to order
# ---------------
#
# A syllable is a consonant, *m* or *s*, and a vowel, *a*, *i* or *u*. A vowel is a buzz of 100 to 140 Hz whose
# overtones are strong near two formants; *m* is the same but faint, *s* is noise of high pitch. Lengths and pauses are
# drawn.


def sound(letter: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    n = round(seconds * RATE)
    t = np.arange(n) / RATE
    if letter == "s":
        wave = np.diff(rng.standard_normal(n + 1)) * 0.08
    else:
        pitch = rng.uniform(100, 140)
        overtones = pitch * np.arange(1, int(3500 / pitch))
        strength = sum(np.exp(-(((overtones - f) / 120) ** 2)) for f in FORMANTS[letter]) + 0.01
        wave = 0.1 * (strength[:, None] * np.sin(2 * np.pi * overtones[:, None] * t)).sum(0)
        wave *= 0.25 if letter == "m" else 1.0
    return wave * np.minimum(1, np.minimum(t, t[::-1]) / 0.008)


def speak(rng: np.random.Generator) -> tuple[torch.Tensor, str, list[tuple[float, float, str]]]:
    """A waveform, its letters, and when each sounds."""
    pieces, text, known, at = [], "", [], 0
    for _ in range(rng.integers(2, 5)):
        pieces.append(np.zeros(round(RATE * rng.uniform(0.05, 0.25))))
        at += len(pieces[-1])
        for letter, low, high in ((rng.choice(list("ms")), 0.06, 0.14), (rng.choice(list("aiu")), 0.1, 0.3)):
            pieces.append(sound(letter, rng.uniform(low, high), rng))
            known.append((at / RATE, (at + len(pieces[-1])) / RATE, str(letter)))
            text += letter
            at += len(pieces[-1])
    pieces.append(np.zeros(round(RATE * rng.uniform(0.05, 0.25))))
    wave = np.concatenate(pieces)
    return torch.from_numpy(wave + 0.003 * rng.standard_normal(len(wave))).float(), text, known


rng = np.random.default_rng(0)
spoken = [speak(rng) for _ in range(144)]
train, test = spoken[:128], spoken[128:]
mel = nn.LogMel(RATE)


def show(k: int, tiers: dict[str, list[tuple[float, float, str]]]) -> None:
    """A test recording over tiers of intervals."""
    wave = test[k][0]
    plt.figure(plot.alignment([mel(wave[None])[0][0]], [len(wave) / RATE], [tiers]))
    plt.show()


print(f"says {test[0][1]!r}")
show(0, {"known": test[0][2]})

# %%
# Sounds and texts alone
# ----------------------
#
# Log-mel features, a few convolutions that make one frame of every two, a linear layer, and :class:`lnz.CTC` over its
# logits. The bounds are used nowhere. With a ``prior_scale`` of 0 this is plain CTC.


class Listener(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.SpeechEncoder(mel.num_mels, width=48, stride=2, dilations=(1, 2, 4))
        self.head = torch.nn.Linear(48, 1 + len(LETTERS))
        self.log_prior = torch.zeros(1 + len(LETTERS))

    def forward(self, waves: list[torch.Tensor]) -> lnz.CTC:
        samples = torch.tensor([len(wave) for wave in waves])
        hidden, lengths = self.encoder(*mel(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), samples))
        return lnz.CTC(self.head(hidden), lengths, log_prior=self.log_prior)


def classes(texts: list[str]) -> torch.Tensor:
    rows = [torch.tensor([1 + LETTERS.index(letter) for letter in text]) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)


def trained(prior_scale: float, epochs: int = 25) -> Listener:
    torch.manual_seed(0)
    listener = Listener()
    optimizer = torch.optim.AdamW(listener.parameters(), 0.005)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.005, total_steps=epochs * len(train) // 8)
    for _ in range(epochs):
        seen = torch.zeros(1 + len(LETTERS))
        for rows in torch.randperm(len(train)).split(8):
            p = listener([train[k][0] for k in rows])
            targets = classes([train[k][1] for k in rows])
            loss = -(p.log_prob(targets) / (targets >= 0).sum(-1)).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(listener.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            inside = torch.arange(p.logits.shape[1]) < p.lengths[:, None]
            seen += p.logits.detach().softmax(-1)[inside].sum(0)
        listener.log_prior = prior_scale * (seen / seen.sum()).clamp_min(1e-4).log()
    return listener.eval()


plain = trained(0.0)
with torch.no_grad():
    greedy = plain([wave for wave, _, _ in test]).greedy()
gold = classes([text for _, text, _ in test])
wrong, letters = int(lnz.metrics.edit_distance(gold, greedy).sum()), int((gold >= 0).sum())
print(f"letters that are wrong: {wrong} of {letters}")
assert wrong < 0.1 * letters

# %%
# The best alignment
# ------------------
#
# :meth:`~lnz.CTC.alignments` is the distribution over alignments of a text, ``argmax()`` its best member, and ``spans``
# says where each label begins and ends. A frame stands for the time around its centre, hence the half.

FRAME = mel.seconds_per_frame * 2


def align(listener: Listener, k: int) -> list[tuple[float, float, str]]:
    wave, text, _ = test[k]
    with torch.no_grad():
        spans = listener([wave]).alignments(classes([text])).spans()[0]
    return [
        (max(0.0, (float(start) - 0.5) * FRAME), (float(end) - 0.5) * FRAME, letter)
        for (start, end), letter in zip(spans, text, strict=True)
    ]


def off(listener: Listener) -> np.ndarray:
    """By how many milliseconds starts and ends are too late, of all test recordings, ``[2, letters]``."""
    found = [interval for k in range(len(test)) for interval in align(listener, k)]
    known = [interval for _, _, of in test for interval in of]
    return 1000 * np.array([[a[side] - b[side] for a, b in zip(found, known, strict=True)] for side in (0, 1)])


show(0, {"plain CTC": align(plain, 0), "known": test[0][2]})

# %%
# Each label is in its sound, but is a spike: one frame is enough to have said it, and the blank, which fits everywhere,
# takes the rest. The transcript does not mind; the alignment does.
#
# Label priors
# ------------
#
# Dividing the probability of each class by a power of its average (Huang et al. 2024, *Less peaky and more accurate CTC
# forced alignment by label priors*) takes away what the blank gains by being everywhere. Here the average softmax of an
# epoch, to the power 0.3, is the prior of the next; ``lnz.CTC(..., log_prior=...)`` trains and aligns with it.

prior = trained(0.3)
ways = {"plain CTC": plain, "with prior": prior}
show(0, {name: align(listener, 0) for name, listener in ways.items()} | {"known": test[0][2]})
for name, listener in ways.items():
    error = off(listener)
    near = 100 * (np.abs(error) <= 30).mean()
    late = np.median(error, 1)
    print(
        f"{name:>10}: {np.abs(error).mean():3.0f} ms off on average, {near:.0f} % within 30 ms;",
        f"starts {late[0]:+.0f} ms, ends {late[1]:+.0f} ms (medians)",
    )


def length(intervals: list[tuple[float, float, str]]) -> float:
    return 1000 * float(np.median([end - start for start, end, _ in intervals]))


known_length = length([interval for _, _, of in test for interval in of])
found_length = {name: length([i for k in range(len(test)) for i in align(by, k)]) for name, by in ways.items()}
print(f"median length of a letter: known {known_length:.0f} ms;", {k: round(v) for k, v in found_length.items()})
assert found_length["with prior"] > 1.5 * found_length["plain CTC"]

# %%
# With the prior labels last, and meet where one sound turns into the next. What the prior cannot know is how much of a
# recording is pause: it wants every class equally often, and lets labels grow into the pauses from both sides. Trained
# from three seeds, its bounds are 25 to 58 ms off on average, so that here it is no sure gain over the spikes;
# where words follow each other closely it is (see the results on spoken digits).

# %%
# How sure is a bound?
# --------------------
#
# The best alignment is one of very many. The marginals say, frame by frame, how probable each label is given the text;
# samples say what else could have been: here the starts of all letters in 500 exact samples.

wave, text, known = test[1]
with torch.no_grad():
    a = prior([wave]).alignments(classes([text]))
    draws = a.sample((500,), generator=torch.Generator().manual_seed(0))
    starts = torch.stack([(a.spans(z)[0, :, 0] - 0.5) * FRAME for z in draws])
print(f"{float(a.log_count[0].exp()):.2g} alignments, entropy {float(a.entropy()[0]):.1f} nats")

seconds = len(wave) / RATE
figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 3.6), sharex=True, layout="constrained")
extent = (-FRAME / 2, (a.marginals.shape[1] - 0.5) * FRAME, -0.5, 5.5)
top.imshow(a.marginals[0].T, aspect="auto", cmap="Greys", origin="lower", extent=extent, interpolation="nearest")
top.set(yticks=range(6), yticklabels=["⊥", *LETTERS], title="P(label | text) by frame; dashed: known starts")
for k, (start, _, letter) in enumerate(known):
    bottom.hist(starts[:, k].numpy(), bins=np.arange(0, seconds, FRAME / 2), color=f"C{k % 10}", alpha=0.8)
    bottom.text(start, 520, letter, ha="center")
    for axis in (top, bottom):
        axis.axvline(start, color="black", linewidth=0.8, linestyle="--")
bottom.set(xlim=(0, seconds), ylim=(0, 600), xlabel="seconds", ylabel="of 500 samples")
plt.show()

# %%
# From the shell
# --------------
#
# ``lnz fit transcribe`` trains on a folder of audio with transcripts (and on dialled digits where none is given), and
# ``lnz align`` writes the alignments of others as TextGrid and JSON, with pictures::
#
#     lnz fit transcribe --data.audio recordings --data.transcripts texts.tsv --model.prior_scale 0.3 --output runs/mine
#     lnz align runs/mine --audio others --transcripts others.tsv --output aligned --picture
