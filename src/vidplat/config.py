"""Configuration: one frozen class per room, put together in `Config`, and the ways people write
times.

How a value is found, the strongest first: an option of the command line (`overrides`), an
environment variable (`VIDPLAT_CATALOG`, `VIDPLAT_OUTPUT`, `VIDPLAT_MODEL`, `RAY_ADDRESS`),
`vidplat.toml` in the working directory, the default here. `load_config` is the only reader of files
and environment; every class checks its own bounds and its messages quote the values they refuse.

    # vidplat.toml
    catalog = "postgresql://user@host/vidplat"
    output = "s3://bucket/videos"
    model = "flipbook"
    [pools.cloud]
    workers = 4
    gpus = 1
    price_per_s = 3.0
    [run]
    max_attempts = 5
    [inputs]
    max_seconds = 30.0

This file opens nothing but `vidplat.toml`, and does not know whether a catalog or a model exists.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from vidplat.errors import UsageError, printable

DEFAULT_CATALOG = "sqlite:///.vidplat/catalog.db"
DEFAULT_OUTPUT = "./renders"
DEFAULT_MODEL = "flipbook"
CONFIG_FILE = "vidplat.toml"

T = TypeVar("T")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


# --- one class per room --------------------------------------------------------------------------


@dataclass(frozen=True)
class CatalogConfig:
    """Where the truth is kept: `sqlite:///path` (relative to the working directory) or a PostgreSQL
    URL."""

    url: str = DEFAULT_CATALOG


@dataclass(frozen=True)
class StoreConfig:
    """Where videos go: a directory, or a URL such as `s3://bucket/prefix` or `memory://name`."""

    output: str = DEFAULT_OUTPUT


@dataclass(frozen=True)
class PoolConfig:
    """A named set of equal workers."""

    name: str
    workers: int = 1
    threads: int = 1  # CPU threads each worker computes with
    gpus: float = 0.0  # GPUs per worker; a fraction shares one
    price_per_s: float = 1.0  # cost of one worker for one second, in the user's own unit
    light: bool = False  # its workers load no model: they fill in the frames that methods leave out

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", self.name):
            raise UsageError(
                f"pool name {printable(self.name)!r} must be 1 to 32 of a-z, 0-9, - and _, "
                "starting with a letter"
            )
        _check(
            0 <= self.workers <= 10_000,
            f"pool {self.name}: workers must be 0 to 10000, not {self.workers}",
        )
        _check(
            1 <= self.threads <= 1024,
            f"pool {self.name}: threads must be 1 to 1024, not {self.threads}",
        )
        _check(0 <= self.gpus <= 64, f"pool {self.name}: gpus must be 0 to 64, not {self.gpus}")
        _check(
            math.isfinite(self.price_per_s) and self.price_per_s >= 0,
            f"pool {self.name}: price_per_s must be zero or more, not {self.price_per_s}",
        )
        _check(
            not (self.light and self.gpus),
            f"pool {self.name}: light workers use no GPU, found gpus = {self.gpus}",
        )


@dataclass(frozen=True)
class RayConfig:
    """Which Ray cluster to use."""

    address: str | None = None  # attach to this running cluster; None: start one on this machine
    dashboard: bool = False  # costs about a second of start-up


@dataclass(frozen=True)
class RunConfig:
    """How one batch is carried out."""

    local: bool = False  # make the videos in this process, without Ray
    max_attempts: int = 3  # per job, for failures that a retry may cure
    lease_s: float = 30.0  # a claim nobody extends for so long belongs to a dead platform
    heartbeat_s: float = 1.0  # least time between two progress writes to the catalog
    look_ahead_s: float = 1.0  # a worker gets its next job when so little work is left in its hand
    window: int = 2_000  # open jobs planned one by one at a time; the rest waits in the catalog
    start_timeout_s: float = 300.0  # a worker that has not come up by then counts as lost

    def __post_init__(self) -> None:
        _check(
            1 <= self.max_attempts <= 100,
            f"run.max_attempts must be 1 to 100, not {self.max_attempts}",
        )
        _check(1 <= self.window <= 100_000, f"run.window must be 1 to 100000, not {self.window}")
        _check(
            0 < self.heartbeat_s * 3 <= self.lease_s,
            f"run.lease_s ({self.lease_s}) must be at least three times run.heartbeat_s "
            f"({self.heartbeat_s})",
        )


@dataclass(frozen=True)
class InputConfig:
    """How large the input videos of rows may be. Beyond these a row is refused; see docs/decisions
    on input videos."""

    max_bytes: int = 256 * 2**20  # of one file: a worker holds it in memory
    max_seconds: float = 120.0
    max_frames: int = 15_000  # in one file, however short they are shown
    max_frame_pixels: int = 4096 * 2304  # of one frame

    def __post_init__(self) -> None:
        for name, least, most in (
            ("max_bytes", 1, 2**33),
            ("max_seconds", 0.1, 86_400.0),
            ("max_frames", 2, 10_000_000),
            ("max_frame_pixels", 256, 2**28),
        ):
            value = getattr(self, name)
            _check(
                least <= value <= most, f"inputs.{name} must be {least:g} to {most:g}, not {value}"
            )


@dataclass(frozen=True)
class Config:
    """Everything a run needs to know before its first file is opened."""

    catalog: CatalogConfig = CatalogConfig()
    store: StoreConfig = StoreConfig()
    pools: tuple[PoolConfig, ...] = field(default_factory=lambda: default_pools())
    ray: RayConfig = RayConfig()
    run: RunConfig = RunConfig()
    model: str = DEFAULT_MODEL
    inputs: InputConfig = InputConfig()

    def __post_init__(self) -> None:
        names = [pool.name for pool in self.pools]
        _check(len(set(names)) == len(names), f"pool names must differ, found {', '.join(names)}")
        _check(
            sum(pool.workers for pool in self.pools if not pool.light) > 0,
            "at least one pool that is not light needs at least one worker",
        )


def default_pools(*, cpus: int | None = None, gpus: int | None = None) -> tuple[PoolConfig, ...]:
    """One cloud and one edge worker on this machine, which share its cores; the cloud gets the
    GPUs.

    With GPUs the cloud has one worker per GPU. `cpus` and `gpus` are counted here when not given;
    GPUs are counted without loading a GPU library.
    """
    cores = cpus if cpus is not None else usable_cores()
    cards = gpus if gpus is not None else len(gpu_names())
    threads = max(1, cores // 2)
    if cards:
        return (
            PoolConfig(
                "cloud", workers=cards, threads=max(1, threads // cards), gpus=1.0, price_per_s=4.0
            ),
            PoolConfig("edge", workers=1, threads=threads),
        )
    return (PoolConfig("cloud", threads=threads), PoolConfig("edge", threads=threads))


def usable_cores() -> int:
    """CPU cores this process may run on."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    )


