"""Words of the methods' language that have gone, each with a sentence on what took its place.

A text that names one is refused at the door with that sentence. What was stored before stays: rows
are shown as they were made, open jobs are planned anew (`scheduler.profile.planned_method`), points
of a profile are passed over. Figures: docs/decisions/0018-what-left.md.
"""

from __future__ import annotations

import re

GONE = {
    "keyframes": (
        "keyframes is gone: plain steps of the same cost are 18 dB nearer to the full video; use "
        "steps:N, or eco:K to leave frames out in mid-run"
    ),
}


def gone(method: str) -> str:
    """The sentence for the first word of a method's text that has gone; "" when there is none."""
    words = re.findall(r"[a-z][a-z0-9_-]*", method.lower())
    return next((GONE[word] for word in words if word in GONE), "")
