"""One scaffold for every op: an op's own files hold only what is its own.

An op describes itself with two named tuples and a few functions over them:

- its inputs: scores first, then tensors without gradients, then settings (numbers, flags, names);
- its outputs: the value ``[B]`` first, then whatever backward needs, computed in the same pass;
- ``solve``: from inputs to outputs, by whichever backend serves them;
- ``gradient``: a weight per batch entry times the gradients of the value (for ln Z: the marginals), from both tuples;
- ``marginals``: these gradients per batch entry once more in plain torch, which may be differentiated further.

:class:`Differentiable` makes the rest of it: two operators of ``torch.library``, ``lnz::NAME`` and
``lnz::NAME_gradient``, with their fakes and ``vmap`` rules, autograd, forward mode, and a way past the dispatcher where
nobody looks on. What has no derivative (labels, samples) is an :class:`Operator`; what has one through its reference
only is an :class:`Answer`.

Tensors have a batch axis, the first one unless ``axes`` says otherwise. Scores that all entries share have size 1
there: they are not copied, and their gradients are sums. ``vmap`` folds its axis into the batch.

============================  =========================================================================
:mod:`.operator`              named tuples in and out of a ``torch.library`` operator
:mod:`.autograd`              two autograd functions for all ops: a value, and an answer through the reference
:mod:`.forward_mode`          the same with tangents
:mod:`.batch`                 the ``vmap`` axis and the batch axis
============================  =========================================================================
"""

from lnz.ops.scaffold import forward_mode as _forward_mode  # noqa: F401  (found by the functions of autograd)
from lnz.ops.scaffold.autograd import Answer, Differentiable
from lnz.ops.scaffold.operator import Operator

__all__ = ["Answer", "Differentiable", "Operator"]
