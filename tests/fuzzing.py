"""Mutations of files that the package reads, and what it makes of them.

    python tests/fuzzing.py --mutations 10000 --seed 0

A mutation is known by its target, seed and number, and made again by them alone. The mutations run
in processes of their own, which may hold little memory: one that dies, hangs or asks for too much
is a find like one that raises what it should not, or gives another result where a checksum is to
see to it that it does not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

HERE = Path(__file__).parent
ROWS = 60
SECONDS = 20  # for a mutation, on a machine that does other things too
MEMORY = 3 << 30  # bytes that a process may hold in all, beside what it begins with

# --- how files are damaged ------------------------------------------------------------------------


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bits."""
    out = bytearray(data)
    for at in rng.integers(len(out), size=rng.integers(1, 4)):
        out[at] ^= 1 << int(rng.integers(8))
    return bytes(out)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """The beginning, or the end."""
    at = int(rng.integers(len(data)))
    return data[:at] if rng.random() < 0.7 else data[at:]


def overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    """A range: zeros, ones, noise, or another range of the same file; or one exchanged for it."""
    length = int(rng.integers(1, min(64, len(data)) + 1))
    at, other = (int(rng.integers(len(data) - length + 1)) for _ in range(2))
    kind = rng.integers(4)
    new = (bytes(length), b"\xff" * length, rng.bytes(length), data[other : other + length])[kind]
    return data[:at] + new + data[at + length :]


