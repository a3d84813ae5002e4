"""How the published evaluation turns judge replies into its table, bug for bug.

An oracle for tests, written from the description of the published behaviour: "Judge" (2.2),
"Wrong or biased numbers" (2.4 A), "Hangs, crashes, lost work" (2.4 B), "Trust" (2.4 D) and the
list of tasks (1.3). Nothing here is how a score should be made. Sections in the docstrings are
those of that description, and a line that begins with "Open:" is a case it leaves open, with the
reading taken here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NUM_TURNS = 3
TOP_OF_THE_RUBRIC = 5

LLM_TASKS = (
    "mmlu_clinical_knowledge",
    "mmlu_college_biology",
    "mmlu_college_medicine",
    "mmlu_medical_genetics",
    "mmlu_professional_medicine",
    "mmlu_anatomy",
    "medmcqa",
    "medqa",
    "usmle_sa",
    "pubmedqa",
    "mimic_cxr_report_summarization",
)
VLM_TASKS = (
    "slake_vqa",
    "rad_vqa",
    "path_vqa",
    "pmc_vqa",
    "pmc_vqa_hard",
    "mimic_cxr_report_generation",
)


class NoVerdict(Exception):
    """The published code raises here, and the sample never gets a line in the result file.

    It is asked again without end (B1). Whoever stops the run and scores what there is, scores
    without it: the sample is in neither sum nor denominator (A5).
    """


def after_thinking(text: str) -> str:
    """Return what follows the last `</think>`, else the last `</thinking>`, else all (2.2).

    The judge is shown this part of a response, `<answer>` tags and all (A13).

    Open: white space around the rest is kept, for "text after" says no more. Nothing below
    depends on it.

    >>> after_thinking("a</thinking>b</think><answer>c</answer>")
    '<answer>c</answer>'
    >>> after_thinking("<thinking>cut off, perhaps B")
    '<thinking>cut off, perhaps B'
    """
    for tag in ("</think>", "</thinking>"):
        if tag in text:
            return text.rpartition(tag)[2]
    return text


def dialogue(prompt: str, replies: Sequence[str], *, reconsider: str) -> list[dict[str, str]]:
    """Return the messages of the next turn: one, three, then five (2.2, "Rounds").

    All turns are one conversation, and each later one only asks the judge to think again.

    Open: a reply goes back into the conversation as it came, its thinking included.

    >>> [len(dialogue("p", replies, reconsider="r")) for replies in ([], ["1"], ["1", "0"])]
    [1, 3, 5]
    """
    messages = [{"role": "user", "content": prompt}]
    for reply in replies:
        messages.append({"role": "assistant", "content": reply})
        messages.append({"role": "user", "content": reconsider})
    return messages


def parse_reply(reply: str | None) -> dict[str, Any]:
    """Read the JSON object of one reply (2.2, "Parsing").

    Thinking is cut off, then all from the first "{" to the last "}" must be JSON. A reply of
    None, as a server with a reasoning parser may send, cannot be searched (B14).

    Open: thinking is cut off by the rule of `after_thinking`. What `json.loads` lets pass beyond
    the standard (NaN, a repeated key, of which the last wins) passes here too. An object without
    the key `score` is no verdict.

    >>> parse_reply('<think>{"score": 0}</think> Sure: {"score": 1}.')
    {'score': 1}
    """
    if reply is None:
        raise NoVerdict("the judge sent no text")
    visible = after_thinking(reply)
    candidate = visible[max(visible.find("{"), 0) : visible.rfind("}") + 1]
    try:
        found = json.loads(candidate)
    except (ValueError, RecursionError) as error:
        raise NoVerdict(f"no JSON in {reply!r}") from error
    if not isinstance(found, dict) or "score" not in found:
        raise NoVerdict(f"no score in {reply!r}")
    return found


def parse_score(reply: str | None) -> Any:
    """Return the raw score of one reply: of any JSON type, and of any size (A9, A10).

    >>> parse_score('{"score": "1"}'), parse_score('{"score": 7}'), parse_score('{"score": null}')
    ('1', 7, None)
    """
    return parse_reply(reply)["score"]


def is_report(sample_id: str) -> bool:
    """Tell whether the 0-5 rubric applies: 'mimic' is part of the id (2.2, A19).

    Open: upper case does not count.
    """
    return "mimic" in sample_id


def binary_score(scores: Sequence[Any]) -> int:
    """Return 1 if at least two of three scores equal 1, else 0 (2.2, A9).

    Equality is Python's: true and 1.0 are right, the string "1" is wrong, and so is any other
    number. Nothing is out of range, nothing is an error.

    >>> binary_score([1, 0, 1]), binary_score([True, 1.0, 0]), binary_score(["1", "1", "1"])
    (1, 1, 0)
    """
    return int(sum(score == 1 for score in scores) >= 2)


def report_score(scores: Sequence[Any]) -> float:
    """Return the mean of the three scores, on the scale of the rubric (2.2, A10).

    No range is checked: three sevens are 7.0, which later is 140 %. Minus two counts as well.

    Open: the description says "mean", so what Python cannot add to a number (a string, null, a
    list) raises, and the sample gets no verdict. A boolean is a number to Python: true adds one.

    >>> report_score([7, 7, 7]), report_score([3, 4, 5])
    (7.0, 4.0)
    """
    try:
        return float(sum(scores) / len(scores))
    except (TypeError, OverflowError) as error:
        raise NoVerdict(f"no mean of {scores!r}") from error


def sample_score(replies: Sequence[str | None], *, sample_id: str) -> float:
    """Return the final score of one sample: 0 or 1, or for a report its mean rubric (2.2).

    One unusable reply of the three loses the whole sample (B1): no vote is taken over the rest,
    even if the other two agree (C1).
    """
    if len(replies) != NUM_TURNS:
        raise NoVerdict(f"{len(replies)} replies instead of {NUM_TURNS}")
    scores = [parse_score(reply) for reply in replies]
    return report_score(scores) if is_report(sample_id) else binary_score(scores)


def stored_evaluation(replies: Sequence[str | None], *, sample_id: str) -> dict[str, Any]:
    """Return what is kept of the dialogue: the last JSON, its score replaced (2.4 D).

    >>> stored_evaluation(['{"score": 1}', '{"score": 1}', '{"score": 0, "why": "x"}'],
    ...                   sample_id="medqa_0")
    {'score': 1, 'why': 'x'}
    """
    final = sample_score(replies, sample_id=sample_id)
    return {**parse_reply(replies[-1]), "score": final}


def task_score(scores: Sequence[float], *, task: str) -> float:
    """Return sum/n, and for a report task sum/(5 n) (2.2).

    n is the number of lines with a verdict, not of samples (A5), and a line that is there twice
    counts twice (A25). No line at all is a division by zero (B15).

    Open: the task's name decides what is a report, as the sample's id does; an id is taken to
    carry the name of its task.

    >>> task_score([1, 0, 1, 1], task="medqa")
    0.75
    >>> task_score([7.0, 7.0], task="mimic_cxr_report_generation")
    1.4
    """
    most = TOP_OF_THE_RUBRIC if is_report(task) else 1
    return sum(scores) / (most * len(scores))


def run_scores(lines: Iterable[tuple[str, float]], *, selected: Sequence[str]) -> dict[str, float]:
    """Return the score of each selected task, from pairs of task and sample score.

    A line of a task that was not selected is a KeyError, a selected task without a line a
    ZeroDivisionError (B15).

    Open: tasks stand in the order of the selection, and a task selected twice has one row.
    """
    of_task: dict[str, list[float]] = {task: [] for task in selected}
    for task, score in lines:
        of_task[task].append(score)
    return {task: task_score(scores, task=task) for task, scores in of_task.items()}


def overall(scores: Mapping[str, float]) -> float:
    """Return the unweighted mean of whatever tasks there are, 0 to 1 (1.2, A20).

    A task of 100 questions weighs as much as one of 6,719. There is no average of the LLM tasks
    or of the VLM tasks beside it: a run that selects only `LLM_TASKS` prints theirs, and under
    the same name, "Overall".

    >>> overall({"mmlu_anatomy": 0.5, "medqa": 1.0})
    0.75
    """
    return sum(scores.values()) / len(scores)


def score_table(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the published rows: tasks from 0 to 1, "Overall" last and times 100 (A21).

    Open: numbers are not rounded, and "Overall" is all its row says.

    >>> score_table({"mmlu_anatomy": 0.5, "medqa": 1.0})
    [('mmlu_anatomy', 0.5), ('medqa', 1.0), ('Overall', 75.0)]
    """
    return [*scores.items(), ("Overall", 100 * overall(scores))]
