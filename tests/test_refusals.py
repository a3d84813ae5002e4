"""An answer is refused where it says nothing else; else somebody reads it."""

from __future__ import annotations

import asyncio
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.errors import ConfigError
from medix_eval.judging.outcomes import verdict_of
from medix_eval.judging.protocol import load_protocol
from medix_eval.records import CompletionRecord, Kind
from medix_eval.storage.bundled import bundled

OPTIONS = ("Nitrofurantoin", "Vancomycin", "Amphotericin B", "Acyclovir")


def outcome(
    said: str,
    *,
    kind: Kind = Kind.OPEN,
    reference: str = "pneumonia",
    options: tuple[str, ...] = (),
    more: tuple[str, ...] = (),
) -> str:
    """Return how a completion ends under the protocol `rules`."""
    record = CompletionRecord(
        task="t@1",
        sample_id="s",
        row=0,
        kind=kind,
        prompt="Q",
        reference=reference,
        options=options,
        completion=said,
    )
    spec = load_protocol("rules", overrides=more)
    return asyncio.run(verdict_of(record, protocol=spec, grader=None)).outcome.value


@pytest.mark.parametrize(
    "said",
    [
        "I'm unable to interpret medical images.",
        "I\u2019m not able to view images.",
        "It's not possible for me to provide a diagnosis.",
        "I can't help with that request.",
        (
            "I cannot provide a diagnosis based on this image alone. Please consult a qualified "
            "radiologist."
        ),
        "No image was provided, so I can't answer.",
        "I'm sorry, but I can't assist with that.",
        "**I'm sorry, but I can't help with that.**",
        "I'm sorry, I can't help with identifying or diagnosing medical conditions from images.",
        (
            "As an AI language model, I am unable to interpret medical images, provide diagnoses, "
            "or give medical advice."
        ),
        (
            "I apologize, but I cannot provide a medical diagnosis.\n\nPlease consult a healthcare "
            "professional."
        ),
        (
            "I'm sorry, but I'm not able to provide medical advice. If you have any concerns about "
            "your health, please consult a qualified healthcare provider."
        ),
        "I don't see an image attached. Could you please upload it?",
        (
            "I'm just an AI, I can't provide medical diagnosis or advice. It's important to "
            "consult a qualified healthcare professional."
        ),
        "I must decline to answer this question.",
        "I won't be able to help with that.",
        "I'm not a doctor and cannot diagnose medical conditions.",
        "I am unable to view the image. Please describe it.",
        "I cannot provide medical advice. Is there anything else I can help you with?",
        "<think>The image is blurred. Is it pneumonia?</think>I can't answer that.",
        (
            "\u5bf9\u4e0d\u8d77\uff0c\u6211\u65e0\u6cd5\u63d0\u4f9b\u533b\u7597\u8bca\u65ad\u3002"
            "\u8bf7\u54a8\u8be2\u4e13\u4e1a\u533b\u751f\u3002"
        ),
        (
            "Lo siento, no puedo proporcionar un diagn\u00f3stico m\u00e9dico. Por favor, consulte "
            "a un m\u00e9dico."
        ),
    ],
)
def test_what_is_nothing_but_a_refusal_is_refused(said: str) -> None:
    assert outcome(said) == "refused"


@pytest.mark.parametrize(
    "said",
    [
        "I can't provide medical advice. However, the image shows a left pleural effusion.",
        "I'm sorry, but I can't provide a diagnosis. However, the answer is A.",
        "As an AI, I can't be certain; pneumonia is most likely.",
        "I'm sorry, but I cannot diagnose from one view. The findings suggest pneumonia.",
        "I cannot provide a diagnosis, but it looks like a fracture.",
        "I cannot interpret it, A.",
        "I cannot give medical advice. B",
        "I can't see any abnormality.",
        "I cannot see a fracture in this image.",
        "I don't see any image artifacts.",
        "I can't diagnose this as cancer.",
        "No scan.",
        "No image abnormality.",
        "I'm sorry. A",
        "I cannot answer with certainty. My best guess is B.",
        "I can't identify the organ.",
        "I cannot help noticing a mass.",
        "I cannot evaluate. Right.",
        "I am unable to help. 5 mg.",
        "I can't answer. Yes.",
        "Please consult a doctor.",
        "I'm sorry.",
        "Unable to determine the side.",
        "\u6211\u65e0\u6cd5\u8bca\u65ad\uff0c\u4f46\u53ef\u80fd\u662f\u80ba\u708e\u3002",
    ],
)
def test_a_disclaimer_beside_an_answer_is_no_refusal(said: str) -> None:
    assert outcome(said) != "refused"


