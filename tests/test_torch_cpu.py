from __future__ import annotations

import math
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from medix_eval.models import torch_cpu
from medix_eval.models.torch_cpu import declare_missing_operators

torch = pytest.importorskip("torch")
CORES = frozenset({0, 1})

LOAD_A_VISION_MODEL = "from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor"
DECLARE = (
    "from medix_eval.models.torch_cpu import declare_missing_operators as declare\n"
    "assert declare() is declare()\n"
)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter: what an import leaves behind cannot be undone in one.

    `-S` leaves out the `.pth` files, with what make put there to cure torchvision.
    """
    found = f"import sys; sys.path[:] = {sys.path!r}\n"
    return subprocess.run(
        [sys.executable, "-S", "-c", found + code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
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


@pytest.mark.slow
def test_other_programs_can_import_torchvision_where_python_starts_with_the_cure() -> None:
    if declare_missing_operators() is None:
        pytest.skip("this torchvision loads as it is")

    start = "import medix_eval.models.before_torchvision\nassert 'torch' not in sys.modules\n"
    for asked_first in ("", DECLARE):
        cured = run_python(start + asked_first + "import torchvision")

        assert cured.returncode == 0, cured.stderr


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
    monkeypatch.setattr(torch_cpu, "PathFinder", SimpleNamespace(find_spec=lambda _name: spec))
    monkeypatch.setattr(torch.version, "cuda", cuda)

    # The function under its cache: the process's own answer stays as it is.
    assert declare_missing_operators.__wrapped__() is None


class Processors:
    """Two cores whose use a test sets: seconds by all programs, and by this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.busy = self.own = 0.0
        monkeypatch.setattr(torch_cpu, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(torch_cpu, "_processor_times", lambda: (self.now, self.busy, self.own))
        monkeypatch.setattr(torch_cpu, "_own_cores", lambda: CORES)
        monkeypatch.setattr(torch_cpu, "cores_granted", lambda: math.inf)

    def pass_time(self, seconds: float, *, own: float = 0.0, others: float = 0.0) -> None:
        self.now += seconds
        self.own += own
        self.busy += own + others


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> Processors:
    return Processors(monkeypatch)


@pytest.mark.parametrize(
    ("own", "others", "free"),
    [
        pytest.param(0.0, 0.0, 2, id="idle"),
        pytest.param(20.0, 0.0, 2, id="only-we"),
        pytest.param(10.0, 2.0, 2, id="others-now-and-then"),
        pytest.param(10.0, 10.0, 1, id="one-core-taken"),
        pytest.param(5.0, 15.0, 1, id="shared-by-all"),
        pytest.param(0.0, 20.0, 1, id="all-taken"),
    ],
)
def test_cores_are_free_that_others_do_not_use(
    processors: Processors, own: float, others: float, free: int
) -> None:
    cores = torch_cpu.FreeCores("tiny")

    processors.pass_time(10.0, own=own, others=others)

    assert cores.count() == free


@pytest.mark.parametrize(
    "times",
    [
        pytest.param({"user": 6.0, "idle": 4.0, "iowait": 2.0, "guest": 5.0}, id="linux"),
        pytest.param({"user": 2.0, "nice": 1.0, "system": 3.0, "idle": 4.0}, id="macos"),
    ],
)
def test_a_core_is_used_once_by_a_virtual_machine_and_not_by_waiting(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, float]
) -> None:
    core = namedtuple("core", times)(**times)  # noqa: PYI024 (as psutil's)
    monkeypatch.setattr("psutil.cpu_times", lambda *, percpu: [core] * (2 if percpu else 0))
    monkeypatch.setattr(torch_cpu, "_own_cores", lambda: CORES)

    assert torch_cpu._processor_times()[1] == 12.0  # noqa: SLF001


def test_threads_follow_the_free_cores_and_that_is_said(
    processors: Processors, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = torch.get_num_threads()
    cores = torch_cpu.FreeCores("tiny")
    seen = []
    try:
        for others in (0.0, 10.0, 10.0, 0.0):
            processors.pass_time(10.0, others=others)
            cores.follow(most=2)
            seen.append(torch.get_num_threads())
        cores.follow(most=1)
    finally:
        torch.set_num_threads(before)

    assert seen == [2, 1, 1, 2]
    assert caplog.messages == [f"tiny computes on {number} of 2 cores" for number in (2, 1, 2)]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({"cpu.max": "150000 100000\n"}, 1.5, id="v2"),
        pytest.param({"cpu.max": "max 100000\n"}, math.inf, id="v2-no-limit"),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0
        ),
        pytest.param({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "1\n"}, math.inf),
        pytest.param({}, math.inf, id="no-cgroup"),
    ],
)
def test_a_containers_limit_is_read(tmp_path: Path, files: dict[str, str], cores: float) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert torch_cpu.cores_granted(tmp_path) == cores


def test_a_tiny_model_computes_in_one_thread() -> None:
    assert torch_cpu.threads_for(400_000) == 1
    assert torch_cpu.threads_for(135_000_000) >= 1
