"""The Ray cluster of one run: started here, or one that runs already. Where it is, who has room.

A cluster started here is one node that listens on this machine's loopback address alone, asks for a
token that only this user can read, and ends with the run. One that runs already is attached to and
left as it was; how it listens and whom it lets in is its owner's business (docs/security.md).

Ray is disposable, and so it is watched: every second the processes that hold a cluster together are
knocked at, its control service (GCS), the raylet of this node, and those of nodes with workers of
ours. Left to itself Ray would take minutes to tell of a dead raylet, and end our own process a
minute after its control service died.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partialmethod
from typing import Any

import ray
from ray.exceptions import RayError

from vidplat.config import PoolConfig, RayConfig
from vidplat.errors import ClusterError, printable
from vidplat.machines import Machines
from vidplat.platform.dispatch.dispatcher import Absence, Room, Seat, WorkerSpec
from vidplat.platform.dispatch.ray_token import keep_token

log = logging.getLogger(__name__)

POOL_LABEL = "vidplat-pool"
_CARD = "accelerator_type:"  # how Ray's resources begin that name a node's GPU
_LOOPBACK = "127.0.0.1"
_CONTROL = "control service"  # as the name of a door
_REACHED_WITHIN_S = 5.0
_LOOK_EVERY_S = 1.0
_MISSED_LOOKS = 2  # in a row, until the cluster counts as lost: at most three seconds
_SHUT_WITHIN_S = 20.0
#: Of a cluster started here: a dead node is noticed in two seconds; that the control service is
#: away ends nobody, since it is replaced, cluster and all.
_SYSTEM = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1_000,
    "health_check_failure_threshold": 2,
    "gcs_rpc_server_reconnect_timeout_s": 86_400,
}


class RayCluster:
    """Connect, and close, as often as need be; what else is asked needs a connection."""

    def __init__(self, config: RayConfig) -> None:
        self._config = config
        self.is_own = config.address in (None, "", "local")
        self.is_connected = False
        self._watch: _Watch | None = None
        self._here = ""  # id of our own node

    def connect(self, specs: Sequence[WorkerSpec] = ()) -> None:
        """Start a cluster with room for these workers, or attach to the one that is there. Raises
        ClusterError."""
        if self.is_connected:
            return
        said: list[str] = []
        try:
            with _signals_kept(), _own_words(said):
                if self.is_own:
                    self._start(specs)
                else:
                    self._attach()
            self._here = ray.get_runtime_context().get_node_id()
            self._watch = _Watch({_CONTROL: _control_door()})
            self.watch_node(self._here)
        except (RayError, ConnectionError, ValueError, RuntimeError, OSError) as error:
            self.close()
            raise self._refusal(error, "".join(said)) from error
        self.is_connected = True

    def close(self) -> None:
        """Let go of the cluster; one that was started here ends. Safe to call twice."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        self.is_connected = False
        if not ray.is_initialized():
            return
        # With its control service gone Ray takes six seconds for this; it must not take for ever.
        closing = threading.Thread(target=ray.shutdown, daemon=True)
        closing.start()
        closing.join(_SHUT_WITHIN_S)

    def trouble(self, *, at_once: bool = False) -> str | None:
        """Why the cluster is lost; None while it is there. `at_once` where something has happened
        that its end would explain: then a door that is shut is not knocked at twice."""
        if self._watch is None:
            return None
        doors = {_CONTROL: "Ray's control service", self._here: "Ray's node"}
        for name, who in doors.items():
            if name in self._watch.lost or (at_once and self._watch.is_shut(name)):
                return f"{who} does not answer any more"
        return None

    def watch_node(self, node_id: str) -> None:
        """Notice when that node is gone. A cluster's own settings may take a quarter of a minute
        for that."""
        for node in _nodes():
            if node["NodeID"] == node_id and self._watch is not None:
                door = node["NodeManagerAddress"], int(node["NodeManagerPort"])
                self._watch.add(node_id, door)

    def has_lost(self, node_id: str | None, *, at_once: bool = False) -> bool:
        """Whether that node, if it is watched, does not answer any more; `at_once` as in
        `trouble`."""
        if node_id is None or self._watch is None:
            return False
        return node_id in self._watch.lost or (at_once and self._watch.is_shut(node_id))

    def answers(self) -> bool:
        """Whether there is somebody to connect to."""
        if self.is_own:
            return True
        try:
            _check_reachable(str(self._config.address))
        except OSError:
            return False
        return True

    def placement(self, pool: str) -> dict[str, Any]:
        """How Ray finds the nodes of a pool. Where nodes are marked for pools, one whose nodes are
        not there yet waits for them; only on a cluster without any mark it may be any node."""
        resource = {"resources": {pool_resource(pool): 1}}
        if self.is_own:
            return resource
        nodes = _nodes()
        if any(pool_resource(pool) in node["Resources"] for node in nodes):
            return resource
        if any(POOL_LABEL in node["Labels"] for node in nodes):
            return {"label_selector": {POOL_LABEL: pool}}
        marked = any(
            name.startswith(pool_resource("")) for node in nodes for name in node["Resources"]
        )
        return resource if marked else {}

    def machines(self) -> Machines:
        """What the nodes of a running cluster have: the most cores of one, and all GPUs."""
        nodes = _nodes()
        cards = int(sum(node["Resources"].get("GPU", 0) for node in nodes))
        names = [name for node in nodes for name in node["Resources"] if name.startswith(_CARD)]
        card = names[0].removeprefix(_CARD) if names else "NVIDIA"
        cores = max((int(node["Resources"].get("CPU", 0)) for node in nodes), default=1)
        return Machines(max(1, cores), (card,) * cards)

    def rooms(self, pools: Sequence[PoolConfig]) -> Mapping[str, Room]:
        """What a running cluster has for each pool, by its name, if they come in this order."""
        spare = Counter(ray.available_resources())
        whole = [(node, Counter(node["Resources"])) for node in _nodes()]
        found: dict[str, Room] = {}
        for pool in pools:
            placement = self.placement(pool.name)
            needs = _needs(pool, placement)
            wanted = placement.get("label_selector", {}).get(POOL_LABEL)
            places = 0
            for node, left in whole:
                if wanted not in (None, node["Labels"].get(POOL_LABEL)):
                    continue
                here = min(_fit(left, needs), pool.workers - places)
                places += here
                left.subtract({name: here * amount for name, amount in needs.items()})
            free = min(places, _fit(spare, needs))
            spare.subtract({name: free * amount for name, amount in needs.items()})
            found[pool.name] = Room(places, free, _told(pool, placement, places, free))
        return found

    def absences(self, waiting: Iterable[str], seats: Sequence[Seat]) -> dict[str, Absence]:
        """Why these workers have no place yet; on a cluster of our own each has one."""
        waiting = set(waiting)
        if self.is_own or not waiting:
            return {}
        pools = {seat.spec.pool for seat in seats if seat.worker_id in waiting}
        absent: dict[str, Absence] = {}
        for pool in pools:
            its = [seat.worker_id for seat in seats if seat.spec.pool == pool]
            missing = [worker for worker in its if worker in waiting]
            room = self.rooms([replace(pool, workers=len(missing))])[pool.name]
            if room.why:
                absence = Absence(pool.name, room.why, room.places > 0)
                absent |= dict.fromkeys(missing, absence)
        return absent

    # --- connecting -----------------------------------------------------------------------------

    def _start(self, specs: Sequence[WorkerSpec]) -> None:
        keep_token()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray would run workers at almost the lowest priority; here theirs is the work that counts.
        os.environ.setdefault("RAY_worker_niceness", "0")
        with _one_machine():
            ray.init(
                address="local",
                # Every actor gets its place, also where threads outnumber cores: the user decides.
                num_cpus=max(1, sum(spec.pool.threads for spec in specs)),
                num_gpus=sum(spec.pool.gpus for spec in specs) or None,
                resources=Counter(pool_resource(spec.pool.name) for spec in specs),
                include_dashboard=self._config.dashboard,
                # Videos go from workers to the store; Ray carries small messages only.
                object_store_memory=80 * 2**20,
                _system_config=_SYSTEM,
                **_QUIET,
            )

    def _attach(self) -> None:
        address = str(self._config.address)
        _check_reachable(address)
        ray.init(address=address, **_QUIET)

    def _refusal(self, error: Exception, said: str) -> ClusterError:
        if self.is_own:
            return ClusterError(f"cannot start Ray on this machine: {printable(error)}")
        shown = printable(self._config.address)
        if "InvalidAuthToken" in said or "token" in str(error).lower():
            return ClusterError.lasting(
                f"the Ray cluster at {shown} asks for a token, and refuses the one from here: set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the cluster's"
            )
        return ClusterError(
            f"cannot use the Ray cluster at {shown}: {printable(error)}. It must run Ray "
            f"{ray.__version__}"
        )


