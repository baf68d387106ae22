"""A Markov random field over the pixels of an image: answers in the shape of images."""

from __future__ import annotations

from torch import Tensor

from lnz.distributions.mrf import MRF


class PixelMRF(MRF):
    """An :class:`lnz.MRF` over a grid of H × W pixels, N = H·W nodes in row-major order.

    What :class:`lnz.nn.GridMRF` gives. Wherever a labelling ``[*batch, N]`` is taken, one of shape ``[*batch, H, W]``
    is too.
    """

    @property
    def size(self) -> tuple[int, int]:
        """H and W."""
        grid = self.graph.grid_layout
        assert grid is not None
        return grid.height, grid.width

    @property
    def pixel_marginals(self) -> Tensor:
        """The probability of each label of each pixel, ``[*batch, L, H, W]``."""
        return self.node_marginals.transpose(-1, -2).unflatten(-1, self.size)

    @property
    def pixel_labels(self) -> Tensor:
        """The label of the largest marginal of each pixel, ``int64 [*batch, H, W]``; not always that of ``argmax``."""
        return self.node_marginals.argmax(-1).unflatten(-1, self.size)

    def labelling(self, y: Tensor) -> Tensor:
        return super().labelling(self._flat(y))

    def condition(self, y: Tensor) -> PixelMRF:
        return super().condition(self._flat(y))

    def log_conditionals(self, y: Tensor) -> Tensor:
        return super().log_conditionals(self._flat(y))

    def _relative_log_partition(self, y: Tensor | None = None) -> Tensor:
        return super()._relative_log_partition(None if y is None else self._flat(y))

    def _flat(self, y: Tensor) -> Tensor:
        is_image = isinstance(y, Tensor) and y.dim() == len(self.batch_shape) + 2 and y.shape[-2:] == self.size
        return y.flatten(-2) if is_image else y
