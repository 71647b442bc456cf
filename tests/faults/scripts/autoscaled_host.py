"""A Ray cluster that starts with a head alone, and whose autoscaler adds nodes of one CPU on this machine.

Argument: most nodes. Reads commands, a line each, and answers each with a line: `nodes` answers how many nodes
are alive besides the head. Ray's own `AutoscalingCluster` needs a file that the wheel does not have, and ends
every Ray of the machine as it starts.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

HEAD = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
# Read by Ray when it is imported, by its server and by its monitor.
os.environ.update(
    {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
)


def configuration(most):
    """What `ray up` would be given."""
    commands = (
        "initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray",
    )  # fmt: skip
    return {
        "cluster_name": "test",
        "max_workers": most,
        "idle_timeout_minutes": 0.05,
        "upscaling_speed": 10.0,
        "provider": {
            "type": "external",
            "module": "autoscaled_nodes.Nodes",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": HEAD,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 1, "memory": 2 << 30, "object_store_memory": 100 << 20},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            },
        },
        "auth": {},
        "docker": {},
        **{f"{name}_commands": [] for name in commands},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


def main():
    """Serve until whoever asks is gone."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "autoscaler.json")
        path.write_text(json.dumps(configuration(int(sys.argv[1]))))
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": 100 << 20,
                "autoscaling_config": str(path),
            },
        )
        try:
            print(cluster.address, file=answers, flush=True)
            for line in sys.stdin:
                if line.strip() != "nodes":
                    break
                nodes = cluster.global_state.node_table()
                print(sum(node["Alive"] for node in nodes) - 1, file=answers, flush=True)
        finally:
            cluster.shutdown()


main()
