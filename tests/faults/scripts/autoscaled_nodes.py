"""Nodes on this machine that an autoscaler starts and ends; imported by Ray's monitor."""

import sys

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Nodes(FakeMultiNodeProvider):
    """Ray's own nodes for tests, of the cluster that the monitor is of, and of any memory."""

    def __init__(self, provider_config, cluster_name):
        address = next(word for word in sys.argv if word.startswith("--gcs-address="))
        super().__init__({**provider_config, "gcs_address": address.partition("=")[2]}, cluster_name)

    def _create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        # The autoscaler plans with the memory that the configuration promises; Ray's provider can't start with it.
        plain = {name: amount for name, amount in resources.items() if name != "memory"}
        super()._create_node_with_resources_and_labels(node_config, tags, count, plain, labels)
