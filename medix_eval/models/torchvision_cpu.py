"""Let torchvision import with a torch that was built without CUDA.

The torchvision on PyPI is compiled against CUDA. With a CPU torch its library cannot be loaded,
so two operators that it describes at import do not exist, `import torchvision` fails, and with it
every vision model of transformers, under names that point elsewhere. Declaring the two operators
is enough: images are resized by Python code, and nothing here calls what was compiled.
"""

from __future__ import annotations

import functools
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_OPERATORS = ("nms", "qnms")


@functools.cache
def declare_missing_operators() -> torch.library.Library | None:
    """Declare what torchvision describes at import, where its compiled library cannot be loaded.

    Call it before anything imports torchvision, so before transformers loads a model. It does
    nothing without torchvision, or where torch has CUDA: there a library that does not load is a
    broken installation, and should say so. A declaration lives as long as the returned object,
    which the cache keeps.
    """
    torchvision = find_spec("torchvision")
    if torchvision is None:
        return None
    import torch  # noqa: PLC0415 (seconds, and not in the core install)

    if torch.version.cuda is not None:
        return None
    compiled = PathFinder.find_spec("_C", list(torchvision.submodule_search_locations or []))
    if compiled is not None and compiled.origin is not None:
        try:
            # What torchvision does itself; once loaded, doing it again changes nothing.
            torch.ops.load_library(compiled.origin)
        except OSError:
            pass
        else:
            return None
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return declared
