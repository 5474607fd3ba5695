"""deploy/kubernetes: manifests against schemas, the restricted profile, and their commands run.

There is no cluster here. What the operator makes of its kinds is asked of the operator's own code.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import kubernetes_validate
import psutil
import pytest
import yaml
from dask.utils import parse_bytes
from deployed import (
    DEPLOY,
    IMAGE,
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
from distributed.cli import dask_scheduler, dask_worker
from kubernetes_validate.utils import all_versions
from typer.main import get_command

from altrelu_dist.cli.app import app

HERE = DEPLOY / "kubernetes"
VERSIONS = ("1.29", "1.37")  # the oldest that the README names, and the newest schemas there are
OWN_KINDS = {"DaskCluster", "DaskJob", "DaskAutoscaler"}
VARIANTS = ("plain", "operator/cluster", "operator/job", "overlays/laptop", "overlays/large")
ROLES = {"scheduler": "scheduler", "worker": "worker", "trainer": "client"}  # and whose certificate


def documents(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def written():
    """Every manifest as it is written, but Kustomize's own files and patches."""
    for path in sorted(HERE.rglob("*.yaml")):
        if path.name != "kustomization.yaml" and "overlays" not in path.parts:
            yield from ((path, one) for one in documents(path))


@pytest.fixture(scope="module")
def rendered():
    """What `kubectl apply -k` would send, by variant."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which has Kustomize in it, is not installed")
    found = {}
    for variant in VARIANTS:
        done = subprocess.run(
            ["kubectl", "kustomize", str(HERE / variant)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "deprecated" not in done.stderr
        found[variant] = list(yaml.safe_load_all(done.stdout))
    return found


def pods(documents):
    """Each pod that would come of some documents: its role, its labels, its spec."""
    for one in documents:
        spec = one.get("spec", {})
        if one["kind"] in {"Deployment", "Job"}:
            templates = [spec["template"]]
        elif one["kind"] == "DaskCluster":
            templates = [spec["scheduler"], spec["worker"]]
        elif one["kind"] == "DaskJob":
            inner = spec["cluster"]["spec"]
            templates = [inner["scheduler"], inner["worker"], spec["job"]]
        else:
            continue
        for template in templates:
            labels = template["metadata"]["labels"]
            yield labels["app.kubernetes.io/component"], labels, template["spec"]


def own_schema(kind):
    """What the operator's resource definitions say of a kind; pods and services are Kubernetes'."""
    [package] = find_spec("dask_kubernetes").submodule_search_locations
    folder = Path(package, "operator", "customresources")
    [definition] = documents(folder / f"{kind.lower()}.yaml")
    assert definition["spec"]["names"]["kind"] == kind
    templates = documents(folder / "templates.yaml")[0]["definitions"]

    def whole(tree):
        if isinstance(tree, list):
            return list(map(whole, tree))
        if not isinstance(tree, dict):
            return tree
        if "$ref" not in tree:
            branches = {name: whole(branch) for name, branch in tree.items()}
            if "properties" in branches:  # a server drops what it does not know: here it is wrong
                branches.setdefault("additionalProperties", False)
            return branches
        name = tree["$ref"].rpartition("/")[2]
        return whole(templates[name]) if name in templates else {"type": "object"}

    [version] = definition["spec"]["versions"]
    schema = whole(version["schema"]["openAPIV3Schema"])
    names = {"apiVersion": {"const": f"{definition['spec']['group']}/{version['name']}"}}
    schema["properties"] |= names | {"kind": {"const": kind}, "metadata": {"type": "object"}}
    return schema


def check(one):
    """Validate a document, strictly: a word that no schema knows is an error."""
    if one["kind"] not in OWN_KINDS:
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)
        return
    jsonschema.validate(one, own_schema(one["kind"]))
    # The operator's definitions are of an old Kubernetes, which must know all that is in a pod.
    oldest = all_versions()[0]
    for role, _, spec in pods([one]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": role}, "spec": spec}
        for version in (oldest, *VERSIONS):
            kubernetes_validate.validate(pod, version, strict=True)
    inner = one["spec"]["cluster"]["spec"] if one["kind"] == "DaskJob" else one["spec"]
    if "scheduler" in inner:
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one"}}
        service["spec"] = inner["scheduler"]["service"]
        kubernetes_validate.validate(service, oldest, strict=True)


def test_every_manifest_is_one_by_the_schemas():
    kinds = set()
    for path, one in written():
        kinds.add(one["kind"])
        try:
            check(one)
        except jsonschema.ValidationError as error:
            raise AssertionError(f"{path}: {error.message}") from error
    assert kinds >= OWN_KINDS | {"Deployment", "Service", "Job", "NetworkPolicy", "Namespace"}


def test_the_schemas_refuse_what_is_wrong():
    """Or the tests around this one would hold nothing."""
    found = {one["kind"]: one for _, one in written()}
    for kind, path, value in (
        ("Deployment", ("spec", "template", "spec", "securityContexts"), {}),
        ("DaskCluster", ("spec", "workers"), {}),
        ("DaskCluster", ("spec", "worker", "spec", "containers"), [{"image": "x"}]),
        ("DaskCluster", ("spec", "scheduler", "service", "ports"), "8786"),
        ("DaskJob", ("spec", "job", "spec", "restart"), "Never"),
        ("DaskAutoscaler", ("spec", "maximum"), "many"),
    ):
        wrong = copy.deepcopy(found[kind])
        branch = wrong
        for name in path[:-1]:
            branch = branch[name]
        branch[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            check(wrong)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_renders_to_valid_documents_of_one_namespace(rendered, variant):
    for one in rendered[variant]:
        check(one)
        if one["kind"] != "Namespace":
            assert one["metadata"]["namespace"] == "altrelu"
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered[variant]]
    assert len(names) == len(set(names))
    assert {role for role, *_ in pods(rendered[variant])} == set(ROLES)


def test_every_pod_passes_the_profile_restricted(rendered):
    """As the documentation of Kubernetes lists it, and a root file system that is read-only."""
    for documents in rendered.values():
        [space] = [one for one in documents if one["kind"] == "Namespace"]
        assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        for role, _, spec in pods(documents):
            for word in ("hostNetwork", "hostPID", "hostIPC"):
                assert word not in spec, role
            everybody = spec["securityContext"]
            assert everybody["runAsNonRoot"] is True
            assert everybody["runAsUser"] > 0
            assert everybody["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not {"sysctls", "seLinuxOptions", "appArmorProfile"} & set(everybody)
            for volume in spec["volumes"]:
                assert set(volume) - {"name"} <= {"secret", "emptyDir"}, volume
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                own = container["securityContext"]
                assert own == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert all("hostPort" not in port for port in container.get("ports", []))
            assert spec["automountServiceAccountToken"] is False


def option(command, name):
    return command[command.index(name) + 1]


def test_memory_threads_and_limits_are_in_step(rendered):
    seen = set()
    for variant, documents in rendered.items():
        for role, _, spec in pods(documents):
            [container] = spec["containers"]
            limits, requests = (container["resources"][name] for name in ("limits", "requests"))
            assert limits["memory"] == requests["memory"], variant
            assert {"cpu", "memory"} <= set(limits)
            if role != "worker":
                continue
            memory = parse_bytes(limits["memory"].replace("Mi", "MiB"))
            assert memory == parse_bytes(option(container["command"], "--memory-limit")) + (
                256 << 20
            ), variant
            assert int(option(container["command"], "--nthreads")) == int(limits["cpu"]), variant
            seen.add(memory)
    assert len(seen) == 3  # the overlays' are others


def test_scratch_files_and_certificates_are_where_the_commands_look(rendered):
    for documents in rendered.values():
        [environment] = [one["data"] for one in documents if one["kind"] == "ConfigMap"]
        assert image_environment()["DASK_TEMPORARY_DIRECTORY"] == "/tmp"
        for role, _, spec in pods(documents):
            [container] = spec["containers"]
            mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
            volumes = {one["name"]: one for one in spec["volumes"]}
            assert mounts["tmp"] == "/tmp"
            assert "emptyDir" in volumes["tmp"]
            assert "sizeLimit" in volumes["tmp"]["emptyDir"]
            assert volumes["tls"]["secret"]["secretName"] == f"altrelu-tls-{ROLES[role]}"
            assert volumes["tls"]["secret"]["defaultMode"] == 0o440
            paths = [value for name, value in environment.items() if "__TLS__" in name]
            assert {str(Path(path).parent) for path in paths} == {mounts["tls"]}
            if role == "worker":
                assert option(container["command"], "--local-directory") == "/tmp"
            if role == "trainer":
                kept = [container["command"][1], option(container["command"], "--out")]
                assert all(address.startswith("s3://") for address in kept)


def test_what_the_laptops_pods_ask_for_leaves_room_in_what_is_said(rendered):
    asked = 0
    for one in rendered["overlays/laptop"]:
        for *_, spec in pods([one]):
            memory = spec["containers"][0]["resources"]["requests"]["memory"]
            asked += one["spec"].get("replicas", 1) * parse_bytes(f"{memory}B")
    said = (HERE / "overlays/laptop/kustomization.yaml").read_text()
    [room] = re.findall(r"fits in (\d+ GiB)", said)
    assert asked + (512 << 20) <= parse_bytes(room)


def test_credentials_that_are_not_set_make_no_secret(secrets_of):
    for missing in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        done = secrets_of(**{missing: ""})
        assert done.returncode != 0
        assert missing in done.stderr
        assert "altrelu-store" not in done.stdout


def test_no_secret_is_written_down():
    for path, one in written():
        assert one["kind"] != "Secret", path
    text = "".join(path.read_text() for path in HERE.rglob("*.yaml"))
    assert re.search(r"SECRET_ACCESS_KEY: \S|PRIVATE KEY", text) is None


def test_the_variants_pods_differ_in_little(rendered):
    """What is written three times is the same three times."""

    def plainly(variant, role):
        [spec] = [spec for name, _, spec in pods(rendered[variant]) if name == role]
        spec = copy.deepcopy(spec)
        spec.pop("restartPolicy", None)
        [container] = spec["containers"]
        api = "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES"  # which the operator asks
        given = {"DASK_WORKER_NAME", api}  # the operator gives the first
        kept = [one for one in container.pop("env", []) if one["name"] not in given]
        return spec | {"env": kept}

    for role in ROLES:
        assert plainly("plain", role) == plainly("operator/cluster", role)
        assert plainly("plain", role) == plainly("operator/job", role)


def selects(selector, labels):
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    operators = {"In": lambda value, values: value in values}
    return all(
        operators[one["operator"]](labels.get(one["key"]), one["values"])
        for one in selector.get("matchExpressions", [])
    )


def ports_of(rule):
    return {
        number
        for port in rule["ports"]
        for number in range(port["port"], port.get("endPort", port["port"]) + 1)
    }


def allowed(policies, direction, labels, other):
    """Ports at which the policies let pods with some labels be reached by, or reach, others."""
    own, peers = ("ingress", "from") if direction == "in" else ("egress", "to")
    return {
        port
        for policy in policies
        if selects(policy["podSelector"], labels)
        for rule in policy.get(own, [])
        for peer in rule[peers]
        if set(peer) == {"podSelector"} and selects(peer["podSelector"], other)
        for port in ports_of(rule)
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_jobs_workers_and_schedulers_reach_the_scheduler(rendered, variant):
    policies = [one["spec"] for one in rendered[variant] if one["kind"] == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies
    of = {role: labels for role, labels, _ in pods(rendered[variant])}
    strange = [{}, {"app.kubernetes.io/name": "altrelu"}, {"app.kubernetes.io/component": "worker"}]
    expected = {
        ("scheduler", "scheduler"): {8786},
        ("worker", "scheduler"): {8786},
        ("trainer", "scheduler"): {8786},
        ("scheduler", "worker"): {8788, 8789},
        ("worker", "worker"): {8788, 8789},
    }
    for target in of:
        for source in of:
            into = allowed(policies, "in", of[target], of[source])
            assert into == expected.get((source, target), set()), (source, target)
            out = allowed(policies, "out", of[source], of[target])
            assert out >= into or source == target == "scheduler"
        for labels in strange:
            assert allowed(policies, "in", of[target], labels) == set()
    # From other namespaces the operator alone comes in, and to the HTTP port alone.
    foreign = [
        (peer, ports_of(rule))
        for policy in policies
        for rule in policy.get("ingress", [])
        for peer in rule["from"]
        if set(peer) != {"podSelector"}
    ]
    operator = {"matchLabels": {"kubernetes.io/metadata.name": "dask-operator"}}
    asks = (
        []
        if variant in {"plain", "overlays/laptop"}
        else [({"namespaceSelector": operator}, {8787})]
    )
    assert foreign == asks


def test_services_lead_to_the_scheduler_at_the_address_that_is_used(rendered):
    for variant in ("plain", "overlays/laptop"):
        [service] = [one for one in rendered[variant] if one["kind"] == "Service"]
        of = {role: labels for role, labels, _ in pods(rendered[variant])}
        chosen = [
            role for role in of if selects({"matchLabels": service["spec"]["selector"]}, of[role])
        ]
        assert chosen == ["scheduler"]
        assert service["metadata"]["name"] == "altrelu-scheduler"
    for documents in rendered.values():
        for role, _, spec in pods(documents):
            if role == "scheduler":
                continue
            env = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
            assert env["DASK_SCHEDULER_ADDRESS"] == "tls://altrelu-scheduler:8786"


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


def test_every_option_of_every_variant_is_one_of_its_command(rendered):
    commands = {
        ("dask", "scheduler"): dask_scheduler.main,
        ("dask", "worker"): dask_worker.main,
        ("altrelu", "train"): get_command(app).commands["train"],
    }
    known = {
        words: {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        for words, command in commands.items()
    }
    assert all(known.values())
    for documents in rendered.values():
        for _, _, spec in pods(documents):
            [container] = spec["containers"]
            command = container["command"]
            words = ("altrelu", "train") if command[0] == "train_or_resume.py" else command[:2]
            options = {word for word in command if word.startswith("--")}
            assert options <= known[tuple(words)]


def test_every_image_is_ours(rendered):
    for variant, documents in rendered.items():
        images = {spec["containers"][0]["image"] for _, _, spec in pods(documents)}
        where = "registry.example.org/" if variant == "overlays/large" else ""
        assert images == {where + IMAGE}
