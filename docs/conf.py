# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Configure the documentation site. `make docs` builds it without a network and treats warnings as errors."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Autodoc imports Airflow, and Airflow creates its home directory on import. A temporary home directory keeps the
# user's own Airflow home directory unchanged.
_airflow_home = tempfile.mkdtemp(prefix="airflow-home-docs-")
atexit.register(shutil.rmtree, _airflow_home, ignore_errors=True)
os.environ.update(
    AIRFLOW_HOME=_airflow_home,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
)

import airflow_provider_faceki  # noqa: E402 - the path is set above

project = "airflow-provider-faceki"
author = "The airflow-provider-faceki authors"
project_copyright = author
release = version = airflow_provider_faceki.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "FACEKI provider for Apache Airflow"
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
# Sphinx creates link targets for headings down to this level. Without the target, a link to a heading causes a warning.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
