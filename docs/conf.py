"""The documentation site: `make docs` builds it into docs/_build/html, and any warning is an error."""

from attent_kit import __version__

project = "attent-kit"
author = "the attent-kit authors"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"attent-kit {version}"
html_static_path = ["_static"]
html_show_sphinx = False
smartquotes = False  # an option is written with two hyphens

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # result files begin where the page that includes them stands

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
default_role = "code"  # docstrings write names in single backticks, as Markdown does
add_module_names = False


def _indented_is_literal(app, what, name, obj, options, lines):  # type: ignore[no-untyped-def]
    """Docstrings indent code and equations, as Markdown does; reStructuredText wants a `::` before them."""
    out: list[str] = []
    inside = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not inside and out and not out[-1].strip():
            out += ["::", ""]
        inside = indented or (inside and not line.strip())
        out.append(line)
    lines[:] = out


def setup(app):  # type: ignore[no-untyped-def]
    app.connect("autodoc-process-docstring", _indented_is_literal)
