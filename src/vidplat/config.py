"""Configuration: frozen classes, put together in `Config`.

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
    [pools.edge]
    light = true
    [run]
    max_attempts = 5
    [inputs]
    max_seconds = 30.0
    folders = ["/data/clips"]

docs/configuration.md lists every key. This file opens nothing but `vidplat.toml`, and does not know
whether a catalog or a model exists.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from vidplat.errors import UsageError, printable
from vidplat.machines import Machines, this_machine

DEFAULT_CATALOG = "sqlite:///.vidplat/catalog.db"
DEFAULT_OUTPUT = "./renders"
DEFAULT_MODEL = "flipbook"
CONFIG_FILE = "vidplat.toml"
ROW_SCHEMES = ("file", "s3", "memory")  # of input videos
# key -> the environment variable, and what holds when nobody says
_TOP = {
    "catalog": ("VIDPLAT_CATALOG", DEFAULT_CATALOG),
    "output": ("VIDPLAT_OUTPUT", DEFAULT_OUTPUT),
    "model": ("VIDPLAT_MODEL", DEFAULT_MODEL),
}

T = TypeVar("T")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def _need_within(least: float, most: float, what: str, value: float) -> None:
    _check(least <= value <= most, f"{what} must be {least:,} to {most:,}, not {_shown(value)}")


def _shown(value: object) -> str:
    """What was found, in a message; of a number beyond 64 bits only that it is one."""
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 19 digits"
    try:
        return printable(repr(value), 80)
    except ValueError:  # such a number inside a list
        return f"a {type(value).__name__}"


def _check_place(what: str, text: str) -> None:
    """That a text can name a place or a model: the catalog has to remember it."""
    _check(bool(text.strip()), f"{what} is empty: name one, or leave it out")
    _check(
        is_plain(text),
        f"{what} holds a control character, or one that is not UTF-8: {printable(text)!r}",
    )


def is_plain(text: str) -> bool:
    """Whether it has neither control characters nor what is no UTF-8."""
    return re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text) is None


def in_home(path: str, told_by: str) -> Path:
    """A path with the home that ~ stands for. Raises UsageError where there is no such home."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError) as error:  # ValueError: a NUL
        raise UsageError(f"{told_by} {printable(path)!r}: there is no such home here") from error


def catalog_file(url: str) -> Path | None:
    """The file that an SQLite URL names; None of PostgreSQL and of a catalog in memory. Raises
    UsageError for the home of nobody."""
    found = re.fullmatch(r"(?i:sqlite(?:\+pysqlite)?):///([^?]*)(?s:\?.*)?", url)
    if found is None or found[1] in ("", ":memory:"):
        return None
    return in_home(found[1], "catalog")


def missing_catalog(url: str) -> Path | None:
    """That file, if it is not there yet: who only reads must not make one."""
    file = catalog_file(url)
    try:
        if file is not None:
            file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return file
    except (OSError, ValueError):  # too long, or closed to us: for the database to explain
        pass
    return None


# --- the classes ---------------------------------------------------------------------------------


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
        _need_within(0, 10_000, f"pool {self.name}: workers", self.workers)
        _need_within(1, 1024, f"pool {self.name}: threads", self.threads)
        _need_within(0, 64, f"pool {self.name}: gpus", self.gpus)
        _need_within(0, 1_000_000_000, f"pool {self.name}: price_per_s", self.price_per_s)
        _check(
            not (self.light and self.gpus),
            f"pool {self.name}: light workers use no GPU, found gpus = {self.gpus}",
        )


@dataclass(frozen=True)
class ToldPools:
    """Pools as they were written: what is left open is filled in by the machines there are."""

    texts: tuple[str, ...] = ()  # of --pool; none: those of the file
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of the file, by name

    def on(self, machines: Machines) -> tuple[PoolConfig, ...]:
        """The pools on these machines. Raises UsageError."""
        if self.texts:
            return tuple(parse_pool(text, machines) for text in self.texts)
        found = (_like(name, body, machines) for name, body in self.tables.items())
        return tuple(found) or default_pools(machines)


@dataclass(frozen=True)
class RayConfig:
    """Which Ray cluster to use."""

    address: str | None = None  # attach to this running cluster; None: start one on this machine
    dashboard: bool = False  # costs about a second of start-up

    def check(self) -> None:
        """That the address has the form of one. Asked by who uses it: `RAY_ADDRESS` may be set for
        other programs."""
        if self.address in (None, "", "auto", "local"):
            return
        found = re.fullmatch(r"(?:\[[\w:.%]+\]|[\w.-]+):(\d{1,5})", str(self.address), re.ASCII)
        _check(
            found is not None and 0 < int(found[1]) < 2**16,
            f"the Ray cluster's address must be host:port, as `ray start --head` shows it, not "
            f"{_shown(self.address)} (ray:// is not supported)",
        )


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
    stall_s: float = 120.0  # least silence in a job after which its worker is given up
    store_patience_s: float = 180.0  # a finished video that the store refuses is offered so long

    def __post_init__(self) -> None:
        _need_within(1, 100, "run.max_attempts", self.max_attempts)
        _need_within(1, 100_000, "run.window", self.window)
        _need_within(0.001, 86_400, "run.heartbeat_s", self.heartbeat_s)
        _need_within(0.003, 86_400, "run.lease_s", self.lease_s)
        _need_within(0, 86_400, "run.look_ahead_s", self.look_ahead_s)
        _need_within(1, 86_400, "run.start_timeout_s", self.start_timeout_s)
        _need_within(0, 86_400, "run.stall_s", self.stall_s)
        _need_within(0, 86_400, "run.store_patience_s", self.store_patience_s)
        _check(
            self.heartbeat_s * 3 <= self.lease_s,
            f"run.lease_s ({self.lease_s}) must be at least three times run.heartbeat_s "
            f"({self.heartbeat_s})",
        )


