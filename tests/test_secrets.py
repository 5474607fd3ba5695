"""No password, key or signature of an address comes out anywhere, and no file can run code."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import re
import time
import zipfile
from pathlib import Path
from urllib.parse import quote

import fsspec
import numpy as np
import pytest
import zarr
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import altrelu_dist
from altrelu_dist import AltReLURegressor, Network, open_dataset
from altrelu_dist.addresses import has_secret, without_secrets
from altrelu_dist.cli.app import app
from altrelu_dist.errors import AltReLUError, DataError

SECRET = "tOpSeCrEt"


class Vault(AbstractFileSystem):
    """Files behind a user and a password in the address, and an error that tells them."""

    protocol = "vault"
    cachable = False
    broken = False

    def __init__(self, password=None, **options):
        if password != SECRET:
            raise PermissionError("who are you?")
        super().__init__(**options)
        self._files = LocalFileSystem()

    @classmethod
    def _strip_protocol(cls, path):
        return str(path).partition("://")[2].partition("@")[2].rstrip("/") or str(path).rstrip("/")

    @staticmethod
    def _get_kwargs_from_urls(url):
        return {"password": str(url).partition("@")[0].rpartition(":")[2]}

    def unstrip_protocol(self, name):
        return f"vault://me:{SECRET}@{self._strip_protocol(name)}"

    def ls(self, path, detail=True, **_):
        return self._files.ls(self._strip_protocol(path), detail=detail)

    def info(self, path, **_):
        return self._files.info(self._strip_protocol(path))

    def makedirs(self, path, exist_ok=False):
        self._files.makedirs(self._strip_protocol(path), exist_ok=exist_ok)

    def rm_file(self, path):
        self._files.rm_file(self._strip_protocol(path))

    def _open(self, path, mode="rb", **_):
        if type(self).broken:
            raise OSError(f"vault://me:{SECRET}@{path}?signature={SECRET}: no such bucket")
        return open(self._strip_protocol(path), mode)


fsspec.register_implementation("vault", Vault, clobber=True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:tOpSeCrEt@bucket/x.zarr: gone", "s3://***@bucket/x.zarr: gone"),
        ("at s3://k:tOp/SeC+rEt@b", "at s3://***@b"),
        ("https://tOpSeCrEt@h/x", "https://***@h/x"),
        ("https://h/x.zarr?sig=tOpSeCrEt&se=1: gone", "https://h/x.zarr?***: gone"),
        ("'https://h/x?a=tOpSeCrEt' and 'y'", "'https://h/x?***' and 'y'"),
        ("zip://a.csv::https://u:tOpSeCrEt@h/x.zip", "zip://a.csv::https://***@h/x.zip"),
        ("abfs://c@a.net/x?sig=tOpSeCrEt", "abfs://c@a.net/x?***"),
        ("AccountName=a;AccountKey=tOpSeCrEt;B=c", "AccountName=a;AccountKey=***;B=c"),
        ("{'secret': 'tOpSeCrEt', 'anon': False}", "{'secret': '***', 'anon': False}"),
        ("with url: /x?tOpSeCrEt (Caused by", "with url: /x?***"),
    ],
)
def test_what_is_shown_of_an_address(text, shown):
    assert without_secrets(text) == shown
    assert str(AltReLUError(text)) == shown
    assert has_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "tcp://127.0.0.1:8786: is it running (dask scheduler)?",
        "tls://[::1]:8786",
        "inproc://192.168.1.1/12/1",
        "s3://bucket/part-?.parquet",
        "s3://bucket/year=202?/month=*/x.parquet: no such file",
        "s3://bucket/key=3/me@work/x.zarr",
        "ssh://me@host/data.zarr",
        "abfs://container@account.dfs.core.windows.net/x.zarr",
        "hf://datasets/user/repo@main/x.parquet",
        "https://host:8080/x.csv",
        "zip://a.csv::/home/me@work/x?.zip",
        "file:///home/me@work/a?b=c.csv",
        "/home/me@work/data.zarr: a=b?",
        "/data/x:y@z?q#1;2",
        "c:/data/x@y",
        "/data/token=5/key=3/x.parquet: damaged",
        "/run/secrets/token: no such file",
        "ExpiredToken: the provided token has expired",
        "--cluster prod: tls: key: no/c.pem: there is no such file",
    ],
)
def test_what_is_no_secret_is_shown(text):
    assert without_secrets(text) == text
    assert not has_secret(text)


SIGNS = "'\"`@/:;?#&=+%,.-_!~()[]{}<>|\\^$* é"
ADDRESSES = [
    "{scheme}://u:{secret}@h/x.zarr",
    "{scheme}://{secret}:@[::1]:80/x.zarr",
    "zip://a.csv::{scheme}://u:{secret}@h/x.zip",
    "cannot read '{scheme}://me@corp.com:{secret}@h/x.csv'",
    "{scheme}://h/x?sig={secret}",
    "{scheme}://[fe80::1]:80/x?a=1&b=2;sig={secret}",
    "{scheme}://h/x#access_token={secret}",
    "{scheme}://h/x;sig={secret}",
]
FIELDS = [
    "secret",
    "password",
    "aws_secret_access_key",
    "sas_token",
    "accountKey",
    "key",
    "API-Key",
]


@st.composite
def secrets(draw):
    """Two words with anything at all between and about them."""
    parts = [draw(st.text(SIGNS, max_size=4)) for _ in range(3)]
    assume("://" not in "x".join(parts))
    return f"x{parts[0]}QzVx{parts[1]}Kw7J{parts[2]}"


def hidden(text):
    shown = without_secrets(text)
    assert not any(word.lower() in shown.lower() for word in ("QzVx", "Kw7J")), shown
    assert without_secrets(shown) == shown


@given(secrets(), st.sampled_from(ADDRESSES), st.sampled_from(["s3", "S3", "https", "HtTp", "x+y"]))
@settings(max_examples=300)
def test_no_secret_of_an_address_is_shown(secret, form, scheme):
    if "@" not in form:
        assume(not re.search(r":(\s|$)", secret))  # where an address ends in a message
    if "{secret}:" not in form:  # a token in place of a name: encoded, or it ends at a slash
        hidden(form.format(scheme=scheme, secret=secret))
    encoded = form.format(scheme=scheme, secret=quote(secret, safe=""))
    hidden(encoded)
    hidden(f"at {encoded}: gone")
    hidden(f"<Response [403] '{encoded}'> and '/home/x'")
    hidden(quote(encoded, safe=""))


@given(secrets(), st.sampled_from(FIELDS))
@settings(max_examples=200)
def test_no_secret_of_a_field_is_shown(secret, field):
    options = {"anon": False, "client_kwargs": {field: secret, "b": 1}, "auth": ("u", secret)}
    hidden(repr(options))
    hidden(json.dumps(options))
    hidden(json.dumps({"text": json.dumps(options)}))
    hidden(f"S3FileSystem({field}={secret!r}, anon=False)")
    if not re.search(r"[;<]|[:,](\s|$)", secret):
        hidden(f"Endpoint=https;{field}={secret};Suffix=x")
        hidden(f"<{field}>{secret}</{field}>")


@given(st.text(st.sampled_from(SIGNS + "ab1\n"), max_size=40))
def test_what_is_shown_stays_as_it_is_shown(text):
    shown = without_secrets(f"https://{text}")
    assert without_secrets(shown) == shown


@pytest.mark.alone  # it measures time
def test_long_texts_take_no_time():
    for part in ("a", "https://", "s3://a:b@", "'", "key='", "a:b@", "\\", "https://h/?x ", " "):
        began = time.monotonic()
        without_secrets("https://h/x?" + part * 20_000)
        assert time.monotonic() - began < 2, part


@pytest.fixture
def here(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3))
    np.savez(tmp_path / "data.npz", X=X, y=np.abs(X[:, 0]))
    altrelu_dist.convert(tmp_path / "data.npz", tmp_path / "data.zarr")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Vault, "broken", False)
    return tmp_path


def address(path):
    return f"vault://me:{SECRET}@{path}"


def run(*arguments):
    """All that a command says, in a process that shows everything, and its exit code."""
    logger = logging.getLogger("altrelu_dist")
    handlers, level = list(logger.handlers), logger.level
    try:
        result = CliRunner().invoke(app, ["--debug", *map(str, arguments)])
    finally:
        logger.handlers, logger.level = handlers, level
    return result.stdout + result.stderr, result.exit_code


QUICK = ("--hidden", 2, "--method", "alternating", "--max-iter", 2, "--workers", 0)


def test_no_command_tells_it_where_all_goes_well(here):
    Network.load  # noqa: B018 - imported before it is measured what is written
    data, kept = address(here / "data.zarr"), ("--checkpoint", address(here / "run"))
    said = [
        run("convert", address(here / "data.npz"), "again.zarr", "--json"),
        run("info", data),
        run("info", data, "--json"),
        run("train", data, *QUICK, "--out", "m.zarr", *kept, "--checkpoint-interval", 0, "--json"),
        run("plan", data, "--hidden", 2),
        run("evaluate", "m.zarr", data),
        run("predict", "m.zarr", data, "--out", "p.csv"),
    ]
    assert [code for _, code in said] == [0] * len(said), said
    assert not any(SECRET in text for text, _ in said)
    written = [path for path in here.rglob("*") if path.is_file()]
    assert any("run/checkpoint-" in str(path) for path in written)
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    model = AltReLURegressor.load("m.zarr")
    assert SECRET not in repr((model.history_, model.network_.info))


@pytest.mark.parametrize("how", ["broken", "missing", "damaged"])
def test_no_error_tells_it(how, here, monkeypatch, caplog):
    data = address(here / "data.zarr")
    run("train", "data.zarr", *QUICK, "--out", "m.zarr")
    if how == "broken":
        monkeypatch.setattr(Vault, "broken", True)
    elif how == "missing":
        data = address(here / "nothing.zarr")
    else:
        chunk = here / "data.zarr/X/c/0/0"
        chunk.write_bytes(chunk.read_bytes()[:-5])
    said = [
        run("convert", address(here / ("nothing" * (how != "broken") + "data.npz")), "again.zarr"),
        run("info", data),
        run("train", data, *QUICK, "--out", "n.zarr"),
        run("evaluate", "m.zarr", data),
        run("predict", "m.zarr", data, "--out", "p.csv"),
        run("train", "data.zarr", *QUICK, "--out", "n.zarr", "--resume", address(here / "no")),
    ]
    assert all(code == 1 for _, code in said), said
    assert not any(SECRET in text for text, _ in said), said
    assert any("vault://***@" in text for text, _ in said)
    assert SECRET not in caplog.text
    with pytest.raises(DataError) as caught:
        open_dataset(data).X.compute(scheduler="sync")
    assert SECRET not in str(caught.value)


# --- nothing runs ---------------------------------------------------------------------------------


class Trace:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def npy(path, trace):
    array = np.empty((5, 2), dtype=object)
    array[:] = Trace(trace)
    np.save(path.with_suffix(".npy"), array, allow_pickle=True)
    np.save(path.with_name("y.npy"), np.zeros(5))
    return path.with_suffix(".npy")


def npz(path, trace):
    buffer = io.BytesIO()
    array = np.empty((5, 2), dtype=object)
    array[:] = Trace(trace)
    np.save(buffer, array, allow_pickle=True)
    with zipfile.ZipFile(path.with_suffix(".npz"), "w") as archive:
        archive.writestr("X.npy", buffer.getvalue())
    return path.with_suffix(".npz")


def plain_pickle(path, trace):
    (path.with_suffix(".npy")).write_bytes(pickle.dumps(Trace(trace)))
    return path.with_suffix(".npy")


def pickle_codec(path, trace):
    """A store of objects, which Zarr's second format pickles."""
    from numcodecs import Pickle

    values = np.empty((5, 2), dtype=object)
    values[:] = Trace(trace)
    group = zarr.open_group(path.with_suffix(".zarr"), mode="w", zarr_format=2)
    group.create_array("X", shape=(5, 2), chunks=(5, 2), dtype="float64", compressors=None)
    metadata = path.with_suffix(".zarr") / "X/.zarray"
    text = metadata.read_text().replace('"<f8"', '"|O"')
    metadata.write_text(text.replace('"filters": null', '"filters": [{"id": "pickle"}]'))
    (path.with_suffix(".zarr") / "X/0.0").write_bytes(bytes(Pickle().encode(values)))
    return path.with_suffix(".zarr")


@pytest.mark.parametrize("write", [npy, npz, plain_pickle, pickle_codec])
def test_nothing_in_data_is_run(write, tmp_path):
    trace = tmp_path / "it ran"
    path = write(tmp_path / "X", trace)
    assert path.exists()
    with pytest.raises(AltReLUError):
        open_dataset(path, require_target=False).X.compute(scheduler="sync")
    with pytest.raises(AltReLUError):
        altrelu_dist.convert(path, tmp_path / "out.zarr")
    assert not trace.exists()


def test_the_pickles_of_these_tests_do_run(tmp_path):
    pickle.loads(pickle.dumps(Trace(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../secret.npy", "/etc/hostname", "X/../../secret.npy"])
def test_a_member_of_an_archive_does_not_lead_out_of_it(name, tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.ones((4, 2)))
    (tmp_path / "secret.npy").write_bytes(b"secret")
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr(name, buffer.getvalue())
        archive.writestr("X.npy", buffer.getvalue())
    X = open_dataset(tmp_path / "data.npz", require_target=False).X
    np.testing.assert_array_equal(X, np.ones((4, 2)))
    assert (tmp_path / "secret.npy").read_bytes() == b"secret"
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == ["data.npz", "secret.npy"]
