"""Keys and values of all tokens, layer by layer, between passes in which only some of them run.

Three ways to keep them, one interface: whole, as 8-bit floats with a scale per head, or in the
CPU's memory, whence the next layer's are fetched while this one computes. All hold keys that are
already turned by their positions.

Legend: B videos, K key tokens (text included, where attention is joint), n of them given anew, h
heads, D head width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidplat.machines import free_memory_bytes

Pair = tuple[Tensor, Tensor]  # keys and values
_cuda: Any = torch.cuda  # its streams and events are untyped


class KvStore(ABC):
    """The keys and values of one branch of one transformer, each layer's in whichever form."""

    def __init__(self) -> None:
        self._held: dict[int, Any] = {}

    @abstractmethod
    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Take (B, K, h, D) of all tokens. The tensors are the store's from now on."""

    @abstractmethod
    def refreshed(self, layer: int, rows: Tensor, key: Tensor, value: Tensor) -> Pair:
        """Replace unique `rows` (n,) by (B, n, h, D) and give all K, the replaced ones exact."""

    def layers(self) -> int:
        """How many layers are held."""
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(kept.nbytes for pair in self._held.values() for kept in pair)


class WholeStore(KvStore):
    """As they come, replaced in place."""

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        self._held[layer] = (_own(key), _own(value))

    def refreshed(self, layer: int, rows: Tensor, key: Tensor, value: Tensor) -> Pair:
        keys, values = self._held[layer]
        return keys.index_copy_(1, rows, key), values.index_copy_(1, rows, value)


@dataclass
class Scaled:
    """x = values * scale: `values` (B, K, h, D) float8_e4m3fn, `scale` (B, 1, h, 1) in x's type."""

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Scaled:
        """The scale maps twice the largest value of each head to the type's largest, 448: tokens
        may grow until the next full pass, and what grows further is cut off."""
        largest = x.abs().amax(dim=(1, 3), keepdim=True)
        scale = (largest * (2 / 448)).clamp_min(torch.finfo(x.dtype).tiny)
        return cls(_to_fp8(x / scale), scale)

    def replace(self, rows: Tensor, x: Tensor) -> None:
        small = _to_fp8(x / self.scale).view(torch.uint8)  # 8-bit floats have no index_copy_
        self.values.view(torch.uint8).index_copy_(1, rows, small)

    def whole(self) -> Tensor:
        return self.values.to(self.scale.dtype) * self.scale

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scale.nbytes


def _to_fp8(x: Tensor) -> Tensor:
    return x.clamp(-448, 448).to(torch.float8_e4m3fn)


class Fp8Store(KvStore):
    """Half the memory of 16-bit types. One layer at a time is widened again."""

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        self._held[layer] = (Scaled.of(key), Scaled.of(value))

    def refreshed(self, layer: int, rows: Tensor, key: Tensor, value: Tensor) -> Pair:
        keys, values = self._held[layer]
        keys.replace(rows, key)
        values.replace(rows, value)
        return keys.whole().index_copy_(1, rows, key), values.whole().index_copy_(1, rows, value)


class OffloadStore(KvStore):
    """In pinned CPU memory. While layer l computes, l + 1 comes to the device on its own stream.

    For models on CUDA only; `make_store` gives a CPU, whose memory this is already, a `WholeStore`.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._stream = _cuda.Stream(device)
        # layer -> its copy on the device, and when it is complete
        self._coming: dict[int, tuple[Pair, Any]] = {}
        # layer -> what is to be written once it is copied
        self._leaving: dict[int, list[tuple[Tensor, Sequence[Tensor], Any]]] = {}
        self._rows: tuple[Tensor, Tensor] | None = None  # the last rows, and the same on the CPU

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        self._coming.pop(layer, None)
        self._settle(layer)
        if layer not in self._held:
            self._held[layer] = (_pinned(key), _pinned(value))
        for kept, given in zip(self._held[layer], (key, value), strict=True):
            kept.copy_(given, non_blocking=True)
        # The device's tensors are not held: their memory is given anew only to work that is queued
        # behind the copy.
        self._leaving[layer] = [(torch.empty(0, dtype=torch.long), (), self._now())]

    def refreshed(self, layer: int, rows: Tensor, key: Tensor, value: Tensor) -> Pair:
        if layer not in self._coming:
            self._fetch(layer)
        (keys, values), complete = self._coming.pop(layer)
        torch.cuda.current_stream(self._device).wait_event(complete)
        following = (layer + 1) % len(self._held)
        if following != layer:
            self._fetch(following)
        keys.index_copy_(1, rows, key)
        values.index_copy_(1, rows, value)
        small = (_pinned(key), _pinned(value))
        for kept, given in zip(small, (key, value), strict=True):
            kept.copy_(given, non_blocking=True)
        self._leaving.setdefault(layer, []).append((self._on_cpu(rows), small, self._now()))
        return keys, values

    def _fetch(self, layer: int) -> None:
        self._settle(layer)
        with torch.cuda.stream(self._stream):
            keys, values = (kept.to(self._device, non_blocking=True) for kept in self._held[layer])
            complete = _cuda.Event()
            complete.record(self._stream)
        for moved in (keys, values):
            moved.record_stream(torch.cuda.current_stream(self._device))
        self._coming[layer] = ((keys, values), complete)

    def _settle(self, layer: int) -> None:
        """Write down the rows on their way: they left a whole pass ago, so nobody waits."""
        for rows, small, complete in self._leaving.pop(layer, []):
            complete.synchronize()
            if rows.numel():
                for kept, given in zip(self._held[layer], small, strict=True):
                    kept.index_copy_(1, rows, given)

    def _on_cpu(self, rows: Tensor) -> Tensor:
        """All layers of a pass share `rows`, and asking the device waits for it: once a pass."""
        if self._rows is None or self._rows[0] is not rows:
            self._rows = (rows, rows.cpu())
        return self._rows[1]

    def _now(self) -> Any:
        event = _cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event


def make_store(kind: str, device: torch.device) -> KvStore:
    """The store for `kv=full`, `fp8` or `offload`. On a CPU, offload moves nothing and is plain."""
    if kind == "offload" and device.type == "cuda":
        return OffloadStore(device)
    return Fp8Store() if kind == "fp8" else WholeStore()


def _own(x: Tensor) -> Tensor:
    """`x`, or a copy where a larger tensor (fused projections) would be kept alive with it."""
    return x if x.untyped_storage().nbytes() == x.nbytes else x.clone()


def _pinned(like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)


def free_bytes(device: torch.device) -> int:
    """Bytes that may still be taken on a device: what torch holds unused counts as free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return free_memory_bytes()
