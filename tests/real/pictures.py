"""Real pictures to ask about, taken out of installed packages, and whether they arrived unharmed.

    python tests/real/pictures.py FOLDER     # the task's rows, for --data-root FOLDER

`pictures.yaml` names each by its file and hash. What a DICOM becomes is decided here and is the
same everywhere; `originals.py` decodes the same files on its own, so that tests can compare.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Literal, Self

import datasets
import numpy as np
import pydicom
import yaml
from numpy.typing import NDArray
from PIL import Image

from medix_eval.data.rows import quiet
from medix_eval.errors import DatasetError
from medix_eval.records import Frozen
from medix_eval.storage.mirror import Mirror, MirrorFile, sha256_of
from medix_eval.testing import prompt_text

HERE = Path(__file__).resolve().parent
TASKS = HERE / "tasks"
NAME = "medix/real-pictures"
_PACKAGES = {"pydicom": "pydicom", "skimage": "scikit-image"}
_EXACT = 1e-9
Array = NDArray[Any]


class Picture(Frozen):
    """A picture by reference."""

    file: str
    """Its place among the installed packages."""
    sha256: str
    mode: Literal["1", "L", "LA", "I;16", "P", "RGB", "RGBA"]
    """Pillow's name of how the task stores it."""
    window: tuple[float, float] | None = None
    """Centre and width of the grey values that a scan is shown with."""
    licence: str

    @property
    def path(self) -> Path:
        """Where the file is; one that is not what was looked at is an error."""
        package = distribution(_PACKAGES[self.file.partition("/")[0]])
        path = Path(str(package.locate_file(self.file)))
        found = sha256_of(path) if path.is_file() else "no file"
        if found != self.sha256:
            raise DatasetError(
                f"{self.file} of {package.name} {package.version} has changed: its SHA-256 is "
                f"{self.sha256[:12]} in pictures.yaml, now {found[:12]}",
                hint="look at the picture and its questions again, then enter the new hash",
            )
        return path

    @property
    def is_dicom(self) -> bool:
        """Whether it must be decoded; any other file is stored as it is."""
        return self.file.endswith(".dcm")

    def stored(self) -> bytes:
        """Return the encoded image, the same bytes everywhere."""
        if not self.is_dicom:
            return self.path.read_bytes()
        out = io.BytesIO()
        # Not compressed: zlib's bytes differ from build to build.
        self._decoded(pydicom.dcmread(self.path)).save(out, format="PNG", compress_level=0)
        return out.getvalue()

    def _decoded(self, scan: pydicom.Dataset) -> Image.Image:
        if self.mode == "LA":
            lines = Image.fromarray(scan.overlay_array(0x6000) * np.uint8(255))
            return Image.merge("LA", (Image.new("L", lines.size), lines))
        pixels = scan.pixel_array
        if self.mode == "1":
            return Image.fromarray(pixels.astype(bool))
        if self.window:
            slope, intercept = scan.get("RescaleSlope", 1), scan.get("RescaleIntercept", 0)
            pixels = self._windowed(pixels * float(slope) + float(intercept))
        image = Image.fromarray(pixels)
        if self.mode == "P":
            image.putpalette(_palette(scan))
        return image

    def _windowed(self, values: Array) -> Array:
        """Apply the linear window of DICOM PS3.3, C.11.2.1.2.1."""
        assert self.window is not None
        centre, width = self.window
        kind = np.uint16 if self.mode == "I;16" else np.uint8
        share = (values - (centre - 0.5)) / (width - 1) + 0.5
        return np.asarray(np.rint(share.clip(0, 1) * np.iinfo(kind).max), dtype=kind)


def _palette(scan: pydicom.Dataset) -> bytes:
    colours = [
        np.frombuffer(scan[f"{name}PaletteColorLookupTableData"].value, "<u2") >> 8
        for name in ("Red", "Green", "Blue")
    ]
    return np.stack(colours, axis=1).astype(np.uint8).tobytes()


class Question(Frozen):
    """One question, about one picture or several."""

    pictures: tuple[str, ...]
    question: str
    options: tuple[str, ...] = ()
    answer: str

    @property
    def kind(self) -> str:
        """The kind of answer, by which the tasks share the rows out."""
        if self.options:
            return "multiple_choice"
        return "closed" if self.answer in {"yes", "no"} else "open"


