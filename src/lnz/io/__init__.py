"""Files of models, evidence, queries and results."""

from lnz.io.atomic import atomic_write
from lnz.io.bif import read_bif
from lnz.io.bif_writer import write_bif
from lnz.io.dependencies import Dependencies, read_dependencies, write_dependencies
from lnz.io.evidence import parse_evidence, read_evidence
from lnz.io.files import read_bytes
from lnz.io.formats import read_model
from lnz.io.limits import Limits, allowing
from lnz.io.model import NamedModel
from lnz.io.results import assignment_result, marginals_result, partial_assignment_result, partition_result
from lnz.io.tree_charts import ChartLabels
from lnz.io.trees import Constituent, Tree, parse_trees, read_trees, write_trees
from lnz.io.uai import read_uai, write_uai
from lnz.io.variables import parse_variables, read_variables
from lnz.io.vectors import Vectors, read_vectors

__all__ = [
    "ChartLabels",
    "Constituent",
    "Dependencies",
    "Limits",
    "NamedModel",
    "Tree",
    "Vectors",
    "allowing",
    "assignment_result",
    "atomic_write",
    "marginals_result",
    "parse_evidence",
    "parse_trees",
    "parse_variables",
    "partial_assignment_result",
    "partition_result",
    "read_bif",
    "read_bytes",
    "read_dependencies",
    "read_evidence",
    "read_model",
    "read_trees",
    "read_uai",
    "read_variables",
    "read_vectors",
    "write_bif",
    "write_dependencies",
    "write_trees",
    "write_uai",
]
