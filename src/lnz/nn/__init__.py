"""Modules that hold parameters: features in, distributions out."""

from lnz.nn.annealed_partition import AnnealedPartition
from lnz.nn.block_gibbs import BlockGibbs
from lnz.nn.boltzmann_machine import BoltzmannMachine
from lnz.nn.convnet import ConvNet
from lnz.nn.grid_mrf import GridMRF
from lnz.nn.restricted_boltzmann_machine import RestrictedBoltzmannMachine

__all__ = [
    "AnnealedPartition",
    "BlockGibbs",
    "BoltzmannMachine",
    "ConvNet",
    "GridMRF",
    "RestrictedBoltzmannMachine",
]
