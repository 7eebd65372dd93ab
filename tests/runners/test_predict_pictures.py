"""A folder of pictures as the source of a prediction."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners import NoPictures, PictureUnreadable, PillowMissing, PredictBatch, Predictor, SourceUnusable
from lineside.schemas import PredictBatchEnd, PredictStart

from .support import events_of_run


class Mean(nn.Module):
    """The mean over height and width: (batch, height, width, 3) → (batch, 3)."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean((1, 2))


def reds(outputs: Tensor, batch: PredictBatch) -> list[int]:
    return [round(float(row[0])) for row in outputs]


def red(bus: Bus | None = None, **settings: Any) -> Predictor[int]:
    return Predictor(Mean(), postprocess=reds, bus=bus, device="cpu", **settings)


def paint(path: Path, value: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, 0, 0)).convert(mode).save(path)


def test_a_folder_gives_its_pictures_in_natural_order_under_their_paths(bus: Bus, tmp_path: Path) -> None:
    for name, value in (("2.png", 2), ("10.PNG", 10), ("1.bmp", 1), ("more/3.tiff", 3), (".hidden/4.png", 4)):
        paint(tmp_path / name, value)
    (tmp_path / "notes.txt").write_text("not a picture")
    assert list(red(bus, batch_size=2).stream(tmp_path)) == [1, 2, 10, 3]
    _, begin, *_ = events = events_of_run(bus)
    assert isinstance(begin, PredictStart)
    assert (begin.source, begin.batches) == (str(tmp_path), 2)
    names = [name for event in events if isinstance(event, PredictBatchEnd) for name in event.inputs]
    assert names == [str(tmp_path / name) for name in ("1.bmp", "2.png", "10.PNG", "more/3.tiff")]


def test_a_path_as_text_and_that_of_one_picture_will_do_too(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 7)
    assert red().run(str(tmp_path)).results == (7,)
    assert red().run(tmp_path / "a.png").results == (7,)


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("RGBA", "webp"), ("P", "gif"), ("1", "png")])
def test_pictures_of_every_mode_become_arrays_of_red_green_and_blue(tmp_path: Path, mode: str, suffix: str) -> None:
    paint(tmp_path / f"a.{suffix}", 255, mode)
    seen: list[Any] = []

    def keep(inputs: list[Any]) -> Tensor:
        seen.extend(inputs)
        return torch.zeros(len(inputs), 4, 6, 3)

    Predictor(Mean(), preprocess=keep, device="cpu").run(tmp_path)
    assert (type(seen[0]), seen[0].dtype, seen[0].shape) == (np.ndarray, np.uint8, (4, 6, 3))


def test_a_picture_that_was_taken_on_its_side_stands_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    predictor = Predictor(nn.Identity(), device="cpu")
    assert predictor.run(tmp_path).results[0].shape == (6, 4, 3)


