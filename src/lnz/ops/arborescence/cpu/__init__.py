"""The backend "cpu" of dependency trees of any shape."""

VERBS = {
    "eliminate": "eliminate",
    "best_tree": "best_tree",
}
"""In which file each verb is, so that a first call compiles no more than it needs."""
