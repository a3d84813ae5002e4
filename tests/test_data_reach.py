"""A dataset hub that is out of reach is found out in seconds, and said in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants
from scripted_run import scripted_run

from medix_eval.data.hub import offline_if_out_of_reach
from medix_eval.errors import DatasetError
from medix_eval.testing import ScriptedServer

NOWHERE = "http://127.0.0.1:9"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with scripted_run(tmp_path_factory.mktemp("runs")) as (run, _):
        yield run


def test_a_submission_is_checked_where_the_hub_is_out_of_reach(
    finished: Path, run: Run, tmp_path: Path
) -> None:
    _, zipped, _ = run("submit", finished, "--out", tmp_path, "--allow-synthetic")

    code, out, err = run("submit", zipped.strip(), "--check", "--allow-synthetic", "--json")

    assert code == 0, err
    (told,) = (line for line in json.loads(out)["unchecked"] if "medqa" in line)
    assert told.startswith("medqa, rad_vqa, mimic_cxr_report_summarization against the data: ")
    assert f"{NOWHERE} cannot be reached" in told
    assert "--data-root" in told


def test_the_libraries_are_offline_only_while_a_dataset_opens() -> None:
    with offline_if_out_of_reach("medqa", "org/medqa"):
        assert constants.HF_HUB_OFFLINE
        assert datasets.config.HF_HUB_OFFLINE

    assert not constants.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(lambda _: None) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)

        with offline_if_out_of_reach("medqa", "org/medqa"):
            assert not constants.HF_HUB_OFFLINE


def test_hosts_that_need_no_proxy_are_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:10")
    monkeypatch.setenv("NO_PROXY", "localhost")

    with offline_if_out_of_reach("medqa", "org/medqa"):
        assert constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
def test_behind_a_proxy_the_libraries_find_out_themselves(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:11/{name}")
    monkeypatch.setenv(name, "http://127.0.0.1:9")

    with offline_if_out_of_reach("medqa", "org/medqa"):
        assert not constants.HF_HUB_OFFLINE


def test_a_faulty_copy_in_the_cache_is_told_as_it_is() -> None:
    with (
        pytest.raises(DatasetError, match="12 rows, not 13"),
        offline_if_out_of_reach("medqa", "org/medqa"),
    ):
        raise DatasetError("12 rows, not 13")
