"""What a run is given: its catalog and store, the configuration, who is told, how workers are had.

`assemble` puts a Site together from the configuration; tests put one together by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vidplat import times
from vidplat.config import Config
from vidplat.domain import Batch, ModelRef
from vidplat.methods.model_shape import ModelShape
from vidplat.platform.dispatch.dispatcher import Dispatcher, Seat
from vidplat.platform.interface import Listener
from vidplat.platform.run.learning import Learner
from vidplat.storage.catalog import Catalog
from vidplat.storage.stores import Store


@dataclass(frozen=True)
class Site:
    """Everything a run uses."""

    catalog: Catalog
    store: Store
    config: Config
    listener: Listener
    owner: str  # this process, see `owners`
    describe: Callable[[str], tuple[ModelRef, ModelShape]]  # of a model id; raises ModelError
    seats: Callable[[Batch, Learner], Sequence[Seat]]  # the workers to be started
    open_dispatcher: Callable[[Sequence[Seat]], Dispatcher]
    clock: Callable[[], float] = times.now
    crash_point: Callable[[str], None] = field(default=lambda name: None)
