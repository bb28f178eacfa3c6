"""Ray clusters of several nodes on this machine."""

from __future__ import annotations

from typing import Any

from stylebatch.engine.ray_pool import STARTS, TIMED_OUT


def ray_nodes(*nodes: dict[str, Any]) -> Any:
    """A `ray.cluster_utils.Cluster` of these nodes, the head first; a start that times out on a busy machine is repeated."""
    from ray.cluster_utils import Cluster

    start = 1
    while True:
        made = Cluster()
        try:
            for node in nodes:
                made.add_node(**node)
            return made
        except Exception as error:
            made.shutdown()
            if TIMED_OUT not in str(error) or start == STARTS:
                raise
            start += 1
