"""What running a module without training it asks for: the mode, the device, the precision. All of it is given back."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import nn

from .errors import DeviceUnavailable, InvalidModel


def check_model(model: object) -> nn.Module:
    """Return `model` if it is a module.

    Raises:
        InvalidModel: it is not.
    """
    if not isinstance(model, nn.Module):
        hint = "call it first" if isinstance(model, type) else "wrap it in a module's forward()"
        raise InvalidModel(
            f"the model is {model!r:.80} of type {type(model).__qualname__}", f"expected a torch.nn.Module; {hint}"
        )
    return model


def devices_of(model: nn.Module) -> set[torch.device]:
    """Return the devices that parameters and buffers of `model` are on."""
    # `parameters` and `buffers` take twice as long, and whoever waits for a first result waits for this too.
    modules = model.modules()
    held = (of for module in modules for of in (module._parameters, module._buffers))  # pyright: ignore[reportPrivateUsage]
    return {tensor.device for tensors in held for tensor in tensors.values() if tensor is not None}


def resolve_device(name: str) -> torch.device:
    """Return the device that `name` means, with its number; `auto` is the best there is.

    Raises:
        DeviceUnavailable: this machine, or this build of torch, does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # an assertion where torch was built without it
        raise DeviceUnavailable(name, error) from error


def precision(device: torch.device, amp: Literal["off", "bf16", "fp16"]) -> AbstractContextManager[object]:
    """Return the context in which `device` computes in that precision where it may; off: as it does without us."""
    if amp == "off":  # entering a disabled autocast costs a small step several percent
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.float16 if amp == "fp16" else torch.bfloat16)


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Put `model` into eval mode for the length of the block; every submodule gets back the mode it had."""
    with_mode = (module for module in model.modules() if hasattr(module, "training"))  # a frozen one has none
    modes = [(module, module.training) for module in with_mode]
    if any(training for _, training in modes):  # to look takes a third as long as to set
        _eval(model)
    try:
        yield
    finally:
        for module, training in modes:
            if module.training != training:
                module.training = training


def _eval(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError:  # something in it is a graph of torch.export, which computes as it was exported
        for module in model.modules():
            module.training = False


def place(model: nn.Module, device: torch.device) -> None:
    """Have `model` on `device`, from now on.

    Raises:
        InvalidModel: it has no values, on torch's meta device.
    """
    found = devices_of(model)
    if found != {device}:  # to look takes a fifth as long as to move what is there
        _refuse_empty(found)
        model.to(device)


@contextmanager
def placed(model: nn.Module, device: torch.device) -> Generator[None]:
    """Move `model` to `device` for the length of the block, and back.

    Raises:
        InvalidModel: it is spread over several devices, and could not be put back; or it has no values.
    """
    origins = devices_of(model)
    _refuse_empty(origins)
    if origins <= {device}:
        yield
        return
    if len(origins) > 1:
        names = ", ".join(sorted(map(str, origins)))
        raise InvalidModel(
            f"the model is spread over {names}", f"move all of it to one device first: model.to({str(device)!r})"
        )
    model.to(device)
    try:
        yield
    finally:
        model.to(origins.pop())


def _refuse_empty(devices: set[torch.device]) -> None:
    if any(device.type == "meta" for device in devices):
        raise InvalidModel(
            "the model, or a part of it, is on torch's meta device and has no values",
            "give it values first: model.to_empty(device='cpu'), then model.load_state_dict(...)",
        )
