"""What Python runs first in every process of a vLLM server on a CPU.

vLLM starts several Pythons, some by `-m`, and each imports torchvision, which does not load with
a CPU torch (`medix_eval.models.torch_cpu` says why). A folder on `PYTHONPATH` reaches
all of them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path


def _give_way() -> None:
    """Run the module of this name that the machine may have of its own: Python runs only one."""
    sys.path = [path for path in sys.path if Path(path) != Path(__file__).parent]
    ours = sys.modules.pop(__name__)
    try:
        import_module(__name__)
    except ModuleNotFoundError:
        sys.modules[__name__] = ours


if __name__ == "sitecustomize":
    import_module("medix_eval.models.before_torchvision")
    _give_way()
