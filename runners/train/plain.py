"""What a checkpoint holds: tensors and plain data, so that loading it runs no code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..errors import UnsavableState

_PLAIN = (Tensor, str, bytes, bool, int, float, type(None))


def plain(value: object) -> object:
    """Return `value` as tensors on the host, numbers, strings and plain containers of them.

    Raises:
        UnsavableState: there is something else in it; the message says where.
    """
    copies = _HostCopies()
    made = _plain(value, "its state", copies.of)
    copies.wait()
    return made


def refuse_unsavable(value: object) -> None:
    """Refuse what `plain` would refuse, without copying anything.

    Raises:
        UnsavableState: there is something else in it; the message says where.
    """
    _plain(value, "its state", lambda tensor: tensor)


def _plain(value: object, where: str, copy: Callable[[Tensor], Tensor]) -> object:
    if isinstance(value, Tensor):
        return copy(value.detach())
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        made = {key: _plain(item, f"{where}[{key!r}]", copy) for key, item in mapping.items()}
        return Counter(made) if isinstance(mapping, Counter) else made  # MultiStepLR relies on a Counter's zeros
    if isinstance(value, (list, tuple)):
        sequence = cast("Sequence[object]", value)
        items = [_plain(item, f"{where}[{index}]", copy) for index, item in enumerate(sequence)]
        return tuple(items) if isinstance(sequence, tuple) else items
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.generic):
        return cast("object", value.item())  # pyright: ignore[reportUnknownMemberType]  # of any number
    raise UnsavableState(where, value)


class _HostCopies:
    """Copies of tensors on CUDA, enqueued one behind the other and waited for once, by an event."""

    def __init__(self) -> None:
        self._devices: set[torch.device] = set()

    def of(self, tensor: Tensor) -> Tensor:
        if tensor.device.type != "cuda":
            return tensor
        self._devices.add(tensor.device)
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    def wait(self) -> None:
        for device in self._devices:
            with torch.cuda.device(device):
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record()
                event.synchronize()
