"""Sweeps on Ray: two nodes on one machine, one of which is killed; a driver that is killed; what it costs."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweep_work import begun, square

from lyaptorch.sweep import Ray, run_id, sweep

# before the import: clusters on the loopback, as `Ray` has them
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
ray = pytest.importorskip("ray", reason="ray is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked"), pytest.mark.filterwarnings("ignore")]

RUNS = [{"x": x} for x in range(40)]
DRIVER = """
import functools, sys
from pathlib import Path
from lyaptorch.sweep import Ray, sweep
from sweep_work import square
address, folder, log, seconds = sys.argv[1:]
work = functools.partial(square, log=Path(log), seconds=float(seconds))
sweep(work, [{"x": x} for x in range(40)], folder, name="square", workers=Ray(address, cpus=1.0))
"""


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of two CPUs each, on the loopback; workers find the modules of the tests."""
    from ray.cluster_utils import Cluster

    paths = [str(Path(__file__).parent), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"include_dashboard": False, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
    for left in (2, 1, 0):
        try:
            made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **quiet})
            break
        except Exception:
            # on a busy machine a node may not be up within the 30 s that Ray grants it
            if not left:
                raise
    made.add_node(num_cpus=2, node_ip_address="127.0.0.1", object_store_memory=80 * 2**20)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def saved(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.nc")}


def driver(cluster, folder: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    arguments = [cluster.address, str(folder), str(log), str(seconds)]
    return subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], stderr=subprocess.PIPE, text=True)


def wait_for(folder: Path, count: int, pattern: str) -> None:
    for _ in range(6000):
        if len(list(folder.glob(pattern))) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"fewer than {count} files {pattern}")


def test_a_node_is_killed_in_the_middle_and_all_runs_finish(cluster, tmp_path, log, capsys):
    expected = tmp_path / "serial"
    sweep(square, RUNS, expected, name="square")
    process = driver(cluster, tmp_path / "ray", log, 1.0)
    wait_for(log, 12, "done-*")
    (victim,) = cluster.worker_nodes
    cluster.remove_node(victim, allow_graceful=False)
    _, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    assert saved(tmp_path / "ray") == saved(expected)
    again = len(begun(log)) - 40
    assert set(begun(log)) == set(range(40))
    assert 1 <= again <= 4
    with capsys.disabled():
        print(f"\n40 of 40 runs, {again} of them begun again on the other node; Records equal to serial ones")


def test_a_driver_is_killed_and_only_unfinished_runs_are_executed_again(cluster, tmp_path, log, capsys):
    process = driver(cluster, tmp_path / "ray", log, 1.0)
    wait_for(tmp_path / "ray", 8, "*.nc")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(3)
    finished = saved(tmp_path / "ray")
    assert 0 < len(finished) < 40
    for path in log.iterdir():
        path.unlink()
    process = driver(cluster, tmp_path / "ray", log, 0.2)
    _, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    left = [x for x in range(40) if not _has(finished, {"x": x})]
    assert begun(log) == left
    after = saved(tmp_path / "ray")
    assert len(after) == 40
    assert {name: after[name] for name in finished} == finished
    with capsys.disabled():
        print(
            f"\n{len(finished)} runs were saved when the driver was killed; the next one executed {len(left)}"
        )


def _has(finished: dict[str, bytes], config: dict[str, int]) -> bool:
    return any(run_id("square", config).encode() in body for body in finished.values())


def test_ray_costs_less_than_a_twentieth_of_runs_of_20_seconds(cluster, tmp_path, log, capsys):
    """Forty runs on four CPUs by the clock, until `sweep` returns; the start of workers is counted apart."""
    start = time.time()
    work = functools.partial(square, log=log, seconds=20.0)
    sweep(work, RUNS, tmp_path / "ray", name="square", workers=Ray(cluster.address))
    whole = time.time() - start
    first: dict[str, float] = {}
    for path in log.glob("begun-*"):
        worker, begins = path.name.split("-")[2], path.stat().st_mtime - start
        first[worker] = min(begins, first.get(worker, whole))
    assert len(first) == 4
    ready = sum(first.values()) / 4
    overhead = (whole - ready) / 200 - 1
    with capsys.disabled():
        print(f"\n40 runs of 20 s, 4 workers: {whole:.1f} s in place of 200 s, of which workers took")
        print(
            f"{ready:.1f} s to start (the last {max(first.values()):.1f} s); the rest is {overhead:.2%} more"
        )
    assert overhead < 0.05


def test_a_cluster_of_this_machine_alone_listens_to_this_machine_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
    before = listening()
    opened = []

    class Watching(Ray):
        def _check_resources(self, cluster):
            opened.extend(listening() - before)
            super()._check_resources(cluster)

    sweep(square, RUNS[:3], tmp_path, name="square", workers=Watching("local", cpus=0.5))
    assert len(saved(tmp_path)) == 3
    assert opened
    assert {host for host, _ in opened} <= {"127.0.0.1", "::1"}


def listening() -> set[tuple[str, int]]:
    """Address and port of every TCP socket that accepts connections, from Linux's tables."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            host, port = local.split(":")
            if state == "0A":
                found.add((address(host), int(port, 16)))
    return found


def address(text: str) -> str:
    loopback = {
        "0100007F": "127.0.0.1",
        "0" * 24 + "01000000": "::1",
        "0000000000000000FFFF00000100007F": "127.0.0.1",
    }
    return loopback.get(text, text)


def test_a_pack_that_fits_no_node_is_refused(cluster, tmp_path):
    for settings, wanted in (({"cpus": 99.0}, "99 CPUs and 0 GPUs"), ({"gpus": 1.0}, "1 CPUs and 1 GPUs")):
        with pytest.raises(
            ValueError, match=f"a pack must fit a node, got {wanted} for nodes of up to 2 and 0"
        ):
            sweep(square, RUNS, tmp_path, name="square", workers=Ray(cluster.address, **settings))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_that_nobody_answers_at(tmp_path, address):
    with pytest.raises(
        ValueError, match=rf"no Ray cluster at {address}, got .*refused; start one with ray start"
    ):
        sweep(square, RUNS, tmp_path, name="square", workers=Ray(address))


def test_no_cluster_is_asked_for_when_nothing_is_left_to_do():
    assert list(Ray("127.0.0.1:1").execute(square, [])) == []


def test_no_cluster_to_be_found(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match=r"no Ray cluster at auto, got .*; start one with ray start --head"):
        sweep(square, RUNS, tmp_path, name="square", workers=Ray("auto"))


@pytest.mark.parametrize("address", ["nowhere", "host:", "ray://", ":6379"])
def test_what_is_no_address(tmp_path, address):
    with pytest.raises(
        ValueError, match=r'an address must be "local", "auto", host:port or ray://host:port, got'
    ):
        sweep(square, RUNS, tmp_path, name="square", workers=Ray(address))