def pool_resource(pool: str) -> str:
    """Name of the custom Ray resource that marks a pool's places."""
    return f"pool_{pool}"


# --- room -----------------------------------------------------------------------------------------


def _nodes() -> list[dict[str, Any]]:
    return [{"Labels": {}, **node} for node in ray.nodes() if node.get("Alive")]


def _needs(pool: PoolConfig, placement: Mapping[str, Any]) -> dict[str, float]:
    """What one worker takes of a node."""
    needs = {"CPU": pool.threads, "GPU": pool.gpus, **placement.get("resources", {})}
    return {name: float(amount) for name, amount in needs.items() if amount}


def _fit(have: Mapping[str, float], needs: Mapping[str, float]) -> int:
    return max(0, int(min(have.get(name, 0.0) / amount for name, amount in needs.items()) + 1e-9))


def _told(pool: PoolConfig, placement: Mapping[str, Any], places: int, free: int) -> str:
    """Why fewer than all of a pool's workers have a place now; "" when they have."""
    each = f"{pool.threads} CPU" + (f" and {pool.gpus:g} GPU" if pool.gpus else "")
    if places == 0 and placement:
        mark = f"label {POOL_LABEL}={pool.name} or resource {pool_resource(pool.name)}"
        return f"no node with the {mark} has {each}"
    if places < pool.workers:
        return f"the cluster has room for {places} of {pool.workers} (each takes {each})"
    if free < pool.workers:
        return f"{pool.workers - free} of {pool.workers} places are taken by others"
    return ""


