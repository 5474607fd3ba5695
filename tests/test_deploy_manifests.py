"""deploy/kubernetes: manifests against schemas, the restricted profile, and one another."""

from __future__ import annotations

import copy
import re
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
from dask.utils import parse_bytes
from deployed import IMAGE, image_environment
from distributed.cli import dask_scheduler, dask_worker
from kubernetes_manifests import (
    HERE,
    ROLES,
    VARIANTS,
    VERSIONS,
    documents_in,
    option,
    pods,
    render,
    selects,
    written,
)
from kubernetes_validate.utils import all_versions
from typer.main import get_command

from altrelu_dist.cli.app import app

OWN_KINDS = {"DaskCluster", "DaskJob", "DaskAutoscaler"}


@pytest.fixture(scope="module")
def rendered():
    return render()


def own_schema(kind):
    """What the operator's resource definitions say of a kind; pods and services are Kubernetes'."""
    [package] = find_spec("dask_kubernetes").submodule_search_locations
    folder = Path(package, "operator", "customresources")
    [definition] = documents_in(folder / f"{kind.lower()}.yaml")
    assert definition["spec"]["names"]["kind"] == kind
    templates = documents_in(folder / "templates.yaml")[0]["definitions"]

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
