r"""
Tagging
=======

Every element of a sequence gets a tag, and tags depend on their neighbours. A network that ends in a softmax per
element decides about each alone; one that ends in a *linear chain* decides about all at once, exactly, in time linear
in the length of the sequence.

This page trains both, with the same architecture, initial weights, batches, dropout and budget.
"""

import logging
import warnings

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import torch

from lnz import plot
from lnz.tasks.tag.data import TagData
from lnz.tasks.tag.module import TagModule
from lnz.tasks.tag.strings import Strings

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")

# %%
# Readings of a counter
# ---------------------
#
# No tagged text comes with lnz, so the sequences are composed: strings of scikit-learn's handwritten digits, the
# readings of a counter that moves on by 0, 1 or 2 from one to the next. Noise blurs the digits, and some are blotted
# out: what they are has to be told from their neighbours.

data = TagData(strings=Strings(train=300, val=100, noise=0.3), batch_size=16, seed=0)
examples = [data.val[0, index] for index in range(3)]

fig, axes = plt.subplots(3, 1, figsize=(8, 3), layout="constrained")
for axis, example in zip(axes, examples, strict=True):
    axis.imshow(torch.cat(list(example["image"]), 1), cmap="Greys")
    axis.set(title=" ".join(map(str, example["tags"].tolist())), xticks=[], yticks=[])
plt.show()

# %%
# A network that ends in a chain
# ------------------------------
#
# Two convolutions see one image each. From their features come the node scores :math:`s^N[t, \ell]`; the transition
# scores :math:`s^E[\ell, \ell']` are one learned table, in :class:`lnz.nn.LinearChainCRF`. The network returns a
# distribution:

pl.seed_everything(0, verbose=False)
module = TagModule(data.tags, image_size=data.image_size, width=64)
batch = data.collate(examples)
p = module.crf(batch)
print(p)
print("ln of the number of labellings:", [round(value, 1) for value in p.log_count.tolist()])

# %%
# Training
# --------
#
# The loss is ``lnz.objectives.nll(p, tags)`` for the one network and cross-entropy for the other.

trainer = pl.Trainer(
    max_epochs=12,
    check_val_every_n_epoch=12,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, datamodule=data)
(measured,) = trainer.validate(module, datamodule=data, verbose=False)

names = {"accuracy": "digits right", "whole": "whole strings right", "nll": "marginal NLL per digit", "ece": "ECE"}
print(f"{'on strings of unseen digits':28}  softmax   chain")
for name, title in names.items():
    print(f"{title:28}   {measured[f'val/softmax_{name}']:.4f}   {measured[f'val/crf_{name}']:.4f}")

assert measured["val/crf_accuracy"] > measured["val/softmax_accuracy"]
assert measured["val/crf_nll"] < measured["val/softmax_nll"]

# %%
# What comes out
# --------------
#
# Marginals of the chain, in grey, with the gold digits as rings and the mistakes of both networks; and the table that
# the chain has learned: a counter stays, or moves on by 1 or 2, and after 9 comes 0.

module.eval()
rows = []
for example in examples:
    one = data.collate([example])
    found = module.beliefs(one)
    predicted = {"softmax": found["softmax"][0][0], "chain": found["crf"][0][0]}
    rows.append(plot.Tagging(list(example["image"]), example["tags"], predicted, found["crf"][1][0]))
transitions = module.crf.crf.transitions.detach()
plt.figure(plot.tagging(rows, data.tags, transitions))
plt.show()

moves = torch.stack([transitions.roll(-step, 1).diagonal().mean() for step in range(10)])
print("mean score of moving on by 0, 1, 2, … 9:", [round(move, 2) for move in moves.tolist()])
assert set(moves.topk(3).indices.tolist()) == {0, 1, 2}

# %%
# From the shell
# --------------
#
# The same with sentences of your own, in CoNLL-U or in columns, with checkpoints, resuming and a report.
# ``--data.scheme`` forbids what BIO, IOB1, BIOES, BILOU or BMES forbid, ``--model.encoder hf`` takes an encoder of
# Hugging Face's transformers:
#
# .. code-block:: sh
#
#     lnz fit tag --data.train train.conllu --data.val dev.conllu
#     lnz predict runs/tag/<time> --text new.conllu --output tagged.conllu
