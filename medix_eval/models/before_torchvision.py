"""Imported when Python starts, it lets torchvision import in any program, as in `lm_eval`.

`medix_eval.models.torch_cpu` says what is missing and why. It is declared when torchvision is
about to be imported, and not before: that takes torch, which most programs never import. For the
same reason `.ci/venv-functions` installs a copy of this file, which imports nothing of medix_eval.
"""

from __future__ import annotations

import sys


class _BeforeTorchvision:
    """Declares what torchvision misses, and finds nothing itself."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            from medix_eval.models.torch_cpu import declare_missing_operators  # noqa: PLC0415

            declare_missing_operators()


sys.meta_path.insert(0, _BeforeTorchvision())
