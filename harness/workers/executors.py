"""Which executor a configuration means."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from harness.config import RunConfig
from harness.progress import Progress
from harness.store import Store
from harness.training import Shards
from harness.workers.job import BackboneJob
from harness.workers.task import Distributed, Executor


class Places(NamedTuple):
    """How work is cut and where it is done; executor: None is this process."""

    shards: Shards
    executor: Executor | None


def open_places(config: RunConfig, store: Store, progress: Progress, loading: Callable[[], BackboneJob]) -> Places:
    """Where the fits and answers of a configuration are computed.

    loading   gives the backbone, once it is known
    Raises ConfigError where what the executor needs is not installed.
    """
    gpu = config.device.startswith("cuda")
    executor: Executor | None = None
    if config.executor == "ray":
        from harness.workers.on_ray import RayExecutor

        executor = RayExecutor(config.address, config.threads, gpu, progress)
    elif config.executor == "slurm":
        from harness.workers.on_slurm import SlurmExecutor

        executor = SlurmExecutor(store, config.slurm_parameters, config.threads, gpu)
    elsewhere = None if executor is None else Distributed(executor, loading)
    return Places(Shards(config.shard_people, elsewhere), executor)
