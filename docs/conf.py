"""The documentation site: ``make docs`` builds it from this folder, with nothing from the network."""

from darknet_compat import __version__

project = "darknet_compat"
author = project_copyright = "The darknet_compat authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4  # links to headings are GitHub's, so that the same pages read well there

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"darknet_compat {version}"
html_copy_source = False
html_show_sphinx = False
