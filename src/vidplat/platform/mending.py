"""Catalog against store, for all batches: what `vidplat doctor` looks into and puts right.

Looking: every video that the catalog calls done is in its store, of its size; `verify` reads each
and compares its SHA-256. Repairing, batch by batch while nobody works on it:

    1. done, but gone or cut short in the store    made again by the next `resume`
    2. in the store, but not done in the catalog   done (`run/reconcile.py`)
    3. under way, but nobody is                    queued
    4. left by attempts that came to nothing       removed; where jobs are open, and of input
                                                   videos, once it is old

A batch folder that the catalog does not know is left alone: another catalog may.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vidplat import times
from vidplat.domain import Batch, JobState
from vidplat.errors import StoreError
from vidplat.platform.run.owners import take, this_owner
from vidplat.platform.run.reconcile import (
    ORPHAN_AGE_S,
    Repairs,
    lost_videos,
    put_back_lost,
    reconcile,
)
from vidplat.storage.artifacts import sweep
from vidplat.storage.catalog import Catalog
from vidplat.storage.catalog_words import BatchState
from vidplat.storage.inputs import INPUTS
from vidplat.storage.places import open_store
from vidplat.storage.stores import Store

_HOLD_S = 600.0  # a batch is looked into for longer only where nobody else would begin


@dataclass
class Mending:
    """What was looked at, found and put right."""

    batches: int = 0
    videos: int = 0  # that the catalog calls done
    lost: Counter[str] = field(default_factory=Counter)  # videos of a batch that are not there
    repairs: Repairs = field(default_factory=Repairs)
    busy: list[str] = field(default_factory=list)  # batches that somebody works on
    unreached: list[str] = field(default_factory=list)  # why a batch's store could not be asked


def look_into(catalog: Catalog, *, verify: bool = False, repair: bool = False) -> Mending:
    """All batches of a catalog. Raises CatalogError."""
    found, prefixes = Mending(), set()
    for batch in catalog.batches():
        found.batches += 1
        try:
            store = open_store(batch.output_prefix)
            if repair and batch.output_prefix not in prefixes:
                prefixes.add(batch.output_prefix)
                found.repairs += Repairs(swept=store.sweep_unfinished(INPUTS, ORPHAN_AGE_S))
            if repair:
                _mend(catalog, store, batch, found, verify)
            else:
                lost = lost_videos(catalog, store, batch.id, verify=verify)
                found.lost[batch.id] += len(lost)
        except StoreError as error:
            found.unreached.append(f"{batch.id}: {error}")
        found.videos += catalog.counts(batch.id)[JobState.DONE]
    found.lost = +found.lost  # those that miss some
    return found


def _mend(catalog: Catalog, store: Store, batch: Batch, found: Mending, verify: bool) -> None:
    owner, now = this_owner(), times.now()
    if not take(catalog, batch.id, owner, lease_s=_HOLD_S):
        found.busy.append(batch.id)
        return
    try:
        found.lost[batch.id] += put_back_lost(catalog, store, batch.id, now=now, verify=verify)
        repairs = reconcile(catalog, store, batch.id, now=now)
        counts = catalog.counts(batch.id)
        has_open_jobs = counts[JobState.QUEUED] + counts[JobState.RUNNING] > 0
        swept = sweep(store, batch.id, ORPHAN_AGE_S if has_open_jobs else 0.0)
        found.repairs += Repairs(repairs.done, repairs.released, repairs.swept + swept)
        if catalog.batch_state(batch.id) is BatchState.OPEN and not has_open_jobs:
            catalog.set_batch_state(batch.id, BatchState.DONE, at=now)
    finally:
        catalog.leave_batch(batch.id, owner)