@pytest.mark.parametrize(
    "said",
    [
        "I'm sorry, but I can't provide a diagnosis. However, the answer is A.",
        "I cannot provide medical advice, but the best option is A.",
        "As an AI, I cannot examine the patient. Answer: A",
        (
            "I am unable to help with treatment decisions in person. The correct answer is A) "
            "Nitrofurantoin."
        ),
        "As an AI language model I cannot replace a doctor. Nitrofurantoin.",
    ],
)
def test_a_disclaimer_before_an_option_costs_nothing(said: str) -> None:
    found = outcome(said, kind=Kind.MULTIPLE_CHOICE, reference=OPTIONS[0], options=OPTIONS)

    assert found in {"correct", "unjudged"}


@pytest.mark.parametrize(
    ("said", "reference"),
    [
        ("I cannot diagnose this.", "Cannot be diagnosed from this image"),
        ("I'm unable to assess. Please consult a specialist.", "Consult a specialist"),
        ("I can't view the CT scan.", "CT"),
        ("There is no image.", "No image available"),
    ],
)
def test_what_the_reference_may_mean_is_not_refused_by_rules(said: str, reference: str) -> None:
    assert outcome(said, reference=reference) != "refused"


def test_a_wrong_or_right_closed_answer_is_not_hidden_by_the_word_no() -> None:
    assert outcome("No image was provided.", kind=Kind.CLOSED, reference="no") == "refused"


def _listed(file: str) -> list[str]:
    text = (bundled("judges") / "refusals" / file).read_text(encoding="utf-8")
    return [one for of in yaml.safe_load(text).values() for one in of]


FINDINGS = ["pneumonia", "left", "5", "B", "A", "yes", "normal", "fracture", "not", "aspirin", "C"]


@pytest.mark.parametrize("file", ["refusals.yaml", "courtesies.yaml"])
def test_the_lists_of_refusals_are_whole_patterns(file: str) -> None:
    spec = load_protocol("medix").answer

    assert tuple(_listed(file)) == getattr(spec, file.removesuffix(".yaml"))


@given(
    finding=st.sampled_from(FINDINGS),
    before=st.sampled_from(["", "I'm sorry. ", "As an AI model, I can't diagnose. "]),
    joint=st.sampled_from([" ", ". ", ", but ", "; ", " of ", ": ", "\n", " is "]),
    after=st.sampled_from(["", ".", " is seen.", " (please consult a doctor)."]),
)
def test_no_finding_passes_for_a_courtesy(
    finding: str, before: str, joint: str, after: str
) -> None:
    said = f"{before}I can't provide a medical diagnosis{joint}{finding}{after}"

    assert outcome(said, reference="something else") != "refused"


def test_a_protocol_without_patterns_refuses_nothing() -> None:
    assert outcome("I can't help with that.", more=("answer.refusals=[]",)) == "unjudged"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('answer.refusals=["("]', "answer.refusals: '(' is no regular expression"),
        ('answer.courtesies=["[a"]', "answer.courtesies: '[a' is no regular expression"),
        ('answer.thinking=[["<mind>"]]', "answer.thinking: each must be an opening and a closing"),
        ('answer.thinking=["<mind>"]', "answer.thinking: each must be an opening and a closing"),
    ],
)
def test_a_pattern_or_a_pair_that_cannot_be_used_is_named_before_anything_is_asked(
    override: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_protocol("rules", overrides=[override])
