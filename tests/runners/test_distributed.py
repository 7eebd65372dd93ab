from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .support import CLOSING, OPENING, PATIENCE, A, T, V

SCRIPT = """
import json, os, sys, threading, torch
from contextlib import suppress
from pathlib import Path
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler
from torchmetrics.classification import MulticlassAccuracy
from lineside.bus import Bus
from lineside.runners import CheckpointUnwritable, JobRefused, Trainer
from lineside.schemas import Event, RunStart, TrainBatchEnd, TrainEpochEnd

def names_of_threads():
    for file in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it has ended meanwhile
            yield file.read_text()

folder = Path(sys.argv[1])
rank = int(os.environ["RANK"])
inputs = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
data = TensorDataset(inputs, (inputs.sum(1) > 0).long())
held = TensorDataset(inputs[:16], data.tensors[1][:16])

def noisy(model, inputs):
    return inputs + torch.randn_like(inputs) if model.training else inputs  # other draws in each process

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.head(noisy(self, inputs))

def by_parts(model, batch):
    return nn.functional.cross_entropy(model.head(noisy(model, batch[0])), batch[1])

def ask_for_it(trainer):
    # At an epoch's end: of all processes for a checkpoint, of the second alone for an evaluation.
    refused, found, handle, handed_over = [], [], [], threading.Event()
    trainer.hook(RunStart)(lambda event, trainer: handed_over.wait())
    @trainer.hook(TrainEpochEnd)
    def ask(event, trainer):
        try:
            handle[0].checkpoint().result()
        except JobRefused as error:
            refused.append(str(error))
        if rank == 1:
            other = {"accuracy": MulticlassAccuracy(2, average="micro")}
            for metrics in (None, other):
                scores = handle[0].evaluate(DataLoader(held, 4), metrics=metrics).result()
                found.append([scores.metrics["accuracy"], scores.losses["loss"]])
            found.append(alone(trainer.model))
    handle.append(trainer.start())
    handed_over.set()
    return handle[0].result(), refused, found

def ask_outside(trainer, wanted):
    # Have a thread ask for checkpoints while the process stands in a hook, which does not wait for them.
    asking, asked, handle, saved = threading.Event(), threading.Event(), [], []
    trainer.hook(RunStart)(lambda event, trainer: handed_over.wait())
    handed_over = threading.Event()
    @trainer.hook(TrainBatchEnd)
    def stand(event, trainer):
        if [rank, event.epoch, event.batch] in wanted["at"]:
            asking.set()
            asked.wait()
    def ask():
        asking.wait()
        paths = [None, folder / f"asked-{rank}.pt", folder / "train.py" / "below-a-file.pt", folder]
        every = [handle[0].checkpoint(path) for path in paths]
        asked.set()
        for one in every:
            try:
                saved.append(str(one.result()))
            except (CheckpointUnwritable, JobRefused) as error:
                saved.append(str(error))
    thread = threading.Thread(target=ask)
    if any(place[0] == rank for place in wanted["at"]):
        thread.start()
    handle.append(trainer.start())
    handed_over.set()
    result = handle[0].result()
    if thread.ident:
        thread.join()
    return result, [], saved

def alone(model):
    was_training = model.training
    with torch.no_grad():
        outputs = model.eval()(held[:][0])
    model.train(was_training)
    right = (outputs.argmax(1) == held[:][1]).float().mean()
    return [float(right), float(nn.functional.cross_entropy(outputs, held[:][1]))]

def train(directory, stop=None, poison=None, parts=False, seed=0, ask=False, save_at=None, **settings):
    torch.manual_seed(seed + rank)  # other weights in each process, until DDP makes them the same
    model = Net()
    ce = nn.CrossEntropyLoss()
    def loss(outputs, targets):
        trained = [rank, *([trainer.progress.epoch, trainer.progress.batch] if model.training else [])]
        return ce(outputs, targets) * (float("nan") if trained == poison else 1.0)
    objective = {"step": by_parts, "metrics": None} if parts else {"loss": loss}
    sampler = DistributedSampler(data, num_replicas=2, rank=rank, seed=3)
    val = DataLoader(held, 4, sampler=DistributedSampler(held, num_replicas=2, rank=rank, shuffle=False))
    with Bus() as bus:
        events = []
        bus.subscribe(events.append, Event)
        trainer = Trainer(model, DataLoader(data, 4, sampler=sampler), val=val, bus=bus, device="cpu",
                          optimizer=lambda p: torch.optim.SGD(p, lr=0.1), directory=folder / directory,
                          **{"metrics": {"accuracy": MulticlassAccuracy(2, average="micro")}, **objective, **settings})
        @trainer.hook(TrainBatchEnd)
        def stop_there(event, trainer):
            if [rank, event.epoch, event.batch] == stop:
                trainer.stop("rank 1 has seen enough")
        if save_at:
            result, refused, found = ask_outside(trainer, save_at)
        else:
            result, refused, found = ask_for_it(trainer) if ask else (trainer.run(), [], [])
        bus.drain()
    return {
        "names": [event.type for event in events if not getattr(event, "aside", False)],
        "refused": refused,
        "found": found,
        "ranks": sorted({event.rank for event in events}),
        "threads": sum("gloo" in name for name in names_of_threads()),
        "result": json.loads(result.model_dump_json()),
        "weights": [value.tolist() for value in model.state_dict().values()],
    }

reports = [train(**settings) for settings in json.loads(sys.argv[2])]
(folder / f"reports-{rank}.json").write_text(json.dumps(reports))
"""

