"""Task files, prompts and data of strangers: no code runs, and every template has an end."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import StrictUndefined
from scripted_servers import HUB, Run, Serve, candidate

from medix_eval.errors import ConfigError
from medix_eval.evaluation.evaluation import template_around
from medix_eval.storage.sandbox import Sandbox

HEAD = """
task: ward
class: !function medix_eval.lm_task.MedixTask
dataset_path: ward/questions
test_split: test
metadata:
  version: 1
  medix: {kind: open, modality: text, data_class: public, licence: internal, num_samples: null}
"""
PLAIN = 'doc_to_text: "{{ question }}"\ndoc_to_target: answer\n'
CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
def run(*_, **__):
    return None
"""
GROW = "{%% set ns=namespace(x=%s) %%}{%% for i in range(100) %%}%s{%% endfor %%}{{ ns.x }}"
LONG = "{% set r = range(99999) | list %}{% for a in r %}"
Write = Callable[..., Path]


@pytest.fixture
def ward(tmp_path: Path) -> Write:
    """Write a task file and its rows; return the folder of task files."""

    def written(fields: str = PLAIN, *, head: str = HEAD, name: str = "ward") -> Path:
        rows = tmp_path / "data" / "ward" / "questions" / "test.jsonl"
        rows.parent.mkdir(parents=True, exist_ok=True)
        lines = [{"question": f"Which vitamin is {n}?", "answer": "C", "n": n} for n in range(20)]
        rows.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(head + fields)
        return folder

    return written


