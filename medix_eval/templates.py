"""The Jinja templates of task files, compiled once, and the columns they are made of.

lm-eval compiles a template anew for every row, which takes 1.3 ms where rendering takes 0.02 ms.
"""

from __future__ import annotations

from functools import lru_cache

from jinja2 import Template, meta, nodes
from lm_eval.utils import env


@lru_cache(maxsize=256)
def template(source: str) -> Template:
    """Compile a template in lm-eval's own environment, so that it renders the same."""
    compiled: Template = env.from_string(source)
    return compiled


def columns_of(source: str) -> list[str]:
    """Return the columns that a template cannot do without; a bare word is itself a column.

    >>> columns_of("{{ question }} {{ note if note is defined }}")
    ['question']
    >>> columns_of("answer")
    ['answer']
    """
    if "{" not in source:
        return [source]
    tree = env.parse(source)
    optional = {
        test.node.name
        for test in tree.find_all(nodes.Test)
        if test.name == "defined" and isinstance(test.node, nodes.Name)
    }
    return sorted(meta.find_undeclared_variables(tree) - optional)
