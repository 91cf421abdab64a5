"""What a sweep costs beside its work: `lyap sweep` with the training left out, for several numbers of runs.

    python benchmarks/sweep_scale.py 1000 3000 10000           # ensembles of 20
    python benchmarks/sweep_scale.py 300 1000 --group 1        # a Record for each run
    python benchmarks/sweep_scale.py 2000 --nodes 2            # on two nodes of Ray, on this machine

Each size runs in a process of its own, twice: the second call finds everything finished. Times are of the
driver's processor; `check` is until the first ensemble, `store` from there on (with Ray, all is `store`).
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lyaptorch import cli
from lyaptorch.cli import trainings
from lyaptorch.record import Record


def nothing(runs: Sequence[Mapping[str, Any]], checkpoint: Path, *, threads: int = 1) -> Record:
    """In the place of a training: curves of a thousand epochs, as one leaves."""
    started.append(time.process_time())
    curve = (("member", "epoch"), np.zeros((len(runs), 1000), np.float32))
    final = (("member",), np.zeros(len(runs), np.float32))
    names = {"loss": curve, "accuracy": curve, "final_loss": final, "final_accuracy": final}
    return Record("train", {}, names, {"epoch": (("epoch",), np.arange(1, 1001))})


started: list[float] = []


def cluster(nodes: int) -> str:
    """The address of nodes of one CPU each on this machine, which end with this process."""
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
    made = Cluster()
    for left in range(5, -1, -1):
        try:
            made.add_node(include_dashboard=False, **node)
            break
        except Exception:
            # on a busy machine a node may not be up within the 30 s that Ray grants it
            if not left:
                raise
    for _ in range(nodes - 1):
        made.add_node(**node)
    made.wait_for_nodes()
    atexit.register(made.shutdown)
    return str(made.address)


def once(runs: int, group: int, folder: Path, nodes: int) -> dict[str, float]:
    """One call of the command, and what it took."""
    started.clear()
    trainings.train_runs = nothing
    (folder / "grid.toml").write_text('task = "temporal_xor"\nschedule = "none"\n')
    sys.argv = ["lyap", "sweep", str(folder / "grid.toml"), "--over", "delay=10:100:10"]
    sys.argv += ["--seeds", str(runs // 10), "--group", str(group), "--runs", str(folder / "runs"), "--json"]
    sys.argv += ["--address", cluster(nodes)] if nodes else []
    begin, clock = time.process_time(), time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main() == 0
    end = time.process_time()
    first = started[0] if started else begin if nodes else end
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"check": first - begin, "store": end - first, "peak": peak, "clock": time.monotonic() - clock}


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=int, nargs="*", default=[1000, 3000, 10000])
    parser.add_argument("--group", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--inside", type=Path)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(once(given.runs[0], given.group, given.inside, given.nodes)))
        return
    print(
        "| runs | group | check, ms a run | store, ms a run | again, ms a run | peak, MiB | disk, KiB a run |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for runs in given.runs:
        with tempfile.TemporaryDirectory() as name:
            command = [sys.executable, __file__, str(runs), "--group", str(given.group), "--inside", name]
            command += ["--nodes", str(given.nodes)]
            calls = [subprocess.run(command, stdout=subprocess.PIPE, check=True) for _ in range(2)]
            told = [json.loads(call.stdout) for call in calls]
            disk = sum(p.stat().st_size for p in Path(name).rglob("*") if p.is_file()) / 1024
        first, again = told
        row = [1e3 * first[key] / runs for key in ("check", "store")]
        row += [1e3 * (again["check"] + again["store"]) / runs]
        cells = [
            str(runs),
            str(given.group),
            *(f"{z:.2f}" for z in row),
            f"{first['clock']:.0f}",
            f"{first['peak']:.0f}",
            f"{disk / runs:.1f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
