"""What is seen before anything is sent: which cluster, which paths, and the wheel that goes along."""

import hashlib
import importlib.metadata
import socket
import subprocess
import sys
import zipfile

import pytest

import rct_ray
from rct_ray.submit.address import check_listening, choose_address
from rct_ray.submit.errors import SubmitError
from rct_ray.submit.paths import check_shared, cluster_path, is_this_machine
from rct_ray.submit.wheel import _code, build_wheel, requirements

HEAD = "http://head:8265"


def test_the_address_is_the_one_that_ray_would_use():
    assert choose_address(HEAD, {}) == HEAD
    assert choose_address(f"{HEAD}/", {"RAY_ADDRESS": HEAD}) == HEAD
    assert choose_address(None, {"RAY_ADDRESS": f"{HEAD}/"}) == HEAD
    both = {"RAY_ADDRESS": "10.0.0.1:6379", "RAY_API_SERVER_ADDRESS": HEAD}
    assert choose_address(None, both) == choose_address(HEAD, both) == HEAD
    assert choose_address("https://ray.example.com", {"RAY_ADDRESS": ""}) == "https://ray.example.com"


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
@pytest.mark.parametrize("other", ["http://other:8265", "10.0.0.1:6379", "auto"])
def test_two_addresses_are_refused_with_both(name, other):
    with pytest.raises(SubmitError) as refusal:
        choose_address(HEAD, {name: other})
    for word in (HEAD, name, other, "unset"):
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "address",
    ["head:8265", "ray://head:10001", "auto", "http://", "http://head:port", "http://head:99999", ""],
)
def test_what_is_no_url_of_a_dashboard_is_refused(address):
    with pytest.raises(SubmitError, match="http://HEAD:8265"):
        choose_address(address, {})


def test_no_address_is_refused():
    with pytest.raises(SubmitError, match="--address"):
        choose_address(None, {})


def test_nobody_listening_is_said_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SubmitError, match=f"no Ray cluster answers at http://127.0.0.1:{port}"):
        check_listening(f"http://127.0.0.1:{port}")
    with pytest.raises(SubmitError, match="no Ray cluster answers"):
        check_listening("http://no-such-host.invalid:8265")


# Paths.


def test_a_cluster_is_this_machine_by_its_nodes():
    own = {"hostname": socket.gethostname(), "ip": "127.0.0.1"}
    assert is_this_machine([own])
    assert is_this_machine([own, own])
    assert not is_this_machine([])
    assert not is_this_machine([own, {"hostname": "worker-1", "ip": "10.1.2.3"}])
    # A tunnel to a cluster: its head has a name of its own.
    assert not is_this_machine([{"hostname": "rct-head-x7k2p", "ip": "127.0.0.1"}])
    # Another machine of the same name (TEST-NET-3: an address that nobody has).
    assert not is_this_machine([{"hostname": socket.gethostname(), "ip": "203.0.113.7"}])
    assert not is_this_machine([{"hostname": socket.gethostname(), "ip": None}])


def test_paths_the_cluster_sees_are_sent_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        cluster_path("/mnt/models/a.safetensors", ["/mnt/models"], here=False) == "/mnt/models/a.safetensors"
    )
    assert cluster_path("/mnt/models", ["/data", "/mnt/models/"], here=False) == "/mnt/models"
    assert cluster_path("runs/step*.npz", [str(tmp_path)], here=False) == str(tmp_path / "runs/step*.npz")
    assert cluster_path("@/mnt/list", ["/mnt"], here=False) == "@/mnt/list"
    assert cluster_path("@list", [], here=True) == f"@{tmp_path / 'list'}"
    assert cluster_path("a.npy", [], here=True) == str(tmp_path / "a.npy")
    assert cluster_path("s3://bucket/model", [], here=False) == "s3://bucket/model"


@pytest.mark.parametrize(
    ("path", "shared"),
    [
        ("/home/me/model.npy", []),
        ("model.npy", []),
        ("@/home/me/list.txt", []),
        ("/home/me/model.npy", ["/mnt/models"]),
        ("/mnt/models-of-mine/a.npy", ["/mnt/models"]),
        ("/mnt/models/../secret/a.npy", ["/mnt/models"]),
    ],
)
def test_paths_of_this_machine_alone_are_refused(path, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SubmitError) as refusal:
        cluster_path(path, shared, here=False)
    assert "\n" not in str(refusal.value)
    assert ("--shared-path" in str(refusal.value)) == (not shared)


def test_a_shared_path_is_absolute():
    check_shared(["/mnt/models"])
    with pytest.raises(SubmitError, match="models must be absolute"):
        check_shared(["models"])


# The wheel.


def test_the_wheel_holds_the_package_that_runs(tmp_path):
    wheel = build_wheel(tmp_path)
    package = importlib.metadata.version("rct-ray")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert (
            archive.read("rct_ray/submit/wheel.py")
            == ((tmp_path / rct_ray.__file__).parent / "submit/wheel.py").read_bytes()
        )
        assert "rct_ray/data/tiny-step02500.safetensors" in names
        assert not [name for name in names if "__pycache__" in name]
        metadata = archive.read(f"rct_ray-{package}.dist-info/METADATA").decode()
        record = archive.read(f"rct_ray-{package}.dist-info/RECORD").decode()
    assert f"Version: {package}\n" in metadata
    # Ray would install them anew for every job, from the network, and put them before the cluster's own.
    assert "Requires-Dist" not in metadata
    assert sorted(line.split(",")[0] for line in record.splitlines()) == sorted(names)


def test_equal_code_makes_equal_wheels_and_other_code_another_name(tmp_path, monkeypatch):
    files = dict(_code())
    monkeypatch.setattr("rct_ray.submit.wheel._code", lambda: reversed(files.items()))
    first = build_wheel(tmp_path)
    content = hashlib.sha256(first.read_bytes()).hexdigest()
    (tmp_path / "again").mkdir()
    monkeypatch.setattr("rct_ray.submit.wheel._code", files.items)
    again = build_wheel(tmp_path / "again")
    assert (again.name, hashlib.sha256(again.read_bytes()).hexdigest()) == (first.name, content)
    monkeypatch.setattr("rct_ray.submit.wheel._code", lambda: [("rct_ray/__init__.py", b"# other")])
    # Ray uploads a wheel once for each name.
    assert build_wheel(tmp_path).name != first.name
    assert build_wheel(tmp_path, code=False).name != first.name


def test_pip_installs_the_wheel_as_ray_does_without_a_network(tmp_path):
    wheel, target = build_wheel(tmp_path), tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", f"--target={target}", str(wheel)],
        check=True,
        timeout=120,
    )
    code = (
        "import importlib.metadata, rct_ray; print(rct_ray.__file__, importlib.metadata.version('rct-ray'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        str(target / "rct_ray" / "__init__.py"),
        importlib.metadata.version("rct-ray"),
    ]


def test_requirements_are_those_of_the_package_without_ray():
    names = {
        "".join(filter(str.isidentifier, line.replace("-", "_").split(">")[0])) for line in requirements()
    }
    assert {"numpy", "pyarrow", "typer"} <= names
    assert not {name for name in names if name.startswith(("ray", "pytest", "torch"))}
