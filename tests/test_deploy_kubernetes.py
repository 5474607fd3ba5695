"""deploy/kubernetes: what the operator makes of the manifests, and their commands run.

There is no cluster here. What the operator makes of its kinds is asked of the operator's own code.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time

import kubernetes_validate
import psutil
import pytest
import yaml
from deployed import (
    Host,
    answers,
    free_ports,
    image_environment,
    on_loopback,
    renamed,
    s3_server,
    trained_here,
    weights,
    write_data,
)
from kubernetes_manifests import HERE, VERSIONS, option, pods, render, selects


@pytest.fixture(scope="module")
def rendered():
    return render()


@pytest.fixture(scope="module")
def operated(rendered):
    """The Deployments, pods and services that the operator's own code makes of its kinds."""
    code = """
import json, sys
from dask_kubernetes.operator.controller import controller as c
asked = json.load(sys.stdin)
made = {}
for variant, one in asked.items():
    name, spec = one["metadata"]["name"], one["spec"]
    inner = spec["cluster"]["spec"] if one["kind"] == "DaskJob" else spec
    def known(part):
        return [part.get("metadata", {}).get(what, {}) for what in ("annotations", "labels")]
    scheduler, worker = inner["scheduler"], inner["worker"]
    of = known(scheduler)
    made[variant] = [
        c.build_scheduler_deployment_spec(name, scheduler["spec"], *of),
        c.build_scheduler_service_spec(name, scheduler["service"], *of),
        *(c.build_worker_deployment_spec(
            f"{name}-default", "altrelu", name, number, worker["spec"], *known(worker))
          for number in ("0123456789", "abcdefghij")),
    ]
    if one["kind"] == "DaskJob":
        job = spec["job"]
        made[variant].append(
            c.build_job_pod_spec(name, name, "altrelu", job["spec"], *known(job)))
print(json.dumps(made))
"""
    asked = {
        variant: next(one for one in rendered[variant] if one["kind"] in {"DaskCluster", "DaskJob"})
        for variant in ("operator/cluster", "operator/job")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(asked), capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_what_the_operator_makes_is_valid_and_keeps_names_labels_and_addresses(operated, rendered):
    for variant, made in operated.items():
        for one in made:
            for version in VERSIONS:
                kubernetes_validate.validate(one, version, strict=True)
        scheduler, service, worker, other, *job = made
        assert worker["metadata"]["name"] != other["metadata"]["name"]
        assert service["metadata"]["name"] == "altrelu-scheduler"
        labels = scheduler["spec"]["template"]["metadata"]["labels"]
        assert selects({"matchLabels": service["spec"]["selector"]}, labels)
        assert {"tcp-comm", "http-dashboard"} == {one["name"] for one in service["spec"]["ports"]}
        assert labels["app.kubernetes.io/component"] == "scheduler"
        [container] = worker["spec"]["template"]["spec"]["containers"]
        env = {one["name"]: one["value"] for one in container["env"]}
        # Its own address would be tcp://, and a worker that it ends is found by its name.
        assert env["DASK_SCHEDULER_ADDRESS"] == "tls://altrelu-scheduler:8786"
        assert env["DASK_WORKER_NAME"] == worker["metadata"]["name"]
        assert option(container["command"], "--name") == "$(DASK_WORKER_NAME)"
        assert len(job) == (variant == "operator/job")
        for one in job:
            [container] = one["spec"]["containers"]
            assert [item["value"] for item in container["env"]] == ["tls://altrelu-scheduler:8786"]
    [autoscaler] = [one for one in rendered["operator/cluster"] if one["kind"] == "DaskAutoscaler"]
    assert autoscaler["spec"]["cluster"] == "altrelu"


@pytest.fixture
def secrets_of(tmp_path):
    """Runs the README's commands that make secrets, with some settings."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    text = (HERE / "README.md").read_text()
    [block] = [block for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) if "T=" in block]
    block = block.split("kubectl apply")[0].replace(
        "T=~/altrelu-kubernetes-tls", f"T={tmp_path / 'tls'}"
    )
    made = 'kubectl() { command kubectl "$@" --dry-run=client -o yaml; echo ---; }\n'
    made += "docker() { [[ $1 == build && -f $3 && -f ${*: -1}/pyproject.toml ]]; }\n"
    given = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something"}
    given["KUBECONFIG"] = str(tmp_path / "none")

    def make(**settings):
        shutil.rmtree(tmp_path / "tls", ignore_errors=True)
        return subprocess.run(
            ["bash", "-euc", made + block], cwd=HERE, capture_output=True, text=True, timeout=60,
            env=os.environ | given | settings,
        )  # fmt: skip

    return make


def test_credentials_that_are_not_set_make_no_secret(secrets_of):
    for missing in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        done = secrets_of(**{missing: ""})
        assert done.returncode != 0
        assert missing in done.stderr
        assert "altrelu-store" not in done.stdout


@pytest.fixture
def secrets(tmp_path, secrets_of):
    """The folders that the README's commands fill: what the secrets' volumes would show."""
    done = secrets_of()
    assert done.returncode == 0, done.stderr
    _, _, yamls = done.stdout.partition("apiVersion")
    found = {}
    for one in yaml.safe_load_all("apiVersion" + yamls):
        if one and one["kind"] == "Secret":
            assert one["metadata"]["namespace"] == "altrelu"
            found[one["metadata"]["name"]] = {
                name: base64.b64decode(text) for name, text in one["data"].items()
            }
    for name, contents in found.items():
        (tmp_path / name).mkdir()
        for file, text in contents.items():
            (tmp_path / name / file).write_bytes(text)
    return found


class Cluster(Host):
    """Pods of some documents as processes: their commands, environments and mounted secrets."""

    def __init__(self, folder, documents, templates, store):
        super().__init__(folder, {})
        [config] = [one["data"] for one in documents if one["kind"] == "ConfigMap"]
        self._config, self._store, self._templates = config, store, templates
        self.scheduler, self.health = free_ports(2)
        self.workers = {}

    def pod(self, name, role, more=None):
        """The command and the environment of a pod's container, with the names of here."""
        spec = self._templates.get(name, self._templates[role])
        [container] = spec["containers"]
        (self.folder / name).mkdir(exist_ok=True)
        fields = {"metadata.name": name}
        given = image_environment()
        for source in container["envFrom"]:
            given |= self._config if "configMapRef" in source else self._store
        for one in container.get("env", []):
            field = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            given[one["name"]] = one["value"] if field is None else fields[field]
        [secret] = [one["secret"] for one in spec["volumes"] if "secret" in one]
        names = {
            "altrelu-scheduler:8786": f"127.0.0.1:{self.scheduler}",
            "/tls/": f"{self.folder / secret['secretName']}/",
            "/tmp": str(self.folder / name),
        }
        exact = {"8786": str(self.scheduler), ":8787": f"127.0.0.1:{self.health}"} | (more or {})

        def here(text):
            text = exact.get(text) or renamed(text, names)
            return re.sub(r"\$\((\w+)\)", lambda match: given[match[1]], text)

        given = {key: here(value) for key, value in given.items()}
        return on_loopback(list(map(here, container["command"]))), given

    def begin(self, workers=2):
        self.start("scheduler", *self.pod("scheduler", "scheduler"))
        assert answers(f"http://127.0.0.1:{self.health}/health") == 200
        for number in range(workers):
            name = f"worker-{number}"
            port, nanny, health = map(str, free_ports(3))
            self.workers[name] = (int(port), int(nanny), int(health))
            ports = {"8788": port, "8789": nanny, ":8790": f"127.0.0.1:{health}"}
            self.start(name, *self.pod(name, "worker", ports))
        for *_, health in self.workers.values():
            assert answers(f"http://127.0.0.1:{health}/health") == 200

    def connections(self, name):
        """Ports to which a pod's processes have connections that they began themselves."""
        found = set()
        try:
            whole = psutil.Process(self.processes[name].pid)
            for process in [whole, *whole.children(recursive=True)]:
                of = process.net_connections("inet")
                listens = {one.laddr.port for one in of if one.status == psutil.CONN_LISTEN}
                found |= {
                    one.raddr.port for one in of if one.raddr and one.laddr.port not in listens
                }
        except psutil.NoSuchProcess:
            pass
        return found


@pytest.mark.cluster
@pytest.mark.parametrize("variant", ["plain", "operator/cluster", "operator/job"])
def test_the_manifests_commands_train_over_tls_from_storage_to_storage(
    rendered, operated, secrets, variant, tmp_path
):
    data = write_data(tmp_path)
    templates = {role: spec for role, _, spec in pods(rendered[variant])}
    if variant in operated:  # as the operator completes them
        scheduler, _, *workers = operated[variant][:4]
        job = operated[variant][4:]
        templates["scheduler"] = scheduler["spec"]["template"]["spec"]
        for number, one in enumerate(workers):  # a Deployment each
            templates[f"worker-{number}"] = one["spec"]["template"]["spec"]
        for one in job:
            templates["trainer"] = one["spec"]
    with s3_server(tmp_path) as store:
        names = set(secrets["altrelu-store"])
        assert names == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
        # Of the user of this server, and its address, which AWS's own has not to be told.
        store = {name: store[name] for name in (*names, "AWS_ENDPOINT_URL")}
        s3_port = int(store["AWS_ENDPOINT_URL"].rpartition(":")[2])
        with Cluster(tmp_path, rendered[variant], templates, store) as cluster:
            mine = image_environment() | store | {"AWS_DEFAULT_REGION": "us-east-1"}
            cluster.run("upload", ["transfer.py", str(data), "s3://altrelu/data.zarr"], mine)
            cluster.begin()
            command, environment = cluster.pod("trainer", "trainer")
            command = ["6" if word == "64" else word for word in command]  # a small one
            killed = cluster.start("killed", command, environment)
            cluster.until_says("killed", " cycle ")
            killed.kill()
            killed.wait(30)
            trainer = cluster.start("trainer", command, environment)
            seen = {name: set() for name in ("scheduler", "trainer", *cluster.workers)}
            ends = time.monotonic() + 120
            while trainer.poll() is None and time.monotonic() < ends:
                for name, ports in seen.items():
                    ports |= cluster.connections(name)
                time.sleep(0.02)
            assert trainer.poll() == 0, cluster.said("trainer")
            assert " grow " not in cluster.said("trainer")  # it went on
            network = tmp_path / "model.zarr"
            cluster.run("fetch", ["transfer.py", "s3://altrelu/model.zarr", str(network)], mine)
            # What the network policies let through is what they have used.
            everybody = {port for own in cluster.workers.values() for port in own[:2]}
            assert cluster.scheduler in seen["trainer"]
            assert seen["trainer"] <= {cluster.scheduler, s3_port}
            assert seen["scheduler"] <= everybody
            for name in cluster.workers:
                assert seen[name] <= everybody | {cluster.scheduler, s3_port}
            pages = f"http://127.0.0.1:{cluster.health}"
            assert answers(f"{pages}/info/main/workers.html") == 404
            asked = answers(f"{pages}/api/v1/adaptive_target")
            assert asked == (404 if variant == "plain" else 200)
            for name in ("scheduler", "killed", "trainer", *cluster.workers):
                assert store["AWS_SECRET_ACCESS_KEY"] not in cluster.said(name)
                assert "tcp://" not in cluster.said(name), cluster.said(name)
    expected = trained_here(data, tmp_path, "--hidden", "6", "--seed", "0")
    assert weights(network) == expected