def test_a_picture_whose_exif_is_damaged_stands_upright_if_that_says_how(tmp_path: Path) -> None:
    upright = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)  # turned by a quarter
    width = struct.pack("<HHI4s", 0x011A, 2, 4, b"abc")  # a text where a number belongs
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + upright + width + bytes(4)
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert Predictor(nn.Identity(), device="cpu").run(tmp_path).results[0].shape == (6, 4, 3)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_of_16_bits_the_upper_ones_are_kept(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(np.full((4, 6), 30_000, np.uint16)).save(tmp_path / f"a.{suffix}")
    assert red().run(tmp_path).results == (30_000 >> 8,)


@pytest.mark.parametrize(("kind", "reason"), [(np.float32, "floats"), (np.int32, "integers of 32 bits")])
def test_pictures_whose_values_mean_no_brightness_are_refused(
    tmp_path: Path, kind: type[np.generic], reason: str
) -> None:
    Image.fromarray(np.full((4, 6), 1, kind)).save(tmp_path / "a.tiff")
    with pytest.raises(PictureUnreadable, match=rf"a\.tiff .*its values are {reason}.*an iterable of what you read"):
        red().run(tmp_path)


def test_pictures_are_read_when_their_turn_comes(tmp_path: Path) -> None:
    for i in range(4):
        paint(tmp_path / f"{i}.png", i)
    with red(batch_size=1, prefetch=0).stream(tmp_path) as stream:
        assert next(stream) == 0
        paint(tmp_path / "1.png", 100)
        assert next(stream) == 100


def test_what_pillow_opened_can_be_given_in_a_list() -> None:
    images = [Image.new("RGB", (6, 4), (value, 0, 0)) for value in (3, 5)]
    assert red().run(images).results == (3, 5)


def test_a_broken_picture_is_named_after_the_results_before_it(tmp_path: Path) -> None:
    paint(tmp_path / "1.png", 1)
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    read: list[int] = []
    with pytest.raises(PictureUnreadable, match=r"2\.png cannot be read as a picture: "):
        read.extend(red(batch_size=4).stream(tmp_path))
    assert read == [1]


def test_a_folder_without_pictures_and_a_path_to_nothing_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(NoPictures, match=r"has no pictures in it, nor in its subfolders; expected .*\.jpg"):
        red().stream(tmp_path)
    for nothing in ("missing", str(tmp_path / "missing"), ""):
        with pytest.raises(SourceUnusable, match="cannot predict on str: there is no file or folder"):
            red().stream(nothing)


def test_without_pillow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "1.png", 1)

    def missing(name: str) -> None: ...

    monkeypatch.setattr("lineside.runners.predict.pictures.find_spec", missing)
    with pytest.raises(PillowMissing, match=r"needs Pillow: pip install 'lineside\[images\]'"):
        red().stream(tmp_path)


def test_paths_among_the_inputs_are_read_as_pictures_by_the_default_preprocessing(bus: Bus, tmp_path: Path) -> None:
    for value in range(3):
        paint(tmp_path / f"{value}.png", value)
    assert red(bus, batch_size=2).run(sorted(tmp_path.glob("*.png"))).results == (0, 1, 2)
    ends = [event for event in events_of_run(bus) if isinstance(event, PredictBatchEnd)]
    assert ends[0].inputs == (str(tmp_path / "0.png"), str(tmp_path / "1.png"))
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(PictureUnreadable, match=r"1\.png cannot be read"):
        red().run([tmp_path / "1.png"])


def test_paths_are_left_to_a_preprocessing_of_ones_own(tmp_path: Path) -> None:
    def length(paths: list[Any]) -> Tensor:
        return torch.tensor([float(len(path.name)) for path in paths])

    predictor = Predictor(nn.Identity(), preprocess=length, device="cpu")
    assert [float(one) for one in predictor.run([tmp_path / "missing.png"]).results] == [11.0]


def test_a_path_longer_than_any_can_be_is_refused_like_one_that_leads_nowhere() -> None:
    with pytest.raises(SourceUnusable, match="there is no file or folder"):
        red().run("x" * 5000)


def test_links_to_other_folders_are_followed_once_and_never_in_a_circle(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    paint(inside / "own" / "1.png", 1)
    paint(outside / "deep" / "2.png", 2)
    (inside / "again").symlink_to(inside / "own")
    (inside / "up").symlink_to(inside)
    (inside / "away").symlink_to(outside)
    (inside / "away too").symlink_to(outside)
    (outside / "deep" / "back").symlink_to(outside)
    (outside / "home").symlink_to(inside)
    assert red().run(inside).results == (2, 1)


def test_a_link_that_leads_above_the_folder_or_into_a_linked_one_doubles_no_picture(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    paint(inside / "own" / "1.png", 1)
    paint(outside / "deep" / "2.png", 2)
    paint(inside / ".hidden" / "3.png", 3)
    (inside / "above").symlink_to(tmp_path)
    (inside / "away").symlink_to(outside)
    (inside / "deep").symlink_to(outside / "deep")
    (inside / "unhidden").symlink_to(inside / ".hidden")
    assert sorted(red().run(inside).results) == [1, 2, 3]
