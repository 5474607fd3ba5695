"""`altrelu --cluster NAME`: a scheduler, its certificates and its storage under one name."""

from __future__ import annotations

import dask
import fsspec
import numpy as np
import pytest
import s3fs
import yaml
from clusters import Processes
from s3 import BUCKET, KEY, SECRET, environment, s3_server
from typer.testing import CliRunner

from altrelu_dist import Network, convert
from altrelu_dist.cli.app import app


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch, tmp_path):
    """Profiles set what is the whole process's."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with dask.config.set({}):
        before = {name: dict(of) for name, of in fsspec.config.conf.items()}
        config = dict(dask.config.config)
        yield
        fsspec.config.conf.clear()
        fsspec.config.conf.update(before)
        dask.config.config.clear()
        dask.config.config.update(config)


def run(*arguments, code=0):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ({}, "no such profile in Dask's configuration (altrelu: clusters:), found: none"),
        ({"other": {}}, "found: other"),
        ({"prod": {}}, "has no scheduler"),
        ({"prod": None}, "has no scheduler"),
        ({"prod": {"scheduler": "tcp://x:1", "colour": "red"}}, "does not know colour"),
        ("tcp://x:1", "altrelu: clusters: expected names with values"),
        ({"prod": "tcp://x:1"}, "--cluster prod: expected names with values"),
        ({"prod": ["scheduler"]}, "found list"),
        ({"prod": {"scheduler": "tls://x:1", "tls": "ca.pem"}}, "prod: tls: expected"),
        ({"prod": {"scheduler": "tcp://x:1", "storage": ["s3"]}}, "prod: storage: expected"),
        ({"prod": {"scheduler": "tcp://x:1", "storage": {"s3": "k"}}}, "storage: s3: expected"),
        ({"prod": {"scheduler": "tls://x:1", "tls": {"cert": "no/c.pem"}}}, "tls: cert: no/c.pem"),
        ({"prod": {"scheduler": "tcp://x:1", "tls": {"certificate": "a"}}}, "tls: certificate"),
        (
            {"prod": {"scheduler": "tcp://x:1", "storage": {"s3": {"key": {"env": "ALTRELU_NO"}}}}},
            "the variable ALTRELU_NO is not in the environment",
        ),
    ],
)
def test_a_profile_that_is_wrong(profiles, words):
    with dask.config.set({"altrelu.clusters": profiles}):
        assert words in run("--cluster", "prod", "jobs", code=1).stderr
        assert words in run("jobs", "--cluster", "prod", code=1).stderr


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_scheduler_and_storage_of_a_profile(tmp_path, monkeypatch):
    """A job whose data, output and checkpoints are in S3, as nothing but the profile says."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5000, 3))
    np.savez(tmp_path / "rows.npz", X=X, y=np.abs(X[:, 0]))
    (tmp_path / "server").mkdir()
    monkeypatch.setenv("PROD_KEY", KEY)
    monkeypatch.setenv("PROD_SECRET", SECRET)
    for name, value in environment(0).items():
        if name.endswith(("FILE", "DISABLED")):
            monkeypatch.setenv(name, value)
    with s3_server(tmp_path / "server") as port, Processes(tmp_path / "server") as cluster:
        told = f"""
        altrelu:
          clusters:
            prod:
              scheduler: {cluster.client.scheduler.address}
              storage:
                s3:
                  endpoint_url: http://127.0.0.1:{port}
                  key: {{env: PROD_KEY}}
                  secret: {{env: PROD_SECRET}}
        """
        dask.config.update(dask.config.config, yaml.safe_load(told))
        run("--cluster", "prod", "jobs")
        s3fs.S3FileSystem.clear_instance_cache()
        convert(tmp_path / "rows.npz", f"s3://{BUCKET}/rows.zarr")
        out = f"s3://{BUCKET}/model.zarr"
        submitted = run(
            *("--cluster", "prod", "submit", f"s3://{BUCKET}/rows.zarr", "--hidden", 4),
            *("--out", out, "--max-iter", 2, "--method", "damped"),
        )
        id_ = submitted.stdout.strip()
        shown = run("status", id_, "--follow", "--cluster", "prod")
        assert "finished" in shown.stdout
        assert Network.load(out).info["job"] == id_
        files = s3fs.S3FileSystem(use_listings_cache=False)
        kept = files.find(f"{BUCKET}/model.zarr.job")
        assert any("checkpoint-" in name for name in kept)
        for name in kept:  # no secret is written down
            content = files.cat_file(name)
            assert SECRET.encode() not in content
            assert KEY.encode() not in content
        log = "".join(file.read_text() for file in (tmp_path / "server").glob("*.log"))
        assert SECRET not in log
        run("--cluster", "prod", "forget", id_)
        assert not files.find(f"{BUCKET}/model.zarr.job")
