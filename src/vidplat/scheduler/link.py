"""How fast a link is, from the transfers it carried; one lucky transfer promises nothing.

The estimate is the smaller of a moving average and the 20th percentile of the last 20 rates
(EcoVideo's knobs are the paper's, arXiv 2606.30557; this rule is our choice). State in, state out:
`after` gives a new `Link`, the clock and the transfers are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

EWMA_WEIGHT = 0.3
WINDOW = 20
PERCENTILE = 20


@dataclass(frozen=True)
class Link:
    """One direction between two pools."""

    average: float | None = None  # bit/s, m = 0.3 new + 0.7 m; None: nothing was carried yet
    recent: tuple[float, ...] = ()  # bit/s of the last 20 transfers, oldest first

    @property
    def bits_per_s(self) -> float | None:
        """What may be counted on; None before the first transfer."""
        if self.average is None:
            return None
        return min(self.average, float(np.percentile(self.recent, PERCENTILE)))


def after(link: Link, sent_bytes: int, took_s: float) -> Link:
    """The link once it carried `sent_bytes` in `took_s`. No bytes, or no time, tell nothing."""
    if sent_bytes <= 0 or took_s <= 0:
        return link
    rate = 8 * sent_bytes / took_s
    average = rate
    if link.average is not None:
        average = EWMA_WEIGHT * rate + (1 - EWMA_WEIGHT) * link.average
    return replace(link, average=average, recent=(*link.recent, rate)[-WINDOW:])