def gpu_names() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs this process may use, as the driver's own files tell them; empty
    when none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return ()
    names = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        found = re.search(r"^Model:\s*(.+)$", file.read_text(errors="replace"), re.MULTILINE)
        names.append(found[1].strip() if found else "NVIDIA")
    return tuple(names if visible is None else names[: len(visible.split(","))])


# --- loading -------------------------------------------------------------------------------------


def load_config(
    overrides: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Config:
    """The configuration of this run.

    `overrides` are options that were given, with `None` for those that were not: `catalog`,
    `output`, `model`, `address`, `local`, `dashboard`, `max_attempts` and `pools` (a sequence of
    `name=workers[:threads]`). Raises UsageError for an unknown key, a wrong type or a value out of
    bounds.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    environment = os.environ if env is None else env
    written = _read_file(file)

    top: dict[str, Any] = {
        key: written.pop(key) for key in ("catalog", "output", "model") if key in written
    }
    pools = _pools_of(written.pop("pools", {}))
    ray = _section(RayConfig, "ray", written.pop("ray", {}))
    run = _section(RunConfig, "run", written.pop("run", {}))
    inputs = _section(InputConfig, "inputs", written.pop("inputs", {}))
    if written:
        raise UsageError(f"{CONFIG_FILE}: unknown key {printable(next(iter(written)))!r}")

    for key, variable in (
        ("catalog", "VIDPLAT_CATALOG"),
        ("output", "VIDPLAT_OUTPUT"),
        ("model", "VIDPLAT_MODEL"),
    ):
        if environment.get(variable):
            top[key] = environment[variable]
    if environment.get("RAY_ADDRESS"):
        ray = replace(ray, address=environment["RAY_ADDRESS"])

    top |= {key: str(given.pop(key)) for key in ("catalog", "output", "model") if key in given}
    if "pools" in given:
        wanted = list(given.pop("pools"))
        pools = tuple(parse_pool(text) for text in wanted) or pools
    ray = replace(ray, **{key: given.pop(key) for key in ("address", "dashboard") if key in given})
    run = replace(run, **{key: given.pop(key) for key in ("local", "max_attempts") if key in given})
    if given:
        raise UsageError(f"unknown setting {printable(next(iter(given)))!r}")
    return Config(
        catalog=CatalogConfig(top.get("catalog", DEFAULT_CATALOG)),
        store=StoreConfig(top.get("output", DEFAULT_OUTPUT)),
        pools=pools or default_pools(),
        ray=ray,
        run=run,
        model=top.get("model", DEFAULT_MODEL),
        inputs=inputs,
    )


def parse_pool(text: str) -> PoolConfig:
    """`cloud=2` or `cloud=2:4`: two workers, of four threads each; `edge=3:light`: three that load
    no model."""
    found = re.fullmatch(r"([^=:]+)=(\d{1,6})(?::(\d{1,6}))?(:light)?", text.strip())
    if found is None:
        raise UsageError(
            f"--pool {printable(text)!r}: write name=workers or name=workers:threads, e.g. "
            "cloud=2:4, and :light "
            "behind it for workers that load no model"
        )
    usual = {pool.name: pool for pool in default_pools()}.get(found[1], PoolConfig("cloud"))
    threads = int(found[3]) if found[3] else usual.threads
    made = replace(usual, name=found[1], workers=int(found[2]), threads=threads)
    return replace(made, gpus=0.0, light=True) if found[4] else made


def _read_file(file: Path | None) -> dict[str, Any]:
    path = file or Path(CONFIG_FILE)
    if not path.is_file():
        if file is not None:
            raise UsageError(f"no configuration file at {printable(path)}")
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{printable(path)} is not readable TOML: {printable(error)}") from error


def _pools_of(written: Any) -> tuple[PoolConfig, ...]:
    if not isinstance(written, dict) or not all(
        isinstance(body, dict) for body in written.values()
    ):
        raise UsageError(f"{CONFIG_FILE}: write each pool as a table, [pools.cloud]")
    return tuple(
        _section(PoolConfig, f"pools.{name}", {"name": name, **body})
        for name, body in written.items()
    )


def _section(kind: type[T], name: str, written: Any) -> T:
    known = {entry.name: str(entry.type) for entry in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(written, dict):
        raise UsageError(f"{CONFIG_FILE}: [{printable(name)}] must be a table")
    for key, value in written.items():
        if key not in known:
            raise UsageError(
                f"{CONFIG_FILE}: [{printable(name)}] has no {printable(key)!r}; it knows "
                f"{', '.join(known)}"
            )
        wanted = known[key].removesuffix(" | None")
        fits = {
            "int": isinstance(value, int) and not isinstance(value, bool),
            "float": isinstance(value, int | float) and not isinstance(value, bool),
            "bool": isinstance(value, bool),
            "str": isinstance(value, str),
        }[wanted]
        if not fits:
            raise UsageError(
                f"{CONFIG_FILE}: [{printable(name)}] {key} must be a {wanted}, not "
                f"{printable(value)!r}"
            )
    return kind(**written)


# --- times as people write them ------------------------------------------------------------------

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])")
_FORMS = (
    "use a duration such as 60s, 90m, 6h, 2d or 1h30m, a time of day such as 06:00, or ISO 8601"
)
_LONGEST_S = 3660 * 86_400.0  # ten years: farther is a slip of the pen


def parse_duration(text: str) -> float:
    """Seconds in `90m`, `1h30m`, `2d`. Raises UsageError; a bare number is refused, since its unit
    is a guess."""
    plain = text.strip().lower()
    shown = printable(text)
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        raise UsageError(f"deadline {shown!r} has no unit: add one, e.g. {plain}s")
    parts: Sequence[tuple[str, str]] = _PART.findall(plain)
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        raise UsageError(f"deadline {shown!r} is not understood: {_FORMS}")
    units = [unit for _, unit in parts]
    if sorted(units, key="dhms".index) != units or len(set(units)) != len(units):
        raise UsageError(
            f"deadline {shown!r} is not understood: write each unit once, longest first, e.g. 1h30m"
        )
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= _LONGEST_S:
        raise UsageError(f"deadline {shown!r} must be longer than nothing and at most ten years")
    return seconds


def parse_deadline(text: str, now: float) -> float:
    """The moment meant by `text`, in seconds since the epoch.

    Durations count from `now`; `06:00` is the next such local time; an ISO 8601 time without an
    offset is local. Raises UsageError for anything else and for moments that have passed.
    """
    plain = text.strip()
    shown = printable(text)
    if plain.startswith("-"):
        raise UsageError(f"deadline {shown!r} lies in the past: {_FORMS}")
    if clock := re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", plain):
        return _next_time_of_day(shown, int(clock[1]), int(clock[2]), int(clock[3] or 0), now)
    if re.match(r"\d{4}-\d{2}-\d{2}", plain):
        try:
            moment = datetime.fromisoformat(plain)
            at = moment.timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise UsageError(f"deadline {shown!r} is not a date and time: {_FORMS}") from error
        if at <= now:
            raise UsageError(f"deadline {shown!r} lies in the past ({_ago(now - at)} ago)")
        if at - now > _LONGEST_S:
            raise UsageError(f"deadline {shown!r} is more than ten years away")
        return at
    return now + parse_duration(plain)


def _next_time_of_day(shown: str, hour: int, minute: int, second: int, now: float) -> float:
    if hour > 23 or minute > 59 or second > 59:
        raise UsageError(f"deadline {shown!r} is not a time of day: use 00:00 to 23:59")
    today = datetime.fromtimestamp(now).astimezone()
    moment = today.replace(tzinfo=None, hour=hour, minute=minute, second=second, microsecond=0)
    # Naive local times, so that the day after a clock change is met at the same hour on the wall.
    while moment.timestamp() <= now:
        moment += timedelta(days=1)
    return moment.timestamp()


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
