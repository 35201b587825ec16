"""One warning where prompts are made of words that their model has never read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vidplat.domain import Prompt
from vidplat.errors import printable
from vidplat.storage.prompt_cells import RowProblem

if TYPE_CHECKING:
    from vidplat.workers.models.vocabulary import Vocabulary

LOOKED_AT = 1_000  # prompts; what is true of them is of the others, and a million take seconds

Page = Sequence[Prompt | RowProblem]


def looked_over(
    pages: Iterable[Page],
    model_id: str,
    vocabulary_of: Callable[[str], Vocabulary | None],
    warn: Callable[[str], None],
) -> Iterator[Page]:
    """The pages as they are; `model_id` makes the rows that name no model."""
    looked_at, strange = 0, list[tuple[str, int, Sequence[str]]]()
    for page in pages:
        for item in page[: LOOKED_AT - looked_at]:
            looked_at += 1
            if not isinstance(item, Prompt):
                continue
            model = item.model or model_id
            vocabulary = vocabulary_of(model)
            if vocabulary is not None and (words := vocabulary.strange(item.text)):
                strange.append((f"{model} ({vocabulary.size} words)", item.row, words))
        yield page
    if strange:
        model, row, words = strange[0]
        few = ", ".join(words[:5]) + (", ..." if len(words) > 5 else "")
        first = "" if looked_at < LOOKED_AT else "the first "
        warn(
            f"{printable(model)} knows less than half of the words of {len(strange):,} of "
            f"{first}{looked_at:,} prompts (row {row}: not {printable(few)}): what it makes of "
            "them is chance, whatever quality is predicted"
        )
