"""
A million rows on a laptop
==========================

Rows are written to a store in chunks, a network is trained on them chunk by chunk, and the memory
of the process is measured on the way. It takes about a minute on two cores.
"""

# %%
# Make the rows
# -------------
#
# A million rows of 64 features, 65,536 at a time: no more than one chunk is in memory. The target
# is a function of four features, with noise of variance 0.01. ``ROWS=100000`` in the environment
# makes a quick form.

import os
import tempfile
import threading
import time
from pathlib import Path

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import psutil
import zarr

import altrelu_dist
from altrelu_dist import AltReLURegressor

ROWS = int(os.environ.get("ROWS", "1_000_000"))
FEATURES, CHUNK, NOISE = 64, 1 << 16, 0.1

folder = tempfile.TemporaryDirectory()
store = Path(folder.name) / "million.zarr"
group = zarr.open_group(store, mode="w-")
X = group.create_array("X", shape=(ROWS, FEATURES), chunks=(CHUNK, FEATURES), dtype="float32")
y = group.create_array("y", shape=(ROWS,), chunks=(CHUNK,), dtype="float32")
for number, start in enumerate(range(0, ROWS, CHUNK)):
    random = np.random.default_rng(number)
    rows = random.normal(size=(min(CHUNK, ROWS - start), FEATURES))
    target = np.abs(rows[:, 0] - rows[:, 1]) + np.maximum(rows[:, 2], rows[:, 3])
    X[start : start + len(rows)] = rows
    y[start : start + len(rows)] = target + NOISE * random.normal(size=len(rows))

MIB = 2**20
print(f"{ROWS:,} rows, {X.nbytes / MIB:.0f} MiB of features")

# %%
# Plan
# ----
#
# The plan says what a run takes before it starts. It measures the speed of this machine for a
# second or two, and trains nothing. Below, ``max_time`` ends the run sooner than it would by
# itself.

plan = altrelu_dist.plan(str(store), 16)
print(f"seconds: {plan.seconds.typical:.0f} ({plan.seconds.least:.0f} to {plan.seconds.most:.0f})")

# %%
# Train
# -----
#
# Dask arrays are read again in each pass, and no pass holds more than the chunks at hand. The
# search works on a sample of the rows that is held in memory, and the last steps pass over all
# rows. A thread looks at the memory of the process 20 times a second.


class Watch(threading.Thread):
    """Memory of this process, in MiB above what it had at the start, against seconds."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self.seconds, self.grown = [], []

    def run(self):
        process, began = psutil.Process(), time.perf_counter()
        before = process.memory_info().rss
        while not self.stopped.wait(0.05):
            self.seconds.append(time.perf_counter() - began)
            self.grown.append((process.memory_info().rss - before) / MIB)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


features, targets = da.from_zarr(store / "X"), da.from_zarr(store / "y")
with Watch() as watch:
    model = AltReLURegressor(16, random_state=0, max_time=max(6, 30 * ROWS / 1e6))
    model.fit(features, targets)

last = model.history_[-1]
print(f"training loss {last['loss']:.4f} (the noise: {NOISE**2:.4f}) in {last['seconds']:.0f} s")
print(f"most memory above the start: {max(watch.grown):.0f} MiB")

# %%
# The memory hardly grows with the rows, since the sample has the same size, and a pass holds the
# same chunks. On two cores, this notebook took so much above the start: 203 MiB for 100,000 rows
# (24 MiB of features), 239 MiB for a million (244 MiB), 281 MiB for four million (977 MiB).

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.plot(watch.seconds, watch.grown, label="this process")
axes.axhline(X.nbytes / MIB, color="0.5", ls="--", label="all features, as float32")
axes.set(xlabel="seconds", ylabel="MiB above the start", ylim=(0, None))
axes.legend()
plt.show()

# %%
# Predict
# -------
#
# Predictions of Dask arrays are lazy. They are computed block by block too, and can be stored
# that way.

predicted = model.predict(features)
residuals = (predicted - targets) ** 2
print(type(predicted).__name__, predicted.chunks[0][:2], f"MSE {residuals.mean().compute():.4f}")
da.to_zarr(predicted, folder.name + "/predicted.zarr")
folder.cleanup()

# %%
# With worker processes
# ---------------------
#
# Under a ``dask.distributed.Client`` the same line trains on the workers of a cluster:
# ``examples/02_out_of_core.py`` does it with two workers of this machine, :doc:`Clusters
# </guides/clusters>` on several machines. ``altrelu train million.zarr --hidden 16 --out
# model.zarr`` does the same in the shell.
