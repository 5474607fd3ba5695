"""The manifests of deploy/kubernetes, as they are written and as they are rendered."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

import pytest
import yaml
from deployed import DEPLOY

HERE = DEPLOY / "kubernetes"
VERSIONS = ("1.29", "1.37")  # the oldest that the README names, and the newest schemas there are
VARIANTS = ("plain", "operator/cluster", "operator/job", "overlays/laptop", "overlays/large")
ROLES = {"scheduler": "scheduler", "worker": "worker", "trainer": "client"}  # and whose certificate


def documents_in(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def written():
    """Every manifest as it is written, but Kustomize's own files and patches."""
    for path in sorted(HERE.rglob("*.yaml")):
        if path.name != "kustomization.yaml" and "overlays" not in path.parts:
            yield from ((path, one) for one in documents_in(path))


@cache
def render():
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


def option(command, name):
    return command[command.index(name) + 1]


def selects(selector, labels):
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    operators = {"In": lambda value, values: value in values}
    return all(
        operators[one["operator"]](labels.get(one["key"]), one["values"])
        for one in selector.get("matchExpressions", [])
    )