class Collection(Frozen):
    """All of `pictures.yaml`."""

    pictures: dict[str, Picture]
    questions: tuple[Question, ...]

    @classmethod
    def read(cls, path: Path = HERE / "pictures.yaml") -> Self:
        """Read the file."""
        return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))

    def write_mirror(self, root: Path) -> None:
        """Write the rows in the layout of `--data-root`."""
        stored = {name: picture.stored() for name, picture in self.pictures.items()}
        rows = [
            {
                "pictures": " ".join(one.pictures),
                "images": [{"bytes": stored[name], "path": name} for name in one.pictures],
                "kind": one.kind,
                "question": one.question,
                "options": list(one.options),
                "answer": one.answer,
            }
            for one in self.questions
        ]
        text = datasets.Value("string")
        features: dict[str, Any] = dict.fromkeys(rows[0], text)
        features |= {"images": datasets.List(datasets.Image()), "options": datasets.List(text)}
        file = "data/test-00000-of-00001.parquet"
        folder = root / NAME
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with quiet():
            table = datasets.Dataset.from_list(rows, features=datasets.Features(features))
            table.to_parquet(folder / file)
        Mirror(
            source="the wheels of pydicom and scikit-image, by tests/real/pictures.yaml",
            revision=None,
            files={file: MirrorFile.of(folder / file)},
            rows={"default/test": len(rows)},
            synthetic=False,
        ).write(folder)


COLLECTION = Collection.read()
BY_TEXT = {one.question: one for one in COLLECTION.questions}


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """A decoded picture: rows of columns of channels, the colours of a palette looked up."""

    mode: str
    values: Array

    @classmethod
    def of(cls, image: Image.Image) -> Self:
        """Read an image of Pillow's; its mode stays known."""
        flat = {"P": "RGB", "1": "L"}.get(image.mode)
        values = np.asarray(image.convert(flat) if flat else image)
        return cls(image.mode, values.reshape(*values.shape[:2], -1))

    @property
    def size(self) -> str:
        """Width and height."""
        return f"{self.values.shape[1]}×{self.values.shape[0]}"

    def distance(self, other: Array) -> float:
        """Return the mean difference of a value; infinite where the shapes differ."""
        if self.values.shape != other.shape:
            return float("inf")
        return float(np.abs(self.values.astype(float) - other).mean())


Arrived = dict[str, list[Pixels]]
"""Decoded pictures by the text of their question, which no other has."""


def asked(prompt: str) -> str:
    """Return the text of the question that a prompt asks."""
    return prompt.replace("<image>", "").partition("\n\nChoices")[0].strip()


def in_request(body: Mapping[str, Any]) -> tuple[str, list[Pixels]]:
    """Return the question of a chat request and its pictures, decoded as most servers do."""
    images = [Image.open(io.BytesIO(image)) for image in images_of(body)]
    return asked(prompt_text(body)), [Pixels.of(image) for image in images]


def images_of(body: Mapping[str, Any]) -> list[bytes]:
    """Return the encoded images of a chat request, in their order."""
    parts = [part for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
    urls = [part["image_url"]["url"].partition(";base64,")[2] for part in parts]
    return [base64.b64decode(url, validate=True) for url in urls]


def differences(
    arrived: Sequence[Pixels], source: Sequence[Pixels], *, tolerance: float = 0.0
) -> list[str]:
    """Say how the pictures of a question that arrived differ from their sources.

    With a `tolerance`, values may be off by that much on average, as after a JPEG; the order of
    the channels may not.
    """
    if len(arrived) != len(source):
        return [f"{len(arrived)} pictures in place of {len(source)}"]
    said = []
    for number, (one, expected) in enumerate(zip(arrived, source, strict=True), 1):
        off = one.distance(expected.values)
        if not off and one.mode == expected.mode:
            continue
        others = {at: one.distance(other.values) for at, other in enumerate(source, 1)}
        nearest = min(others, key=others.__getitem__)
        likely = min(off, tolerance + _EXACT)
        if others[nearest] < likely:
            what = f"it is number {nearest} of the source"
        elif one.distance(expected.values.swapaxes(0, 1)) < likely:
            what = "rows and columns are exchanged"
        elif one.distance(expected.values[..., ::-1]) < likely:
            what = "the channels are in reverse order"
        elif one.size != expected.size:
            what = f"size {one.size}, not {expected.size}"
        elif one.mode != expected.mode:
            what = f"mode {one.mode}, not {expected.mode}"
        elif off > tolerance:
            most = np.abs(one.values.astype(int) - expected.values).max()
            what = f"values are off by {off:.3f} on average, by {most} at most"
        else:
            continue
        said.append(f"picture {number}: {what}")
    return said


if __name__ == "__main__":
    try:
        COLLECTION.write_mirror(Path(sys.argv[1]))
    except DatasetError as error:
        sys.exit(f"error: {error}")
