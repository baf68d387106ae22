"""Pictures of labellings, trees, their certainty, and alignments, and curves; each returns a matplotlib figure."""

from lnz.plot.figures import Tagging, alignment, curves, mosaics, png, profiles, reliability, segmentation, tagging
from lnz.plot.trees import MOST_WORDS, Parse, constituency_trees, dependency_trees

__all__ = [
    "MOST_WORDS",
    "Parse",
    "Tagging",
    "alignment",
    "constituency_trees",
    "curves",
    "dependency_trees",
    "mosaics",
    "png",
    "profiles",
    "reliability",
    "segmentation",
    "tagging",
]
