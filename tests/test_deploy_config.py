"""deploy/tls and deploy/dask: certificates and settings, used by real processes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
import yaml
from deployed import (
    DEPLOY,
    HOME,
    Host,
    answers,
    free_ports,
    trained_here,
    weights,
    write_data,
)

from altrelu_dist.planning import refusals

SCRIPT = DEPLOY / "tls" / "make-certificates.sh"
SETTINGS = DEPLOY / "dask" / "altrelu.yaml"
ROLES = ("scheduler", "worker", "client")
TRAIN = ("--hidden", "2", "--method", "alternating", "--max-iter", "2")


@pytest.fixture(scope="module", autouse=True)
def has_openssl():
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: it is a package of Debian")


def make(*words, code=0, **environment):
    done = subprocess.run(
        [str(SCRIPT), *map(str, words)], capture_output=True, text=True, timeout=60,
        env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def openssl(*words, code=0):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def tls(tmp_path):
    make("begin", tmp_path / "tls", "scheduler.example.org", "10.0.0.1", "fe80::1")
    return tmp_path / "tls"


def test_certificates_are_of_the_authority_and_name_their_hosts(tls):
    for role in ROLES:
        openssl("verify", "-x509_strict", "-CAfile", tls / "ca.pem", tls / f"{role}.pem")
        text = openssl("x509", "-noout", "-text", "-in", tls / f"{role}.pem")
        assert f"CN = {role}" in text
        assert "CA:FALSE" in text
        serves = "TLS Web Server Authentication" in text
        assert serves == (role != "client")
        if serves:
            for name in ("DNS:localhost", "DNS:scheduler.example.org", "IP Address:10.0.0.1"):
                assert name in text
            assert "IP Address:FE80:0:0:0:0:0:0:1" in text
    openssl("x509", "-noout", "-checkend", 396 * 86400, "-in", tls / "worker.pem")
    openssl("x509", "-noout", "-checkend", 398 * 86400, "-in", tls / "worker.pem", code=1)


def test_nobody_else_can_read_a_key(tls):
    keys = sorted(tls.rglob("*.key"))
    assert len(keys) == 4
    assert {oct(path.stat().st_mode & 0o777) for path in keys} == {"0o600"}
    assert (tls / "authority").stat().st_mode & 0o077 == 0


def test_what_makes_no_sense_is_refused_in_a_line_and_changes_nothing(tls, tmp_path):
    before = {path: path.read_bytes() for path in tls.rglob("*") if path.is_file()}
    assert "there is an authority already" in make("begin", tls, code=1)
    assert "one authority is trusted" in make("retire", tls, code=1)
    assert "usage:" in make("bundle", tls, "a-name", code=2)
    assert "usage:" in make("begin", code=2)
    assert "usage:" in make("else", tls, code=2)
    assert "there is no authority" in make("renew", tmp_path / "none", code=1)
    wrong = "neither a host name nor an address"
    assert wrong in make("renew", tls, "x,DNS:evil", code=1)
    assert wrong in make("begin", tmp_path / "other", "a b", code=1)
    assert not (tmp_path / "other").exists()
    assert {path: path.read_bytes() for path in tls.rglob("*") if path.is_file()} == before
    make("bundle", tls)
    assert "two authorities are trusted" in make("bundle", tls, code=1)
    assert "'renew' first" in make("retire", tls, code=1)


def files(folder, role):
    return [
        *("--tls-ca-file", str(folder / "ca.pem")),
        *("--tls-cert", str(folder / f"{role}.pem"), "--tls-key", str(folder / f"{role}.key")),
    ]


class Cluster(Host):
    """A scheduler and a worker with the files of two folders."""

    def __init__(self, folder, scheduler, worker=None):
        folder.mkdir()
        super().__init__(folder, {})
        [port] = free_ports(1)
        self.address = f"tls://127.0.0.1:{port}"
        try:
            self.start(
                "scheduler",
                ["dask", "scheduler", "--protocol", "tls", "--host", "127.0.0.1",
                 "--port", str(port), "--no-dashboard", *files(scheduler, "scheduler")],
                {"HOME": str(folder)},
            )  # fmt: skip
            self.until_says("scheduler", self.address)
            self.work("worker", worker or scheduler)
            self.until_says("scheduler", "Register worker")
        except BaseException:
            self.__exit__()
            raise

    def work(self, name, folder, role="worker"):
        return self.start(
            name,
            ["dask", "worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
             "--local-directory", str(self.folder), *files(folder, role)],
            {"HOME": str(self.folder)},
        )  # fmt: skip

    def train(self, name, data, folder, role="client", code=0):
        out = self.folder / f"{name}.zarr"
        command = ["altrelu", "train", str(data), *TRAIN, "--out", str(out)]
        command += ["--scheduler", self.address, *files(folder, role)]
        said = self.run(name, command, {"HOME": str(self.folder)}, code=code)
        return said if code else weights(out)


@pytest.mark.cluster
def test_a_new_authority_locks_nobody_out_before_the_old_one_is_retired(tls, tmp_path):
    data = write_data(tmp_path)
    expected = trained_here(data, tmp_path, *TRAIN)

    def state(name):
        return Path(shutil.copytree(tls, tmp_path / name))

    first = state("first")
    make("bundle", tls)
    both = state("both")
    make("renew", tls, "scheduler.example.org")
    renewed = state("renewed")
    make("retire", tls)
    last = state("last")
    for role in ROLES:
        assert (first / f"{role}.pem").read_bytes() == (both / f"{role}.pem").read_bytes()
        openssl("verify", "-CAfile", first / "ca.pem", renewed / f"{role}.pem", code=2)

    # Step 1 in the middle: the scheduler trusts both, the worker has not heard of it yet.
    with Cluster(tmp_path / "one", both, worker=first) as cluster:
        assert cluster.train("first", data, first) == expected
        # Step 2 in the middle: some have new certificates already.
        assert cluster.train("renewed", data, renewed) == expected
    # The scheduler has its new one, the worker has not.
    with Cluster(tmp_path / "two", renewed, worker=both) as cluster:
        assert cluster.train("both", data, both) == expected
        assert cluster.train("renewed", data, renewed) == expected
    # Step 3, in the middle and at its end.
    with Cluster(tmp_path / "three", last, worker=renewed) as cluster:
        assert cluster.train("renewed", data, renewed) == expected
        assert cluster.train("last", data, last) == expected
        for old in (first, both):
            assert "ended the connection" in cluster.train(old.name, data, old, code=1)
        assert cluster.work("old-worker", both).poll() is None
        cluster.until_says("scheduler", "unknown ca")
        assert cluster.said("scheduler").count("Register worker") == 1


@pytest.mark.cluster
def test_a_clients_certificate_is_good_for_calling_only(tls, tmp_path):
    data = write_data(tmp_path)
    posing = tmp_path / "posing"
    shutil.copytree(tls, posing)
    for end in ("pem", "key"):
        shutil.copy(tls / f"client.{end}", posing / f"scheduler.{end}")
    [port] = free_ports(1)
    with Host(tmp_path, {}) as host:
        address = f"tls://127.0.0.1:{port}"
        host.start(
            "scheduler",
            ["dask", "scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", str(port),
             "--no-dashboard", *files(posing, "scheduler")],
            {"HOME": str(tmp_path)},
        )  # fmt: skip
        host.until_says("scheduler", address)
        command = ["altrelu", "train", str(data), *TRAIN, "--out", str(tmp_path / "m.zarr")]
        command += ["--scheduler", address, *files(tls, "client")]
        said = host.run("train", command, {"HOME": str(tmp_path)}, code=1)
        assert "ended the connection" in said or "cannot connect" in said


def commands(page):
    """Every `dask scheduler` and `dask worker` of a page, as words."""
    text = page.read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^dask (?:scheduler|worker).*", text, re.M)]


@pytest.mark.parametrize("name", ["SECURITY.md", "deploy/tls/README.md", "deploy/dask/README.md"])
def test_with_certificates_no_page_starts_a_dashboard_that_others_reach(name):
    found = commands(HOME / name)
    assert [command[1] for command in found] == ["scheduler", "worker"]
    for command in found:
        address = command[command.index("--dashboard-address") + 1]
        assert address.startswith("127.0.0.1:")


def settings(tree, path=()):
    """Every setting of a configuration, by the path of its keys."""
    for key, value in tree.items():
        here = (*path, key)
        if isinstance(value, dict):
            yield from settings(value, here)
        else:
            yield here, value


@pytest.fixture(scope="module")
def ours():
    return dict(settings(yaml.safe_load(SETTINGS.read_text())))


def test_every_setting_is_one_of_dasks_own_and_not_a_repetition(ours):
    import distributed

    defaults = yaml.safe_load((Path(distributed.__file__).parent / "distributed.yaml").read_text())
    known = dict(settings(defaults))
    assert set(ours) <= set(known)
    # What says the same as the default does so because something here counts on it.
    same = {".".join(path) for path, value in ours.items() if known[path] == value}
    assert same <= {
        "distributed.worker.memory.pause",
        "distributed.worker.memory.terminate",
        "distributed.comm.timeouts.tcp",
        "distributed.comm.compression",
    }


def test_every_group_of_settings_has_its_reason_beside_it(ours):
    lines = SETTINGS.read_text().splitlines()
    leaves = {path[-1] for path in ours} - {"cert", "key"}
    for number, line in enumerate(lines):
        word = re.match(r" *([\w-]+):", line)
        if word and word[1] in leaves:
            above = lines[max(0, number - 6) : number]
            assert any(text.lstrip().startswith("#") for text in above), line


def test_the_settings_agree_with_each_other_and_with_what_is_planned(ours):
    from dask.utils import parse_timedelta

    def of(name):
        return ours[("distributed", *name.split("."))]

    assert of("worker.memory.pause") == refusals._USABLE
    assert of("worker.memory.pause") < of("worker.memory.terminate")
    silence = parse_timedelta(of("comm.timeouts.tcp"))
    assert silence < parse_timedelta(of("scheduler.worker-ttl"))
    assert of("comm.require-encryption") is True


@pytest.mark.cluster
def test_a_cluster_with_the_settings_trains_over_tls_and_shows_its_health_alone(tls, tmp_path):
    """Each process finds the files of its role alone."""
    data = write_data(tmp_path)
    for role in ROLES:
        (tmp_path / role).mkdir()
        for name in ("ca.pem", f"{role}.pem", f"{role}.key"):
            shutil.copy(tls / name, tmp_path / role)
        text = SETTINGS.read_text().replace("/etc/altrelu/tls", str(tmp_path / role))
        (tmp_path / role / "altrelu.yaml").write_text(text)
    port, page = free_ports(2)

    def environment(role):
        return {"DASK_CONFIG": str(tmp_path / role / "altrelu.yaml"), "HOME": str(tmp_path)}

    with Host(tmp_path, {}) as host:
        said = host.run(
            "config",
            ["dask", "config", "get", "distributed.scheduler.worker-ttl"],
            environment("client"),
        )
        assert said.strip() == "60s"
        # As the page says of the environment: the value counts, under the other spelling.
        sooner = environment("client") | {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "120s"}
        said = host.run(
            "config", ["dask", "config", "get", "distributed.scheduler.worker_ttl"], sooner
        )
        assert said.strip() == "120s"
        schedules, works = commands(DEPLOY / "dask" / "README.md")
        schedules = [word.replace("8787", str(page)) for word in schedules]
        schedules += ["--host", "127.0.0.1", "--port", str(port)]
        scheduler = host.start("scheduler", schedules, environment("scheduler"))
        host.until_says("scheduler", f"tls://127.0.0.1:{port}")
        works = [word.replace("10.0.0.1:8786", f"127.0.0.1:{port}") for word in works]
        works = [*(word.replace("4GiB", "1GiB") for word in works), "--local-directory"]
        host.start("worker", [*works, str(tmp_path)], environment("worker"))
        host.until_says("scheduler", "Register worker")
        out = tmp_path / "m.zarr"
        command = ["altrelu", "train", str(data), *TRAIN, "--out", str(out)]
        command += ["--scheduler", f"tls://127.0.0.1:{port}"]
        host.run("train", command, environment("client"))
        assert weights(out) == trained_here(data, tmp_path, *TRAIN)
        assert answers(f"http://127.0.0.1:{page}/health") == 200
        for path in ("info/main/workers.html", "json/", "status"):
            assert answers(f"http://127.0.0.1:{page}/{path}") == 404, path
        [page_socket] = [
            one.laddr
            for one in psutil.Process(scheduler.pid).net_connections("inet")
            if one.status == psutil.CONN_LISTEN and one.laddr.port == page
        ]
        assert page_socket.ip == "127.0.0.1"
        shutil.rmtree(out)
        plain = [*command[:-1], f"tcp://127.0.0.1:{port}"]
        said = host.run("plain", plain, {"HOME": str(tmp_path)}, code=1)
        assert "ended the connection" in said