@pytest.fixture
def evil(tmp_path: Path) -> Callable[[Path], Path]:
    """Put a module into a folder that leaves a mark when it is imported; return the mark."""

    def planted(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evil.py").write_text(CODE.format(marker=str(tmp_path / "marker")))
        return tmp_path / "marker"

    return planted


def show(run: Run, folder: Path) -> tuple[int, str, str]:
    data = folder.parent / "data"
    return run("show", "ward", "--include-path", folder, "--data-root", data)


BOMBS = {
    "long-range": "{% for a in range(10**9) %}x{% endfor %}",
    "nested-loops": LONG + "{% for b in r %}{% endfor %}{% endfor %}",
    "loops-that-skip": LONG + "{% for b in r if false %}{% endfor %}{% endfor %}",
    "looking-through": LONG + "{{ '' if 'z' in r }}{% endfor %}",
    "filters-in-a-loop": LONG + "{% set x = r | reject('number') | list %}{% endfor %}",
    "text-in-a-loop": LONG + "y" * 3000 + "{% endfor %}",
    "product": "{{ 'a' * 10**10 }}",
    "product-of-constants": "{{ 'a' * 10000000000 }}",
    "product-of-lists": "{{ [1] * 1000000000 }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "squares": GROW % ("3", "{% set ns.x = ns.x * ns.x %}"),
    "center": "{{ 'a' | center(10000000000) }}",
    "center-by-name": "{{ 'a' | center(width=10000000000) }}",
    "center-block": "{% filter center(10000000000) %}a{% endfilter %}",
    "center-mapped": "{{ range(99999) | map('center', 1000000) | join }}",
    "method": "{{ 'a'.center(10000000000) }}",
    "percent": "{{ '%01000000000d' % 1 }}",
    "percent-star": "{{ '%*d' % (1000000000, 1) }}",
    "format-filter": "{{ '%01000000000d' | format(1) }}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "format-nested": "{{ '{a:{b}}'.format(a=1, b='1000000000') }}",
    "replace": "{{ ('a' * 1000000) | replace('', 'b' * 1000000) }}",
    "join-of-a-generator": "{{ range(99999) | map('string') | join('a' * 1000000) }}",
    "doubled": GROW % ("'a'", "{% set ns.x = ns.x ~ ns.x %}"),
    "doubled-by-plus": GROW % ("'a'", "{% set ns.x = ns.x + ns.x %}"),
    "doubled-by-block": GROW % ("'a'", "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
    "doubled-lists": GROW % ("[1]", "{% set ns.x = [ns.x, ns.x] %}"),
    "doubled-namespaces": GROW % ("1", "{% set ns.x = namespace(a=ns.x, b=ns.x) %}"),
    "macro-calls-itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "macro-doubles": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}"
    "{{ m(60) }}",
    "loop-calls-itself": "{% for x in [1] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "sum-of-lists": "{% set r = range(99999) | list %}{{ ([r] * 5000) | sum(start=[]) }}",
    "indent-of-json": "{{ range(9999) | list | tojson(indent=10000000) }}",
    "batch": "{{ [1, 2] | batch(10000000000, 'x') | list }}",
    "round": "{{ 3.5 | round(10000000000, 'ceil') }}",
    "bytes": "{{ (7).to_bytes(10000000000, 'big') }}",
    "regular-expression": "{{ ('a' * 40 ~ 'b') | regex_replace('(a|a)+$', '') }}",
    "deep-list": "{{ " + "[" * 500 + "]" * 500 + " }}",
    "deep-not": "{{ " + "not " * 5000 + "1 }}",
    "deep-if": "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "python-class": "{{ question.__class__.__mro__ }}",
    "python-by-filter": "{{ question | attr('__class__') }}",
    "python-by-format": "{{ '{0.__class__}'.format(question) }}",
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_template_has_an_end_and_gets_at_nothing(bomb: str) -> None:
    jinja = Sandbox(undefined=StrictUndefined)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()

    with pytest.raises(ConfigError, match=r"^ward\.yaml: doc_to_text: .") as told:
        jinja.template(bomb, "ward.yaml: doc_to_text").render({"question": "q"})

    assert "\n" not in str(told.value)
    assert time.thread_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


ORDINARY = [
    ("{{ 5000000000 }} {{ 5000000000 | round(2) }}", "5000000000 5000000000"),
    ("{{ 123456789 | string }}", "123456789"),
    ("{{ '%s of %.2f' % ('a', 12345678.9) }}", "a of 12345678.90"),
    ("{{ '{{{}}} {:>4}'.format('a', 7) }}", "{a}    7"),
    ("{{ ['b', 'a'] | sort | join(', ') }}", "a, b"),
    ("{{ text | replace(' ', '  ') | length }}", "120000"),
    ("{{ text | truncate(20) }}", "word word word..."),
    ("{{ text | regex_replace('w(or)d', '\\\\1') | length }}", "60000"),
    ("{{ (text ~ text) | length }}", "200000"),
    ("{% for a, b in {'x': 1}.items() %}{{ loop.index }}{{ loop.length }}{{ a }}{% endfor %}",
     "11x"),
    ("{% for n in [3, 1] | sort if n > 1 %}{{ n }}{% else %}none{% endfor %}", "3"),
    ("{% for n in [] %}{{ n }}{% else %}none{% endfor %}", "none"),
    ("{% for n in [[2, 3], []] recursive %}({{ loop(n) if n is iterable else n }}){% endfor %}",
     "((2)(3))()"),
    ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{{ m(none) }}", "<1><None>"),
    ("{% set a, b = 1, [2] %}{{ a }}{{ b }}{{ {'k': a} }}{{ (a, b) }}", "1[2]{'k': 1}(1, [2])"),
    ("{{ 2 ** 10 }} {{ 7 % 4 }} {{ 3 * 4 }} {{ 2 * 'ab' }} {{ 'a' in ['a'] }}",
     "1024 3 12 abab True"),
    ("{{ ('x' * 200000) | length }}", "200000"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), ORDINARY)
def test_what_people_write_renders_as_in_stock_lm_eval(text: str, expected: str) -> None:
    from lm_eval.utils import apply_template  # noqa: PLC0415 (seconds)

    row: dict[str, Any] = {"text": "word " * 20_000}
    shown = Sandbox(undefined=StrictUndefined, keep_trailing_newline=True).template(text, "t")

    assert shown.render(row) == expected == apply_template(text, row)


@pytest.mark.parametrize("key", ["doc_to_text", "doc_to_target", "doc_to_choice"])
def test_a_template_without_an_end_is_told_with_file_and_key(
    run: Run, ward: Write, key: str
) -> None:
    fields = yaml.safe_load(PLAIN) | {key: "{{ 'a' * 10**10 }}"}
    folder = ward(yaml.safe_dump(fields))
    code, _, err = show(run, folder)

    assert code == 2
    (line,) = [one for one in err.splitlines() if one.startswith("error")]
    assert str(folder / "ward.yaml") in line
    assert f"{key}: it makes more than any prompt can hold" in line


@pytest.mark.parametrize("key", ["doc_to_text", "doc_to_target"])
def test_a_late_row_that_blows_a_template_up_ends_the_run_in_one_line(
    run: Run, serve: Serve, ward: Write, key: str, tmp_path: Path
) -> None:
    late = "{{ 'a' * 10**10 if n == 17 else 'Which vitamin is it?' }}"
    folder = ward(yaml.safe_dump(yaml.safe_load(PLAIN) | {key: late}))
    code, _, err = run(
        *candidate(serve(lambda _: "C")),
        *("--tasks", "ward", "--protocol", "rules", "--include-path", folder),
        *("--data-root", tmp_path / "data", "--out", tmp_path / "out"),
    )

    assert code == 2
    assert f"{folder / 'ward.yaml'}: {key}: it makes more" in err
    assert "Traceback" not in err


def test_a_division_by_zero_in_one_row_is_that_rows_fault(
    run: Run, serve: Serve, ward: Write, tmp_path: Path
) -> None:
    folder = ward("doc_to_text: '{{ question }} {{ 1 / (n - 5) }}'\ndoc_to_target: answer\n")
    code, _, err = run(
        *candidate(serve(lambda _: "C")),
        *("--tasks", "ward", "--protocol", "rules", "--include-path", folder),
        *("--data-root", tmp_path / "data", "--out", tmp_path / "out"),
    )

    assert code == 1, err


@pytest.mark.parametrize("bomb", ["{{ 'a' * 10**10 }}", "{{ prompt.__class__.__mro__ }}"])
def test_a_prompt_template_is_bounded_too(bomb: str) -> None:
    with pytest.raises(ConfigError, match=r"^prompt template mine\.jinja: ."):
        template_around("{{ prompt }}" + bomb, name="mine.jinja")


# Code


def test_the_folder_that_is_named_may_hold_code_and_only_what_is_asked_for_runs(
    run: Run, ward: Write, evil: Callable[[Path], Path]
) -> None:
    folder = ward()
    ward(PLAIN.replace("answer", "!function evil.run"), head=HEAD.replace("ward\n", "other\n", 1),
         name="other")  # fmt: skip
    marker = evil(folder)

    assert run("tasks", "--include-path", folder)[0] == 0
    assert show(run, folder)[0] == 0
    assert not marker.exists()

    run("show", "other", "--include-path", folder, "--data-root", folder.parent / "data")

    assert marker.exists()


@pytest.mark.parametrize("way", ["include", "absolute-include", "function", "link", "name"])
def test_no_code_outside_the_named_folder_runs(
    run: Run, ward: Write, evil: Callable[[Path], Path], tmp_path: Path, way: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    marker = evil(elsewhere)
    fields = PLAIN.replace("answer", "!function evil.run")
    (elsewhere / "base.yaml").write_text(fields)
    if way == "include":
        folder = ward("include: ../elsewhere/base.yaml\n")
    elif way == "absolute-include":
        folder = ward(f"include: {elsewhere / 'base.yaml'}\n")
    elif way == "function":
        folder = ward(PLAIN.replace("answer", f"!function {elsewhere}/evil.run"))
    elif way == "link":
        folder = ward(fields)
        (folder / "evil.py").symlink_to(elsewhere / "evil.py")
    else:  # an include from outside that asks for what is installed
        (elsewhere / "base.yaml").write_text(PLAIN.replace("answer", "!function os.system"))
        folder = ward("include: ../elsewhere/base.yaml\n")
    code, _, err = show(run, folder)

    assert code == 2
    assert f"is code outside of {folder}" in err
    assert not marker.exists()


@pytest.mark.parametrize(
    "fields",
    [
        "process_docs: !function evil.run\n",
        "process_results: !function evil.run\n",
        "metric_list: [{metric: acc, aggregation: !function evil.run}]\n",
        "metric_list: [{metric: !function evil.run}]\n",
        "filter_list: !function evil.run\n",
        "fewshot_config: {samples: !function evil.run}\n",
        "description: !function evil.run\n",
        "unsafe_code: true\n",
        'doc_to_audio: !!python/object/apply:os.system ["touch marker"]\n',
        'doc_to_audio: !!python/name:os.system ""\n',
    ],
)
def test_fields_that_would_run_code_are_refused_unread(
    run: Run, ward: Write, evil: Callable[[Path], Path], fields: str
) -> None:
    folder = ward(PLAIN + fields)
    marker = evil(folder)
    code, _, err = show(run, folder)

    assert code == 2, err
    assert str(folder / "ward.yaml") in err
    assert not marker.exists()


REPEATED = "".join(f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))


@pytest.mark.parametrize(
    "fields",
    [
        f"doc_to_audio:\n  - &a0 [x, x, x, x, x, x, x, x, x]\n{REPEATED}",
        "doc_to_audio: &a [*a]\n",
        "doc_to_audio: &a {k: *a}\n",
        f"doc_to_audio: {'[' * 20_000}{']' * 20_000}\n",
    ],
    ids=["repeats-grow", "holds-itself", "mapping-holds-itself", "deep"],
)
def test_a_task_file_that_grows_without_an_end_is_refused(
    run: Run, ward: Write, fields: str
) -> None:
    folder = ward(PLAIN + fields)
    code, _, err = run("tasks", "--include-path", folder)

    assert code == 2
    assert err.startswith(f"error: {folder / 'ward.yaml'}: ")


@pytest.mark.parametrize("trusted", ["", "dataset_kwargs: {trust_remote_code: true}\n"])
def test_a_script_in_a_mirror_is_not_run(
    run: Run, ward: Write, evil: Callable[[Path], Path], trusted: str
) -> None:
    folder = ward(PLAIN + trusted)
    rows = folder.parent / "data" / "ward" / "questions"
    marker = evil(rows)
    (rows / "evil.py").rename(rows / "questions.py")
    (rows / "ward.yaml").write_text(HEAD + PLAIN.replace("answer", "!function questions.run"))
    show(run, folder)

    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:The Pandas builder is deprecated:FutureWarning")
def test_pickled_rows_are_not_loaded(run: Run, ward: Write, tmp_path: Path) -> None:
    import pickle  # noqa: PLC0415

    class Marks:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.write_text, (tmp_path / "marker", "ran")

    head = HEAD.replace("ward/questions", "pandas")
    folder = ward(
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.pkl}}}}\n{PLAIN}", head=head
    )
    (tmp_path / "rows.pkl").write_bytes(pickle.dumps(Marks()))
    code, _, _ = show(run, folder)

    assert code in {2, 3}
    assert not (tmp_path / "marker").exists()


