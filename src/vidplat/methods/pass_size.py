"""FLOPs of one transformer block, counted once for plans, methods, surveys and benchmarks.

Per block, a multiply-add counted as 2, with n running tokens that attend to k keys, m text tokens,
width d and feed-forward width e:

    linear      8 n d^2   projections of self-attention
                4 n d^2   query and output of cross-attention
                4 m d^2   its keys and values
                4 n m d   its products
                4 n d e   feed forward
    attention   4 n k d   the two products of self-attention

Norms, modulation and embeddings are below a hundredth of these and left out. Whole numbers in,
whole numbers out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockSize:
    """What decides the work of a block beside its tokens."""

    width: int
    ffn_width: int
    text_tokens: int

    def flops(self, tokens: int, keys: int | None = None) -> tuple[int, int]:
        """(linear, attention) FLOPs of `tokens` that attend to `keys` keys; None: to each other."""
        n, m, d, e = tokens, self.text_tokens, self.width, self.ffn_width
        linear = 12 * n * d * d + 4 * m * d * d + 4 * n * m * d + 4 * n * d * e
        return linear, 4 * n * (n if keys is None else keys) * d

    def shares(self, tokens: int, of: int) -> tuple[float, float]:
        """(linear, attention) work of a pass over `tokens` relative to one over `of` tokens."""
        some, whole = self.flops(tokens), self.flops(of)
        return some[0] / whole[0], some[1] / whole[1]

    def share(self, tokens: int, of: int) -> float:
        """The same of both together."""
        return sum(self.flops(tokens)) / sum(self.flops(of))

    def attention_share(self, tokens: int) -> float:
        """Share of self-attention's products in a block's FLOPs when all attend to all."""
        linear, attention = self.flops(tokens)
        return attention / (attention + linear)
