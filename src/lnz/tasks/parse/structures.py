"""The structures that ``lnz fit parse`` knows, by name."""

from lnz.tasks.parse.constituency import Constituency
from lnz.tasks.parse.dependency import Dependency
from lnz.tasks.parse.structure import Name, Structure

STRUCTURES: dict[Name, Structure] = {"constituency": Constituency(), "dependency": Dependency()}
TITLES = {"uas": "UAS", "las": "LAS", "f1": "bracket F1", "tree": "trees", "nll": "marginal NLL", "ece": "ECE"}
HIGHER_IS_BETTER = {"uas": True, "las": True, "f1": True, "tree": True, "nll": False, "ece": False}
PERCENT = ("uas", "las", "f1", "tree")


def structure_of(name: Name) -> Structure:
    """The structure of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in STRUCTURES:
        raise ValueError(f"structure: expected one of {', '.join(STRUCTURES)}, got {name!r}")
    return STRUCTURES[name]
