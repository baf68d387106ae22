"""Modules that hold parameters: features in, distributions out."""

from lnz.nn import functional
from lnz.nn.annealed_partition import AnnealedPartition
from lnz.nn.biaffine_arcs import BiaffineArcs
from lnz.nn.block_gibbs import BlockGibbs
from lnz.nn.boltzmann_machine import BoltzmannMachine
from lnz.nn.convnet import ConvNet
from lnz.nn.ctc_head import CTCHead
from lnz.nn.dependency_parser import DependencyParser
from lnz.nn.encoder_decoder import EncoderDecoder
from lnz.nn.entities import Entity
from lnz.nn.gaussian_emission import GaussianEmission
from lnz.nn.grid_mrf import GridMRF
from lnz.nn.hmm import HiddenMarkovModel, HMMStatistics
from lnz.nn.hmm_emissions import CategoricalEmission, Emission, NeuralEmission
from lnz.nn.hmm_inputs import InputCategoricalEmission, InputTransition
from lnz.nn.linear_chain_crf import LinearChainCRF
from lnz.nn.log_mel import LogMel, mel_filterbank
from lnz.nn.mixture_model import MixtureModel, MixtureStatistics
from lnz.nn.neural_bayes_net import NeuralBayesNet
from lnz.nn.pcfg import PCFGModel, PCFGStatistics
from lnz.nn.refinement import Refined, refine
from lnz.nn.restricted_boltzmann_machine import RestrictedBoltzmannMachine
from lnz.nn.span_parser import SpanParser
from lnz.nn.span_scorer import SpanScorer
from lnz.nn.speech_encoder import SpeechEncoder
from lnz.nn.tag_schemes import transition_mask
from lnz.nn.word_alignment import Word, align
from lnz.nn.word_encoder import WordEncoder

__all__ = [
    "AnnealedPartition",
    "BiaffineArcs",
    "BlockGibbs",
    "BoltzmannMachine",
    "CTCHead",
    "CategoricalEmission",
    "ConvNet",
    "DependencyParser",
    "Emission",
    "EncoderDecoder",
    "Entity",
    "GaussianEmission",
    "GridMRF",
    "HMMStatistics",
    "HiddenMarkovModel",
    "InputCategoricalEmission",
    "InputTransition",
    "LinearChainCRF",
    "LogMel",
    "MixtureModel",
    "MixtureStatistics",
    "NeuralBayesNet",
    "NeuralEmission",
    "PCFGModel",
    "PCFGStatistics",
    "Refined",
    "RestrictedBoltzmannMachine",
    "SpanParser",
    "SpanScorer",
    "SpeechEncoder",
    "Word",
    "WordEncoder",
    "align",
    "functional",
    "mel_filterbank",
    "refine",
    "transition_mask",
]
