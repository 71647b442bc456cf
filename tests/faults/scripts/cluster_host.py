"""A Ray cluster of several nodes on this machine, in a process of its own.

Reads commands, a line each, and answers each with a line: `add CPUS` (answers a number), `kill NUMBER`,
`remove NUMBER` (in peace), `wait` (until all know who is there), `end`. The head node has no CPU. The cluster
ends with this process, however it ends.
"""

import sys

from ray.cluster_utils import Cluster


def main():
    """Serve until told to end, or until whoever tells is gone."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": 100 << 20,
            # A node that is killed is known to be dead after about four seconds, not fifteen.
            "_system_config": {
                "health_check_initial_delay_ms": 0,
                "health_check_period_ms": 1000,
                "health_check_timeout_ms": 3000,
                "health_check_failure_threshold": 3,
            },
        },
    )
    nodes = []
    try:
        print(cluster.address, file=answers, flush=True)
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "add":
                nodes.append(cluster.add_node(num_cpus=int(arguments[0]), object_store_memory=100 << 20))
                answer = len(nodes) - 1
            elif command in ("kill", "remove"):
                cluster.remove_node(nodes[int(arguments[0])], allow_graceful=command == "remove")
                answer = "gone"
            elif command == "wait":
                cluster.wait_for_nodes()
                answer = "agreed"
            else:
                break
            print(answer, file=answers, flush=True)
    finally:
        cluster.shutdown()


main()
