"""What holds for every test: no network, a home of its own, the same speed on any machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from medix_eval.models.vllm_server import vllm_version

# Set before anything imports datasets or torch, which read them once; child processes inherit them.
# What the caller sets wins, as in `HF_HUB_OFFLINE=0 pytest -m network`.
_HOME = tempfile.mkdtemp(prefix="medix-eval-tests-")
os.environ.setdefault("HF_HOME", _HOME)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a tiny model only waits for a second thread

# A loaded machine is slow, not wrong; and what CI says must not depend on luck.
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")

_LOCAL = ("127.", "::1", "localhost")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked_for = config.option.markexpr
    for item in items:
        if item.get_closest_marker("network") and "network" not in asked_for:
            item.add_marker(pytest.mark.skip(reason="needs the network: ask with `-m network`"))
        if item.get_closest_marker("vllm") and vllm_version() is None:
            item.add_marker(pytest.mark.skip(reason="needs vLLM: `make test-vllm`"))
        if item.get_closest_marker("gpu") and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves the machine.

    The error is no `OSError`: code that handles a server it cannot reach must not hide it.
    """
    if request.node.get_closest_marker("network") is not None:
        return
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(_LOCAL):
            raise RuntimeError(f"a test tried to reach {address[0]}; mark it `network`")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tracked_files(repository: Path) -> Callable[..., list[str]]:
    """List the committed files below some folders: what nobody committed is not ours to check."""

    def listed(*folders: str) -> list[str]:
        git = ["git", "-C", str(repository), "ls-files", "-z", *folders]
        listing = subprocess.run(git, capture_output=True, text=True, check=False)
        if listing.returncode:
            pytest.skip("not a git checkout")
        return [name for name in listing.stdout.split("\0") if (repository / name).is_file()]

    return listed


def _has_cuda() -> bool:
    import torch  # noqa: PLC0415 (seconds, and only where a test asks)

    return torch.cuda.is_available()
