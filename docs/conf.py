"""Settings of the documentation: `make docs` builds it, strictly and without the network."""

import sys
from pathlib import Path

import numpyro_diffusion

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER / "_ext"), str(FOLDER.parent)]

project = "numpyro_diffusion"
release = numpyro_diffusion.__version__
copyright = "the numpyro_diffusion authors, Apache-2.0"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "docstrings",
    "figures_of_results",
    "links_of_names",
    "mathml",
]
exclude_patterns = ["_build", "jupyter_execute"]

# Markdown: formulas between dollars, links to headings by their words, boxes and definitions.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3
# `start.md` and `read_a_summary.md` show what their cells print; all other code is run by `check_code.py`.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 3600
nb_execution_in_temp = True
nb_merge_streams = True
nb_execution_show_tb = True
suppress_warnings = ["myst-nb.lexer"]  # of cells that were not executed, which name no language

# Docstrings: Google style, shapes and units in words, so signatures go without annotations.
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
add_module_names = False
default_role = "code"
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 88

nitpicky = True
# Types of other libraries, whose documentation is not looked up: building needs no network.
nitpick_ignore_regex = [(r"py:.*", r"(?!numpyro_diffusion\.).*"), (r"py:.*", r"numpyro_diffusion\.[a-z]+\..*")]

html_theme = "furo"
html_title = "numpyro_diffusion"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = "$ "
