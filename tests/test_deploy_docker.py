"""deploy/docker: the image is built and looked into, the composition's commands really train."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from dask.utils import parse_bytes
from deployed import (
    DOCKER,
    HOME,
    IMAGE,
    Host,
    free_ports,
    image_environment,
    on_loopback,
    s3_server,
    trained_here,
    weights,
    write_data,
)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from altrelu_dist import Network, evaluate

OURS = ("scheduler", "worker", "upload", "train")  # the services of our own image


def composition(**variables):
    """compose.yaml as Compose reads it: variables filled in, in what was parsed."""

    def value(match):
        name, kind, word = match.groups()
        if name in variables:
            return variables[name]
        assert kind == ":-", f"{name} is required: {word}"
        return word

    def filled(tree):
        if isinstance(tree, dict):
            return {name: filled(branch) for name, branch in tree.items()}
        if isinstance(tree, list):
            return list(map(filled, tree))
        if isinstance(tree, str):
            return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, tree)
        return tree

    return filled(yaml.safe_load((DOCKER / "compose.yaml").read_text()))


def bringing():
    """What the README runs in a container to bring the network out of the store."""
    [found] = re.findall(r"sh -c '(.+)' \| tar x\n", (DOCKER / "README.md").read_text())
    return found


@pytest.fixture
def services():
    given = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something"}
    return composition(**given)["services"]


def test_every_requirement_is_pinned_by_hash_and_admitted_by_the_package():
    pinned = {}
    for line in (DOCKER / "requirements.txt").read_text().splitlines():
        if "==" in line and not line.lstrip().startswith("#"):
            requirement = Requirement(line.rstrip(" \\"))
            [version] = [one.version for one in requirement.specifier if one.operator == "=="]
            pinned.setdefault(canonicalize_name(requirement.name), []).append(version)
    for name in ("requirements.txt", "requirements-build.txt"):
        text = (DOCKER / name).read_text()
        for block in re.split(r"\n(?=\w)", text)[1:]:
            assert re.match(r"[\w.-]+==\S+", block), block
            assert "--hash=sha256:" in block, block
    needed = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in map(Requirement, needed):
        for version in pinned[canonicalize_name(requirement.name)]:
            assert requirement.specifier.contains(version), f"{requirement}, found {version}"
    assert "s3fs" in pinned


def test_the_base_is_a_slim_python_of_one_patch_release_and_the_version_is_the_packages():
    text = (DOCKER / "Dockerfile").read_text()
    [base] = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+", base)
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    assert f"altrelu-dist:{project['version']}" == IMAGE
    threads = {name for name in image_environment() if name.endswith("_NUM_THREADS")}
    assert threads == {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}
    assert {image_environment()[name] for name in threads} == {"1"}


def test_the_composition_is_one_by_the_specification():
    [folder] = find_spec("check_jsonschema").submodule_search_locations
    schema = Path(folder, "builtin_schemas", "vendor", "compose-spec.json").read_text()
    given = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something"}
    jsonschema.validate(composition(**given), json.loads(schema))


def test_nothing_is_published_and_nothing_may_do_more_than_it_needs(services):
    assert set(services) == {*OURS, "store"}
    for name, service in services.items():
        assert "ports" not in service, name
        assert service["networks"] == ["cluster"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    for name in OURS:
        assert services[name]["image"] == IMAGE
        assert services[name]["read_only"], name
        assert "user" not in services[name], f"{name}: the image's user is not root"
    text = (DOCKER / "compose.yaml").read_text()
    assert yaml.safe_load(text)["networks"]["cluster"]["internal"]
    assert re.search(r":latest|privileged: *true|network_mode", text) is None
    assert re.fullmatch(r"minio/minio:RELEASE\.\S+Z", services["store"]["image"])


def test_credentials_are_taken_from_the_environment_and_required():
    for missing in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        given = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something"}
        del given[missing]
        with pytest.raises(AssertionError, match=f"{missing} is required"):
            composition(**given)


def test_a_workers_container_has_room_for_the_worker_its_nanny_and_its_files(services):
    worker = services["worker"]
    options = dict(zip(worker["command"][3::2], worker["command"][4::2], strict=True))
    limit = parse_bytes(options["--memory-limit"])
    container = parse_bytes(worker["mem_limit"].replace("m", "MiB"))
    [scratch] = worker["tmpfs"]
    files = parse_bytes(scratch.rpartition("size=")[2].replace("m", "MiB"))
    assert container == limit + (256 << 20)
    assert files <= 128 << 20
    assert int(options["--nthreads"]) == worker["cpus"]


@pytest.mark.cluster
def test_what_is_there_is_not_copied_again_nor_mixed_with_anything_else(tmp_path):
    data, back, address = tmp_path / "data", tmp_path / "back", "s3://altrelu/data"
    (data / "deep").mkdir(parents=True)
    (data / "first").write_text("one")
    (data / "deep" / "second").write_text("two")
    with s3_server(tmp_path) as store, Host(tmp_path, {}) as host:

        def transfer(source, target, code=0):
            command = ["transfer.py", str(source), str(target)]
            said = host.run("transfer", command, image_environment() | store, code=code)
            assert said.count("\n") == 1, said
            return said

        for source, target in ((data, address), (address, back)):
            assert transfer(source, target) == f"{target}: 6 bytes\n"
            assert "2 of 2 files were there already" in transfer(source, target)
        assert (back / "deep" / "second").read_text() == "two"
        assert len(list(back.rglob("*"))) == 3  # nothing is nested
        (back / "first").unlink()  # as where a copy was cut off
        assert "1 of 2 files were there already" in transfer(address, back)
        for name, text in (("first", "six"), ("deep/third", "three")):
            (other := tmp_path / name.replace("/", "-")).mkdir()
            shutil.copytree(data, other, dirs_exist_ok=True)
            (other / name).write_text(text)
            assert "differs from" in transfer(data, other, code=1)
        assert "differs from" in transfer(tmp_path / "first", address, code=1)
        assert (back / "first").read_text() == "one"
        for source, target in ((tmp_path / "none", address), ("s3://altrelu/none", back)):
            assert "no such file" in transfer(source, target, code=1)


@pytest.mark.cluster
def test_the_compositions_services_train_from_s3_to_an_end(tmp_path):
    data = write_data(tmp_path)
    scheduler, health, other = map(str, free_ports(3))
    (tmp_path / "tmp").mkdir()
    with s3_server(tmp_path) as store:
        secret = store["AWS_SECRET_ACCESS_KEY"]
        services = composition(
            AWS_ACCESS_KEY_ID=store["AWS_ACCESS_KEY_ID"],
            AWS_SECRET_ACCESS_KEY=secret,
            HIDDEN="6",
            SEED="7",
        )["services"]
        names = {
            "tcp://scheduler:8786": f"tcp://127.0.0.1:{scheduler}",
            "http://store:9000": store["AWS_ENDPOINT_URL"],
            "8786": scheduler,
            "127.0.0.1:8787": f"127.0.0.1:{health}",
        }

        def of(name):
            """The command and the environment of a service's container, files of here in them."""
            service = services[name]
            scratch = {"/tmp": str(tmp_path / "tmp"), "/data": str(data)}
            command = [scratch.get(word, word) for word in service["command"]]
            image = image_environment()
            image = {key: value.replace("/tmp", scratch["/tmp"]) for key, value in image.items()}
            return on_loopback(command), image | service.get("environment", {})

        def check(name, port):
            return [
                word.replace("8787", port) for word in services[name]["healthcheck"]["test"][1:]
            ]

        with Host(tmp_path, names) as host:
            host.start("scheduler", *of("scheduler"))
            host.until_passes("scheduler", check("scheduler", health), {})
            host.run("upload", *of("upload"))
            assert "altrelu/data.zarr: " in host.said("upload")
            for number in ("0", "1"):
                command, environment = of("worker")
                port = other if number == "0" else "0"  # each container has ports of its own
                command = [word.replace("8787", port) for word in command]
                host.start(f"worker-{number}", command, environment)
            host.until_passes("worker-0", check("worker", other), {})
            command, environment = of("train")
            host.run("strange", command, environment | {"AWS_SECRET_ACCESS_KEY": "wrong"}, code=1)

            # Ctrl-C is the image's signal to stop; what is started again goes on.
            first = host.start("train", command, environment)
            host.until_says("train", " cycle ")
            first.send_signal(signal.SIGINT)
            assert first.wait(60) == 130, host.said("train")
            assert " grow " not in host.run("train-again", command, environment)
            host.run("bring", ["sh", "-c", f"{bringing()} | tar xC tmp"], environment)
            other = ["7" if word == "6" else word for word in command]
            said = host.run("other", other, environment, code=1)
            assert "n_hidden" in said
            for name in ("upload", "strange", "train", "train-again", "worker-0", "scheduler"):
                assert secret not in host.said(name), name
    found = weights(tmp_path / "tmp" / "model.zarr")
    assert found == trained_here(data, tmp_path, "--hidden", "6", "--seed", "7")