Report = dict[str, Any]


def train_in_two_processes(folder: Path, *runs: dict[str, Any]) -> list[tuple[Report, Report]]:
    """Do `runs` one after the other in two processes; return what both say of each."""
    script = folder / "train.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, str(script), str(folder), json.dumps(runs)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert process.returncode == 0, process.stderr
    first, second = (json.loads((folder / f"reports-{rank}.json").read_text()) for rank in (0, 1))
    return list(zip(first, second, strict=True))


@pytest.mark.slow
def test_two_processes_train_one_model_stop_at_the_same_step_and_resume_exactly(tmp_path: Path) -> None:
    whole, stopped, resumed, accumulated = train_in_two_processes(
        tmp_path,
        {"directory": "whole", "epochs": 2},
        {"directory": "parts", "epochs": 2, "stop": [1, 0, 0], "save_every_steps": 1},
        {"directory": "parts", "epochs": 2, "resume": str(tmp_path / "parts"), "seed": 7, "save_every_steps": 1},
        {"directory": "windows", "epochs": 1, "accumulate": 2},
    )

    epoch = ["TrainEpochStart", *T, *T, *T, "TrainEpochEnd", *V, "ModelSave", "FitEpochEnd"]
    assert whole[0]["names"] == [*OPENING, *epoch, *epoch, *V, "FitEpochEnd", *CLOSING]
    assert whole[1]["names"] == [name for name in whole[0]["names"] if name != "ModelSave"]
    assert (whole[0]["ranks"], whole[1]["ranks"]) == ([0], [1])
    assert whole[0]["result"]["run"] == whole[1]["result"]["run"]
    assert whole[0]["result"]["metrics"] == whole[1]["result"]["metrics"]
    assert whole[0]["weights"] == whole[1]["weights"]

    for report in stopped:
        assert (report["result"]["outcome"], report["result"]["step"]) == ("stopped", 2)
        assert report["result"]["reason"] == "rank 1 has seen enough"
    assert [report["result"]["attempt"] for report in resumed] == [2, 2]
    assert [report["weights"] for report in resumed] == [report["weights"] for report in whole]

    windows = ["TrainEpochStart", *A, *T, *T, "TrainEpochEnd", *V, "ModelSave", "FitEpochEnd"]
    assert accumulated[0]["names"] == [*OPENING, *windows, *V, "FitEpochEnd", *CLOSING]
    assert accumulated[0]["weights"] == accumulated[1]["weights"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_stops_all_of_them_without_saving(tmp_path: Path) -> None:
    ((first, second),) = train_in_two_processes(
        tmp_path, {"directory": "bad", "epochs": 2, "on_nonfinite": "stop", "poison": [1, 0, 2]}
    )
    for report in (first, second):
        assert (report["result"]["outcome"], report["result"]["last"]) == ("stopped", None)
        assert report["result"]["reason"] == "the loss of batch 2 in epoch 0 is not finite"


@pytest.mark.slow
def test_a_step_may_call_the_parts_of_the_model_and_the_gradients_are_those_of_all_processes(tmp_path: Path) -> None:
    whole, parts = train_in_two_processes(
        tmp_path, {"directory": "whole", "epochs": 1}, {"directory": "parts", "epochs": 1, "parts": True}
    )
    assert parts[0]["weights"] == parts[1]["weights"] == whole[0]["weights"]


@pytest.mark.slow
def test_the_threads_of_a_group_end_with_its_run(tmp_path: Path) -> None:
    first, second = train_in_two_processes(
        tmp_path, {"directory": "first", "epochs": 1}, {"directory": "second", "epochs": 1}
    )
    assert [report["threads"] for report in second] == [report["threads"] for report in first]


@pytest.mark.slow
def test_one_process_of_several_evaluates_alone_but_saves_nothing_in_a_hook(
    tmp_path: Path,
) -> None:
    alone, asked = train_in_two_processes(
        tmp_path, {"directory": "alone", "epochs": 1}, {"directory": "asked", "epochs": 1, "ask": True}
    )
    for report in asked:
        run = report["result"]["run"]
        (refusal,) = report["refused"]
        assert f"run {run!r} cannot do run.checkpoint(): it has 2 processes, which save together" in refusal
        assert "save_every_steps=..." in refusal
        assert report["result"]["outcome"] == "completed"
    assert asked[0]["found"] == []
    own, others, expected = asked[1]["found"]
    assert own == others == pytest.approx(expected)
    assert [report["names"] for report in asked] == [report["names"] for report in alone]
    assert [report["weights"] for report in asked] == [report["weights"] for report in alone]


@pytest.mark.slow
@pytest.mark.parametrize("at", [[[1, 0, 0]], [[0, 0, 0], [1, 0, 1]], [[1, 0, 2]]])
def test_a_checkpoint_that_one_process_is_asked_for_is_saved_by_all_and_can_be_resumed(
    tmp_path: Path, at: list[list[int]]
) -> None:
    askers = [place[0] for place in at]
    whole, asked, *resumed = train_in_two_processes(
        tmp_path,
        {"directory": "whole", "epochs": 2},
        {"directory": "asked", "epochs": 2, "save_at": {"at": at}},
        *(
            {"directory": f"later-{rank}", "epochs": 2, "seed": 7, "resume": str(tmp_path / f"asked-{rank}.pt")}
            for rank in askers
        ),
    )
    for rank in (0, 1):
        report = asked[rank]
        assert report["weights"] == whole[rank]["weights"]
        if rank not in askers:
            assert report["found"] == []
            continue
        last, other, failed, refused = report["found"]
        assert (last, other) == (str(tmp_path / "asked" / "last.pt"), str(tmp_path / f"asked-{rank}.pt"))
        assert "below-a-file.pt could not be written" in failed
        assert f"{tmp_path} is a folder" in refused
        assert report["names"].count("ModelSave") == whole[rank]["names"].count("ModelSave") + 2
    for attempt, reports in enumerate(resumed, 2):
        assert [report["weights"] for report in reports] == [report["weights"] for report in whole]
        assert [report["result"]["attempt"] for report in reports] == [attempt, attempt]
        assert reports[0]["names"].count("TrainBatchEnd") < whole[0]["names"].count("TrainBatchEnd")


@pytest.mark.slow
def test_without_a_folder_a_checkpoint_of_several_processes_goes_where_who_asks_says(tmp_path: Path) -> None:
    ((first, second),) = train_in_two_processes(
        tmp_path, {"directory": "none", "epochs": 1, "save": False, "save_at": {"at": [[1, 0, 0]]}}
    )
    refused, saved, *_ = second["found"]
    assert "it has save=False and so no folder; say where: checkpoint(path=...)" in refused
    assert Path(saved).is_file()
    assert not (tmp_path / "none").exists()
    assert first["found"] == []
