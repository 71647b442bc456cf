"""The files for `ray up`: Ray's own check, and what a run needs of a cluster."""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "cluster" / "ray-up"
FILES = pytest.mark.parametrize("name", ["aws", "gcp"])


def load(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


@FILES
def test_ray_takes_the_file(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load(name)
    assert config["provider"]["type"] == name
    validate_config(prepare_config(config))


@FILES
def test_ray_refuses_it_with_a_mistake(name):
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load(name)
    config["available_node_types"]["cpu"]["max_worker"] = 3
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(config))


@FILES
def test_a_head_without_work_and_workers_from_nothing(name):
    config = load(name)
    types = config["available_node_types"]
    assert set(types) == {"head", "cpu", "gpu"}
    assert config["head_node_type"] == "head"
    assert types["head"]["resources"] == {"CPU": 0}
    (start,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--head" in start
    assert "--num-cpus=0" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
    for kind in ("cpu", "gpu"):
        assert types[kind]["min_workers"] == 0 < types[kind]["max_workers"]
    assert config["max_workers"] == sum(kind["max_workers"] for kind in types.values())
    # No work for CPUs brings a machine with a GPU.
    assert types["gpu"]["resources"] == {"CPU": 0, "GPU": 1}


@FILES
def test_workers_are_spot_and_the_head_is_not(name):
    def is_spot(node):
        market = node.get("InstanceMarketOptions", {}).get("MarketType")
        return market == "spot" or any(each["preemptible"] for each in node.get("scheduling", ()))

    types = load(name)["available_node_types"]
    assert {kind: is_spot(each["node_config"]) for kind, each in types.items()} == {
        "head": False,
        "cpu": True,
        "gpu": True,
    }


@FILES
def test_the_dashboard_is_not_open_to_the_network(name):
    config = load(name)
    (start,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in start
    assert "security_group" not in config["provider"]


@FILES
def test_images_are_pinned_and_the_store_is_mounted_before_them(name):
    config = load(name)
    gpu = config["available_node_types"]["gpu"]["docker"]["worker_image"]
    for image in (config["docker"]["image"], gpu):
        assert ":" in image
        assert "latest" not in image
    assert "--volume=/mnt/rct:/mnt/rct" in config["docker"]["run_options"]
    assert any("mount -t nfs" in line and "/mnt/rct" in line for line in config["initialization_commands"])
