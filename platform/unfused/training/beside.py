"""How workers that train on one machine find one another: by a file.

The rule of this file: nothing listens but where this machine alone can reach it. The server that
torch starts for workers on several machines takes calls from all of them, and asks nobody who he
is.
"""

from __future__ import annotations

import uuid
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)


class BesideConfig(TorchConfig):
    """Ray Train's settings of torch, for workers beside one another."""

    @property
    def backend_cls(self) -> type:
        return _Beside


class _Beside(_TorchBackend):
    """Starts their process group."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        import ray

        session = ray._private.worker._global_node.get_session_dir_path()
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        worker_group.execute(_set_torch_distributed_env_vars)
        group = {
            "backend": "nccl" if gpus else "gloo",
            "world_size": len(worker_group),
            # Of each start its own: a file knows the workers of one group.
            "init_method": f"file://{session}/group-{uuid.uuid4().hex}",
            "timeout_s": backend_config.timeout_s,
        }
        starts = [
            worker_group.execute_single_async(
                rank, _setup_torch_process_group, world_rank=rank, **group
            )
            for rank in range(len(worker_group))
        ]
        ray.get(starts)
