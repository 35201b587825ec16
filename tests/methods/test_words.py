"""What the `words` of every method have in common, whoever wrote them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from vidplat.domain import OperatingPoint
from vidplat.methods.kinds import PlannedRun, Task
from vidplat.methods.language import asked, parse, text
from vidplat.methods.pass_size import BlockSize
from vidplat.methods.table import KINDS

ROOT = Path(__file__).parents[2]
FILES = sorted({Path(str(sys.modules[type(kind).__module__].__file__)) for kind in KINDS.values()})
every_file = pytest.mark.parametrize("words", FILES, ids=lambda path: path.parent.name)
every_kind = pytest.mark.parametrize("name", KINDS)


def test_every_words_file_has_a_line_in_the_table() -> None:
    assert sorted((ROOT / "src/vidplat/methods").glob("*/*words.py")) == FILES


@every_file
def test_it_ends_in_a_card_of_source_law_cost_and_measured_price(words: Path) -> None:
    card = words.read_text("utf-8").splitlines()[-4:]
    assert [line.partition(":")[0] for line in card] == ["# source", "# law", "# cost", "# price"]
    assert all(line.partition(":")[2].strip() for line in card)


@every_file
def test_its_price_names_a_dated_result_that_is_there(words: Path) -> None:
    price = words.read_text("utf-8").splitlines()[-1]
    told = re.search(r"benchmarks/results/\S+-\d{4}-\d\d-\d\d\.txt$", price)
    assert told is not None
    assert (ROOT / told[0]).is_file()


@every_kind
def test_its_name_alone_is_its_canonical_text(name: str) -> None:
    kind = KINDS[name]
    assert kind.name == name == text(parse(name))
    assert kind.first in kind.parameters
    assert parse(name) == (kind.chosen(),)


@every_kind
def test_it_leaves_at_most_the_whole_of_a_run_and_at_least_something(name: str) -> None:
    chosen = KINDS[name].chosen()
    run = PlannedRun(24, 9, 64, 6, BlockSize(192, 768, 32), kept=0.4, passes=range(24))
    share = chosen.kind.share(chosen.values, run)
    if share is not None:
        assert 0 < share.linear <= 1 and 0 < share.attention <= 1
    assert 1 <= chosen.kind.kept(chosen.values, 9) <= 9


@every_kind
def test_what_a_survey_tries_is_written_canonically_and_suits_the_video(name: str) -> None:
    task = Task(9, 24)
    for candidate in KINDS[name].candidates(24, 9):
        points = candidate.settings or [candidate.point(x) for x in (0.01, 0.5, 0.99)]
        for point in points:
            assert isinstance(point, OperatingPoint)
            chosen = asked(point.method).chosen
            assert KINDS[name] in [one.kind for one in chosen]
            assert text(chosen) == point.method
            assert not any(one.kind.unsuited(one.values, task) for one in chosen)


@every_kind
def test_what_a_plan_may_choose_is_accepted_and_rises(name: str) -> None:
    kind = KINDS[name]
    options = list(kind.options(kind.chosen().values, 21))
    assert bool(options) == bool(kind.left_to_plan)
    assert options == sorted(options)
    for value in options:
        assert parse(kind.chosen({kind.left_to_plan: value}).text)
