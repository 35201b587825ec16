"""Embeddings of texts met before, by content: prompts repeat, and the negative prompt nearly always
does.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from vidplat.workers.models.family import Family


class TextCache:
    """The `limit` most recently used embeddings of one loaded model."""

    def __init__(self, family: Family, revision: str, limit: int = 256) -> None:
        self._family, self._revision, self._limit = family, revision, limit
        self._kept: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self.misses = 0  # texts that had to be encoded

    def __call__(self, text: str) -> torch.Tensor:
        """Embeddings (1, L, D) of `text`; the same tensor for the same text, so nobody may write
        into it."""
        key = sha256(f"{self._revision}\0{text}".encode("utf-8", "surrogatepass")).digest()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        self.misses += 1
        made = self._kept[key] = self._family.encode(text)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return made
