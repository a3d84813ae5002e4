"""Judge prompts are texts with gaps; they can neither act nor break anything but themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from medix_eval.errors import ConfigError
from medix_eval.judging.prompts import check_prompts, compiled
from medix_eval.judging.protocol import load_protocol, protocol_names


def test_a_prompt_is_filled_with_what_a_judge_sees() -> None:
    prompt = compiled({"mine": "{{ question }}|{{ reference }}|{{ answer }}"})["mine"]

    assert prompt.render(question="q", reference="r", answer="{{ a }}") == "q|r|{{ a }}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{{ questoin }}", id="misspelt"),
        pytest.param("{% if %}", id="no-template"),
        pytest.param("{{ 1 / 0 }}", id="arithmetic"),
        pytest.param("{{ question + 1 }}", id="types"),
        pytest.param("{{ question.__class__.__mro__ }}", id="into-python"),
        pytest.param("{{ cycler.__init__.__globals__.os.popen('id').read() }}", id="a-shell"),
    ],
)
def test_a_prompt_that_is_more_than_a_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="judge prompt mine"):
        compiled({"mine": text})


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("Is {answer} what {reference} says?", "the reference and the answer"),
        ("{{ question }} {{ reference }}", "the answer"),
        ("{{ question }} {{ answer }}", "the reference"),
    ],
)
def test_a_prompt_that_compares_nothing_is_refused(tmp_path: Path, text: str, missing: str) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_text(text)
    protocol = load_protocol("medix-compat", overrides=[f"judge.prompt_file={mine}"])

    with pytest.raises(ConfigError, match=rf"mine\.jinja does not show {missing}"):
        check_prompts(protocol)


@pytest.mark.parametrize("name", protocol_names())
def test_the_prompts_of_every_protocol_compare_something(name: str) -> None:
    check_prompts(load_protocol(name))
