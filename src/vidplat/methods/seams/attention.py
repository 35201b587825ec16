"""The attention seam: a processor per self-attention, in which methods see q, k and v.

A processor makes q, k and v as the stock one does, bit for bit, and hands them to a chain of
`Attend` functions; each may change the call, pass it on, or answer itself. The end of the chain is
the stock dense attention. Installing on a module that already has our processor lengthens its
chain, so methods compose; the last one out puts the stock processor back. Which processor fits a
module is for the family's layout to say.

Legend: B batch, Q query tokens, K key tokens, h heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor

Rotate = Callable[[Tensor, Any], Tensor]
#: q, k, v rotated; mask; -> (B, Q, h, D)
Dense = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class AttentionCall:
    """One self-attention: q (B, Q, h, D), k and v (B, K, h, D), normalised and not yet rotated.

    `rotary` are the position tables of the rows given, `rotate(x, rotary)` turns x by them; None
    when the family has no rotary positions or they have been applied (`rotated`). In joint
    attention `text` counts the text tokens, at the start of the sequence when `text_first`, else at
    its end; they are part of q, k and v, and never rotated.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    rotary: Any
    rotate: Rotate
    dense: Dense
    rows: Tensor | None = None  # video token rows of the queries, sorted; None: all, in order
    mask: Tensor | None = None  # broadcastable to (B, h, Q, K); True: may attend
    text: int = 0
    text_first: bool = False

    def rotated(self) -> AttentionCall:
        """The same call with positions applied to q and k."""
        if self.rotary is None:
            return self
        return replace(
            self,
            query=self.rotate(self.query, self.rotary),
            key=self.rotate(self.key, self.rotary),
            rotary=None,
        )

    def over(self, key: Tensor, value: Tensor) -> AttentionCall:
        """The same queries over other keys, (B, K, h, D) and rotated, text at the same end: for
        methods that keep the keys of video tokens that do not run. Stock masks hide padding text
        only, so a video column is always open."""
        mask = self.mask
        if mask is not None and mask.shape[-1] != key.shape[1]:
            columns = mask.shape[-1]
            text = mask[..., : self.text] if self.text_first else mask[..., columns - self.text :]
            open_ = 1 if mask.dtype == torch.bool else 0
            video = mask.new_full((*mask.shape[:-1], key.shape[1] - self.text), open_)
            mask = torch.cat([text, video] if self.text_first else [video, text], dim=-1)
        return replace(self.rotated(), key=key, value=value, mask=mask)


Attend = Callable[[AttentionCall], Tensor]  # -> (B, Q, h, D)
Link = Callable[[AttentionCall, Attend], Tensor]  # may call the rest of the chain, its second


def dense(call: AttentionCall) -> Tensor:
    """Every query attends to every key: the end of every chain."""
    call = call.rotated()
    return call.dense(call.query, call.key, call.value, call.mask)


class SeamProcessor:
    """Base of the families' processors. Subclasses make the `AttentionCall` and call `attend`."""

    # diffusers sets both when a user asks for a backend or for context parallelism
    _attention_backend = None
    _parallel_config = None

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.links: list[Link] = []

    def dense(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """The stock attention of most families, as diffusers dispatches it: the chain's end."""
        attended: Tensor = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=0.0,
            is_causal=False,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        return attended

    def attend(self, call: AttentionCall, link: int = 0) -> Tensor:
        """What the chain answers from this link on."""
        if link == len(self.links):
            return dense(call)
        return self.links[link](call, lambda changed: self.attend(changed, link + 1))


@contextmanager
def linked(
    attentions: Sequence[Any],
    make: Callable[[int], SeamProcessor],
    link: Link,
    *,
    first: bool = False,
) -> Iterator[None]:
    """Within this context `link` ends every module's chain, or begins it with `first`."""
    stock: list[tuple[Any, Any]] = []
    for layer, module in enumerate(attentions):
        if not isinstance(module.processor, SeamProcessor):
            ours = make(layer)
            ours._attention_backend = getattr(module.processor, "_attention_backend", None)
            ours._parallel_config = getattr(module.processor, "_parallel_config", None)
            stock.append((module, module.processor))
            module.set_processor(ours)
        module.processor.links.insert(0 if first else len(module.processor.links), link)
    try:
        yield
    finally:
        for module in attentions:
            module.processor.links.remove(link)
        for module, processor in stock:
            if not module.processor.links:
                module.set_processor(processor)


def masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Plain scaled-dot-product attention of (B, tokens, h, D)."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
