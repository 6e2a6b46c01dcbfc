"""Makes `nd.anneal(...)` in any text a link to the reference, and warns of names that do not exist.

A name in a code span that begins with `nd.` is looked up among the documented ones; `nd.X.y` finds the method y of X.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

import numpyro_diffusion

NAME = re.compile(r"^nd((?:\.\w+)+)(?:\(|$)")
logger = logging.getLogger(__name__)


class LinksOfNames(SphinxPostTransform):
    default_priority = 5

    def run(self, **kwargs):
        objects = self.env.domains.python_domain.objects
        for node in list(self.document.findall(nodes.literal)):
            found = NAME.match(node.astext())
            if found is None or isinstance(node.parent, nodes.reference):
                continue
            name = numpyro_diffusion.__name__ + found[1]
            entry = objects.get(name)
            if entry is None:
                if not exists(found[1]):
                    logger.warning("nd%s does not exist", found[1], location=node)
                continue
            link = make_refnode(
                self.app.builder, self.env.current_document.docname, entry.docname, entry.node_id, node.deepcopy(), name
            )
            node.replace_self(link)


def exists(path: str) -> bool:
    """Whether `.a.b` is an attribute of the package."""
    thing = numpyro_diffusion
    for part in path.strip(".").split("."):
        if not hasattr(thing, part):
            return False
        thing = getattr(thing, part)
    return True


def setup(app):
    app.add_post_transform(LinksOfNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