def test_imported_and_submitted_folders_bring_no_task_files(
    run: Run, ward: Write, evil: Callable[[Path], Path], tmp_path: Path
) -> None:
    given = tmp_path / "given"
    marker = evil(given)
    (given / "ward.yaml").write_text(HEAD + PLAIN.replace("answer", "!function evil.run"))
    row = {"sample_id": "a", "task": "ward", "completion": "C"}
    (given / "answers.jsonl").write_text(json.dumps(row) + "\n")
    for argv in (
        ("import", given, "--out", tmp_path / "out"),
        ("import", given / "answers.jsonl", "--out", tmp_path / "out"),
        ("submit", given, "--check"),
        ("submit", "--check", given),
        ("leaderboard", given, "--out", tmp_path / "site"),
        ("--model", f"replay:{given / 'answers.jsonl'}", "--tasks", "ward", "--data-root", given),
        ("show", "medqa", "--data-root", HUB),
    ):
        run(*argv)

    assert not marker.exists()


def test_a_hidden_file_of_the_same_name_does_not_take_a_tasks_place(
    run: Run, ward: Write, evil: Callable[[Path], Path], tmp_path: Path
) -> None:
    """A leading `_` marks files to include; lm-eval looks into them, too, and first."""
    marker = evil(tmp_path / "elsewhere")
    fields = PLAIN.replace("answer", "!function evil.run")
    (tmp_path / "elsewhere" / "base.yaml").write_text(HEAD + fields)
    folder = ward()
    ward("include: ../elsewhere/base.yaml\n", head="task: ward\n", name="_a")
    code, _, err = show(run, folder)

    assert code == 2
    assert "_a.yaml" in err
    assert not marker.exists()
