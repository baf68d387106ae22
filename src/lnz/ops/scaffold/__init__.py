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
only is an :class:`Answer`; one with several values, and a fast first derivative of them, is a :class:`Map`.

Tensors have a batch axis, the first one unless ``axes`` says otherwise. Scores that all entries share have size 1
there: they are not copied, and their gradients are sums. ``vmap`` folds its axis into the batch.

====================  ==================================================================
``operator``          named tuples in and out of a ``torch.library`` operator
``differentiable``    a value, its gradient, its marginals
``answer``            results that are differentiated through plain torch; several values
``autograd``          the two autograd functions of all ops
``forward_mode``      the same with tangents
``batch``             the ``vmap`` axis and the batch axis
====================  ==================================================================
"""

from lnz.ops.scaffold import forward_mode as _forward_mode  # noqa: F401  (found by the functions of autograd)
from lnz.ops.scaffold.answer import Answer, Map
from lnz.ops.scaffold.differentiable import Differentiable
from lnz.ops.scaffold.operator import Operator

__all__ = ["Answer", "Differentiable", "Map", "Operator"]