class Image:
    """The image, built from the Dockerfile; what is made for it goes with the block.

    There is no registry to take the base from: Debian with its own Python stands for it.
    """

    def __init__(self, folder):
        self.folder = folder
        store, state = folder / "store", folder / "state"
        self.buildah = ["buildah", "--root", str(store), "--runroot", str(state)]
        self.buildah += ["--storage-driver", "overlay"]

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for words in (["rm", "--all"], ["rmi", "--all", "--force"]):
            subprocess.run([*self.buildah, *words], capture_output=True, timeout=120)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _build(self):
        debian = self.folder / "debian"
        packages = "python3,python3-venv,python-is-python3,ca-certificates"
        _done(["debootstrap", "--variant=minbase", f"--include={packages}", "trixie", str(debian)])
        base = self.do("from", "scratch")
        self.do("add", "-q", base, str(debian), "/")
        self.do("commit", "-q", base, "localhost/base:1")
        shutil.rmtree(debian)
        self.do(
            *("build", "--isolation", "chroot", "--format", "docker", "--pull-never"),
            *("-f", str(DOCKER / "Dockerfile")),
            *("--ignorefile", str(DOCKER / "Dockerfile.dockerignore")),
            *("--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"),  # whom this machine trusts
            *("--build-arg", "BASE=localhost/base:1", "-t", f"localhost/{IMAGE}", str(HOME)),
        )

    def do(self, *words):
        return _done([*self.buildah, *words])

    def configuration(self):
        found = self.do("inspect", "--type", "image", f"localhost/{IMAGE}")
        return json.loads(found)["Docker"]["config"]

    def container(self):
        """A fresh container, and its file system."""
        name = self.do("from", "--pull-never", f"localhost/{IMAGE}")
        return name, Path(self.do("mount", name))

    def inside(self, container, *command, environment=()):
        """The words that run a command in a container, on this machine's network."""
        given = [word for pair in environment for word in ("--env", "=".join(pair))]
        return [*self.buildah, "run", "--isolation", "chroot", *given, container, "--", *command]


