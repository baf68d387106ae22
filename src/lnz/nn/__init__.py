"""Modules that hold parameters: features in, distributions out."""

from lnz.nn.convnet import ConvNet
from lnz.nn.grid_mrf import GridMRF

__all__ = ["ConvNet", "GridMRF"]
