"""From bodies to inputs: pictures that are damaged or deep, parts of forms, and the memory that inputs take."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lineside.runners import Recipe
from lineside.runners.serving import PredictionLimits, prediction_service

from .support import PATIENCE, Counting, Served, doubled, entered, inputs, lines, preparing, results, running, served

CSV = {"content-type": "text/csv"}
MEMORY = 10_000


def saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, kind, **how)
    return made.getvalue()


def gray(kind: type[np.generic], value: float) -> Image.Image:
    return Image.fromarray(np.full((4, 6), value, kind))


def corner(value: Any) -> float:
    return float(np.asarray(value).flatten()[0])


@contextmanager
def deciding(decode: Callable[[bytes, str], object]) -> Generator[Served]:
    """Serve a model whose recipe has a `decode`, with little memory."""
    recipe = Recipe(
        model=Counting, preprocess=lambda values: torch.ones(len(values), 1), postprocess=doubled, decode=decode
    )
    app = prediction_service(recipe, limits=PredictionLimits(memory=MEMORY, grace=1.0))
    with running(app) as server:
        yield Served(app, server)


def test_a_picture_that_pillow_stumbles_over_is_refused_and_the_next_is_computed() -> None:
    good = saved(Image.new("RGB", (6, 4)), "TIFF")
    entry = struct.pack("<HHI", 0x0111, 4, 1)  # where its pixels are, as a whole number
    assert good.count(entry) == 1
    damaged = good.replace(entry, struct.pack("<HHI", 0x0111, 11, 1))  # as a float
    with served() as service, service.client(**{"content-type": "image/tiff"}) as client:
        preparing(service, corner)
        answer = client.post("/predict", content=damaged)
        assert (answer.status_code, "this picture cannot be read" in answer.text) == (400, True)
        assert results(lines(client.post("/predict", content=good))) == [0.0]


def test_what_is_no_picture_is_told_without_the_insides_of_the_service() -> None:
    with served() as service, service.client(**{"content-type": "image/png"}) as client:
        reason = client.post("/predict", content=b"no picture").json()["error"]
        assert reason.startswith("this picture cannot be read: it is of no known kind; expected one of BMP, GIF")
        assert "object at" not in reason


def test_of_several_inputs_the_one_that_all_are_refused_for_is_named() -> None:
    good = saved(Image.new("RGB", (6, 4)), "PNG")
    files = {"a": ("one.png", good, "image/png"), "b": ("two.png", b"no picture", "image/png")}
    ragged = [[1], [2]], [[1], [2, 3]]
    with served() as service, service.client() as client:
        assert client.post("/predict", files=files).json()["error"].startswith("part 1 (two.png): this picture")
        answer = client.post("/predict", json=inputs(*ragged))
        assert answer.json()["error"].startswith("inputs[1]: an input has lists of different lengths")
        answer = client.post("/predict", json=inputs(ragged[1]))
        assert answer.json()["error"].startswith("an input has lists of different lengths")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"inputs": 1}', "the 'inputs' of this JSON are no list but a number"),
        ('{"inputs": {}}', "the 'inputs' of this JSON are no list but an object"),
        ("null", "this JSON is no object but null"),
        ('"seven"', "this JSON is no object but a string"),
    ],
)
def test_json_of_another_kind_is_told_in_the_words_of_json(body: str, reason: str) -> None:
    with served() as service, service.client(**{"content-type": "application/json"}) as client:
        assert client.post("/predict", content=body).json()["error"].startswith(f"{reason}; expected ")


def test_a_file_without_anything_in_it_is_told_to_be_empty() -> None:
    with served() as service, service.client() as client:
        answer = client.post("/predict", files={"a": ("one.png", b"", "image/png")})
        assert answer.json()["error"].startswith("this picture cannot be read: it is empty; ")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_a_picture_with_16_bits_the_upper_ones_are_kept(kind: str) -> None:
    with served() as service, service.client(**{"content-type": "image/*"}) as client:
        preparing(service, corner)
        body = saved(gray(np.uint16, 30_000), kind)
        assert results(lines(client.post("/predict", content=body))) == [2.0 * (30_000 >> 8)]


@pytest.mark.parametrize(("kind", "reason"), [(np.float32, "floats"), (np.int32, "integers of 32 bits")])
def test_a_picture_whose_values_mean_no_brightness_is_left_to_the_recipe(kind: type[np.generic], reason: str) -> None:
    with served() as service, service.client(**{"content-type": "image/tiff"}) as client:
        answer = client.post("/predict", content=saved(gray(kind, 1), "TIFF"))
        assert answer.status_code == 400
        assert f"its values are {reason}" in answer.text
        assert "Recipe(decode=...)" in answer.text


def test_parts_without_a_filename_are_what_their_content_type_says_and_as_long_as_a_body_may_be() -> None:
    long = json.dumps([3.5] * 400_000).encode()
    assert len(long) > 1 << 20
    with served() as service, service.client() as client:
        preparing(service, corner)
        parts: list[tuple[str, Any]] = [
            ("a", (None, saved(Image.new("RGB", (3, 3), (7, 0, 0)), "PNG"), "image/png")),
            ("b", (None, long)),
            ("c", (None, b"[4, 5]", "application/json")),
            ("d", (None, b"6", "text/plain")),
        ]
        assert results(lines(client.post("/predict", files=parts))) == [14.0, 7.0, 8.0, 12.0]


def test_a_part_that_nothing_says_what_it_is_and_that_is_no_json_is_told_how_to_say_it() -> None:
    with served() as service, service.client() as client:
        refused = client.post("/predict", files=[("a", (None, saved(Image.new("RGB", (3, 3)), "PNG")))])
    assert refused.status_code == 400
    assert "expected an input in JSON, or a part with a filename or a Content-Type" in refused.json()["error"]


def test_json_may_begin_with_a_byte_order_mark() -> None:
    with served() as service, service.client(**{"content-type": "application/json"}) as client:
        body = '\ufeff{"inputs": [1]}'.encode()
        for headers in ({}, {"content-encoding": "identity"}):
            assert results(lines(client.post("/predict", content=body, headers=headers))) == [2.0]


def test_inputs_that_can_never_fit_are_refused_for_good_before_all_are_decoded() -> None:
    decoded: list[bytes] = []

    def decode(data: bytes, media_type: str) -> object:
        decoded.append(data)
        return np.zeros(MEMORY * 2 // 5, np.uint8)

    with deciding(decode) as service, service.client() as client:
        assert results(lines(client.post("/predict", json=inputs(1, 2)))) == [2.0, 2.0]
        requests: list[dict[str, Any]] = [{"json": inputs(*range(50))}, {"files": [("a", (None, b"1"))] * 20}]
        for request in requests:
            decoded.clear()
            answer = client.post("/predict", **request)
            assert (answer.status_code, "retry-after" in answer.headers) == (413, False)
            assert f"too large together; at most {MEMORY} bytes" in answer.text
            assert len(decoded) == 3
        assert service.queue.memory == 0


def test_one_input_may_be_larger_than_all_the_memory() -> None:
    with deciding(lambda data, media_type: np.zeros(2 * MEMORY, np.uint8)) as service, service.client() as client:
        assert results(lines(client.post("/predict", json=inputs(1)))) == [2.0]


async def test_what_is_decoded_of_a_form_takes_memory_while_the_rest_of_it_is_read() -> None:
    second, go = threading.Semaphore(0), threading.Semaphore(0)

    def decode(data: bytes, media_type: str) -> object:
        if data == b"second":
            second.release()
            assert go.acquire(timeout=PATIENCE)
        return np.zeros(100 if data == b"second" else 6000, np.uint8)

    with deciding(decode) as service:
        async with service.aclient() as client:
            parts = [("a", ("a", data, "text/csv")) for data in (b"first", b"second")]
            form = asyncio.create_task(client.post("/predict", files=parts))
            assert await asyncio.to_thread(second.acquire, timeout=PATIENCE)
            answer = await client.post("/predict", content=b"another", headers=CSV)
            assert (answer.status_code, "no room for more" in answer.text) == (503, True)
            go.release()
            assert results(lines(await form)) == [2.0, 2.0]
            assert results(lines(await client.post("/predict", content=b"another", headers=CSV))) == [2.0]
        assert service.queue.memory == 0


async def test_a_form_that_finds_no_room_gives_back_what_it_took() -> None:
    def decode(data: bytes, media_type: str) -> object:
        return np.zeros(4000, np.uint8)

    with deciding(decode) as service:
        service.model.hold()
        async with service.aclient() as client:
            first = asyncio.create_task(client.post("/predict", content=b"1", headers=CSV))
            await entered(service.model)
            answer = await client.post("/predict", files=[("a", (None, b"1"))] * 2)
            assert answer.status_code == 503
            assert service.queue.memory == 4000
            service.model.let_go()
            assert results(lines(await first)) == [2.0]
            assert results(lines(await client.post("/predict", files=[("a", (None, b"1"))] * 2))) == [2.0, 2.0]
