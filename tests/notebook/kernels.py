"""A real kernel, spoken to as JupyterLab does."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

VIEW = "application/vnd.jupyter.widget-view+json"
PATIENCE = 60.0
"""Seconds for a cell, of which most take a few milliseconds."""

SETUP = """
import asyncio, os, sys, threading, time
import torch
from torch import nn, optim
from lineside import Bus, FitEpochEnd, RunEnd, TrainBatchEnd, TrainEpochEnd, Trainer

torch.set_num_threads(1)
main = threading.main_thread().ident

class Batches:
    def __iter__(self):
        for number in range(50):
            time.sleep(0.001)
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(8, 4, generator=generator)
            yield x, (x.sum(1) > 0).long()
    def __len__(self):
        return 50

def make_trainer(**settings):
    model = nn.Linear(4, 2)
    settings = {"epochs": None, "max_steps": 10**9, "save": False, **settings}
    return Trainer(model, Batches(), loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(model.parameters(), lr=0.1),
                   device="cpu", **settings)

def say_when_waiting(word="waiting"):
    'Say so once this cell waits: its event loop has nothing to do, or the main thread stands in our code.'
    def stack():
        frame, files = sys._current_frames()[main], []
        innermost = frame.f_code.co_name
        while frame is not None:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        return innermost, any(part in file for file in files for part in ("/bus/", "/runners/"))
    def waits():
        innermost, within = stack()
        return innermost == "select" or (innermost in ("wait", "acquire") and within)
    def look():
        while not waits():
            threading.Event().wait(0.01)
        print(word, flush=True)
    threading.Thread(target=look, daemon=True).start()

def ours():
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("lineside"))
"""


@dataclass
class Answer:
    """What became of a cell."""

    status: str
    error: str = ""
    """Class of the error that ended it."""
    message: str = ""
    text: str = ""
    """What it printed."""
    values: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What it displayed, by MIME type."""


class Kernel:
    """A kernel and its client."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager = manager
        self._client = client

    def run(self, code: str, cell: str | None = None) -> Answer:
        """Run `code` as the cell of that id, and wait for its end."""
        return self.answer(self.start(code, cell))

    def ok(self, code: str, cell: str | None = None) -> str:
        """Run `code`, which must not fail; return what it printed."""
        answer = self.run(code, cell)
        assert answer.status == "ok", answer
        return answer.text.strip()

    def shown(self, code: str, cell: str | None = None) -> dict[str, Any]:
        """Run `code`, which must not fail; return what it displayed last, by MIME type."""
        answer = self.run(code, cell)
        assert answer.status == "ok", answer
        return answer.values[-1]

    def start(self, code: str, cell: str | None = None) -> str:
        """Begin to run `code`; return what `answer` and `wait_for` take."""
        content: dict[str, Any] = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,  # else what comes right after a cell that failed may be thrown away
        }
        metadata = {} if cell is None else {"cellId": cell}
        message = self._client.session.msg("execute_request", content, metadata=metadata)
        self._client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def wait_for(self, request: str, word: str) -> None:
        """Wait until the cell has printed `word`."""
        while True:
            message = self._client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == request and word in message["content"].get("text", ""):
                return

    def answer(self, request: str) -> Answer:
        """Wait for the end of the cell."""
        answer = Answer("")
        while True:
            message = self._client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    answer.text += content["text"]
                case "execute_result" | "display_data":
                    answer.values.append(content["data"])
                case "status" if content["execution_state"] == "idle":
                    break
                case _:
                    pass
        reply = self._reply(request)["content"]
        answer.status, answer.error, answer.message = reply["status"], reply.get("ename", ""), reply.get("evalue", "")
        return answer

    def outcome(self, request: str) -> str:
        """Wait for the end of the cell, whatever else was published; return its status."""
        return str(self._reply(request)["content"]["status"])

    def _reply(self, request: str) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = self._client.get_shell_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == request:
                return message

    def interrupt(self) -> None:
        """Press the stop button."""
        self._manager.interrupt_kernel()

    # ---- widgets

    def opened(self) -> str:
        """Return the id of the next display of a run that it makes."""
        while True:
            message = self._published()
            if message["msg_type"] == "comm_open" and "_esm" in message["content"]["data"]["state"]:  # not its layout
                return str(message["content"]["comm_id"])

    def until(self, comm: str, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Return the next message to the widget `comm` for which `wanted` is true."""
        while True:
            message = self._published()
            if message["msg_type"] == "comm_msg" and message["content"]["comm_id"] == comm:
                told: dict[str, Any] = message["content"]["data"].get("content", {})
                if wanted(told):
                    return told

    def ask(self, comm: str, subshell: str | None = None, **content: object) -> None:
        """Send what the page of a widget sends; to a `subshell`, as JupyterLab does, or to the one that runs cells."""
        data = {"method": "custom", "content": content}
        message = self._client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self._client.shell_channel.send(message)

    def subshell(self) -> str | None:
        """Open a subshell, a thread that does not run the cells; None: this kernel has none (ipykernel before 7)."""
        if "kernel subshells" not in self._control("kernel_info_request").get("supported_features", ()):
            return None
        return str(self._control("create_subshell_request")["subshell_id"])

    def _control(self, what: str) -> dict[str, Any]:
        message = self._client.session.msg(what, {})
        self._client.control_channel.send(message)
        while True:
            reply: dict[str, Any] = self._client.get_control_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                content: dict[str, Any] = reply["content"]
                return content

    def _published(self) -> dict[str, Any]:
        """Return the next message to all; the error of a cell that nobody interrupted is none to wait behind."""
        message: dict[str, Any] = self._client.get_iopub_msg(timeout=PATIENCE)
        error = message["content"].get("ename")
        assert error in (None, "KeyboardInterrupt"), "\n".join(message["content"]["traceback"])
        return message


@contextmanager
def kernel() -> Generator[Kernel]:
    """Start a kernel with a tiny trainer in it; it ends with the block."""
    manager = KernelManager()  # the kernel of the interpreter that this runs in
    manager.start_kernel()
    client: BlockingKernelClient = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        made = Kernel(manager, client)
        made.ok(SETUP)
        yield made
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
