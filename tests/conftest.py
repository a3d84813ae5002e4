"""What holds for every test: no network, a home of its own, the same speed on any machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from fake_servers import FAKE_VLLM, Habits, running
from hypothesis import settings
from invented_runs import InventedRuns
from invented_site import site_of, six_models
from raw_rows import place_of_real_rows
from scripted_run import Submitted, submission

from medix_eval.cli.app import main
from medix_eval.data.tasks import Catalogue, load_tasks
from medix_eval.models.vllm_server import vllm_version
from medix_eval.storage.bundled import bundled
from medix_eval.testing import ScriptedServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from medix_eval.data.lm_task import MedixTask

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

# A background job starts with Ctrl-C ignored, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked_for = config.option.markexpr
    for item in items:
        if item.get_closest_marker("network") and "network" not in asked_for:
            item.add_marker(pytest.mark.skip(reason="needs the network: ask with `-m network`"))
        if item.get_closest_marker("long") and "long" not in asked_for:
            item.add_marker(pytest.mark.skip(reason="takes long: `make test-long`"))
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


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; return its exit code, stdout and stderr."""

    def call(*argv: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, argv)])
        out, err = capsys.readouterr()
        code = stopped.value.code
        return (code if isinstance(code, int) else 0), out, err

    return call


@pytest.fixture
def evaluate(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, repository: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run an evaluation on the fixture mirror, into `tmp_path / "out"`; its stdout is JSON."""
    hub = repository / "tests" / "fixtures" / "hub"

    def call(*argv: str | Path) -> tuple[int, str, str]:
        return run(*argv, "--data-root", hub, "--out", tmp_path / "out", "--json")

    return call


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """Start a scripted server that lives as long as the test."""
    with ExitStack() as servers:
        yield lambda *given, **named: servers.enter_context(ScriptedServer(*given, **named))


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Habits]:
    """Put the stand-in where vLLM would be; whatever it leaves behind is a failure."""
    beside = [str(FAKE_VLLM), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, beside)))
    monkeypatch.syspath_prepend(FAKE_VLLM)
    monkeypatch.setenv("FAKE_VLLM_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield lambda habits: monkeypatch.setenv("FAKE_VLLM", habits)
    left = running(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture(scope="session")
def real_rows() -> Path:
    """The folder of real rows, which nobody may commit, in the layout of `--data-root`."""
    folder = place_of_real_rows()
    if folder is None:
        pytest.skip("needs real rows: set MEDIX_REAL_DATA to their folder (`make real` says how)")
    return folder


@pytest.fixture(scope="session")
def real_model(repository: Path) -> Path:
    """A real language model of 135 million parameters, as a checkpoint."""
    folder = repository / ".cache" / "SmolLM2-135M-Instruct"
    if not (folder / "config.json").is_file():
        pytest.skip("needs the model that `make real` makes")
    return folder


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """Every task that is bundled."""
    return load_tasks([bundled("tasks")])


@pytest.fixture
def runs(tmp_path: Path, catalogue: Catalogue) -> InventedRuns:
    """Make runs of invented samples below `tmp_path / "results"`."""
    return InventedRuns(tmp_path / "results", catalogue)


@pytest.fixture(scope="session")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submitted]:
    """A submission and the judge of its run, which tests bend copies of."""
    with submission(tmp_path_factory.mktemp("submitted")) as made:
        yield made


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The front page of a site of six models, which tests only look at."""
    return site_of(six_models, out=tmp_path_factory.mktemp("site"))


@pytest.fixture
def open_rows(tmp_path: Path) -> Callable[..., MedixTask]:
    """Open a task on rows of the test's own."""
    from opened_tasks import open_rows as opened  # noqa: PLC0415 (imports datasets)

    return partial(opened, tmp_path)


# Of a module: while Playwright is open its event loop runs, and no async test can have one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, as the system ships it."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (only these tests need it)

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium: `apt-get install chromium`")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags = ["--no-sandbox", "--disable-quic", "--no-first-run", *quiet]
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()


@cache
def _axe_core() -> str:
    package = files("axe_playwright_python").joinpath("axe.min.js")
    return package.read_text(encoding="utf-8")


@dataclass(slots=True)
class Visit:
    """One open page, with everything it complained about and everything it asked for."""

    page: Page
    problems: list[str] = field(default_factory=list)
    """Errors and warnings of the console, with what the content security policy stopped."""
    requested: list[str] = field(default_factory=list)

    def violations(self) -> list[str]:
        """Return what axe-core finds serious or critical, as `rule: selector`."""
        # Through the debugging protocol the page's own policy does not stop the script.
        self.page.evaluate(f"{_axe_core()}\n;undefined")
        found = self.page.evaluate("async () => (await axe.run(document)).violations")
        return [
            f"{rule['id']}: {node['target']}"
            for rule in found
            if rule["impact"] in {"serious", "critical"}
            for node in rule["nodes"]
        ]

    @property
    def is_clean(self) -> bool:
        """Whether the console stayed silent and nothing but local files was asked for."""
        return not self.problems and all(
            url.startswith(("file:", "data:", "blob:")) for url in self.requested
        )


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Open a page from disk: `visit(path)`, `visit(path, width=390, dark=True)`."""
    contexts: list[BrowserContext] = []

    def opened(path: Path, *, width: int = 1440, height: int = 900, dark: bool = False) -> Visit:
        scheme: Literal["dark", "light"] = "dark" if dark else "light"
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        visited = Visit(context.new_page())
        loud = {"error", "warning"}
        visited.page.on(
            "console",
            lambda said: visited.problems.append(said.text) if said.type in loud else None,
        )
        visited.page.on("pageerror", lambda error: visited.problems.append(str(error)))
        visited.page.on("request", lambda request: visited.requested.append(request.url))
        visited.page.goto(path.resolve().as_uri())
        return visited

    yield opened
    for context in contexts:
        context.close()
