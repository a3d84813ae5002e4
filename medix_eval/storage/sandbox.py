"""Jinja for texts that others wrote: of task files, of judges, around a prompt.

They fill in texts and get at nothing else. What could grow is weighed before it is made, and what
repeats looks at the clock: nothing from outside could stop one long step of Python.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import wraps
from time import thread_time
from typing import Any

import regex
from jinja2 import Template, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from medix_eval.errors import ConfigError, one_line

_SECONDS = 2
_MOST = 10**8  # characters, or bytes of a list
_ENTRY = 20
_STEPS = 32  # between two looks at the clock
_NUMBERS = "* batch center expandtabs indent ljust rjust round slice to_bytes tojson zfill"
_TEXTS = "join regex_replace replace sum translate urlize wordwrap xmlattr"
_BY_NUMBER = {*_NUMBERS.split()}
_GROWING = _BY_NUMBER.union(_TEXTS.split())
_FORMATS = {"%", "format", "format_map"}
_WIDE = re.compile(r"%(\(.*?\))?[^a-zA-Z%]*(\d{6}|\*)|\{[^{}]*:[^{}]*(\d{6}|\{[^{}]*\}[^{}]*\})")
_HINT = "a template fills in texts: no code, and no work without an end"
_TOO_MUCH = (OverflowError, RecursionError, MemoryError, TimeoutError)
_left = threading.local()


def _begin() -> None:
    _left.of = [_MOST, _STEPS, thread_time() + _SECONDS]


def _spend(size: float) -> None:
    left = _left.of
    left[0] -= size
    left[1] -= 1
    if left[0] < 0:
        raise SecurityError("it makes more than any prompt can hold")
    if not left[1]:
        left[1] = _STEPS
        if thread_time() > left[2]:
            raise SecurityError(f"it takes more than {_SECONDS} s")


def _size(value: Any) -> int:
    """Return about how many bytes a value takes; looking through it is paid for, too."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Namespace):
        value = value._Namespace__attrs  # noqa: SLF001
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | AbstractSet):
        _spend(len(value))
        return sum(map(_size, value), _ENTRY * len(value))
    return _ENTRY * len(value) if isinstance(value, range) else 1


def _weigh(name: str, first: Any, *rest: Any) -> None:
    """Pay for a step; `name` is that of an operator, a filter or a method."""
    size = _size(first)
    if name in _FORMATS and isinstance(first, str):
        if _WIDE.search(first):
            raise SecurityError("it sets a width that is too large, or not a number")
        size *= sum(map(_size, rest), 1)
    for one in rest if name in _GROWING else ():
        size *= max(1, abs(one) if name in _BY_NUMBER and isinstance(one, int) else _size(one))
    _spend(size)


def _weighed(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    at = int(hasattr(made, "jinja_pass_arg"))

    @wraps(made)
    def step(*args: Any, **kwargs: Any) -> Any:
        if name in _GROWING:  # they go through a generator in one step
            args = tuple(list(one) if isinstance(one, Iterator) else one for one in args)
        _weigh(name, *args[at:], *kwargs.values())
        return _step(None, made(*args, **kwargs))

    return step


@pass_context  # so that Jinja does not call it when it compiles
def _step(_: object, value: Any) -> Any:
    _spend(len(value) if type(value) is str else _size(value))
    return value


def _stepped(node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, "_step", [], [], None, None)


class _Watched(NodeTransformer):
    """Puts a step into all that repeats, and around all that is put together."""

    def visit_For(self, node: Any) -> Any:  # noqa: N802 (Jinja calls it)
        self.generic_visit(node)
        text = "".join(one.data for one in node.find_all(nodes.TemplateData))
        node.body.insert(0, nodes.ExprStmt(_stepped(nodes.Const(text))))
        if isinstance(node, nodes.For) and node.test:
            node.test = nodes.Or(_stepped(nodes.Const("")), node.test)
        return node

    visit_Macro = visit_CallBlock = visit_For  # noqa: N815

    def visit_Concat(self, node: Any) -> Any:  # noqa: N802
        self.generic_visit(node)
        return _stepped(node) if getattr(node, "ctx", "load") == "load" else node

    visit_List = visit_Tuple = visit_Dict = visit_Concat  # noqa: N815


class _Template(Template):
    def render(self, *args: Any, **kwargs: Any) -> str:
        _begin()
        try:
            return super().render(*args, **kwargs)
        except (SecurityError, *_TOO_MUCH) as error:
            raise ConfigError(f"{self.name}: {one_line(error)}", hint=_HINT) from error


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja without access to Python, and with an end."""

    template_class = _Template
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_step, **options)
        self.filters = {name: _weighed(name, one) for name, one in self.filters.items()}
        self.filters |= {"_step": _step, "regex_replace": _weighed("regex_replace", _replaced)}
        del self.globals["lipsum"], self.filters["pprint"]  # random; slow

    def template(self, source: str, where: str) -> Template:
        """Compile a text; `where` stands in front of what is wrong with it."""
        _begin()
        try:
            made = self.from_string(source)
        except (SyntaxError, *_TOO_MUCH) as error:
            raise ConfigError(f"{where}: {one_line(error)}", hint=_HINT) from error
        # Jinja keeps them as a chain of maps, and copies that for every row: ten times as slow.
        made.name, made.globals = where, dict(made.globals)
        return made

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Watched().visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Weigh what is made, before and after."""
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * (abs(right) if operator == "**" else right.bit_length())
            _spend(bits * bits / 10_000)
        else:
            _weigh(operator, left, right)
        return _step(None, super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Weigh what is made, before and after."""
        name = getattr(obj, "__name__", "")
        if name in _GROWING | _FORMATS:
            of = getattr(obj, "__wrapped__", obj)
            args = tuple(list(one) if isinstance(one, Iterator) else one for one in args)
            _weigh(name, getattr(of, "__self__", ""), *args, *kwargs.values())
        return _step(None, super().call(context, obj, *args, **kwargs))


def _replaced(text: str, pattern: str, repl: str, count: int = 0) -> str:
    return str(regex.sub(pattern, repl, text, count=count, timeout=_SECONDS / 2))
