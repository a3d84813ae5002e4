"""Open tasks: what the accessors give, texts and images."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import List, Value
from opened_tasks import CATALOGUE, CHOICE, HUB, Open, open_fixture
from PIL import Image

from medix_eval.errors import BadRow


def png(colour: str, *, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (4, 4), colour).save(out, format="PNG")
    return out.getvalue()


def test_reference_and_options_of_a_choice_are_texts(open_rows: Open) -> None:
    task = open_rows([{"question": "q", "choices": ["lung", "liver"], "index": 1}], **CHOICE)

    assert (task.options(task.rows[0]), task.reference(task.rows[0])) == (
        ("lung", "liver"),
        "liver",
    )


@pytest.mark.parametrize("answer", ["[1, 2]", "7", "[L] lung", "None", "{{ x }}"])
def test_a_reference_stays_the_text_it_is(open_rows: Open, answer: str) -> None:
    task = open_rows([{"question": "q", "answer": answer}], doc_to_target="{{ answer }}")

    assert task.reference(task.rows[0]) == answer


@pytest.mark.parametrize("text", ["[a]", "it's", 'say "x"', "a\nb", "{{ x }}", "é\\n", "None"])
def test_options_in_a_template_stay_the_texts_they_are(open_rows: Open, text: str) -> None:
    task = open_rows(
        [{"question": "q", "one": text, "two": "b", "index": 0}],
        doc_to_choice="{{ [one, two] }}",
        doc_to_target="index",
    )

    assert task.options(task.rows[0]) == (text, "b")


def test_options_that_a_row_leaves_off_at_the_end_are_absent() -> None:
    task = open_fixture("usmle_sa")

    sizes = [len(task.options(task.rows[row])) for row in range(len(task.rows))]

    assert sizes == [3, 4, 5, 5, 6, 6, 7, 8, 9, 4]
    assert "None" not in task.prompt_text(task.rows[0])


def test_pubmedqa_shows_every_section_under_its_label(open_rows: Open) -> None:
    config = open_fixture("pubmedqa").config
    row = {
        "CONTEXTS": ["Few know.", "We counted."],
        "LABELS": ["BACKGROUND", "METHODS"],
        "QUESTION": "Is it so?",
        "final_decision": "no",
    }
    keys = ("doc_to_text", "doc_to_choice", "doc_to_target")

    task = open_rows([row], **{key: config[key] for key in keys})

    assert task.prompt_text(task.rows[0]) == (
        "BACKGROUND: Few know.\nMETHODS: We counted.\n\nIs it so?\n\n"
        "Choices:\nA. yes\nB. no\nC. maybe"
    )


@pytest.mark.parametrize(
    "contexts",
    [
        pytest.param("Few know.", id="text"),
        pytest.param(["Few know."], id="list"),
        pytest.param({"contexts": ["Few know."], "labels": None}, id="record"),
    ],
)
def test_pubmedqa_takes_an_abstract_as_text_list_or_record(contexts: Any) -> None:
    task = open_fixture("pubmedqa")

    prompt = task.prompt_text({**task.rows[0], "CONTEXTS": contexts})

    assert prompt.startswith("Few know.\n\nDoes an evening walk")


def test_pmc_vqa_takes_options_as_a_list_or_a_record_with_or_without_letters() -> None:
    task = open_fixture("pmc_vqa")
    row = task.rows[0]
    plain = ["Lung", "E. coli"]

    shown = {
        task.options({**row, "choices": choices})
        for choices in (plain, ["A: Lung", " B.E. coli "], dict(zip("AB", plain, strict=True)))
    }

    assert shown == {("Lung", "E. coli")}


def test_slices_clusters_and_kept_columns_come_as_text() -> None:
    task = open_fixture("pubmedqa")

    assert task.columns(task.rows[1]) == {
        "final_decision": "no",
        "LONG_ANSWER": "Colour of scrubs was not associated with hand hygiene.",
    }


def test_samples_that_share_an_image_share_a_cluster() -> None:
    task = open_fixture("rad_vqa")

    clusters = [task.columns(task.rows[row])["image"] for row in range(4)]

    assert clusters[0] == clusters[1] != clusters[2] == clusters[3]


def test_slice_values_are_those_of_the_kept_rows() -> None:
    task = open_fixture("slake_vqa")

    columns = [task.columns(task.rows[row]) for row in range(len(task.rows))]

    assert task.slice_values() == [
        tuple(row[name] for name in task.settings.slices) for row in columns
    ]


def test_facts_are_read_and_one_that_a_row_lacks_is_left_out(open_rows: Open) -> None:
    task = open_rows(
        [{"question": "q", "answer": "r", "side": "left", "size": None}],
        features=dict.fromkeys(("question", "answer", "side", "size"), Value("string")),
        settings={"kind": "report", "facts": ["side", "size"]},
    )

    assert task.facts(task.rows[0]) == {"side": "left"}


@pytest.mark.parametrize("name", sorted(CATALOGUE.groups["vlm"]))
def test_opening_a_task_and_reading_its_stored_images_decodes_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(datasets.Image, "decode_example", refuse)

    task = open_fixture(name)

    assert all(task.stored_images(row) for row in task.rows)


def test_stored_images_are_the_bytes_of_the_table() -> None:
    table = datasets.load_dataset(str(HUB / "flaviagiammarino/path-vqa"), split="test")
    expected = [
        row["bytes"] for row in table.cast_column("image", datasets.Image(decode=False))["image"]
    ]
    task = open_fixture("path_vqa")

    assert [task.stored_images(row) for row in task.rows] == [[image] for image in expected]


def test_images_in_a_zip_are_the_files_it_holds() -> None:
    task = open_fixture("slake_vqa")
    with zipfile.ZipFile(HUB / "BoKelvin/SLAKE/imgs.zip") as archive:
        expected = archive.read(f"imgs/{task.rows[0]['img_name']}")

    assert task.stored_images(task.rows[0]) == [expected]


def test_every_colour_mode_of_the_fixtures_becomes_rgb_for_stock_lm_eval() -> None:
    modes = set()
    for name in ("rad_vqa", "path_vqa", "pmc_vqa"):
        task = open_fixture(name)
        for row in task.rows:
            (stored,) = task.stored_images(row)
            modes.add(Image.open(io.BytesIO(stored)).mode)
            assert [image.mode for image in task.doc_to_image(row) or []] == ["RGB"]

    assert modes == {"L", "RGB", "RGBA", "P", "CMYK"}


def test_several_images_come_in_the_order_of_their_columns(open_rows: Open) -> None:
    told = {"first": png("red"), "second": png("blue"), "others": [png("green"), png("black")]}
    stored = {
        name: [{"bytes": one} for one in value] if isinstance(value, list) else {"bytes": value}
        for name, value in told.items()
    }
    image = datasets.Image()

    task = open_rows(
        [{"question": "q", "answer": "a", **stored}],
        features={
            **dict.fromkeys(("question", "answer"), Value("string")),
            "first": image,
            "second": image,
            "others": List(image),
        },
        doc_to_image=["second", "first", "others"],
    )

    others = told["others"]
    assert task.stored_images(task.rows[0]) == [told["second"], told["first"], *others]


def test_stock_lm_eval_is_told_of_a_picture_that_cannot_be_shown(open_rows: Open) -> None:
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(whole, format="PNG")
    pictures = [whole.getvalue(), whole.getvalue()[:900], b"<html>"]
    rows = [{"question": "q", "answer": "a", "image": {"bytes": b, "path": None}} for b in pictures]
    texts = dict.fromkeys(("question", "answer"), Value("string"))

    task = open_rows(rows, features={**texts, "image": datasets.Image()}, doc_to_image="image")

    assert len(task.doc_to_image(task.rows[0]) or []) == 1
    for row, said in ((1, "truncated"), (2, "read are JPEG, PNG")):
        with pytest.raises(BadRow, match=f"task mine: image does not decode .*{said}"):
            task.doc_to_image(task.rows[row])


def test_the_fixture_with_several_images_holds_one_two_and_three(open_rows: Open) -> None:
    table = datasets.load_dataset(str(HUB / "medix/several-images"), split="test")
    columns = ["image_1", "image_2", "more"]
    rows = list(table.cast_column("more", List(datasets.Image(decode=False))))

    task = open_rows(rows, features=table.features, doc_to_image=columns)

    assert [len(task.stored_images(row)) for row in task.rows] == [1, 2, 3]


def test_a_mimic_address_is_never_followed_out_of_the_folder(tmp_path: Path) -> None:
    task = open_fixture("mimic_cxr_report_generation")
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")

    with pytest.raises(BadRow, match=r"row 3: no image .*secret\.jpg in files"):
        task.stored_images({**task.rows[0], "image": str(secret)}, row=3)