def _done(words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("a root file system can be made by root alone")
    for name in ("buildah", "debootstrap"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed: it is a package of Debian")
    with Image(tmp_path_factory.mktemp("image")) as built:
        yield built


@pytest.mark.slow
def test_the_image_runs_as_nobody_in_particular_and_says_how_it_is(image):
    found = image.configuration()
    assert found["User"] == "10001:10001"
    assert found["StopSignal"] == "SIGINT"
    assert found["Healthcheck"]["Test"][0] == "CMD"
    for service in ("scheduler", "worker"):
        given = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something"}
        check = composition(**given)["services"][service]["healthcheck"]["test"]
        assert check == found["Healthcheck"]["Test"]
    assert found["Cmd"] == composition(**given)["services"]["scheduler"]["command"]
    set_there = dict(line.split("=", 1) for line in found["Env"])
    assert image_environment().items() <= set_there.items()


@pytest.mark.slow
def test_the_image_holds_the_package_and_nothing_to_build_with(image):
    container, root = image.container()
    said = _done(
        image.inside(container, "sh", "-c", "id -u; id -g; altrelu --help; dask --version")
    )
    assert said.startswith("10001\n10001\n")
    assert "Train two-layer ReLU networks" in said
    code = "import altrelu_dist, s3fs; print(altrelu_dist.__file__, altrelu_dist.__version__)"
    where, version = _done(image.inside(container, "python", "-c", code)).split()
    assert where.startswith("/opt/altrelu/lib/python3")
    assert where.endswith("/site-packages/altrelu_dist/__init__.py")
    assert f"altrelu-dist:{version}" == IMAGE
    tools = ("gcc", "cc", "g++", "make", "ld", "git", "hatchling", "pip")
    folders = [root / "opt/altrelu/bin", root / "usr/bin", root / "usr/local/bin"]
    assert [name for name in tools for folder in folders if (folder / name).exists()] == []
    assert not (root / "build").exists()
    [home] = root.glob("opt/altrelu/lib/python3*/site-packages")
    assert not (home / "pip").exists()
    ours = {path.name for path in home.iterdir() if path.name.startswith("altrelu")}
    assert ours == {"altrelu_dist", f"altrelu_dist-{version}.dist-info"}
    # Of what the image brings, its user can change its own folder alone.
    writable = (
        "find / -xdev -writable ! -type l ! -path '/proc/*' ! -path '/dev/*' ! -path '/sys/*'"
    )
    found = _done(image.inside(container, "sh", "-c", f"{writable} 2>/dev/null || true")).split()
    allowed = ("/tmp", "/var/tmp", "/run/lock", "/var/lock")
    assert [path for path in found if not path.startswith(allowed)] == []


@pytest.mark.slow
@pytest.mark.cluster
def test_the_image_trains_from_s3_and_writes_nowhere_but_in_its_folders(image, tmp_path):
    data = write_data(tmp_path)
    scheduler, health = map(str, free_ports(2))
    with s3_server(tmp_path) as store:
        services = composition(
            AWS_ACCESS_KEY_ID=store["AWS_ACCESS_KEY_ID"],
            AWS_SECRET_ACCESS_KEY=store["AWS_SECRET_ACCESS_KEY"],
            HIDDEN="6",
            SEED="7",
        )["services"]
        names = {
            "tcp://scheduler:8786": f"tcp://127.0.0.1:{scheduler}",
            "http://store:9000": store["AWS_ENDPOINT_URL"],
            "8786": scheduler,
            "127.0.0.1:8787": f"127.0.0.1:{health}",
        }
        services["worker"]["command"][-1] = "127.0.0.1:0"  # both workers are on one host here
        seen = []

        def inside(name, before=None, command=None):
            """The words that run a service, or a command in its place, in its own container."""
            container, root = image.container()
            if before is not None:
                before(root)
            seen.append((root, time.time()))
            service = services[name]
            given = {key: host.here(value) for key, value in service["environment"].items()}
            command = command or on_loopback(service["command"])
            return image.inside(container, *command, environment=given.items())

        with Host(tmp_path, names) as host:
            host.start("scheduler", inside("scheduler"), os.environ)
            upload = inside("upload", lambda root: shutil.copytree(data, root / "data"))
            host.run("upload", upload, os.environ)
            for number in ("0", "1"):
                host.start(f"worker-{number}", inside("worker"), os.environ)
            host.run("train", inside("train"), os.environ)
            bring = ["sh", "-c", f"{bringing()} | tar t"]
            assert "model.zarr/" in host.run("bring", inside("train", command=bring), os.environ)
        network = Network.load(seen[-1][0] / "tmp" / "model.zarr")
        written = {
            "/" + str(path.relative_to(root))
            for root, begun in seen
            for path in root.rglob("*")
            if path.lstat().st_mtime > begun and not path.is_dir()
        }
    assert written
    allowed = ("/tmp/", "/run/.containerenv")  # the last is written by the runtime
    assert [path for path in written if not path.startswith(allowed)] == []
    rows = np.load(tmp_path / "data.npz")
    [score] = evaluate(network, rows["X"], rows["y"])
    assert score.r2 > 0.8
