"""Words of the methods' language that have gone, each with a sentence on what took its place.

A text that names one is refused at the door with that sentence. What was stored before stays: rows
are shown as they were made, open jobs are planned anew (`scheduler.profile.planned_method`), points
of a profile are passed over. Figures: docs/decisions/0018-what-left.md.
"""

from __future__ import annotations

import re

_RIVAL = "it is compared with in benchmarks alone; use easycache, early or hsa"
_GROUPS = "tokens are grouped once, by the branch with the text, which none of the others beat"
_PAPER = "latents are merged with their noise pooled; form=paper merges as published"
_AT_ONCE = "frames that are left out are filled in by one optical flow, as d=1 did"
_ROWS = "entropy is that of exact rows joined by a moving average, as published"
_LEFT_OUT = "telling the model of frames that are left out changed nothing; leave it out"
_FEWER = "it was a rival alone; use selector=uniform, motion or entropy"
#: Methods, options of those that are left, and words that such an option took.
_GONE = {
    "keyframes": "plain steps of the same cost are 18 dB nearer to the full video; use steps:N, or "
    "eco:K to leave frames out in mid-run",
    "magcache": _RIVAL,
    "fbcache": _RIVAL,
    "dbcache": _RIVAL,
    "lipar:preview": "lipar is for rows with an input video; use hsa for videos from text",
    "hsa:score": _GROUPS,
    "hsa:selector": _GROUPS,
    "hsa:smooth": "it was up to 0.4 dB better at half of the work and 0.8 worse at a quarter",
    "hsa:form": "both forms ended at the same latents; leave it out",
    "eco:d": _AT_ONCE,
    "eco:entropy": _ROWS,
    "eco:join": _ROWS,
    "eco:rope": "frames that are left keep their own times, which was nearer to the full video",
    "eco:solver": "the solver begins anew where frames are left out, as published",
    "eco:context": _LEFT_OUT,
    "eco:refresh": _LEFT_OUT,
    "eco:max_gap": "gaps are even by default; ask for more frames, as in eco:K",
    "eco:timeline": "frames are shown at their own times",
    "eco:selector=random": _FEWER,
    "eco:selector=anti-entropy": _FEWER,
    "vgdfr:alike": _PAPER,
    "vgdfr:merge": _PAPER,
    "vgdfr:noise": _PAPER,
    "vgdfr:anchor": _PAPER,
    "vgdfr:unmerged": _PAPER,
    "vgdfr:rope": _PAPER,
    "vgdfr:d": _AT_ONCE,
    "vgdfr:late": "a run that is late takes fewer steps, which loses less; leave it out",
}


def gone(method: str) -> str:
    """The sentence for the first method of a text that has gone; "" when there is none."""
    names = re.findall(r"[a-z][a-z0-9_-]*", method.lower())
    return next((_sentence(name) for name in names if name in _GONE), "")


def gone_option(method: str, option: str, value: str = "") -> str:
    """The sentence for an option of a method that is left, or for a word it took; "" for none."""
    told = f"{method}:{option}={value}" if value else f"{method}:{option}"
    return _sentence(told) if told in _GONE else ""


def _sentence(word: str) -> str:
    return f"{word} is gone: {_GONE[word]}"
