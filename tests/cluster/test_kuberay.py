"""The files for KubeRay: their fields, and what a run needs of a cluster."""

import copy
import re
import shlex
from pathlib import Path

import pytest
import yaml

from rct_ray.cli import app
from tests.cluster.kuberay import CLUSTER, JOB, faults

FOLDER = Path(__file__).parents[2] / "cluster" / "kuberay"
DOCKERFILE = (FOLDER.parent / "docker" / "Dockerfile").read_text()


def load(name):
    (document,) = yaml.safe_load_all((FOLDER / name).read_text())
    return document


JOB_FILE, CLUSTER_FILE = load("rayjob.yaml"), load("raycluster.yaml")
CLUSTERS = pytest.mark.parametrize(
    "cluster", [CLUSTER_FILE["spec"], JOB_FILE["spec"]["rayClusterSpec"]], ids=["raycluster", "rayjob"]
)


def pods(cluster):
    yield cluster["headGroupSpec"]["template"]["spec"]
    yield from (group["template"]["spec"] for group in cluster["workerGroupSpecs"])


def containers(cluster):
    return [container for pod in pods(cluster) for container in pod["containers"]]


@pytest.mark.parametrize(
    ("document", "kind", "fields"), [(JOB_FILE, "RayJob", JOB), (CLUSTER_FILE, "RayCluster", CLUSTER)]
)
def test_the_fields_are_kuberays(document, kind, fields):
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", kind)
    assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"])
    assert faults(document["spec"], fields, kind) == []


def test_the_rules_find_what_is_wrong():
    wrong = copy.deepcopy(CLUSTER_FILE["spec"])
    wrong["workerGroupSpecs"][0]["maxReplica"] = wrong["workerGroupSpecs"][0].pop("maxReplicas")
    wrong["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    wrong["autoscalerOptions"]["version"] = "v3"
    wrong["enableInTreeAutoscaling"] = "yes"
    places = sorted(fault.split(":")[0] for fault in faults(wrong, CLUSTER, "spec"))
    assert places == [
        "spec.autoscalerOptions.version",
        "spec.enableInTreeAutoscaling",
        "spec.headGroupSpec.rayStartParams",
        "spec.workerGroupSpecs[0].maxReplica",
        "spec.workerGroupSpecs[0].maxReplicas",
    ]


def test_both_files_describe_one_cluster():
    assert JOB_FILE["spec"]["rayClusterSpec"] == CLUSTER_FILE["spec"]


@CLUSTERS
def test_the_autoscaler_is_on_and_starts_from_nothing(cluster):
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]


@CLUSTERS
def test_the_head_takes_no_work_and_no_spot_node(cluster):
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "tolerations" not in head["template"]["spec"]
    (term,) = head["template"]["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert {rule["key"] for rule in term["matchExpressions"]} >= {
        "cloud.google.com/gke-spot",
        "eks.amazonaws.com/capacityType",
    }


@CLUSTERS
def test_workers_bear_spot_nodes(cluster):
    for group in cluster["workerGroupSpecs"]:
        keys = {toleration["key"] for toleration in group["template"]["spec"]["tolerations"]}
        assert {"cloud.google.com/gke-spot", "spot"} <= keys


@CLUSTERS
def test_a_gpu_node_comes_only_for_a_gpu(cluster):
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    (gpu,) = groups["gpu"]["template"]["spec"]["containers"]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert groups["gpu"]["rayStartParams"]["num-cpus"] == "0"
    assert "num-cpus" not in groups["cpu"]["rayStartParams"]


@CLUSTERS
def test_containers_have_limits_a_pinned_image_and_no_root(cluster):
    for pod in pods(cluster):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        # A pod that began anew would be another node of Ray under an old name.
        assert pod["restartPolicy"] == "Never"
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    for container in containers(cluster):
        # Ray counts the limits' CPUs; less requested than that would be promised twice.
        assert container["resources"]["requests"] == container["resources"]["limits"]
        _, colon, tag = container["image"].rpartition(":")
        assert colon
        assert "latest" not in tag
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


@CLUSTERS
def test_ray_is_that_of_the_image(cluster):
    assert f"ARG RAY_VERSION={cluster['rayVersion']}\n" in DOCKERFILE


def test_the_driver_stays_on_the_head():
    assert not [name for name in JOB_FILE["spec"] if name.startswith("entrypointNum")]
    assert "entrypointResources" not in JOB_FILE["spec"]


def test_a_job_that_is_tried_again_goes_on_and_its_cluster_goes():
    spec = JOB_FILE["spec"]
    assert spec["backoffLimit"] > 0
    assert "--resume" in spec["entrypoint"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert "deletionStrategy" not in spec
    assert int(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 10


def test_the_entrypoint_is_a_command_line_of_ours():
    import typer

    program, command, *arguments = shlex.split(JOB_FILE["spec"]["entrypoint"])
    assert (program, command) == ("rct-ray", "run")
    parsed = typer.main.get_command(app).commands["run"].make_context("run", arguments).params
    (mounted,) = {
        mount["mountPath"]
        for container in containers(CLUSTER_FILE["spec"])
        for mount in container["volumeMounts"]
    }
    assert all(path.startswith(f"{mounted}/") for path in [*parsed["checkpoints"], str(parsed["out"])])
    assert parsed["engine"] == "ray"
    groups = {group["groupName"]: group for group in CLUSTER_FILE["spec"]["workerGroupSpecs"]}
    (worker,) = groups["cpu"]["template"]["spec"]["containers"]
    cores = int(worker["resources"]["limits"]["cpu"]) * groups["cpu"]["maxReplicas"]
    # More would wait for ever, less would leave nodes unused.
    assert parsed["workers"] == cores


def test_the_volume_is_shared():
    volume = load("volume.yaml")
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    claims = {
        each["persistentVolumeClaim"]["claimName"]
        for pod in pods(CLUSTER_FILE["spec"])
        for each in pod["volumes"]
    }
    assert claims == {volume["metadata"]["name"]}
