"""report.html in a real browser: what it shows, what it never runs, how fast it opens."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from scripted_servers import Run

from medix_eval.cli.app import main
from medix_eval.records import CompletionRecord, Kind, Outcome, RuleVerdict, VerdictRecord, Vote
from medix_eval.report.page import disagreements
from medix_eval.results.store import read_run
from medix_eval.testing import write_run

Pair = tuple[CompletionRecord, VerdictRecord]
HOSTILE = "</script><script>window.ran=1</script><img src=x onerror='window.ran=2'><!--"


def test_a_report_is_clean_accessible_and_asks_nothing(visit: Any, small_report: Path) -> None:
    for width, dark in ((1440, False), (390, True)):
        visited = visit(small_report, width=width, dark=dark)
        expect(visited.page.locator(".sample h3")).to_be_visible()

        assert visited.violations() == []
        assert visited.is_clean
        assert visited.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_policy_lets_nothing_in(visit: Any, small_report: Path) -> None:
    page = visit(small_report).page

    policy = page.locator("meta[http-equiv]").get_attribute("content")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_a_table_sorts_by_its_head(visit: Any, small_report: Path) -> None:
    page = visit(small_report).page
    names = page.locator("#scores tbody th")

    page.locator("#scores thead").get_by_role("button", name="Score", exact=True).click()
    best_first = names.all_inner_texts()
    page.locator("#scores thead").get_by_role("button", name="Score", exact=True).click()

    assert len(best_first) == 2
    assert names.all_inner_texts() == best_first[::-1]
    assert page.locator("#scores th[aria-sort]").get_attribute("aria-sort") == "ascending"


def test_filters_leave_what_fits(visit: Any, small_report: Path) -> None:
    page = visit(small_report).page
    expect(page.get_by_role("status")).to_have_text("Sample 1 of 12")

    page.get_by_role("combobox", name="Outcome").select_option(label="wrong")
    expect(page.get_by_role("status")).to_have_text("Sample 1 of 5 (12 in all)")
    page.get_by_role("combobox", name="Task").select_option(label="second")
    expect(page.get_by_role("status")).to_have_text("Sample 1 of 3 (12 in all)")
    page.get_by_role("combobox", name="Slice").select_option(label="modality: MR")

    expect(page.get_by_role("status")).to_have_text("Sample 1 of 1 (12 in all)")
    expect(page.locator(".sample h3")).to_contain_text("wrong second")


def test_disagreement_is_found(visit: Any, small_report: Path) -> None:
    page = visit(small_report).page

    page.get_by_label("Disagreement").select_option(label="votes differ")

    expect(page.get_by_role("status")).to_have_text("Sample 1 of 1 (12 in all)")
    expect(page.locator(".vote")).to_have_count(3)
    expect(page.locator(".vote").first).to_contain_text("Raw words of the judge")


def test_a_search_reads_every_text(visit: Any, small_report: Path) -> None:
    page = visit(small_report).page

    page.get_by_label("Search").fill("THOUGHT NUMBER 7")
    expect(page.get_by_role("status")).to_have_text("Sample 1 of 1 (12 in all)")
    expect(page.locator(".sample h3")).to_contain_text("id-7")
    page.get_by_label("Search").fill("no such words")

    expect(page.get_by_role("status")).to_have_text("No sample (12 in all)")
    expect(page.locator(".sample .body")).to_have_text("No sample fits these filters.")


def test_samples_are_walked_by_keyboard(visit: Any, small_report: Path) -> None:
    page = visit(small_report).page
    page.get_by_role("button", name="Next").focus()

    for key, shown in (("j", 2), ("ArrowRight", 3), ("k", 2), ("ArrowLeft", 1), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        expect(page.get_by_role("status")).to_have_text(f"Sample {shown} of 12")
    page.keyboard.press("/")

    expect(page.get_by_label("Search")).to_be_focused()


def test_reasoning_is_folded_and_the_answer_is_not(visit: Any, small_report: Path) -> None:
    page = visit(small_report).page

    reasoning = page.locator(".sample details")
    expect(reasoning.locator("pre")).to_be_hidden()
    reasoning.locator("summary").click()

    expect(reasoning.locator("pre")).to_contain_text("Thought number 0")
    expect(page.locator(".options .right")).to_have_text("blue reference")


def test_a_verdict_says_why_and_the_reply_is_folded(visit: Any, tmp_path: Path) -> None:
    error = {"finding": "effusion", "site": "pleura", "side": "none", "urgency": "urgent"}
    said = {"reason": HOSTILE, "missing": [error, None, "a note"], "invented": [], "score": 2}
    report = write_run(tmp_path, [pair(0, reply=json.dumps(said))]) / "report.html"

    visited = visit(report)
    vote = visited.page.locator(".vote").first

    expect(vote.locator("p").nth(1)).to_have_text(f"reason: {HOSTILE}")
    expect(vote.locator("p").nth(2)).to_have_text("missing: effusion, pleura, urgent; a note")
    expect(vote.locator("p")).to_have_count(3)
    expect(vote.locator("pre")).to_be_hidden()
    vote.locator("summary").click()
    expect(vote.locator("pre")).to_contain_text('"score": 2')
    assert visited.page.evaluate("window.ran") is None


def test_what_a_model_wrote_never_runs(visit: Any, tmp_path: Path) -> None:
    hostile = pair(0, completion=HOSTILE, prompt=HOSTILE, reply=HOSTILE, model_tags=(HOSTILE,))
    report = write_run(tmp_path, [hostile], model=HOSTILE) / "report.html"

    visited = visit(report)

    expect(visited.page.locator(".sample h3")).to_be_visible()
    expect(visited.page.locator(".sample pre").first).to_have_text(HOSTILE)
    assert visited.page.evaluate("window.ran") is None
    assert visited.page.locator("img").count() == 0
    assert visited.is_clean


def test_a_megabyte_in_one_line_is_cut_until_asked_for(visit: Any, tmp_path: Path) -> None:
    samples = [pair(0, completion="x" * 1_000_000), pair(1)]
    page = visit(write_run(tmp_path, samples) / "report.html").page

    completion = page.locator(".sample section", has_text="Completion")
    expect(completion.get_by_role("button")).to_have_text("Show all 1,000,000 characters")
    assert len(completion.locator("pre").inner_text()) < 10_000
    completion.get_by_role("button").click()

    assert len(completion.locator("pre").text_content() or "") == 1_000_000


def test_restricted_texts_are_not_in_the_file(visit: Any, tmp_path: Path) -> None:
    report = write_run(tmp_path, [pair(0), pair(1)], data_class="dua") / "report.html"

    page = visit(report).page

    expect(page.locator(".sample h3")).to_contain_text("id-0")
    expect(page.locator(".sample .note")).to_have_text("Restricted data: id and verdicts only.")
    unpacked = page.evaluate(UNPACK)
    assert "Thought number" not in unpacked
    assert "colour" not in unpacked
    assert "Raw words" not in unpacked


def test_an_address_names_its_sample(visit: Any, small_report: Path, browser: Any) -> None:
    page = visit(small_report).page
    page.get_by_role("button", name="Next").click()
    page.wait_for_url(re.compile("#sample="))

    again = browser.new_page()
    again.goto(page.url)

    expect(again.locator(".sample h3")).to_contain_text("id-1")
    again.close()


def test_images_are_read_again_and_known_by_their_hash(visit: Any, tmp_path: Path) -> None:
    hub = Path(__file__).parent / "fixtures" / "hub"
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"sample_id": "x", "task": "rad_vqa", "completion": "yes"}\n')
    evaluate = [sys.executable, "-m", "medix_eval", "--model", f"replay:{answers}"]
    evaluate += ["--tasks", "rad_vqa", "--protocol", "rules", "--limit", "4"]
    evaluate += ["--out", str(tmp_path), "--data-root", str(hub)]
    # A process of its own: this one is in the browser's event loop.
    subprocess.run(evaluate, check=False, capture_output=True)
    (run,) = tmp_path.glob("*/*/run.json")

    with pytest.raises(SystemExit) as ended:
        main(["report", str(run.parent), "--data-root", str(hub)])

    page = visit(read_run(run.parent).judged / "report.html").page
    assert ended.value.code == 0
    expect(page.locator(".sample img").first).to_have_js_property("complete", True)  # noqa: FBT003
    assert page.locator(".sample img").first.evaluate("image => image.naturalWidth") > 0


def test_a_comparison_shows_what_changed_side_by_side(visit: Any, tmp_path: Path) -> None:
    better = [pair(number, right=number % 3 != 0 or number == 9) for number in range(30)]
    worse = [pair(number, right=number % 3 != 0 and number < 20) for number in range(30)]
    first, second = (
        write_run(tmp_path, samples, model=model)
        for samples, model in ((worse, "plain <b>"), (better, "trained"))
    )
    with pytest.raises(SystemExit) as ended:
        main(["report", str(first), str(second), "--out", str(tmp_path / "both.html")])

    visited = visit(tmp_path / "both.html")
    page = visited.page

    assert ended.value.code == 0
    expect(page.get_by_role("status")).to_have_text("Sample 1 of 8")
    expect(page.locator(".sample h3").first).to_contain_text("B fixed first")
    expect(page.locator(".answers > div")).to_have_count(2)
    expect(page.locator(".answers h3")).to_have_text(["A wrong", "B correct"])
    expect(page.locator("#differences td").first).to_have_text("+26.7")
    assert visited.violations() == []
    assert visited.is_clean


@pytest.mark.parametrize(
    ("votes", "rule", "kind", "found"),
    [
        ((1, 1), 1.0, Kind.OPEN, 0),
        ((1, 1), 0.0, Kind.OPEN, 1),
        ((1, 0, 1), None, Kind.OPEN, 2),
        ((1, 0, 1), 0.0, Kind.OPEN, 3),
        ((4, 3, 4), None, Kind.REPORT, 0),
        ((5, 2, 4), None, Kind.REPORT, 2),
        ((), 0.0, Kind.OPEN, 0),
    ],
)
def test_disagreement_has_a_name(
    votes: tuple[float, ...], rule: float | None, kind: Kind, found: int
) -> None:
    verdict = VerdictRecord(
        task="t@1",
        sample_id="x",
        outcome=Outcome.CORRECT,
        score=1.0,
        judge_score=1.0 if votes else None,
        votes=tuple(Vote(judge="j", prompt="p", key="k", points=points) for points in votes),
        rule=None if rule is None else RuleVerdict(score=rule, rule="exact"),
    )

    assert disagreements(verdict, kind=kind) == found


@pytest.mark.slow
def test_thirty_thousand_samples_open_in_three_seconds(visit: Any, tmp_path: Path) -> None:
    visited = visit(write_run(tmp_path, many(30_000)) / "report.html")
    # The page's own computing: a clock on the wall would measure what else the machine does.
    session = visited.page.context.new_cdp_session(visited.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    visited.page.reload()
    visited.page.get_by_role("button", name="Next →").click()
    expect(visited.page.get_by_role("status")).to_have_text("Sample 2 of 30,000")
    expect(visited.page.locator(".sample h3")).to_contain_text("id-6")

    spent = session.send("Performance.getMetrics")["metrics"]
    assert next(one["value"] for one in spent if one["name"] == "TaskDuration") < 3
    assert visited.is_clean


UNPACK = """async () => {
  let all = "";
  for (const block of document.querySelectorAll('script[type="application/json"]')) {
    const bytes = Uint8Array.from(atob(block.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    all += await new Response(stream).text();
  }
  return all;
}"""


@pytest.fixture(scope="module")
def small_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve samples of two tasks: every third is wrong, and 11; 7 split the judge."""
    samples = [pair(number, task="first@1" if number < 6 else "second@2") for number in range(12)]
    return write_run(tmp_path_factory.mktemp("run"), samples, slices=["modality"]) / "report.html"


def pair(
    number: int,
    *,
    task: str = "first@1",
    completion: str | None = None,
    prompt: str = "Which colour?\n\nA. red\nB. blue",
    reply: str = "Raw words of the judge",
    model_tags: tuple[str, ...] = (),
    right: bool | None = None,
) -> Pair:
    """Return one sample and its verdict, both made up."""
    right = number % 3 != 0 and number != 11 if right is None else right
    points = (1.0, 0.0, 1.0) if number == 7 else (float(right),) * 2
    said = f"<think>Thought number {number}</think><answer>blue</answer>"
    return (
        CompletionRecord(
            task=task,
            sample_id=f"id-{number}",
            row=number,
            kind=Kind.MULTIPLE_CHOICE,
            prompt=prompt,
            reference="blue",
            options=("red", "blue"),
            columns={"modality": "CT" if number % 2 else "MR"},
            completion=said if completion is None else completion,
            finish_reason="stop",
        ),
        VerdictRecord(
            task=task,
            sample_id=f"id-{number}",
            outcome=Outcome.CORRECT if right else Outcome.WRONG,
            score=float(right),
            judge_score=float(right),
            answer="blue",
            votes=tuple(
                Vote(judge="judge", prompt=f"question_{at}", key="k", points=given, reply=reply)
                for at, given in enumerate(points)
            ),
            rule=RuleVerdict(score=float(right), rule="option_text"),
            error_tags=model_tags,
        ),
    )


def many(count: int) -> Iterator[Pair]:
    """Yield samples of about 2 kB of text that compresses as prose does."""
    chance = random.Random(0)  # noqa: S311 (prose, no secret)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(4000)]
    prose = [" ".join(chance.choices(words, k=12)) for _ in range(4000)]
    for number in range(count):
        thought = " ".join(chance.choices(prose, k=22))
        said = f"<think>{thought}</think><answer>blue</answer>"
        yield pair(number, task=f"task_{number % 6}@1", completion=said)


def test_the_pictures_of_a_benchmark_that_draws_itself_are_shown(run: Run, tmp_path: Path) -> None:
    argv = ("--tasks", "phantom_closed", "--limit", "3", "--protocol", "rules")
    run("--model", "phantom", *argv, "--out", tmp_path / "out")
    (folder,) = (tmp_path / "out").glob("*/*/run.json")
    code, page, err = run("report", folder.parent, "--images", "thumbnail")

    assert (code, "not in the report" in err) == (0, False)
    assert Path(page.strip()).read_text(encoding="utf-8").count("data:image/") >= 3
