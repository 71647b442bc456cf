"""A Ray cluster of several nodes on this machine, in a process of its own.

Reads commands, a line each, and answers each with a line: `add CPUS` (answers a number), `remove NUMBER` (the
node is killed), `end`. The head node has no CPU. The cluster ends with this process, however it ends.
"""

import sys

from ray.cluster_utils import Cluster


def main():
    """Serve until told to end, or until whoever tells is gone."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 << 20},
    )
    nodes = []
    try:
        print(cluster.address, file=answers, flush=True)
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "add":
                nodes.append(cluster.add_node(num_cpus=int(arguments[0]), object_store_memory=100 << 20))
                answer = len(nodes) - 1
            elif command == "remove":
                cluster.remove_node(nodes[int(arguments[0])], allow_graceful=False)
                cluster.wait_for_nodes()
                answer = "removed"
            else:
                break
            print(answer, file=answers, flush=True)
    finally:
        cluster.shutdown()


main()
