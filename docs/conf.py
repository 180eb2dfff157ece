"""Configuration of the documentation site: the pages of this folder and an API reference from the
docstrings.
"""

import re
import sys
from pathlib import Path, PurePosixPath

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

import mae_plugin  # noqa: E402  (found through the line above)

project = 'mae_plugin'
author = copyright = 'The mae_plugin contributors'
release = version = mae_plugin.__version__

extensions = ['sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.apidoc', 'myst_parser']
exclude_patterns = ['_build', 'results']
html_theme = 'furo'
html_title = f'mae_plugin {version}'

# sphinx.ext.apidoc writes one page per room to docs/api/ at each build, so a new module needs no
# entry here.
apidoc_modules = [
    {
        'path': '../mae_plugin',
        'destination': 'api',
        'max_depth': 2,
        'module_first': True,
    }
]
autodoc_member_order = 'bysource'
# An object is described in the module that defines it, not again in the packages that export it.
autodoc_default_options = {'ignore-module-all': True}
# The docstrings that mmengine's and torch's classes pass on are not in Google style.
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Links to headings, `page.md#heading`, use the names that GitHub gives to headings.
myst_heading_anchors = 4

# Files at the root of the repository that are pages of the site.
ROOT_PAGES = {
    'README.md': 'index.md',
    'CHANGELOG.md': 'changelog.md',
    'CONTRIBUTING.md': 'contributing.md',
}
# Roles may name objects of these packages, which the site does not document.
OTHER_PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmpretrain', 'numpy', 'PIL', 'concurrent')
LINK = re.compile(r'\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)')
LOGGER = logging.getLogger(__name__)


def link_within_site(match: re.Match[str]) -> str:
    """Returns a Markdown link as the site needs it; a link to a file outside docs/ becomes plain
    text.
    """
    text, path, heading = match.group(1), PurePosixPath(match.group(2)), match.group(3) or ''
    if path.name in ROOT_PAGES and path.parts[0] != 'docs':
        return f'[{text}]({ROOT_PAGES[path.name]}{heading})'
    if path.parts[0] == 'docs':
        path = path.relative_to('docs')
    if (DOCS / path).is_dir() or '..' in path.parts or not (DOCS / path).exists():
        # tests/test_docs.py checks that the file exists in the repository.
        return text if (DOCS / path).exists() or (DOCS.parent / path).exists() else match.group(0)
    return f'[{text}]({path}{heading})'


def link_pages(app: Sphinx, docname: str, content: list[str]) -> None:
    """Rewrites the links of a page."""
    content[0] = LINK.sub(link_within_site, content[0])


def link_included_pages(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    """Rewrites the links of a file that a page includes."""
    content[0] = LINK.sub(link_within_site, content[0])


def resolve_short_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, child: nodes.Element
) -> nodes.Element | None:
    """Resolves a role such as ``:class:`MAEViT``` to the one object of that name in any module.

    Warns about a role that names no object of this package and none of ``OTHER_PACKAGES``.
    Annotations in signatures are cross-references too, but no roles, and are left as they are.
    """
    # autodoc's own roles, in the lists of base classes, name their domain.
    written_by_hand = isinstance(child, nodes.literal) and not node.rawsource.startswith(':py:')
    if node.get('refdomain') != 'py' or not written_by_hand:
        return None
    target = node['reftarget'].lstrip('.~')
    domain = env.domains.python_domain
    matches = [
        name
        for name, entry in domain.objects.items()
        if name.endswith(f'.{target}') and not entry.aliased
    ]
    if len(matches) == 1:
        found = domain.objects[matches[0]]
        return make_refnode(
            app.builder, node['refdoc'], found.docname, found.node_id, child, matches[0]
        )
    if target.split('.')[0] not in OTHER_PACKAGES:
        LOGGER.warning(
            '%s names %s objects of this package',
            node.rawsource or target,
            len(matches),
            location=node,
        )
    return None


def setup(app: Sphinx) -> None:
    """Registers the rewriting of links and the resolution of short names."""
    app.connect('source-read', link_pages)
    app.connect('include-read', link_included_pages)
    app.connect('missing-reference', resolve_short_name)
