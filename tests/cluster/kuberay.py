"""What KubeRay 1.7 accepts: its custom resources' fields, as far as they concern us, with their types.

Written down from the Go types (ray-operator/apis/ray/v1), since no cluster answers in a test. A field that is not
here is refused: a misspelt one would be dropped by the API server without a word.
"""


class Required:
    """A field that must be there."""

    def __init__(self, kind):
        self.kind = kind


class OneOf:
    """A string out of a few."""

    def __init__(self, *values):
        self.values = values


class Each:
    """A list of one kind."""

    def __init__(self, kind):
        self.kind = kind


# Kubernetes' own objects are not written down; `anything` is a mapping.
anything = dict
strings = "strings"

POD_TEMPLATE = {"metadata": anything, "spec": Required(anything)}

AUTOSCALER = {
    "resources": anything,
    "image": str,
    "imagePullPolicy": str,
    "securityContext": anything,
    "idleTimeoutSeconds": int,
    "upscalingMode": OneOf("Default", "Aggressive", "Conservative"),
    "version": OneOf("v1", "v2"),
    "env": Each(anything),
    "envFrom": Each(anything),
    "volumeMounts": Each(anything),
    "command": Each(str),
    "args": Each(str),
}

HEAD = {
    "template": Required(POD_TEMPLATE),
    "headService": anything,
    "enableIngress": bool,
    "resources": strings,
    "labels": strings,
    "rayStartParams": strings,
    "serviceType": str,
}

WORKERS = {
    "groupName": Required(str),
    "replicas": int,
    # The Go types have no omitempty here.
    "minReplicas": Required(int),
    "maxReplicas": Required(int),
    "idleTimeoutSeconds": int,
    "priority": int,
    "suspend": bool,
    "numOfHosts": int,
    "resources": strings,
    "labels": strings,
    "rayStartParams": strings,
    "template": Required(POD_TEMPLATE),
    "scaleStrategy": anything,
}

CLUSTER = {
    "suspend": bool,
    "managedBy": str,
    "authOptions": {"mode": OneOf("disabled", "token"), "secretName": str, "enableK8sTokenAuth": bool},
    "autoscalerOptions": AUTOSCALER,
    "headServiceAnnotations": strings,
    "enableInTreeAutoscaling": bool,
    "gcsFaultToleranceOptions": anything,
    "upgradeStrategy": anything,
    "networkPolicy": anything,
    "headGroupSpec": Required(HEAD),
    "rayVersion": str,
    "workerGroupSpecs": Each(WORKERS),
}

JOB = {
    "activeDeadlineSeconds": int,
    "preRunningDeadlineSeconds": int,
    "backoffLimit": int,
    "rayClusterSpec": CLUSTER,
    "submitterPodTemplate": POD_TEMPLATE,
    "metadata": strings,
    "clusterSelector": strings,
    "submitterConfig": {"backoffLimit": int},
    "managedBy": str,
    "deletionStrategy": anything,
    "entrypoint": str,
    "runtimeEnvYAML": str,
    "jobId": str,
    "submissionMode": OneOf("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "entrypointResources": str,
    "entrypointNumCpus": float,
    "entrypointNumGpus": float,
    "ttlSecondsAfterFinished": int,
    "shutdownAfterJobFinishes": bool,
    "suspend": bool,
}


def faults(value, kind, where):
    """What is wrong with a value, each with the place of it."""
    if isinstance(kind, Required):
        return faults(value, kind.kind, where)
    if isinstance(kind, OneOf):
        return [] if value in kind.values else [f"{where}: {value!r} is none of {kind.values}"]
    if isinstance(kind, Each):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [fault for n, item in enumerate(value) for fault in faults(item, kind.kind, f"{where}[{n}]")]
    if kind == strings:
        texts = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
        return [] if texts else [f"{where}: not all strings: {value!r}"]
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return [f"{where}: no mapping"]
        found = [f"{where}.{name}: no such field" for name in value if name not in kind]
        found += [
            f"{where}.{name}: missing"
            for name, of in kind.items()
            if isinstance(of, Required) and name not in value
        ]
        return found + [
            fault
            for name, item in value.items()
            if name in kind
            for fault in faults(item, kind[name], f"{where}.{name}")
        ]
    if isinstance(value, bool) and kind is not bool:
        return [f"{where}: a boolean"]
    return [] if isinstance(value, kind) else [f"{where}: {value!r} is no {kind.__name__}"]
