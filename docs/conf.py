"""Sphinx configuration. Nothing here needs a network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import causalrm  # noqa: E402

project = "causalrm"
author = "causalrm developers"
copyright = "causalrm developers"
release = version = causalrm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "public",
    "benchmarks",
    "mathml",
    "llms",
]
exclude_patterns = ["_build", "_templates", "api/backreferences", "gallery/**/*.ipynb"]
exclude_patterns += ["gallery/**/*.py", "gallery/**/*.json", "sg_execution_times.rst"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
templates_path = ["_templates"]

myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# autodoc writes the API pages; numpydoc's docstrings carry the types
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
maximum_signature_line_length = 88
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
add_module_names = False
toc_object_entries_show_parents = "hide"

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"^(?!plot_)",  # demo.py and readme.py are commands, not pages
    "subsection_order": ["../examples/story", "../examples/survival", "*"],
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "api/backreferences",
    "doc_module": ("causalrm",),
    "abort_on_example_error": True,
    "write_computation_times": False,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "ignore_repr_types": r"matplotlib|'list'|'tuple'",  # what a plotting call returns
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": False,
    "thumbnail_size": (400, 280),
    "image_srcset": ["2x"],
    "default_thumb_file": str(Path(__file__).parent / "_static" / "thumbnail.png"),
    "min_reported_time": 10_000,
}

html_title = "causalrm"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["causalrm.css"]
html_math_renderer = "mathml"
html_favicon = "_static/mark.svg"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {
        "text": "causalrm",
        "image_light": "_static/mark.svg",
        "image_dark": "_static/mark.svg",
    },
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "navigation_with_keys": False,
}
html_sidebars = {
    page: [] for page in ("index", "benchmarks", "validation", "changelog", "contributing")
}
