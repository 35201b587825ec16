"""Which words of a prompt a model has never read. No torch.

A small model may have a closed vocabulary: its tokenizer is a list of whole words, and all others
become one sign that says nothing. What it makes of a prompt of such words is chance. Tokenizers of
pieces of words, as pretrained models have, know every text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from vidplat.errors import ModelError
from vidplat.workers.models.catalogue import locate

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LARGEST_BYTES = 1 << 20  # a list of whole words is short; others are not worth reading


@dataclass(frozen=True)
class Vocabulary:
    """The words of a model that knows no others."""

    size: int
    _tokenizer: Tokenizer
    _unknown: str

    def strange(self, prompt: str) -> Sequence[str]:
        """The words that it does not know, if they are more than half of the prompt's; else ()."""
        read = self._tokenizer.encode(prompt, add_special_tokens=False)
        spoken = [
            (prompt[a:b], token) for (a, b), token in zip(read.offsets, read.tokens, strict=True)
        ]
        words = {word.lower(): token for word, token in spoken if word.isalnum()}
        unknown = [word for word, token in words.items() if token == self._unknown]
        return unknown if 2 * len(unknown) > len(words) else ()


@lru_cache(maxsize=8)
def closed_vocabulary(model_id: str) -> Vocabulary | None:
    """None of a model that reads every word, and of one that cannot be used."""
    try:
        path = locate(model_id).parts["tokenizer"] / "tokenizer.json"
        if not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
            return None
        text = path.read_text("utf-8")
        model = json.loads(text)["model"]
        if model["type"] != "WordLevel" or model["unk_token"] not in model["vocab"]:
            return None
    except (ModelError, OSError, ValueError, KeyError, TypeError):
        return None  # what is wrong with it is for others to tell
    from tokenizers import Tokenizer

    return Vocabulary(len(model["vocab"]), Tokenizer.from_str(text), model["unk_token"])
