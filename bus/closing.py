"""`Closing`: what is left with ``with`` or with ``async with``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """A context manager of both kinds, whose block ends with `close` or `aclose`."""

    @abstractmethod
    def close(self) -> object:
        """Let go of everything. Closing twice is fine."""

    async def aclose(self) -> object:
        """Like `close`, without holding up the loop."""
        return self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
