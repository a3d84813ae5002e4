"""Training rows are checked before a model is loaded, and become what TRL asks for."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pytest
from PIL import Image

from medix_eval.errors import ConfigError, DatasetError
from medix_eval.phantom.dataset import model_folder
from medix_train.data import load_training_data
from medix_train.recipe import DataSection, ModelSection

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

pytest.importorskip("torch")

from medix_train.checkpoints import load_processor


def encoded(*, mode: str = "RGBA", side: int = 64) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (side, side), color="red").save(out, format="PNG")
    return out.getvalue()


CUT = {"bytes": encoded(side=256)[:300], "path": None}


def a_row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "image": [{"bytes": encoded(), "path": None}],
        "source": "made up",
        "problem": "<image>Is there a lesion?",
        "solution": "<X_RAY>\nyes",
        **changes,
    }


@pytest.fixture(scope="module")
def processor() -> Any:
    return load_processor(ModelSection(path=str(model_folder())))


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., DataSection]:
    """Write rows as the published data is stored and name the folder."""

    def written(*rows: dict[str, Any], **section: Any) -> DataSection:
        features: Any = {name: datasets.Value("string") for name in rows[0]}
        if "image" in features:
            features["image"] = datasets.List(datasets.Image())
        table = datasets.Dataset.from_list(list(rows), features=datasets.Features(features))
        table.to_parquet(tmp_path / "train-00000.parquet")
        return DataSection(path=str(tmp_path), **section)

    return written


def test_a_row_becomes_a_prompt_with_an_rgb_image(
    processor: Any, parquet: Callable[..., DataSection]
) -> None:
    data = load_training_data(parquet(a_row()), processor=processor)
    (row,) = data.with_images(list(data.rows))
    (image,) = row["images"]

    assert row["prompt"] == [{"role": "user", "content": "Is there a lesion?"}]
    assert (row["problem"], row["solution"]) == ("Is there a lesion?", "<X_RAY>\nyes")
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 0, 0))


def test_a_group_shares_its_decoded_image(
    processor: Any, parquet: Callable[..., DataSection]
) -> None:
    data = load_training_data(parquet(a_row(), a_row(id="r2")), processor=processor)
    first, same, other = data.with_images([data.rows[0], data.rows[0], data.rows[1]])

    assert first["images"][0] is same["images"][0]
    assert first["images"][0] is not other["images"][0]


def test_the_counted_tokens_are_those_that_the_model_gets(
    processor: Any, parquet: Callable[..., DataSection]
) -> None:
    section = parquet(a_row(problem="Name the modality of this image."))
    data = load_training_data(section, processor=processor)
    (row,) = data.with_images(list(data.rows))
    content = [
        {"type": "image", "image": row["images"][0]},
        {"type": "text", "text": row["prompt"][0]["content"]},
    ]
    rendered = processor.apply_chat_template(
        [[{"role": "user", "content": content}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )

    assert row["tokens"] == len(rendered["input_ids"][0])


def test_prompts_that_are_too_long_are_left_out_and_counted(
    processor: Any, parquet: Callable[..., DataSection]
) -> None:
    long = a_row(id="long", problem="lesion " * 500)
    data = load_training_data(
        parquet(long, a_row(), long, max_prompt_tokens=100), processor=processor
    )

    assert [row["id"] for row in data.rows] == ["r1"]
    assert data.num_too_long == 2
    assert [one["number"] for one in data.with_images(list(data.rows))] == [1]
    with pytest.raises(DatasetError, match="every prompt has more than 20 tokens"):
        load_training_data(parquet(a_row(), max_prompt_tokens=20), processor=processor)


def test_a_template_stands_around_the_question_and_not_in_what_the_judge_sees(
    processor: Any, parquet: Callable[..., DataSection], tmp_path: Path
) -> None:
    template = tmp_path / "short.jinja"
    template.write_text("Be short. {{ prompt }}\n")
    section = parquet(a_row(), template=str(template))
    (row,) = load_training_data(section, processor=processor).rows

    assert row["prompt"][0]["content"] == "Be short. Is there a lesion?"
    assert row["problem"] == "Is there a lesion?"


def test_lines_of_json_name_images_beside_them(processor: Any, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(encoded())
    line = json.dumps(a_row(image=["images/one.png"]))
    (tmp_path / "train.jsonl").write_text(f"{line}\n")
    data = load_training_data(DataSection(path=str(tmp_path)), processor=processor)
    (row,) = data.with_images(list(data.rows))

    assert row["images"][0].size == (64, 64)


@pytest.mark.parametrize("stored", ["parquet", "jsonl"])
def test_a_stream_gives_the_same_rows(
    processor: Any, parquet: Callable[..., DataSection], tmp_path: Path, stored: str
) -> None:
    section = parquet(a_row(), a_row(id="long", problem="lesion " * 500), a_row(id="r3"))
    if stored == "jsonl":
        for file in tmp_path.glob("*.parquet"):
            file.unlink()
        (tmp_path / "one.png").write_bytes(encoded())
        lines = [json.dumps(a_row(image=["one.png"], id=name)) for name in ("r1", "r3")]
        (tmp_path / "train.jsonl").write_text("\n".join(lines))
    streamed = section.model_copy(update={"streaming": True, "max_prompt_tokens": 100})
    data = load_training_data(streamed, processor=processor)
    rows = data.with_images(list(data.rows))

    assert [row["id"] for row in rows] == ["r1", "r3"]
    assert all(is_red(row["images"][0]) for row in rows)


def is_red(image: PILImage) -> bool:
    return image.mode == "RGB" and image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solution": "yes"}, r"row 1 \(bad\): solution 'yes' does not begin with a modality tag"),
        ({"solution": "<X_RAY>\n"}, r"row 1 \(bad\): .* no answer after its tag"),
        ({"image": [{"bytes": b"GIF8 no", "path": None}]}, r"row 1 \(bad\): image does not decode"),
        ({"image": [CUT]}, r"row 1 \(bad\): image does not decode .*truncated"),
        ({"image": []}, r"row 1 \(bad\): there is no image"),
    ],
)
def test_a_bad_row_is_named_before_anything_is_loaded(
    processor: Any, parquet: Callable[..., DataSection], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_training_data(parquet(a_row(), a_row(id="bad", **changes)), processor=processor)


def test_a_missing_column_is_named(processor: Any, parquet: Callable[..., DataSection]) -> None:
    row = a_row()
    del row["problem"]

    with pytest.raises(DatasetError, match="has no column 'problem'"):
        load_training_data(parquet(row), processor=processor)


def test_no_data_is_an_error_of_the_data(processor: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot load"):
        load_training_data(DataSection(path=str(tmp_path / "nowhere")), processor=processor)
    with pytest.raises(ConfigError, match="needs a number"):
        load_training_data(DataSection(path="phantom:none"), processor=processor)


def test_an_image_that_is_cut_off_later_is_named_when_it_is_used(
    processor: Any, parquet: Callable[..., DataSection]
) -> None:
    data = load_training_data(parquet(a_row()), processor=processor)
    stored: Any = [a_row(image=[CUT])]

    with pytest.raises(DatasetError, match="row r1: an image does not decode"):
        replace(data, stored=stored).with_images(list(data.rows))
