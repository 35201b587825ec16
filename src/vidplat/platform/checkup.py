"""Is everything here that a run needs? One finding per question, for `vidplat doctor`.

Heavy libraries are asked in a process of their own: one that is broken beyond an exception (a
missing CPU instruction, a wrong driver) then costs a finding, not the doctor. Nothing is repaired
here except, when asked for, the catalog's tables, and what catalog and store say of each other
(`mending.py`).
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vidplat.config import Config, missing_catalog
from vidplat.errors import CatalogError, VidplatError, printable
from vidplat.machines import gpu_names, usable_cores

NEEDS = "torch diffusers transformers ray sqlalchemy alembic pyarrow boto3 av fsspec"
PATIENCE_S = 120.0  # for the import of one library on a slow disk
LOCK_PATIENCE_S = 2.0
LOW_DISK_BYTES = 1_000_000_000
LOW_MEMORY_BYTES = 2_000_000_000


class Health(StrEnum):
    OK = "ok"
    WARN = "warn"  # a run may go wrong, or slowly
    FAIL = "fail"  # a run cannot work


@dataclass(frozen=True)
class Finding:
    """One question, what was found, and what to do about it."""

    name: str
    health: Health
    found: str
    todo: str = ""


Found = tuple[Health, str] | tuple[Health, str, str]  # a Finding without its name
Question = Callable[[], Found]


def examine(
    config: Config,
    *,
    migrate: bool = False,
    quick: bool = False,
    verify: bool = False,
    repair: bool = False,
) -> Iterator[Finding]:
    """Findings as they come. `quick` leaves out the libraries that take seconds to import, and the
    videos unless they are to be verified or repaired."""
    questions: dict[str, Question] = {
        "python": _python,
        "packages": _packages,
        "machine": _machine,
        "catalog": lambda: _catalog(config.catalog, migrate),
        "store": lambda: _store(config.output),
        "videos": lambda: _videos(config.catalog, verify, repair),
        "disk": lambda: _disk(config.output),
        "models": lambda: _models(config.model),
    }
    if quick and not (verify or repair):
        del questions["videos"]
    heavy = {"video": _video, "torch": _torch, "ray": lambda: _ray(config.ray.address)}
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(_ask, *each) for each in heavy.items() if not quick]
        yield from (_ask(*each) for each in questions.items())
        yield from (answer.result() for answer in asked)


def _ask(name: str, question: Question) -> Finding:
    try:
        return Finding(name, *question())
    except VidplatError as error:
        return Finding(name, Health.FAIL, str(error))
    except Exception as error:  # a finding too: the doctor must reach the end of the list
        return Finding(name, Health.FAIL, f"{type(error).__name__}: {printable(error)}")


def _python() -> Found:
    return Health.OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> Found:
    versions, missing = [], []
    for name in NEEDS.split():
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Health.FAIL, f"missing: {', '.join(missing)}", "install vidplat with pip again"
    return Health.OK, ", ".join(versions)


def _machine() -> Found:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cards = gpu_names()
    found = f"{usable_cores()} CPU cores, {memory / 1e9:.0f} GB memory, "
    found += ", ".join(cards) or "no GPU"
    if memory < LOW_MEMORY_BYTES:
        return Health.WARN, found, "two workers need about 2 GB"
    return Health.OK, found


def _disk(output: str) -> Found:
    places = {Path(tempfile.gettempdir())}
    if "://" not in output:
        places.add(_nearest_folder(Path(output)))
    free = {place: shutil.disk_usage(place).free for place in sorted(places)}
    found = ", ".join(f"{n / 1e9:.1f} GB free at {printable(place)}" for place, n in free.items())
    if min(free.values()) < LOW_DISK_BYTES:
        return Health.WARN, found, "make room, or choose another --output"
    return Health.OK, found


def _nearest_folder(path: Path) -> Path:
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _catalog(url: str, migrate: bool) -> Found:
    from vidplat.storage import open_catalog

    file = missing_catalog(url)
    if file is not None and not migrate:
        folder, shown = _nearest_folder(file.parent), printable(file)
        if not os.access(folder, os.W_OK):
            why = f"{printable(folder)} cannot be written, so no catalog can be made at {shown}"
            raise CatalogError(why)
        return Health.OK, f"none yet; the first submit makes {shown}"
    patience_s = LOCK_PATIENCE_S
    with closing(open_catalog(url, migrate=migrate or None, lock_timeout_s=patience_s)) as catalog:
        with catalog.database.writing():  # the lock, and the right to write
            pass
        batches = len(catalog.batches(1_000))
        many = f"{batches:,}{'+' if batches == 1_000 else ''}"
        return (
            Health.OK,
            f"{catalog.database.shown}, up to date, {many} batch{'' if batches == 1 else 'es'}",
        )


def _store(output: str) -> Found:
    from vidplat.storage import open_store
    from vidplat.storage.places import probe

    store = open_store(output)
    probe(store)
    return Health.OK, f"{printable(store.url)} can be written and honours conditional puts"


def _videos(url: str, verify: bool, repair: bool) -> Found:
    from vidplat.platform.mending import look_into
    from vidplat.storage import open_catalog

    if missing_catalog(url) is not None:
        return Health.OK, "none yet"
    with closing(open_catalog(url, lock_timeout_s=LOCK_PATIENCE_S)) as catalog:
        seen = look_into(catalog, verify=verify, repair=repair)
    found = f"{seen.videos:,} done in {seen.batches:,} batch{'' if seen.batches == 1 else 'es'}"
    lost = ", ".join(f"{many:,} of {batch_id}" for batch_id, many in seen.lost.items())
    if seen.repairs:
        found += f"; {seen.repairs}"
    if seen.busy:
        found += f"; left alone, somebody works on them: {', '.join(seen.busy)}"
    if seen.unreached:
        return Health.WARN, f"{found}; {'; '.join(seen.unreached)}", "see that the store answers"
    if lost and repair:
        resume = ", ".join(f"vidplat resume {batch_id}" for batch_id in seen.lost)
        return Health.WARN, f"{found}; gone or cut short, put back: {lost}", f"make them: {resume}"
    if lost:
        again = "vidplat doctor --repair puts them back, vidplat resume makes them again"
        return Health.WARN, f"{found}; gone or cut short: {lost}", again
    return Health.OK, found if repair else f"{found}, all where they belong"


def _models(model: str) -> Found:
    from vidplat.workers import describe_model, list_models

    usable = [listing.id for listing in list_models() if listing.usable]
    reference, shape = describe_model(model)
    profile = f"{len(shape.profile)} measured points" if shape.profile else "no profile"
    others = ", ".join(name for name in usable if name != model) or "none"
    return Health.OK, f"{printable(reference.id)} ({profile}); others here: {printable(others)}"


def _torch() -> Found:
    found = _run(
        "import torch\n"
        "cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]\n"
        "print(torch.__version__, 'on', ', '.join(cards) or f'CPU, {torch.get_num_threads()} "
        "threads')"
    )
    if gpu_names() and "CPU" in found:
        unused = "there is a GPU that torch cannot use: check driver and CUDA build"
        return Health.WARN, found, unused
    return Health.OK, found


def _video() -> Found:
    script = "import av\nav.Codec('libx264', 'w')\nprint('PyAV', av.__version__, 'with libx264')"
    return Health.OK, _run(script)


def _ray(address: str | None) -> Found:
    if address is None or address in ("auto", "local"):
        found = _run("import ray\nprint(ray.__version__)")
        return Health.OK, f"{found}; a run starts its own cluster here"
    shown = printable(address)
    if "://" in address:
        return Health.FAIL, f"{shown} is not supported", "write it as host:port"
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        why = f"{shown} does not answer: {printable(error)}"
        return Health.FAIL, why, "see RAY_ADDRESS"
    try:
        return Health.OK, f"{shown} lets runs in: {_run(_ATTACH.format(address=address))}"
    except RuntimeError as error:  # it listens, and that may be all
        why = f"{shown} answers, but lets no run in: {error}"
        tokens = "if it asks for tokens, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here"
        return Health.FAIL, why, f"it must run the same Ray on this machine, too; {tokens}"


#: As a run attaches to a cluster.
_ATTACH = """
import logging, os
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
import ray
logging.getLogger("ray").setLevel(logging.ERROR)
quiet = dict(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
ray.init(address={address!r}, **quiet)
print(ray.__version__ + ",", int(ray.cluster_resources().get("CPU", 0)), "CPUs")
"""


def _run(script: str) -> str:
    """What a Python process of its own prints. Raises RuntimeError with its last complaint."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the import took longer than {PATIENCE_S:.0f} s") from error
    if done.returncode < 0:
        raise RuntimeError(f"the import was killed by signal {-done.returncode}")
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["the import failed"])[-1])
    return printable(done.stdout.strip())
