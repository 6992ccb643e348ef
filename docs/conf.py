"""Settings of the documentation, and the translation of the package's docstrings for Sphinx.

The docstrings are in the Hugging Face style, Google sections with Markdown within, while autodoc reads
reStructuredText. `translate` stands in between; napoleon then reads the sections.

Formulas become MathML, which browsers draw by themselves: a page asks nothing of a network.
"""

import re
from importlib.metadata import version as installed_version
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


project = "hf-mgan"
author = "The hf_mgan contributors"
release = version = installed_version("hf-mgan")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # pages link to one another's headings, as on GitHub
exclude_patterns = ["_build"]

html_math_renderer = "mathml"  # below; Sphinx's own fetch a script, or need LaTeX
html_theme = "furo"
html_show_copyright = False
html_static_path = ["_css"]
html_css_files = ["pages.css"]
html_title = f"hf-mgan {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings state the types, with shapes
napoleon_numpy_docstring = False
napoleon_use_rtype = False

FENCE = re.compile(r"^(?P<indent>\s*)```(?P<language>\w*)\s*$")
MARKUP = re.compile(r"\[`~?(?P<name>[^`]+)`\]|\[(?P<text>[^\]`]+)\]\((?P<url>[^)\s]+)\)|(?<!`)`(?P<code>[^`]+)`(?!`)")


def translate(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn the Markdown of a docstring into reStructuredText, in place, as `autodoc-process-docstring` asks for.

    Args:
        app: The Sphinx application.
        what: The kind of the object.
        name: Its full name.
        obj: The object.
        options: The options of the directive.
        lines: The docstring, one line an entry.
    """
    translated: list[str] = []
    within_fence = False
    for line in lines:
        fence = FENCE.match(line)
        if fence and not within_fence:
            translated += ["", f"{fence['indent']}.. code-block:: {fence['language'] or 'text'}", ""]
        elif within_fence and not fence:
            translated.append(f"    {line}" if line else line)
        elif fence:
            translated.append("")
        else:
            translated.append(MARKUP.sub(_restructured, line))
        within_fence ^= fence is not None
    lines[:] = translated


def _restructured(match: re.Match[str]) -> str:
    if match["url"]:
        return f"`{match['text']} <{match['url']}>`__"
    return f"``{match['name'] or match['code']}``"


def visit_math(translator: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Put the translation ahead of napoleon, whose priority is the default of 500, and MathML in its place."""
    app.connect("autodoc-process-docstring", translate, priority=400)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