@dataclass(frozen=True)
class InputConfig:
    """Where the input videos of rows may lie and how large they may be; any other row is refused
    (docs/security.md, decision 0010)."""

    schemes: tuple[str, ...] = ROW_SCHEMES  # a path is `file`
    folders: tuple[str, ...] = ()  # files lie in these, links followed; (): in any
    buckets: tuple[str, ...] = ()  # objects lie in these; (): in any that the credentials open
    endpoint: str = ""  # the server of s3:// URLs in rows; "": boto3's usual one
    max_bytes: int = 256 * 2**20  # of one file: a worker holds it in memory
    max_seconds: float = 120.0
    max_frames: int = 15_000  # in one file, however short they are shown
    max_frame_pixels: int = 4096 * 2304  # of one frame

    def __post_init__(self) -> None:
        for scheme in self.schemes:
            _check(
                scheme in ROW_SCHEMES,
                f"inputs.schemes may hold {', '.join(ROW_SCHEMES)}, not {printable(scheme, 20)!r}",
            )
        _check(
            not self.endpoint or re.fullmatch(r"https?://[^/@?#\s]+/?", self.endpoint) is not None,
            "inputs.endpoint must look like http://host:port, without user, path and options",
        )
        _need_within(1, 2**33, "inputs.max_bytes", self.max_bytes)
        _need_within(0.1, 86_400, "inputs.max_seconds", self.max_seconds)
        _need_within(2, 10_000_000, "inputs.max_frames", self.max_frames)
        _need_within(256, 2**28, "inputs.max_frame_pixels", self.max_frame_pixels)


@dataclass(frozen=True)
class Config:
    """Everything a run needs to know before its first file is opened."""

    # Where the truth is: `sqlite:///path` (relative to the working directory) or a PostgreSQL URL.
    catalog: str = DEFAULT_CATALOG
    # Where videos go: a directory, or a URL such as `s3://bucket/prefix` or `memory://name`.
    output: str = DEFAULT_OUTPUT
    pools: tuple[PoolConfig, ...] = field(default_factory=lambda: default_pools())
    ray: RayConfig = RayConfig()
    run: RunConfig = RunConfig()
    model: str = DEFAULT_MODEL
    inputs: InputConfig = InputConfig()
    machines: Machines = field(default_factory=lambda: this_machine())
    told_pools: ToldPools | None = None  # None: `pools` stand as they are, wherever they run

    def __post_init__(self) -> None:
        for name in _TOP:
            _check_place(name, getattr(self, name))
        names = [pool.name for pool in self.pools]
        _check(len(set(names)) == len(names), f"pool names must differ, found {', '.join(names)}")
        _check(
            sum(pool.workers for pool in self.pools if not pool.light) > 0,
            "at least one pool that is not light needs at least one worker (beside GPUs, edge is "
            "light unless it is told gpus=0)",
        )


