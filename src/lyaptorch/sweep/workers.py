"""Workers, which execute packs: in this process, in others on this machine, or on a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing as mp
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Protocol

from lyaptorch import _checks
from lyaptorch.sweep.grid import Group

Work = Callable[[Group], Any]
"""What is done with a pack; it and what it returns can be pickled."""


class Workers(Protocol):
    """Where packs are executed."""

    def execute(self, work: Work, packs: Sequence[Group]) -> Iterator[tuple[Group, Any]]:
        """Each pack with its result, or with the exception it raised, as they come."""


@dataclass(frozen=True)
class Serial:
    """In this process, one after the other.

    Example:
        >>> Serial()
        Serial()
    """

    def execute(self, work: Work, packs: Sequence[Group]) -> Iterator[tuple[Group, Any]]:
        """See `Workers`."""
        for group in packs:
            try:
                yield group, work(group)
            except Exception as error:
                yield group, error


@dataclass(frozen=True)
class Processes:
    """In processes on this machine, which are used again for pack after pack and end with this one.

    They import the main module, so a script must do its work under `if __name__ == "__main__"`.

    Attributes:
        count: how many.
        retries: how often a pack is repeated whose process died.

    Example:
        >>> Processes(2).count
        2
    """

    count: int
    retries: int = 3

    def __post_init__(self) -> None:
        _checks.integer("count", self.count, 1)
        _checks.integer("retries", self.retries, 0)

    def execute(self, work: Work, packs: Sequence[Group]) -> Iterator[tuple[Group, Any]]:
        """See `Workers`."""
        others, ending = set(mp.active_children()), threading.Event()
        # a pool of one for each thread: a process that dies breaks its pool, and takes nobody's work with it
        own = threading.local()

        def begin() -> None:
            own.pool = _pool()

        def attempt(group: Group) -> Any:
            for _ in range(self.retries + 1):
                try:
                    return own.pool.submit(work, group).result()
                except BrokenProcessPool:
                    begin()
                if ending.is_set():
                    break
            times = f"{self.retries + 1} time{'s' * (self.retries > 0)}"
            raise ChildProcessError(f"its process died {times}; is there too little memory?")

        threads = ThreadPoolExecutor(self.count, initializer=begin)
        try:
            futures = {threads.submit(attempt, group): group for group in packs}
            for future in as_completed(futures):
                yield futures[future], future.exception() or future.result()
        finally:
            ending.set()
            for process in set(mp.active_children()) - others:
                process.kill()
            threads.shutdown(cancel_futures=True)


def _pool() -> ProcessPoolExecutor:
    """A process that starts when it gets work; a forked one would inherit threads and locks of torch."""
    return ProcessPoolExecutor(1, mp.get_context("spawn"), initializer=_follow_the_parent)


def _follow_the_parent() -> None:
    """Die when the parent dies, even of a signal that nobody can catch; leave interrupts to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = mp.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    # the sentinel is readable once the parent is gone, however that came; polling would find out late
    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class Ray:
    """On a Ray cluster, or one that is started on this machine for the time of the sweep.

    Ray reuses its workers and repeats what was lost with a worker or a node. The folder of the sweep must be
    the same on every node if runs are to resume there.

    Attributes:
        address: "local" for this machine, "auto", host:port or ray://host:port.
        cpus: of a pack.
        gpus: of a pack.
        retries: how often a pack is repeated whose worker or node died.

    Example:
        >>> Ray("auto", gpus=0.5).address
        'auto'
    """

    address: str = "local"
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3

    def __post_init__(self) -> None:
        _checks.rate("cpus", self.cpus)
        _checks.rate("gpus", self.gpus)
        _checks.integer("retries", self.retries, 0)

    def execute(self, work: Work, packs: Sequence[Group]) -> Iterator[tuple[Group, Any]]:
        """See `Workers`."""
        if not packs:
            return
        ray = self._connect()
        try:
            self._check_resources(ray)
            task = ray.remote(_apply).options(
                num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries
            )
            # once to every node, not with every task: it may hold the user's data
            shared = ray.put(work)
            waiting = {task.remote(shared, group): group for group in packs}
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                result: Any
                try:
                    result = ray.get(ready)
                except ray.exceptions.RayTaskError as error:
                    # what the work raised, without Ray's cover, as other workers give it
                    result = error.cause or error
                except ray.exceptions.RayError as error:
                    died = f"its worker died {self.retries + 1} times, {type(error).__name__}"
                    result = ChildProcessError(died)
                yield waiting.pop(ready), result
        finally:
            ray.shutdown()

    def _connect(self) -> Any:
        """Ray, connected; what is started here listens to this machine alone and reports nothing home."""
        own = self.address == "local"
        # read when Ray is imported
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if own or _host(self.address) in ("127.0.0.1", "localhost"):
            # else Ray takes the machine's address in the network in the place of the loopback's
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            import ray
        except ImportError as error:
            do = "pip install 'lyaptorch[ray]', or sweep without --address"
            raise ValueError(f"Ray is not installed; {do}") from error
        started: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if own else {}
        try:
            ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR, **started)
        except Exception as error:  # one that did not start in time is a plain Exception
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            do = "start one with ray start --head"
            raise ValueError(f"no Ray cluster at {self.address}, got {first}; {do}") from error
        return ray

    def _check_resources(self, ray: Any) -> None:
        """A pack that fits no node would wait for ever."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        if not any(all(node.get(name, 0) >= number for name, number in wanted.items()) for node in nodes):
            most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
            raise ValueError(
                f"a pack must fit a node, got {self.cpus:g} CPUs and {self.gpus:g} GPUs for nodes of up to "
                f"{most['CPU']:g} and {most['GPU']:g}; ask for fewer"
            )


def _apply(work: Work, group: Group) -> Any:
    return work(group)


def _host(address: str, seconds: float = 5.0) -> str:
    """The host of an address where somebody answers; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    # Ray finds that one by files on this machine, and says at once if there is none
    if address == "auto":
        return ""
    if not (colon and host and port.isdigit()):
        raise ValueError(
            f'an address must be "local", "auto", host:port or ray://host:port, got {address!r}; correct it'
        )
    try:
        socket.create_connection((host, int(port)), seconds).close()
    except OSError as error:
        raise ValueError(
            f"no Ray cluster at {address}, got {error}; start one with ray start --head"
        ) from error
    return host
