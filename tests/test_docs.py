"""What the pages say: every link leads somewhere, every command and flag of theirs exists."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from medix_eval.cli.app import app
from medix_train.cli import app as train_app

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "leaderboard/README.md")
LINK = re.compile(r"\[[^\]]*\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAG = re.compile(r"--[a-z-]*[a-z]")
COMMANDS: dict[str, Any] = {"medix-eval": get_command(app), "medix-train": get_command(train_app)}
Tracked = Callable[..., list[str]]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [(path, anchor) for path, anchor in LINK.findall(FENCE.sub("", text))]

    assert [link for link in links if not leads_somewhere(ROOT / page, *link)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_code_is_closed_and_can_be_read(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")

    assert "```" not in FENCE.sub("", text)
    for language, code in FENCE.findall(text):
        assert language in {"", "console", "python", "text", "toml", "yaml"}
        if language == "yaml":
            yaml.compose(code)
        if language == "toml":
            tomllib.loads(code)
        if language == "python":
            compile(code, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists_with_its_flags(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [words for words in commands_in(text) if words[0] in COMMANDS]

    assert len(found) > 20 or page != "README.md"
    assert [(" ".join(words), said) for words in found for said in unknown_in(*words)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_in_a_sentence_is_one_of_some_command(page: str) -> None:
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    named = {flag for code in re.findall(r"`(--[^`]+)`", text) for flag in FLAG.findall(code)}

    assert named - {flag for command in COMMANDS.values() for flag in all_flags(command)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_exists(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = (ROOT / page).read_text(encoding="utf-8")
    named = [words[1] for words in commands_in(text) if words[0] == "make" and len(words) > 1]

    assert set(named) <= set(targets)


def test_what_is_to_be_installed_can_be(tracked_files: Tracked) -> None:
    """The package is on no index: only a checkout or a wheel can be installed."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = {*pyproject["project"]["optional-dependencies"]}
    installed = [
        (name, what)
        for name in tracked_files()
        if name.endswith((".md", ".py", ".yml", ".yaml"))
        for what in re.findall(r"""pip install ["']?([^"'`\s]+)""", text_of(ROOT / name))
    ]

    assert [one for one in installed if one[1].startswith(("medix-eval", "medix_eval["))] == []
    named = [extra for _, what in installed for extra in re.findall(r"\[([a-z,]+)\]", what)]
    assert {"hf", "train", "vllm"} <= {one for extra in named for one in extra.split(",")} <= extras


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def leads_somewhere(page: Path, path: str, anchor: str) -> bool:
    target = page.parent / path if path else page
    if not target.exists():
        return False
    headings = re.findall(r"^#+ (.+)$", text_of(target), re.MULTILINE) if anchor else []
    return not anchor or anchor in {
        re.sub(r"[^\w -]", "", h).replace(" ", "-").lower() for h in headings
    }


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the words of every command: lines of a console, and code within a sentence."""
    for language, code in FENCE.findall(text):
        if language == "console":
            for line in code.replace("\\\n", " ").splitlines():
                if line.startswith("$ "):
                    yield from split(line[2:])
    for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        yield from split(code)


def split(line: str) -> Iterator[list[str]]:
    """Split a line at `&&`; what is set in front of a command is left out."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a lone quotation mark: no command
        return
    for part in " \0".join(words).split("&&"):
        command = [word.strip() for word in part.split("\0") if word.strip()]
        while command and re.fullmatch(r"[A-Z_]+=\S*", command[0]):
            command.pop(0)
        if command:
            yield command


def unknown_in(program: str, *words: str) -> list[str]:
    """Return the flags that a command does not have, or the name of one that is none."""
    command = COMMANDS[program]
    for word in words:
        below = getattr(command, "commands", {})
        if below and word not in below and re.fullmatch(r"[a-z]+", word):
            return [word]
        if word not in below:
            break
        command = below[word]
    known = ["--help", *flags_of(command)]
    if command.name == "reproduce":  # it hands on what an evaluation takes
        known += flags_of(COMMANDS["medix-eval"])
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [flag for flag in flags if flag not in known]


def all_flags(command: Any) -> Iterator[str]:
    yield from flags_of(command)
    for below in getattr(command, "commands", {}).values():
        yield from all_flags(below)


def flags_of(command: Any) -> list[str]:
    return [flag for one in command.params for flag in (*one.opts, *one.secondary_opts)]
