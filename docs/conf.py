"""Sphinx settings. Nothing here reaches the network: the pages build from the checkout alone."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "lnz"
author = "The lnz authors"
copyright = author
version = release = installed_version("lnz")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "property_docs",
]
html_math_renderer = "mathml"  # drawn by the browser: the pages work without a network, and without scripts
exclude_patterns = ["_build", "jupyter_execute", "examples", "gallery/*.ipynb", "_ext"]

suppress_warnings = ["misc.highlighting_failure"]  # the design writes … in its Python

html_theme = "furo"
html_title = "lnz"
html_static_path = ["_static"]
html_css_files = ["lnz.css"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib",),
    "image_srcset": ["2x"],
    "min_reported_time": 3600,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "download_all_examples": False,
    "abort_on_example_error": True,
}
