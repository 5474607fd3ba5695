"""The network itself: its weights, its forward pass, and its file of arrays, without code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from altrelu_dist.encoding import Encoder, RawColumns
from altrelu_dist.encoding.lookup import LookupLayer
from altrelu_dist.encoding.pieces import PieceColumns
from altrelu_dist.encoding.raw import columns_of
from altrelu_dist.encoding.standard import StandardColumns
from altrelu_dist.errors import DataError, ModelFileError, ParameterError
from altrelu_dist.exports import ExportMethods
from altrelu_dist.intervals import ResidualQuantiles
from altrelu_dist.links import check_regular
from altrelu_dist.outputs import recovered, write_beside
from altrelu_dist.threads import in_threads

__all__ = ["Network"]

Floats = NDArray[np.float64]

FORMAT = "altrelu-network"
# Since 2 with a checksum, since 3 without names that were made up, since 4 with an encoder or a
# range of targets, since 5 with levels, times, missing values or residuals.
FORMAT_VERSION = 5
_PLAIN_VERSION, _ENCODER_VERSION = 3, 4
_UNCLEAR = "feature_names_unclear"  # in the info
_KNOWS_NAMES = 3
_ARRAYS = ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
_GRAM = "hidden_gram"
_RANGE = "target_range"
_RESIDUALS = ("residual_spread", "residual_quantiles")
_INTERVALS = 5
_ENCODER = "encoder"  # in the attributes: the names of its arrays, which follow this one
_COLUMNS = "columns"
_IN_VERSION_4 = (StandardColumns, PieceColumns)
_CHECKSUM = "checksum"
_ROWS_AT_ONCE = 8192
_ENCODED_ROWS_AT_ONCE = 1024  # each is some hundred columns wide, and stays in the cache


@dataclass(frozen=True, eq=False)  # arrays have no plain equality
class Network(ExportMethods):
    """A two-layer ReLU network on raw (not standardised) inputs; its arrays are not to be changed.

    ``f(x) = output_weights.T @ sigma(hidden_weights.T @ e(x) + hidden_bias) + output_bias`` with
    ``sigma(z) = max(z, negative_slope * z)``, and ``e(x) = x`` or what an encoder makes of it.

    Parameters
    ----------
    hidden_weights : ndarray of shape (n_columns, n_hidden)
        ``n_columns`` is ``n_features``, or with an encoder the number of encoded columns.
    hidden_bias : ndarray of shape (n_hidden,)
    output_weights : ndarray of shape (n_hidden, n_targets)
    output_bias : ndarray of shape (n_targets,)
    negative_slope : float, default 0
        Slope of the activation left of its kink, in [0, 1).
    feature_names, target_names : tuple of str, optional
    info : dict, optional
        What is known of how the network was made; JSON values only.
    hidden_gram : ndarray of shape (n_hidden + 1, n_hidden + 1), optional
        Gram matrix of the hidden features, and a one, over the rows it was trained on: what
        further rows are weighed against when they are folded in.
    encoder : Encoder, optional
        Makes the columns that the hidden layer takes of the raw ones.
    target_range : ndarray of shape (2, n_targets), optional
        Least and greatest prediction of each target: :meth:`predict` clips what is beyond.
    columns : tuple of RawColumn, optional
        How the columns of a table become raw ones: numbers, places of levels, or times. By default
        all are numbers.
    residuals : ResidualQuantiles, optional
        How far targets of new rows lie from their predictions, for intervals.

    Raises
    ------
    ParameterError
        If the shapes do not fit each other, or the names the shapes, or a range is none.
    """

    hidden_weights: Floats
    hidden_bias: Floats
    output_weights: Floats
    output_bias: Floats
    negative_slope: float = 0.0
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    hidden_gram: Floats | None = None
    encoder: Encoder | None = None
    target_range: Floats | None = None
    columns: RawColumns | None = None
    residuals: ResidualQuantiles | None = None

    def __post_init__(self) -> None:
        p, h = self.hidden_weights.shape
        q = self.output_bias.shape[0]
        if self.hidden_bias.shape != (h,) or self.output_weights.shape != (h, q):
            raise ParameterError(
                f"the layers do not fit each other: hidden weights {(p, h)}, hidden bias "
                f"{self.hidden_bias.shape}, output weights {self.output_weights.shape}, output "
                f"bias {self.output_bias.shape}"
            )
        if self.hidden_gram is not None and self.hidden_gram.shape != (h + 1, h + 1):
            raise ParameterError(
                f"hidden_gram has shape {self.hidden_gram.shape}, expected {(h + 1, h + 1)}"
            )
        if self.encoder is not None and self.encoder.n_columns != p:
            raise ParameterError(
                f"the encoder makes {self.encoder.n_columns} columns, the hidden weights take {p}"
            )
        if self.target_range is not None:
            if self.target_range.shape != (2, q):
                raise ParameterError(
                    f"target_range has shape {self.target_range.shape}, expected {(2, q)}"
                )
            if not (self.target_range[0] <= self.target_range[1]).all():
                raise ParameterError("target_range has a least value above the greatest")
        if self.residuals is not None:
            self.residuals.check(q)
        for what, names, count in (
            ("feature_names", self.feature_names, self.n_features),
            ("target_names", self.target_names, q),
        ):
            if names is not None and len(names) != count:
                raise ParameterError(f"{what} has {len(names)} names, the network has {count}")
        if self.columns is not None and len(self.columns) != self.n_features:
            raise ParameterError(
                f"columns says of {len(self.columns)} columns what they hold, the network has "
                f"{self.n_features}"
            )

    @property
    def names_unclear(self) -> bool:
        """Whether nobody knows if `feature_names` are the data's own.

        Up to version 2 of the file, columns without names were called x0, x1, ...
        """
        return bool(self.info.get(_UNCLEAR))

    @property
    def n_features(self) -> int:
        """Number of input features: raw columns, of which an encoder makes others."""
        if self.encoder is not None:
            return self.encoder.n_features
        return int(self.hidden_weights.shape[0])

    @property
    def n_hidden(self) -> int:
        """Number of hidden neurons."""
        return int(self.hidden_weights.shape[1])

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return int(self.output_bias.shape[0])

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """The classes that its outputs are logits of, in their order; None of a regression."""
        if self.info.get("link") != "logistic":
            return None
        return tuple(self.info["classes"])

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The levels of the quantiles that it predicts; none of another loss."""
        return tuple(self.info.get("quantiles", ()))

    @property
    def target_columns(self) -> tuple[str, ...] | None:
        """The columns that it predicts; None without names.

        Of classes it is the one that holds them, of several quantiles the one that they are of.
        """
        if self.classes is None and len(self.quantiles) < 2:
            return self.target_names
        name = self.info.get("target_name")
        return None if name is None else (name,)

    def predict(self, X: ArrayLike) -> Floats:
        """Predict the targets of some rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Numbers, or a table of the columns that it was trained on; computed in float64, a few
            thousand rows at a time on each of the threads that BLAS may use.

        Returns
        -------
        ndarray of shape (n_rows, n_targets)
            Within ``target_range``, where there is one.

        Raises
        ------
        DataError
            If the number of columns is not ``n_features``, or a table has other ones.
        """
        rows = X if isinstance(X, np.ndarray) else np.asarray(self._taken(X))
        self._check_shape(rows)
        out = np.empty((rows.shape[0], self.n_targets))
        _ = self._lookup  # made once, before several threads ask for it

        def predict_part(part: slice) -> None:
            out[part] = self._activations(rows[part]) @ self.output_weights + self.output_bias

        in_threads(predict_part, self._parts(rows.shape[0]))
        if self.target_range is not None:
            np.clip(out, *self.target_range, out=out)
        return out

    def _taken(self, X: Any) -> Any:
        """A table as the numbers that the network was trained on."""
        from altrelu_dist.frames import given_again

        return given_again(X, "X", self.columns, self.feature_names).values

    def _exported(self) -> Network:
        return self

    def hidden_features(self, X: NDArray[Any]) -> Floats:
        """What the hidden neurons make of some rows.

        Parameters
        ----------
        X : ndarray of shape (n_rows, n_features)
            Raw; encoded a few thousand rows at a time, if there is an encoder.

        Returns
        -------
        ndarray of shape (n_rows, n_hidden)

        Raises
        ------
        DataError
            If the number of columns is not ``n_features``.
        """
        self._check_shape(X)
        if self.encoder is None:
            return self._activations(X)
        out = np.empty((X.shape[0], self.n_hidden))
        for part in self._parts(X.shape[0]):
            out[part] = self._activations(X[part])
        return out

    def _check_shape(self, rows: NDArray[Any]) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise DataError(
                f"the network takes {self.n_features} features, found an array of shape "
                f"{rows.shape}"
            )

    def _parts(self, n_rows: int) -> list[slice]:
        """Rows to compute at once."""
        size = _ROWS_AT_ONCE if self.encoder is None else _ENCODED_ROWS_AT_ONCE
        return [slice(start, start + size) for start in range(0, n_rows, size)]

    def _activations(self, X: NDArray[Any]) -> Floats:
        """What the hidden neurons make of few rows."""
        # In float64: products in float32 make predictions 1.6 times as fast, but move them by more
        # than 1e-6 of their scale, and by far more where large weights cancel out.
        z: Floats
        if self._lookup is not None:
            z = self._lookup.apply(X)
        else:
            columns = X.astype(np.float64) if self.encoder is None else self.encoder.transform(X)
            z = columns @ self.hidden_weights + self.hidden_bias
        return np.maximum(z, self.negative_slope * z if self.negative_slope else 0.0, out=z)

    @cached_property
    def _lookup(self) -> LookupLayer | None:
        """The hidden layer as tables of raw columns, where they save time."""
        if self.encoder is None:
            return None
        return LookupLayer.of(self.encoder, self.hidden_weights, self.hidden_bias)

    def __getstate__(self) -> dict[str, Any]:
        """Without the tables, which are made anew."""
        state = self.__dict__.copy()
        state.pop("_lookup", None)
        return state

    def __repr__(self) -> str:
        encoded = "" if self.encoder is None else f" encoded as {self.encoder.n_columns} columns"
        return (
            f"Network({self.n_features} features{encoded}, {self.n_hidden} hidden neurons, "
            f"{self.n_targets} targets)"
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the network to a Zarr group, complete or not at all.

        The group is written beside ``path`` and swapped in when it is whole; until then, and if
        that fails or is interrupted, an existing file stays as it was.

        Parameters
        ----------
        path : str or path-like
            Of this machine, or an address that fsspec knows, such as ``s3://bucket/model.zarr``.
        overwrite : bool, default False

        Raises
        ------
        ExistsError
            If ``path`` exists and is not to be overwritten, or is something else than a network.
        DataError
            If it cannot be written, for example because the disk is full.
        """
        import zarr
        from zarr.codecs import Crc32cCodec

        with write_beside(path, overwrite=overwrite, kind=FORMAT) as beside:
            group = zarr.open_group(beside, mode="w", zarr_format=3)
            optional = [name for name in (_GRAM, _RANGE) if getattr(self, name) is not None]
            arrays = {
                name: np.ascontiguousarray(getattr(self, name), dtype=np.float64)
                for name in (*_ARRAYS, *optional)
            }
            encoder = {} if self.encoder is None else self.encoder.to_arrays()
            arrays |= {f"{_ENCODER}_{name}": values for name, values in encoder.items()}
            if self.residuals is not None:
                arrays |= self.residuals.to_arrays()
            for name, values in arrays.items():
                group.create_array(
                    name,
                    data=values,
                    compressors=[Crc32cCodec()],
                    chunks=tuple(max(1, n) for n in values.shape),
                    fill_value=np.nan,  # so that an array of zeros has chunks, and a lost one shows
                )
            attributes = {
                "format": FORMAT,
                "format_version": self._version(),
                "negative_slope": self.negative_slope,
                "feature_names": self.feature_names and list(self.feature_names),
                "target_names": self.target_names and list(self.target_names),
                "info": json.loads(json.dumps(self.info)),
            }
            if encoder:
                attributes[_ENCODER] = sorted(encoder)
            if self.columns is not None:
                attributes[_COLUMNS] = [column.to_json() for column in self.columns]
            group.attrs.update(attributes | {_CHECKSUM: _checksum(attributes, arrays)})

    def _version(self) -> int:
        """The version of the file format that has room for it."""
        kinds = () if self.encoder is None else self.encoder.blocks
        known = self.columns, self.residuals
        if known != (None, None) or any(not isinstance(k, _IN_VERSION_4) for k in kinds):
            return FORMAT_VERSION
        plain = self.encoder is None and self.target_range is None
        return _PLAIN_VERSION if plain else _ENCODER_VERSION

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """Read a network that :meth:`save` wrote.

        Parameters
        ----------
        path : str or path-like
            Of this machine, or an address that fsspec knows.

        Returns
        -------
        Network

        Raises
        ------
        ModelFileError
            If there is nothing at ``path``, or it is not a network, is damaged, or was written by
            a newer version of this package.
        """
        try:
            return cls._load(os.fspath(path))
        except ModelFileError:
            other = recovered(path)
            if other is None:
                raise
        return cls._load(other)

    @classmethod
    def _load(cls, path: str) -> Network:
        import fsspec
        import zarr

        check_regular(path, ModelFileError)
        try:
            files, root = fsspec.core.url_to_fs(path, use_listings_cache=False)
            sizes = files.find(root, detail=True)
        except Exception as error:
            raise ModelFileError(f"{path}: cannot be read: {_line(error)}") from error
        if not sizes and not files.exists(root):
            raise ModelFileError(f"{path}: no such model")
        for name in sizes if "file" in files.protocol else ():
            check_regular(name, ModelFileError)
        try:
            group = zarr.open_group(path, mode="r")
            attrs: dict[str, Any] = dict(group.attrs)
        except Exception as error:
            raise ModelFileError(f"{path} is not a saved network: {_line(error)}") from error
        if attrs.get("format") != FORMAT:
            raise ModelFileError(
                f"{path} is not a saved network: its format is {attrs.get('format')!r}, expected "
                f"{FORMAT!r}"
            )
        version = attrs.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ModelFileError(
                f"{path} has format version {version!r}, this package reads up to "
                f"{FORMAT_VERSION}: upgrade altrelu-dist"
            )
        try:
            encoded = [f"{_ENCODER}_{name}" for name in attrs.get(_ENCODER, ())]
            optional = [name for name in (_GRAM, _RANGE) if name in group]
            if version <= _PLAIN_VERSION and (encoded or _RANGE in optional):
                raise ModelFileError(f"version {version} has no encoder and no range of targets")
            residual = [name for name in _RESIDUALS if version >= _INTERVALS and name in group]
            kept = (*_ARRAYS, *optional, *encoded, *residual)
            stored = {
                name: sum(
                    entry["size"] for file, entry in sizes.items() if f"/{name}/" in f"{file}/"
                )
                for name in kept
            }
            arrays = {name: _read(group, name, stored[name]) for name in kept}
            _check(attrs, arrays)
            features, targets = attrs.get("feature_names"), attrs.get("target_names")
            info = dict(attrs.get("info") or {})
            if version < _KNOWS_NAMES and features == [f"x{i}" for i in range(len(features or ()))]:
                info[_UNCLEAR] = True
            return cls(
                **{name: arrays[name] for name in (*_ARRAYS, *optional)},
                residuals=ResidualQuantiles.from_arrays(arrays) if residual else None,
                encoder=_encoder({name: arrays[name] for name in encoded}),
                columns=columns_of(attrs.get(_COLUMNS)),
                negative_slope=float(attrs["negative_slope"]),
                feature_names=tuple(features) if features else None,
                target_names=tuple(targets) if targets else None,
                info=info,
            )
        except Exception as error:
            raise ModelFileError(f"{path} is damaged: {_line(error)}") from error


def _checksum(attributes: Mapping[str, Any], arrays: Mapping[str, Floats]) -> str:
    """SHA-256 of all that a file holds."""
    found = sha256(json.dumps(attributes, sort_keys=True).encode())
    for name, values in sorted(arrays.items()):
        found.update(f"{name} {values.shape}".encode())
        found.update(np.ascontiguousarray(values, "<f8").tobytes())
    return found.hexdigest()


def _check(attributes: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
    """See that a file is as it was written; those of version 1 had no checksum."""
    told = {key: value for key, value in attributes.items() if key != _CHECKSUM}
    if len(told) == len(attributes) and attributes["format_version"] == 1:
        return
    if attributes.get(_CHECKSUM) != _checksum(told, arrays):
        raise ModelFileError("its checksum does not fit")


def _encoder(arrays: Mapping[str, Floats]) -> Encoder | None:
    """The encoder of a file's arrays, if it has one."""
    if not arrays:
        return None
    own = {name.removeprefix(f"{_ENCODER}_"): values for name, values in arrays.items()}
    return Encoder.from_arrays(own)


def _read(group: Any, name: str, stored: int) -> Floats:
    array = group[name]
    if array.nbytes > stored:  # nothing is compressed: what claims to be larger is damaged
        raise ModelFileError(f"array {name!r} is cut short, or its shape {array.shape} is wrong")
    if array.nchunks_initialized != array.nchunks and array.size:
        raise ModelFileError(f"array {name!r} has lost a chunk")
    values = np.asarray(array[...], dtype=np.float64)
    if not np.isfinite(values).all():
        raise ModelFileError(f"array {name!r} holds values that are not finite")
    return values


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
