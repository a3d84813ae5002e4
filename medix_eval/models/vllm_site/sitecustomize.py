"""What Python runs first in every process of a vLLM server on a CPU.

vLLM starts several Pythons, some by `-m`, and each imports torchvision, which does not load with
a CPU torch (`medix_eval.models.torch_cpu` says why). A folder on `PYTHONPATH` reaches
all of them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path


class _BeforeTorchvision:
    """Declares what torchvision misses when it is about to be imported, and not before."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            from medix_eval.models.torch_cpu import declare_missing_operators  # noqa: PLC0415

            declare_missing_operators()


def _give_way() -> None:
    """Run the module of this name that the machine may have of its own: Python runs only one."""
    sys.path = [path for path in sys.path if Path(path) != Path(__file__).parent]
    ours = sys.modules.pop(__name__)
    try:
        import_module(__name__)
    except ModuleNotFoundError:
        sys.modules[__name__] = ours


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, _BeforeTorchvision())
    _give_way()
