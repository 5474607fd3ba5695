"""`altrelu --cluster NAME`: a scheduler, its certificates and its storage under one name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dask
from distributed import WorkerPlugin

from altrelu_dist.errors import ClusterError, ParameterError

if TYPE_CHECKING:
    from distributed import Client, Worker

__all__ = ["tell_workers", "use_profile"]

_PROFILES = "altrelu.clusters"  # in Dask's configuration
_STORAGE = "altrelu.storage"  # of the profile that is in use
_KEYS = {"scheduler", "tls", "storage"}
_TLS = {"ca-file": "ca-file", "cert": "client.cert", "key": "client.key"}


def use_profile(name: str) -> None:
    """Have all that follows use a cluster of Dask's configuration (``~/.config/dask/*.yaml``).

    Raises
    ------
    ParameterError
        If there is no such profile, or something in it is not known.
    """
    profiles = _mapping(dask.config.get(_PROFILES, {}), "altrelu: clusters")
    if name not in profiles:
        known = ", ".join(sorted(map(str, profiles))) or "none"
        raise ParameterError(
            f"--cluster {name}: no such profile in Dask's configuration (altrelu: clusters:), "
            f"found: {known}"
        )
    where = f"--cluster {name}"
    profile = _mapping(profiles[name], where)
    tls = _mapping(profile.get("tls"), f"{where}: tls")
    storage = _mapping(profile.get("storage"), f"{where}: storage")
    for protocol, options in storage.items():
        _mapping(options, f"{where}: storage: {protocol}")
    unknown = [*(profile.keys() - _KEYS), *(f"tls: {key}" for key in tls.keys() - _TLS.keys())]
    if unknown or "scheduler" not in profile:
        raise ParameterError(
            f"--cluster {name}: {f'does not know {unknown[0]}' if unknown else 'has no scheduler'};"
            f" a profile has a scheduler, and may have tls: ({', '.join(_TLS)}) and storage:"
        )
    settings: dict[str, Any] = {"scheduler-address": str(profile["scheduler"])}
    if tls:
        settings["distributed.comm.require-encryption"] = True
    for key, value in tls.items():
        file = os.path.expanduser(str(value))
        if not os.access(file, os.R_OK):
            raise ParameterError(
                f"--cluster {name}: tls: {key}: {file}: there is no such file that can be read"
            )
        settings[f"distributed.comm.tls.{_TLS[key]}"] = file
    dask.config.set(settings | {_STORAGE: storage})
    use_storage(storage)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    """A part of the configuration; an empty one may be missing."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ParameterError(
            f"{where}: expected names with values in Dask's configuration, found "
            f"{type(value).__name__}"
        )
    return value


def use_storage(storage: Mapping[str, Any]) -> None:
    """Set fsspec's options by protocol; ``{env: NAME}`` stands for a variable of the environment.

    Raises
    ------
    ParameterError
        If such a variable is not set here.
    """
    import fsspec

    for protocol, options in storage.items():
        conf = fsspec.config.conf.setdefault(protocol, {})
        conf.update({name: _value(value) for name, value in (options or {}).items()})


def _value(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if set(value) != {"env"}:
        return {name: _value(each) for name, each in value.items()}
    name = str(value["env"])
    if name not in os.environ:
        raise ParameterError(f"storage: the variable {name} is not in the environment")
    return os.environ[name]


class StoragePlugin(WorkerPlugin):  # type: ignore[misc]
    """Sets the options on each worker, from the worker's own environment: no secret travels."""

    name = "altrelu-storage"

    def __init__(self, storage: Mapping[str, Any]) -> None:
        self.storage = storage

    def setup(self, worker: Worker) -> None:
        """Set them."""
        del worker
        use_storage(self.storage)


def tell_workers(client: Client) -> None:
    """Have the workers, those that come later too, use the storage of the profile.

    Raises
    ------
    ClusterError
        If one cannot, for the lack of a variable say.
    """
    storage = dask.config.get(_STORAGE, {})
    if not storage:
        return
    try:
        client.register_plugin(StoragePlugin(storage))
    except ParameterError as error:
        raise ClusterError(f"a worker cannot use the storage of the profile: {error}") from error
