"""Sphinx configuration. Warnings are errors: see the docs target of the Makefile."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "snakepit"
author = "The snakepit authors"
copyright = author
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
root_doc = "index"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "params_style")]

# Nothing is fetched while building, so names of other libraries are not links.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(trio|anyio|asyncio|msgspec|attrs?|psutil|collections|typing|types|contextlib)\..*",
    ),
    (r"py:.*", r"(datetime|pathlib|random|concurrent|enum|uuid|decimal|logging|subprocess|os)\..*"),
    (r"py:(class|obj|exc)", r"[A-Za-z]+(Error|Exception|Warning|Interrupt|Exit|Iteration)"),
    (r"py:class", r"(int|float|str|bytes|bool|dict|list|tuple|set|frozenset|object|type|None)"),
    (r"py:class", r"[A-Z][A-Za-z]?|[A-Z]\w*T|T_\w+|P|\.\.\.|Any|Self|optional"),
    # Private classes show through in signatures; what users need of them is told in words.
    (r"py:.*", r"(snakepit\.)?.*\._\w+.*"),
    (
        r"py:class",
        r"Job|PendingCall|OnlyAny|Streams|OnCancel|OnProgress|Reporter|PoolCore|Input|Desk|SessionRecord|HostCalls|Codec|Arguments",
    ),
    (r"py:class", r"Abstract(Async)?ContextManager"),
]

# Doctests are self-contained: each fence group may rely on these alone.
doctest_global_setup = "import anyio\nimport trio\nimport snakepit\n"
doctest_test_doctest_blocks = ""  # only fences marked {doctest}

html_theme = "furo"
html_title = f"snakepit {release}"
