from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from medix_eval.models import torch_cpu
from medix_eval.models.torch_cpu import declare_missing_operators

torch = pytest.importorskip("torch")

LOAD_A_VISION_MODEL = "from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor"
DECLARE = (
    "from medix_eval.models.torch_cpu import declare_missing_operators as declare\n"
    "assert declare() is declare()\n"
)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter: what an import leaves behind cannot be undone in one."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
def test_vision_models_load_after_the_declaration() -> None:
    loaded = run_python(DECLARE + LOAD_A_VISION_MODEL)

    assert loaded.returncode == 0, loaded.stderr


@pytest.mark.slow
def test_vision_models_do_not_load_without_the_declaration() -> None:
    if declare_missing_operators() is None:
        pytest.skip("this torchvision loads as it is")

    loaded = run_python(LOAD_A_VISION_MODEL)

    assert "operator torchvision::nms does not exist" in loaded.stderr


def test_a_declared_operator_has_no_meaning_of_its_own() -> None:
    if declare_missing_operators() is None:
        pytest.skip("this torchvision loads as it is")

    with pytest.raises(NotImplementedError, match="nms"):
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)


@pytest.mark.parametrize(
    ("has_torchvision", "cuda"),
    [
        pytest.param(False, None, id="no-torchvision"),
        pytest.param(True, "13.0", id="torch-with-cuda"),
    ],
)
def test_nothing_is_declared_where_nothing_can_be_missing(
    monkeypatch: pytest.MonkeyPatch, *, has_torchvision: bool, cuda: str | None
) -> None:
    spec = SimpleNamespace(submodule_search_locations=[]) if has_torchvision else None
    monkeypatch.setattr(torch_cpu, "find_spec", lambda _name: spec)
    monkeypatch.setattr(torch.version, "cuda", cuda)

    # The function under its cache: the process's own answer stays as it is.
    assert declare_missing_operators.__wrapped__() is None
