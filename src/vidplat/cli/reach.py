"""How the reading verbs reach the catalog, and the batch or job that a person means.

A batch is named by its id, the start of its id, or not at all (the latest). A job is named by its
id, the start of it, or the person's own id from the prompt file. Reading never creates a catalog:
where there is no file yet, the answer is that nothing was submitted from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import typer

from vidplat.config import load_config, missing_catalog
from vidplat.errors import UsageError, printable

if TYPE_CHECKING:
    from vidplat.domain import Batch, JobRecord
    from vidplat.storage.catalog import Catalog


@contextmanager
def open_catalog(url: str | None) -> Iterator[Catalog]:
    """The catalog of this option, closed at the end. Raises UsageError without a file."""
    from vidplat.storage import open_catalog as open_at

    url = load_config({"catalog": url}).catalog
    file = missing_catalog(url)
    if file is not None:
        raise UsageError(
            f"nothing has been submitted here yet: there is no catalog at {printable(file)}\n"
            "Start with: vidplat submit PROMPTS --deadline 60s, or name another with --catalog"
        )
    with closing(open_at(url)) as catalog:
        yield catalog


def batch_named(catalog: Catalog, name: str | None) -> Batch:
    """The batch that `name` means; None means the latest."""
    if name is not None:
        return catalog.batch(name)
    latest = catalog.batches(1)
    if not latest:
        raise UsageError(
            "this catalog has no batch yet\nStart with: vidplat submit PROMPTS --deadline 60s"
        )
    return latest[0]


def job_named(catalog: Catalog, name: str, batch: str | None) -> JobRecord:
    """The one job that `name` means, in the latest batch that has it."""
    batch_id = catalog.batch(batch).id if batch is not None else None
    found = catalog.find_job(name, batch_id)
    if not found:
        where = f"batch {batch_id}" if batch_id else "any batch"
        raise UsageError(
            f"no job of {where} is called {printable(name, 80)!r}\nSee: vidplat ls BATCH"
        )
    same = {record.job.id for record in found}
    if len(same) > 1:
        some = ", ".join(f"{record.job.id[:12]} (row {record.job.row})" for record in found[:5])
        raise UsageError(
            f"{printable(name, 80)!r} may mean several jobs: {some}\nGive more of the id, or "
            "--batch"
        )
    return found[0]


def complete_batch(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Batch ids for the shell's completion, latest first; none when the catalog cannot be read."""
    with suppress(Exception), open_catalog(ctx.params.get("catalog")) as catalog:
        return [
            (batch.id, printable(batch.source, 40))
            for batch in catalog.batches(50)
            if batch.id.startswith(incomplete)
        ]
    return []
