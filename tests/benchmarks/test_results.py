"""Kept results are those that somebody cites, and what is cited is kept."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CITED = re.compile(r"[a-z-]+-2core-epyc-\d{4}-\d\d-\d\d\.txt")
CITING = ("README.md", "benchmarks/README.md", "docs/**/*.md", "src/**/*.md", "src/**/*words.py")


def test_every_result_is_cited_by_name_and_every_name_is_a_result() -> None:
    files = chain.from_iterable(ROOT.glob(pattern) for pattern in CITING)
    cited = {name for file in files for name in CITED.findall(file.read_text())}

    assert cited == {path.name for path in RESULTS.glob("*.txt")}