def default_pools(machines: Machines | None = None) -> tuple[PoolConfig, ...]:
    """One cloud and one edge worker, which share the cores of a machine. With GPUs the cloud has
    one worker per GPU, and the edge is light: it would make a video on CPU cores for hours."""
    machines = machines or this_machine()
    threads = max(1, machines.cores // 2)
    cloud, edge = PoolConfig("cloud", threads=threads), PoolConfig("edge", threads=threads)
    if cards := len(machines.cards):
        each = max(1, threads // cards)
        cloud = replace(cloud, workers=cards, threads=each, gpus=1.0, price_per_s=4.0)
        edge = replace(edge, light=True)
    return cloud, edge


# --- loading -------------------------------------------------------------------------------------


def load_config(overrides: Mapping[str, Any]) -> Config:
    """The configuration of this run.

    `overrides` are options that were given, with `None` for those that were not: `catalog`,
    `output`, `model`, `address`, `local`, `dashboard`, `max_attempts` and `pools` (a sequence of
    `name=workers[:threads][:light][,gpus=N]`). Raises UsageError for unknown keys, wrong types,
    wrong values.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    written = _read_file()

    chosen = {}
    for key, (variable, default) in _TOP.items():
        in_file = written.pop(key, None)
        if not isinstance(in_file, str | None):
            raise UsageError(f"{CONFIG_FILE}: {key} must be a string, not {_shown(in_file)}")
        told = (given.pop(key, None), os.environ.get(variable) or None, in_file)
        chosen[key] = next((value for value in told if value is not None), default)
    tables = _tables_of(written.pop("pools", {}))
    ray = _section(RayConfig, "ray", written.pop("ray", {}))
    run = _section(RunConfig, "run", written.pop("run", {}))
    inputs = _section(InputConfig, "inputs", written.pop("inputs", {}))
    if written:
        raise UsageError(f"{CONFIG_FILE}: unknown key {printable(next(iter(written)))!r}")

    if os.environ.get("RAY_ADDRESS"):
        ray = replace(ray, address=os.environ["RAY_ADDRESS"])
    ray = replace(ray, **{key: given.pop(key) for key in ("address", "dashboard") if key in given})
    run = replace(run, **{key: given.pop(key) for key in ("local", "max_attempts") if key in given})
    told_pools, here = ToldPools(tuple(given.pop("pools", ())), tables), this_machine()
    if given:
        raise UsageError(f"unknown setting {printable(next(iter(given)))!r}")
    return Config(
        catalog=str(chosen["catalog"]),
        output=str(chosen["output"]),
        pools=told_pools.on(here),
        ray=ray,
        run=run,
        model=str(chosen["model"]),
        inputs=inputs,
        machines=here,
        told_pools=told_pools,
    )


def parse_pool(text: str, machines: Machines | None = None) -> PoolConfig:
    """`cloud=2` or `cloud=2:4`: two workers, of four threads each; `cloud=2,gpus=1`: with a GPU
    each; `edge=3:light`: three that load no model."""
    found = re.fullmatch(
        r"([^=:,]+)=(\d{1,6})(?::(\d{1,6}))?(:light)?(?:,gpus=(\d{1,3}(?:\.\d{1,3})?))?",
        text.strip(),
    )
    if found is None:
        raise UsageError(
            f"--pool {printable(text)!r}: write name=workers or name=workers:threads, e.g. "
            "cloud=2:4, with :light behind it for workers that load no model, or ,gpus=1 for "
            "those that take a GPU each (,gpus=0: none)"
        )
    told: dict[str, Any] = {"workers": int(found[2])}
    told |= {"threads": int(found[3])} if found[3] else {}
    told |= {"light": True} if found[4] else {}
    told |= {"gpus": float(found[5])} if found[5] else {}
    return _like(found[1], told, machines)


def _like(name: str, told: Mapping[str, Any], machines: Machines | None) -> PoolConfig:
    """The pool that is usual on these machines, with what was told of it: light workers use no GPU,
    and who tells of GPUs means workers that load the model."""
    usual = {pool.name: pool for pool in default_pools(machines)}.get(name, PoolConfig("cloud"))
    usual = replace(usual, name=name)
    if told.get("light"):
        usual = replace(usual, gpus=0.0)
    elif "gpus" in told:
        usual = replace(usual, light=False)
    return replace(usual, **told)


def _read_file() -> dict[str, Any]:
    path = Path(CONFIG_FILE)
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    # ValueError: of TOML, of UTF-8, and of numbers that are too long for Python
    except (ValueError, RecursionError, OSError) as error:
        raise UsageError(f"{CONFIG_FILE} is not readable TOML: {printable(error)}") from error


def _tables_of(written: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(written, dict) or not all(
        isinstance(body, dict) for body in written.values()
    ):
        raise UsageError(f"{CONFIG_FILE}: write each pool as a table, [pools.cloud]")
    for name, body in written.items():
        _section(PoolConfig, f"pools.{name}", body, name=name)
    return written


#: What a key takes: its type in `fields`, what is accepted, and how people call it.
_KINDS: dict[str, tuple[Any, str]] = {
    "int": ((int,), "an integer"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a string"),
    "tuple[str, ...]": ((list,), "a list of strings"),
}


def _section(kind: type[T], table: str, written: Any, **given: str) -> T:
    """A table of the file as `kind`; `given` are fields that the file cannot set."""
    types = {entry.name: str(entry.type) for entry in fields(kind)}  # type: ignore[arg-type]
    known = {key: text.removesuffix(" | None") for key, text in types.items() if key not in given}
    where = f"{CONFIG_FILE}: [{printable(table)}]"
    if not isinstance(written, dict):
        raise UsageError(f"{where} must be a table")
    values: dict[str, Any] = {}
    for key, value in written.items():
        if key not in known:
            raise UsageError(f"{where} has no {printable(key)!r}; it knows {', '.join(known)}")
        accepted, called = _KINDS[known[key]]
        if not isinstance(value, accepted) or isinstance(value, bool) != (known[key] == "bool"):
            raise UsageError(f"{where} {key} must be {called}, not {_shown(value)}")
        if isinstance(value, list):
            if not all(isinstance(each, str) for each in value):
                raise UsageError(f"{where} {key} must be {called}, not {_shown(value)}")
            value = tuple(value)
        try:
            values[key] = float(value) if known[key] == "float" else value
        except OverflowError as error:
            raise UsageError(f"{where} {key} is too large: {_shown(value)}") from error
    return kind(**given, **values)