# --- watching -------------------------------------------------------------------------------------


def _control_door() -> tuple[str, int]:
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return host.strip("[]"), int(port)


class _Watch:
    """Knocks at doors, in a thread of its own, until it is stopped; remembers those that stay shut.

    A door has a name: the id of a node, or `CONTROL`.
    """

    def __init__(self, doors: Mapping[str, tuple[str, int]]) -> None:
        self.lost: frozenset[str] = frozenset()
        self._doors = dict(doors)
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name="ray-watch", daemon=True).start()

    def add(self, name: str, door: tuple[str, int]) -> None:
        self._doors = {**self._doors, name: door}

    def stop(self) -> None:
        self._stopped.set()

    def is_shut(self, name: str) -> bool:
        """Whether that door, if there is one, is shut at this moment."""
        if (door := self._doors.get(name)) is None:
            return False
        try:
            socket.create_connection(door, timeout=_LOOK_EVERY_S).close()
        except OSError:
            return True
        return False

    def _watch(self) -> None:
        missed: Counter[str] = Counter()
        while not self._stopped.wait(_LOOK_EVERY_S):
            for name in self._doors.keys() - self.lost:
                missed[name] = missed[name] + 1 if self.is_shut(name) else 0
                if missed[name] >= _MISSED_LOOKS:
                    self.lost |= {name}


def _check_reachable(address: str) -> None:
    """Raise OSError in seconds where nobody listens; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _REACHED_WITHIN_S).close()


# --- what Ray would do differently ----------------------------------------------------------------

_QUIET = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}


@contextmanager
def _one_machine() -> Iterator[None]:
    """While open, a cluster is started that listens on loopback alone, and without its autoscaler
    and its log reader.

    One machine has nothing to scale and nobody to talk to, and nobody reads the logs
    (`log_to_driver` is off); the two are Python processes that start beside the ones we wait for:
    1.9 s of processor time (decision 0009). `ray.init` has no setting for either, and takes
    loopback as "find an address that others can reach"; tests look at processes and ports.
    """
    parameters: Any = ray._private.parameter.RayParams
    usual = parameters.__init__
    parameters.__init__ = partialmethod(_on_loopback, usual)
    try:
        yield
    finally:
        parameters.__init__ = usual


def _on_loopback(self: Any, usual: Any, *args: Any, **given: Any) -> None:
    given |= {"node_ip_address": _LOOPBACK, "no_monitor": True, "include_log_monitor": False}
    usual(self, *args, **given)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handlers in place of those that were there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def _own_words(said: list[str]) -> Iterator[None]:
    """While open, what Ray's C++ half writes to standard error goes into `said`, and what we write
    there still gets there. From then on, what its Python half would print goes to our log."""
    # It has remarks before `logging_level` takes effect, and logs what it raises as well.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    ray._private.worker.print_to_stdstream = _to_log
    usual, ours = sys.stderr, os.dup(2)
    with tempfile.TemporaryFile() as theirs, os.fdopen(ours, "w", buffering=1) as shown:
        usual.flush()
        os.dup2(theirs.fileno(), 2)
        if _is_fd_2(usual):
            sys.stderr = shown
        try:
            yield
        finally:
            os.dup2(ours, 2)
            sys.stderr = usual
            theirs.seek(0)
            said.append(theirs.read().decode(errors="replace"))


def _is_fd_2(stream: Any) -> bool:
    try:
        return int(stream.fileno()) == 2
    except (OSError, ValueError, AttributeError):
        return False


def _to_log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    log.debug("Ray: %s", printable(" ".join(data.get("lines", ()))))
