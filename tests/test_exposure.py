"""Schedulers without TLS that others can reach: a warning, once."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from altrelu_dist import exposure as module
from altrelu_dist.exposure import exposure, warn_of_exposure


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(module, "_told", set())


@pytest.mark.parametrize(
    "address",
    [
        "tcp://10.0.0.1:8786",
        "10.0.0.1:8786",
        "tcp://0.0.0.0:8786",
        "tcp://scheduler:8786",
        "tcp://localhost.example.com:8786",
        "tcp://[fe80::1%eth0]:8786",
        "tcp://[::ffff:10.0.0.1]:8786",
        "ws://scheduler:8786",
        "ucx://10.0.0.1:8786",
    ],
)
def test_whoever_reaches_it_runs_code(address):
    assert address in exposure(address)
    assert "tls://" in exposure("tcp://other:1")
    assert not exposure(address)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:8786",
        "tcp://127.8.9.1:8786",
        "127.0.0.1:8786",
        "tcp://localhost:8786",
        "tcp://LocalHost.:8786",
        "tcp://[::1]:8786",
        "tcp://[::ffff:127.0.0.1]:8786",
        "tls://10.0.0.1:8786",
        "wss://scheduler:8786",
        "inproc://192.168.1.1/12/1",
    ],
)
def test_what_nobody_else_reaches(address):
    assert not exposure(address)


def test_python_logs_it_once(caplog):
    client = SimpleNamespace(scheduler=SimpleNamespace(address="tcp://10.0.0.1:8786"))
    with caplog.at_level(logging.WARNING, "altrelu_dist"):
        warn_of_exposure(None)
        warn_of_exposure(client)
        warn_of_exposure(client)
    assert len(caplog.records) == 1
    assert "can run code" in caplog.text