def inserted(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes more, or a range twice."""
    at = int(rng.integers(len(data) + 1))
    length = int(rng.integers(1, 33))
    new = rng.bytes(length) if rng.random() < 0.5 else data[at : at + length] * 2
    return data[:at] + new + data[at:]


NASTY = [
    None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, -(2**63), 10**30, 1e308, 0.5, "", "x", "../..",
    "/etc/passwd", "NaN", "Infinity", "object", "|O", "<U8", "<i8", ">f4", "float16", "complex128",
    "pickle", "gzip", "zstd", "blosc", "\u0000", "y" * 5000, [], [0], [2**40], [-1, 3], {},
    {"a": 1},
]  # fmt: skip


def rewritten(data: bytes, rng: np.random.Generator) -> bytes:
    """JSON with a value replaced, dropped, doubled, or exchanged for another; else as `flipped`."""
    try:
        tree = json.loads(data)
    except ValueError:
        return flipped(data, rng)
    places: list[tuple[object, object]] = []

    def visit(node: object) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)  # type: ignore[arg-type]
        for key, value in list(items):
            places.append((node, key))
            if isinstance(value, dict | list):
                visit(value)

    if isinstance(tree, dict | list):
        visit(tree)
    if not places:
        return flipped(data, rng)
    node, key = places[rng.integers(len(places))]
    other, other_key = places[rng.integers(len(places))]
    kind = rng.integers(6)
    if kind == 0:
        del node[key]
    elif kind == 1:
        node[key] = other[other_key]
    elif kind == 2 and isinstance(node[key], int):
        node[key] += int(rng.choice([-1, 1, 10**6, 10**12]))
    elif kind == 3 and isinstance(node, dict):
        node[str(NASTY[rng.integers(len(NASTY))])] = node[key]
    else:
        node[key] = NASTY[rng.integers(len(NASTY))]
    try:
        return json.dumps(tree).encode()
    except ValueError:  # it holds itself now
        return flipped(data, rng)


BYTES = (flipped, flipped, cut, overwritten, inserted)


def mutate(folder: Path, rng: np.random.Generator) -> str:
    """Damage what lies in a folder; what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    metadata = [path for path in files if path.suffix == ".json" or path.name.startswith(".z")]
    many = metadata if metadata and rng.random() < 0.6 else files
    path = many[rng.integers(len(many))]
    if len(files) > 1 and rng.random() < 0.08:
        other = files[rng.integers(len(files))]
        # A chunk in another one's place has a checksum that fits: nothing tells where it belongs.
        chunks = path not in metadata and other not in metadata
        if rng.random() < 0.3 or other == path or chunks:
            path.unlink()
            return f"{path.name} deleted"
        mine, others = path.read_bytes(), other.read_bytes()
        path.write_bytes(others)
        if rng.random() < 0.5:
            other.write_bytes(mine)
        return f"{path.name} exchanged for {other.name}"
    changed = rewritten if path in metadata and rng.random() < 0.7 else BYTES[rng.integers(5)]
    data = path.read_bytes()
    path.write_bytes(changed(data, rng) if data else rng.bytes(3))
    return f"{path.name} {changed.__name__}"


# --- what is read ---------------------------------------------------------------------------------


def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = np.round(rng.standard_normal((ROWS, 3)), 2)
    return X, np.abs(X[:, 0]) * X[:, 1]


@dataclass(frozen=True)
class Target:
    """A reader: it is given a folder, and makes something of what lies there.

    ``sure``: checksums see to it that the result is what was written, or none. ``forged``: the
    checksum was made to fit the damage, which no accident does; then an error may be Python's own.
    """

    write: Callable[[Path], None]
    read: Callable[[Path], object]
    sure: bool = False
    forged: bool = False
    cost: int = 4  # roughly milliseconds a mutation


def read_data(name: str, *, target: str | None = None) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from altrelu_dist import open_dataset

        data = open_dataset(name if "::" in name else folder / name, target=target)
        X, y = data.X.compute(scheduler="sync"), data.y.compute(scheduler="sync")
        return X.tobytes(), y.tobytes(), X.dtype.str, data.feature_names, data.target_names

    return read


def write_own(folder: Path) -> None:
    import altrelu_dist
    from altrelu_dist.data import zarr_writer

    X, y = rows()
    np.savez(folder / "data.npz", X=X, y=y)
    step, zarr_writer._STEP_ROWS = zarr_writer._STEP_ROWS, 16
    try:
        altrelu_dist.convert(folder / "data.npz", folder / "data.zarr", chunk_bytes=512)
    finally:
        zarr_writer._STEP_ROWS = step
    (folder / "data.npz").unlink()


def foreign(zarr_format: int, **options: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import zarr

        X, y = rows()
        group = zarr.open_group(folder / "data.zarr", mode="w", zarr_format=zarr_format)
        for name, values in (("X", X), ("y", y)):
            chunks = (20, *values.shape[1:])
            kept = {k: v for k, v in options.items() if k != "shards"}
            if "shards" in options:
                kept["shards"] = (40, *values.shape[1:])
            group.create_array(name, data=values, chunks=chunks, **kept)

    return write


def write_table(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import pandas as pd

        X, y = rows()
        table = pd.DataFrame(X, columns=list("abc")).assign(y=y)
        if name.endswith(".parquet"):
            table.to_parquet(folder / name, index=False, row_group_size=25)
        elif name.endswith(".feather"):
            table.to_feather(folder / name, chunksize=25)
        elif name.endswith(".jsonl"):
            table.to_json(folder / name, orient="records", lines=True)
        elif name.endswith(".zst"):
            import pyarrow as pa

            packed = pa.compress(table.to_csv(index=False).encode(), codec="zstd", asbytes=True)
            (folder / name).write_bytes(packed)
        else:
            table.to_csv(folder / name, index=False)

    return write


def write_packed(folder: Path) -> None:
    import zarr

    X, y = rows()
    group = zarr.open_group(folder / "data.zarr", mode="w", zarr_format=2)
    packed = group.create_array("X", data=np.round(X * 100).astype("int16"), chunks=(20, 3))
    packed.attrs.update(
        scale_factor=0.01, add_offset=1.5, _FillValue=-999, _Unsigned="false", valid_min=-900
    )
    group.create_array("y", data=y, chunks=(20,))


def write_zipped(folder: Path) -> None:
    import zipfile

    write_table("data.csv")(folder)
    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "data.csv", "data.csv")
    (folder / "data.csv").unlink()


def read_zipped(folder: Path) -> object:
    return read_data(f"zip://data.csv::{folder}/data.zip", target="y")(folder)


def write_npz(folder: Path) -> None:
    X, y = rows()
    np.savez_compressed(folder / "data.npz", X=X, y=y)


def write_npy(folder: Path) -> None:
    X, y = rows()
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)


def fitted():
    from altrelu_dist import AltReLURegressor

    return AltReLURegressor(2, method="alternating", max_iter=2, random_state=0)


def write_network(folder: Path) -> None:
    fitted().fit(*rows()).save(folder / "model.zarr")


def read_network(folder: Path) -> object:
    from altrelu_dist import AltReLURegressor

    model = AltReLURegressor.load(folder / "model.zarr")
    network = model.network_
    arrays = (network.hidden_weights, network.hidden_bias, network.output_weights)
    kept = (network.output_bias, network.hidden_gram)
    # As text: what is not a number is not equal to itself.
    told = repr((network.info, network.feature_names, network.negative_slope, model.get_params()))
    return [array.tobytes() for array in (*arrays, *kept)], told


def write_checkpoint(folder: Path) -> None:
    kept = {"checkpoint": folder / "run", "checkpoint_interval": 0}
    fitted().set_params(**kept).fit(*rows())
    for path in sorted((folder / "run").iterdir())[:-1]:
        path.unlink()


def read_checkpoint(folder: Path) -> object:
    from altrelu_dist.checkpoints.store import CheckpointStore

    return repr(CheckpointStore(folder / "run").load())


def read_and_resume(folder: Path) -> object:
    """As `read_checkpoint`, behind the checksum: it is made to fit, as by somebody who wants to."""
    (path,) = (folder / "run").iterdir()
    data = path.read_bytes()
    head = data.find(b"\n") + 1
    payload = data[head + 32 :]
    path.write_bytes(data[:head] + hashlib.sha256(payload).digest() + payload)
    model = fitted().set_params(checkpoint=folder / "run", resume=True, checkpoint_interval=1e9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # arithmetic on weights out of all bounds
        return model.fit(*rows()).network_.hidden_weights.tobytes()


def read_lock(folder: Path) -> object:
    from altrelu_dist.checkpoints import store
    from altrelu_dist.io import lock

    at_once = patch.multiple(lock, _WATCH=0.0, _SETTLED=0.0)
    quietly = patch.object(lock._log, "disabled", True)
    with at_once, quietly, store.CheckpointStore(folder / "run").owned():
        return "owned"


def write_lock(folder: Path) -> None:
    (folder / "run").mkdir()
    from altrelu_dist.io.owner import Owner

    ended = replace(Owner.this("other"), started="1")
    (folder / "run" / "lock").write_bytes(ended.encode())


def read_by_convert(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        import altrelu_dist

        altrelu_dist.describe(folder / name)
        altrelu_dist.convert(folder / name, folder / "out.zarr", drop_missing=True)
        return None

    return read


def codec(name: str) -> object:
    import numcodecs
    from zarr.codecs import BloscCodec, GzipCodec

    v2 = {"blosc2": lambda: numcodecs.Blosc("lz4", shuffle=1), "zlib2": lambda: numcodecs.Zlib(1)}
    v3 = {"blosc3": lambda: BloscCodec(cname="zstd"), "gzip3": lambda: GzipCodec(level=1)}
    return (v2 | v3)[name]()


def lazily(make: Callable[[], Callable[[Path], None]]) -> Callable[[Path], None]:
    return lambda folder: make()(folder)


TARGETS = {
    "own": Target(write_own, read_data("data.zarr"), sure=True, cost=12),
    "own, converted": Target(write_own, read_by_convert("data.zarr"), cost=40),
    "zarr 3": Target(foreign(3), read_data("data.zarr"), cost=10),
    "zarr 3, shards": Target(foreign(3, shards=True), read_data("data.zarr"), cost=10),
    "zarr 3, Blosc": Target(
        lazily(lambda: foreign(3, compressors=codec("blosc3"))), read_data("data.zarr"), cost=10
    ),
    "zarr 3, gzip": Target(
        lazily(lambda: foreign(3, compressors=codec("gzip3"))), read_data("data.zarr"), cost=10
    ),
    "zarr 3, plain": Target(foreign(3, compressors=None), read_data("data.zarr"), cost=10),
    "zarr 2, Blosc": Target(
        lazily(lambda: foreign(2, compressors=codec("blosc2"))), read_data("data.zarr"), cost=10
    ),
    "zarr 2, zlib": Target(
        lazily(lambda: foreign(2, compressors=codec("zlib2"))), read_data("data.zarr"), cost=10
    ),
    "npz": Target(write_npz, read_data("data.npz")),
    "npy": Target(write_npy, read_data("X.npy")),
    "csv": Target(write_table("data.csv"), read_data("data.csv", target="y"), cost=8),
    "csv.gz": Target(write_table("data.csv.gz"), read_data("data.csv.gz", target="y"), cost=8),
    "csv.bz2": Target(write_table("data.csv.bz2"), read_data("data.csv.bz2", target="y"), cost=8),
    "csv.xz": Target(write_table("data.csv.xz"), read_data("data.csv.xz", target="y"), cost=8),
    "csv.zst": Target(write_table("data.csv.zst"), read_data("data.csv.zst", target="y"), cost=8),
    "csv in a zip": Target(write_zipped, read_zipped, cost=10),
    "jsonl": Target(write_table("data.jsonl"), read_data("data.jsonl", target="y"), cost=8),
    "feather": Target(write_table("data.feather"), read_data("data.feather", target="y"), cost=8),
    "zarr 2, packed": Target(write_packed, read_data("data.zarr"), cost=10),
    "parquet": Target(write_table("data.parquet"), read_data("data.parquet", target="y"), cost=8),
    "parquet, converted": Target(
        write_table("data.parquet"), read_by_convert("data.parquet"), cost=30
    ),
    "network": Target(write_network, read_network, sure=True, cost=12),
    "checkpoint": Target(write_checkpoint, read_checkpoint, sure=True, cost=1),
    "checkpoint, its checksum made to fit": Target(
        write_checkpoint, read_and_resume, forged=True, cost=12
    ),
    "lock": Target(write_lock, read_lock, cost=1),
}


def shares(mutations: int) -> dict[str, int]:
    """How many mutations each target gets: what is cheap gets more."""
    weights = {name: target.cost**-0.5 for name, target in TARGETS.items()}
    whole = sum(weights.values())
    return {name: max(1, round(mutations * weight / whole)) for name, weight in weights.items()}


# --- one process, and those that watch it ---------------------------------------------------------


_PLAIN = (KeyError, IndexError, TypeError, ValueError, AttributeError)


def attempt(target: Target, folder: Path, expected: object) -> tuple[str, str]:
    """Read what was damaged: ``"refused"``, ``"read"``, or what is wrong with it."""
    from altrelu_dist.errors import AltReLUError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about what they read
            found = target.read(folder)
    except AltReLUError as error:
        text = str(error)
        if not text or "\n" in text or not text.isprintable() or len(text) > 2000:
            return "an error that is not one printable line", repr(text[:300])
        return "refused", ""
    except Exception as error:  # noqa: BLE001 - it is what is looked for
        if target.forged and isinstance(error, _PLAIN):
            return "refused", ""
        import traceback

        return f"raised {type(error).__name__}", traceback.format_exc()[-1500:]
    if target.sure and found != expected:
        return "another result, in spite of checksums", ""
    return "read", ""


def damaged(
    name: str, place: Path, seed: int, numbers: range
) -> Iterator[tuple[int, str, Callable[[], tuple[str, str]]]]:
    """The number of each mutation, what was done to the files, and what reads them then."""
    target = TARGETS[name]
    whole, here = place / "whole", place / "here"
    whole.mkdir()
    target.write(whole)
    shutil.copytree(whole, here)
    expected = target.read(here)
    for number in numbers:
        shutil.rmtree(here)
        shutil.copytree(whole, here)
        done = mutate(here, np.random.default_rng([seed, number, len(name)]))
        yield number, done, partial(attempt, target, here, expected)


def work(name: str, seed: int, first: int, last: int) -> None:
    """Try mutations, and tell of each on a line of JSON."""
    import logging

    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place:
        for number, done, read in damaged(name, Path(place), seed, range(first, last)):
            if number == first:
                held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
            print(json.dumps({"begins": number, "done": done}), flush=True)
            outcome, detail = read()
            print(json.dumps({"ended": number, "outcome": outcome, "detail": detail}), flush=True)


@dataclass
class Report:
    """What came of the mutations of one target."""

    outcomes: Counter[str]
    finds: list[str]


def fuzz(name: str, mutations: int, seed: int) -> Report:
    """Try so many mutations of one target."""
    report = Report(Counter(), [])
    at = 0
    while at < mutations:
        arguments = ["--work", name, "--seed", str(seed), "--first", str(at)]
        with subprocess.Popen(
            [sys.executable, __file__, *arguments, "--mutations", str(mutations)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        ) as process:  # fmt: skip
            hangs = threading.Timer(60, process.kill)
            hangs.start()
            doing = "the beginning"
            for line in process.stdout:
                hangs.cancel()
                hangs = threading.Timer(SECONDS, process.kill)
                hangs.start()
                told = json.loads(line)
                if "begins" in told:
                    doing = told["done"]
                    continue
                at = told["ended"] + 1
                report.outcomes[told["outcome"]] += 1
                if told["outcome"] not in ("read", "refused"):
                    place = f"{name}, --seed {seed} --first {at - 1}: {doing}"
                    report.finds.append(f"{place}: {told['outcome']}\n{told['detail']}")
            said = process.stderr.read()[-1500:]
            ended = process.wait()
            hangs.cancel()
        if at < mutations:
            report.outcomes["died or hung"] += 1
            place = f"{name}, --seed {seed} --first {at}: {doing}"
            report.finds.append(f"{place}: the process ended with {ended}\n{said}")
            if doing == "the beginning":
                break
            at += 1
    return report


def fuzz_all(mutations: int, seed: int, names: list[str] | None = None) -> dict[str, Report]:
    """Share so many mutations among the targets, two at a time, and print what came of them."""
    from concurrent.futures import ThreadPoolExecutor

    wanted = {name: n for name, n in shares(mutations).items() if not names or name in names}
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(wanted, pool.map(lambda n: fuzz(n, wanted[n], seed), wanted), strict=True))
    for name, report in found.items():
        counts = ", ".join(f"{n:,} {what}" for what, n in sorted(report.outcomes.items()))
        print(f"{name:38} {report.outcomes.total():7,} mutations: {counts}")
    total = sum(report.outcomes.total() for report in found.values())
    finds = sum(len(report.finds) for report in found.values())
    print(f"{'in all':38} {total:7,} mutations, {finds} finds (--seed {seed})")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="of those of a single target")
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all")
    parser.add_argument("--work", choices=TARGETS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.seed, given.first, given.mutations)
        return
    found = fuzz_all(given.mutations, given.seed, given.target)
    finds = [find for report in found.values() for find in report.finds]
    for find in finds:
        print(f"\n{find}")
    sys.exit(bool(finds))


if __name__ == "__main__":
    main()
