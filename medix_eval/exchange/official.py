"""The official submission layout of MediX-R1, read and written.

    MODEL.jsonl        {id: "<task>_<row>", question, answer, response}
    MODEL_eval.jsonl   the same, and evaluation: {score}: 0 or 1, reports 0 to 5
    MODEL_score.txt    a line a task, and their mean

It says nothing of the data's revision, the judge or the settings. What we write carries
`medix-eval.json` beside these, which other readers ignore.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medix_eval.errors import ConfigError
from medix_eval.exchange.other_harnesses import ForeignResults, ForeignSample, StatedScore, lines_of
from medix_eval.results.store import JudgedRun, JudgedSample, slug
from medix_eval.storage.jsonl import write_text
from medix_eval.storage.mirror import sha256_of

NOTE = "medix-eval.json"
_ID = re.compile(r"(?P<task>.+)_(?P<row>\d+)")
_CLAIM = re.compile(
    r"^\W*(?P<name>[A-Za-z][\w ]*?)\W*[:=|,\t ]\s*(?P<value>\d+(?:\.\d+)?(?:e-\d+)?)", re.MULTILINE
)
_GLUED = re.compile(r"(?<=[\d%])(?=(?!e-\d)[A-Za-z])")
"""Each run adds its table to the file, and begins no line of its own."""
_EXACT = 0.0005
_MOST_POINTS = 5.0


def is_official(folder: Path) -> bool:
    """Tell whether a folder holds this layout."""
    return _answers(folder) is not None


def read_official(folder: Path) -> ForeignResults:
    """Read the three files; every defect is noted with its line, none is passed over."""
    answers = _answers(folder)
    if answers is None:
        raise ConfigError(f"{folder} holds no MODEL.jsonl beside a MODEL_eval.jsonl")
    name = answers.stem
    judged = folder / f"{name}_eval.jsonl"
    claims = folder / f"{name}_score.txt"
    note = _note(folder)
    found = ForeignResults(
        layout="official",
        model=str(note.get("model") or name),
        files={path.name: sha256_of(path) for path in (answers, judged, claims) if path.is_file()},
        num_rows=_counts(note.get("num_rows")),
        synthetic=bool(note.get("synthetic")),
    )
    verdicts: dict[str, tuple[Mapping[str, Any], str]] = {}
    for line, place in _lines(judged, found):
        if line["id"] in verdicts:
            found.problems.append(f"{place} judges {line['id']} again")
        verdicts[line["id"]] = (line, place)
    for line, place in _lines(answers, found):
        found.samples.append(_sample(line, place, verdicts.pop(line["id"], None), found))
    found.problems += [
        f"{place} judges an answer that is not there" for _, place in verdicts.values()
    ]
    if claims.is_file():
        text = claims.read_text(encoding="utf-8", errors="replace")
        found.claimed, found.claimed_mean = read_claims(text)
    return found


def write_official(run: JudgedRun, folder: Path) -> list[Path]:
    """Write a run in this layout, and return its files. Restricted samples are left out.

    The layout has no place for a sample without a verdict: it is in the first file only.
    """
    name = slug(run.scores.model)
    answers, judged = folder / f"{name}.jsonl", folder / f"{name}_eval.jsonl"
    left_out = sorted(task for task in run.judging.tasks if run.entry(task).data_class == "dua")
    with answers.open("w", encoding="utf-8") as plain, judged.open("w", encoding="utf-8") as scored:
        for sample in run.samples():
            completion, verdict = sample.completion, sample.verdict
            if sample.task in left_out or completion.completion is None:
                continue
            line: dict[str, Any] = {
                "id": f"{sample.task.removesuffix('_compat')}_{completion.row}",
                "question": completion.prompt,
                "answer": completion.reference,
                "response": completion.completion,
            }
            plain.write(json.dumps(line, ensure_ascii=False) + "\n")
            if verdict.score is not None:
                line["evaluation"] = {"score": _points(sample, is_report=_is_report(line["id"]))}
                scored.write(json.dumps(line, ensure_ascii=False) + "\n")
    stated = {
        task.removesuffix("_compat"): row.score
        for task, row in run.scores.tasks.items()
        if task not in left_out and row.score is not None
    }
    mean = 100 * sum(stated.values()) / len(stated) if stated else 0.0
    lines = [f"{task}: {score:.6f}" for task, score in stated.items()]
    claims = folder / f"{name}_score.txt"
    write_text(claims, "\n".join([*lines, f"Overall: {mean:.4f}"]) + "\n")
    note = {
        "model": run.scores.model,
        "synthetic": run.scores.synthetic,
        "num_rows": {
            task.removesuffix("_compat"): run.entry(task).num_rows for task in run.judging.tasks
        },
        "restricted_left_out": left_out,
        "protocol": run.scores.protocol,
        "judges": run.scores.judges,
    }
    write_text(folder / NOTE, json.dumps(note, indent=2, ensure_ascii=False) + "\n")
    return [answers, judged, claims, folder / NOTE]


def _answers(folder: Path) -> Path | None:
    pairs = [
        path.with_name(path.name.removesuffix("_eval.jsonl") + ".jsonl")
        for path in sorted(folder.glob("*_eval.jsonl"))
    ]
    found = [path for path in pairs if path.is_file()]
    if len(found) > 1:
        listed = ", ".join(path.stem for path in found)
        raise ConfigError(f"{folder} holds several models: {listed}", hint="a folder for each")
    return found[0] if found else None


def _counts(listed: object) -> dict[str, int]:
    if not isinstance(listed, dict):
        return {}
    return {str(task): num for task, num in listed.items() if isinstance(num, int) and num > 0}


def _note(folder: Path) -> dict[str, Any]:
    path = folder / NOTE
    try:
        note = json.loads(path.read_bytes()) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON") from error
    return note if isinstance(note, dict) else {}


def _lines(path: Path, found: ForeignResults) -> Iterator[tuple[dict[str, Any], str]]:
    for line, place in lines_of(path, found):
        # Of a reply without content the published code keeps null.
        response = "" if line.get("response", 0) is None else line.get("response")
        if _ID.fullmatch(str(line.get("id", ""))) and isinstance(response, str):
            yield line | {"response": response}, place
        else:
            found.problems.append(f"{place} has no id of the form TASK_ROW or no response")


def _sample(
    line: Mapping[str, Any],
    place: str,
    judged: tuple[Mapping[str, Any], str] | None,
    found: ForeignResults,
) -> ForeignSample:
    name = _ID.fullmatch(line["id"])
    assert name is not None  # noqa: S101 (checked as the line was read)
    points: object = None
    if judged is not None:
        verdict, where = judged
        if verdict["response"] != line["response"]:
            found.problems.append(f"{where} judges another response than {place} gives")
        evaluation = verdict.get("evaluation")
        points = evaluation.get("score") if isinstance(evaluation, dict) else None
        if not _is_possible(points, is_report=_is_report(line["id"])):
            found.problems.append(f"{where}: {line['id']} has the score {points!r}")
            points = None
    most = _MOST_POINTS if _is_report(line["id"]) else 1.0
    return ForeignSample(
        task=name["task"],
        row=int(name["row"]),
        question=str(line.get("question", "")),
        reference=str(line.get("answer", "")),
        response=line["response"],
        score=float(points) / most if isinstance(points, int | float) else None,
        verdict=json.dumps({"score": points}),
        place=place,
    )


def _points(sample: JudgedSample, *, is_report: bool) -> float:
    score = sample.verdict.score or 0.0
    if not is_report and score not in {0.0, 1.0}:
        raise ConfigError(
            f"{sample.task} {sample.verdict.sample_id} has the score {score:g}, and the official "
            "layout knows only 0 and 1",
            hint="submit it in our own layout, without --official",
        )
    return score * _MOST_POINTS if is_report else score


def _is_report(sample_id: str) -> bool:
    """Tell a report by its name, as the published code does."""
    return "mimic" in sample_id


def _is_possible(points: object, *, is_report: bool) -> bool:
    if isinstance(points, bool) or not isinstance(points, int | float):
        return False
    return 0 <= points <= _MOST_POINTS if is_report else points in {0, 1}


def read_claims(
    text: str,
) -> tuple[dict[str, StatedScore], tuple[StatedScore, tuple[str, ...]] | None]:
    r"""Read the scores stated last, given of one or of a hundred, and the mean of the last table.

    >>> claims, mean = read_claims("medqa: 0.5\nOverall: 50.0medqa: 0.25\nOverall: 25.0")
    >>> claims["medqa"].value, mean[0].value, mean[1]
    (0.25, 0.25, ('medqa',))
    """
    claims, mean, table = {}, None, list[str]()
    for line in _CLAIM.finditer(_GLUED.sub("\n", text)):
        name, value = line["name"].strip(), float(line["value"])
        decimals = len(line["value"].partition(".")[2])
        if name.lower() in {"overall", "average"}:
            mean = StatedScore(value / 100, 0.005 * 10**-decimals), tuple(table)
            table = []
        elif value > 1:
            claims[name] = StatedScore(value / 100, 0.005 * 10**-decimals)
            table.append(name)
        else:
            claims[name] = StatedScore(value, min(_EXACT, 0.5 * 10**-decimals))
            table.append(name)
    return claims, mean
