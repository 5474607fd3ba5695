"""
The paper's story with pictures
===============================

A. Barbu's paper `"Training a Two-Layer ReLU Network Analytically"
<https://arxiv.org/abs/2304.02972>`_ trains a network of two layers by least squares alone. This
notebook does so in a few lines of NumPy, shows where it stops, and what this package adds. It takes
some seconds.
"""

# %%
# The data
# --------
#
# 442 patients with diabetes. The target says how far the disease has come a year later. At first
# there is one feature, the body mass index, so that all can be drawn.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from altrelu_dist import AltReLURegressor

X, y = load_diabetes(return_X_y=True, scaled=False)
X = (X - X.mean(axis=0)) / X.std(axis=0)
bmi = X[:, [2]]

# %%
# The activation pattern
# ----------------------
#
# A hidden neuron is active on a row where its input is above 0. The table of ones and zeros, a
# row of it for each row of the data, is the activation pattern. With one feature each neuron is
# active on one side of its kink.


def with_ones(features):
    """Features and a column of ones, for the biases."""
    return np.column_stack([features, np.ones(len(features))])


def pattern_of(features, W):
    """Ones where a neuron is active, of shape (rows, neurons)."""
    return (with_ones(features) @ W > 0).astype(float)


random = np.random.default_rng(3)
hidden_first = random.normal(size=(2, 4))  # weight and bias of four neurons
pattern = pattern_of(bmi, hidden_first)

order = np.argsort(bmi[:, 0])
figure, axes = plt.subplots(figsize=(7, 2.2), layout="constrained")
picture = pattern[order].T
axes.imshow(picture, aspect="auto", cmap="Blues", vmax=1.4, interpolation="nearest")
axes.set(xlabel="patients, by body mass index", ylabel="neuron", yticks=range(4))
axes.set_title("Activation pattern: where each neuron is active")
plt.show()

# %%
# Two linear systems
# ------------------
#
# The network is ``f(x) = V' max(W' x, 0) + c``. It is linear in the output layer ``(V, c)`` if the
# hidden layer ``W`` is fixed. It is also linear in ``W`` if the output layer *and the pattern* are
# fixed: then ``max(W' x, 0)`` is ``s W' x`` with the ones and zeros ``s``. So each layer has a best
# value, which least squares finds without a learning rate.


def output_step(features, W):
    """The best output layer under a hidden layer: weights, and the bias as the last one."""
    hidden = with_ones(features) @ W * pattern_of(features, W)
    return np.linalg.lstsq(with_ones(hidden), y, rcond=None)[0]


def hidden_step(features, output, pattern):
    """The best hidden layer under an output layer and a pattern that is held fixed."""
    rows, neurons = pattern.shape
    terms = with_ones(features)[:, :, None] * (pattern * output[:-1])[:, None, :]
    best = np.linalg.lstsq(terms.reshape(rows, -1), y - output[-1], rcond=None)[0]
    return best.reshape(-1, neurons)


def predict(features, W, output, pattern):
    """What the network says, with the pattern that is given."""
    return with_ones(with_ones(features) @ W * pattern) @ output


def loss(features, W, output, pattern=None):
    """Mean squared error; the pattern is that of the network, unless another one is held."""
    held = pattern_of(features, W) if pattern is None else pattern
    return float(np.mean((y - predict(features, W, output, held)) ** 2))


output = output_step(bmi, hidden_first)
hidden_next = hidden_step(bmi, output, pattern)

grid = np.linspace(bmi.min(), bmi.max(), 400)[:, None]
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.scatter(bmi, y, s=8, color="0.75", label="patients")
for W, label in [(hidden_first, "after the output step"), (hidden_next, "after the hidden step")]:
    axes.plot(grid, predict(grid, W, output, pattern_of(grid, W)), label=label)
axes.plot(
    grid, predict(grid, hidden_next, output, pattern_of(grid, hidden_first)), ":",
    color="black", label="hidden step, as its pattern saw it",
)  # fmt: skip
axes.set(xlabel="body mass index, standardised", ylabel="progression of the disease")
axes.legend()
plt.show()

# %%
# The dotted line is what the hidden step promised. It jumps, since its pattern is the old one: a
# neuron whose kink has moved is still taken as active where it was. The network itself has no
# jumps, and differs from the promise wherever a kink has moved.
#
# Why the alternation stalls
# --------------------------
#
# From here on with all ten features and 16 neurons. The paper repeats the two steps. Each system
# is solved to the end, so the loss with the pattern held never rises. But the hidden step moves
# kinks, and the true loss is that of the new pattern.

W = random.normal(size=(11, 16)) / 4
promised, true, changed = [], [], []
for _ in range(30):
    pattern = pattern_of(X, W)
    output = output_step(X, W)
    true.append(loss(X, W, output))
    W = hidden_step(X, output, pattern)
    promised.append(loss(X, W, output, pattern))
    changed.append(float(np.mean(pattern_of(X, W) != pattern)))

steps = np.arange(1, 31)
figure, (above, below) = plt.subplots(
    2, 1, figsize=(7, 5), sharex=True, height_ratios=[2, 1], layout="constrained"
)
above.plot(steps, true, label="true loss, after the output step")
above.plot(steps, promised, ":", label="promised by the hidden step")
above.plot(steps, np.minimum.accumulate(true), color="0.6", label="best so far")
above.set(ylabel="training loss")
above.legend()
below.bar(steps, [100 * part for part in changed])
below.set(xlabel="alternation", ylabel="pattern changed (%)")
plt.show()

print(f"promised {min(promised):.0f}, reached {min(true):.0f}")

# %%
# The steps are too long: each changes a large part of the pattern, so that the system that was
# solved says little of the loss where the step ends. The best network of the run is kept, and it
# stays far from what each step promises.
#
# What this package adds
# ----------------------
#
# - **Kronecker-factored steps** take the same curvature, but short steps of a limited length,
#   thousands of them on small tiles of rows: the pattern changes little from one to the next.
# - **The search** also moves neurons at once. It inserts hinges through pairs of rows, the ones
#   that lower the loss most, drops the neurons that cost least, and joins whole networks.
#
# Both use the package's defaults here, and so does the alternation (``method="alternating"``).

fits = {
    method: AltReLURegressor(16, method=method, random_state=0, max_iter=limit).fit(X, y)
    for method, limit in [("alternating", None), ("kronecker", 2), ("search", None)]
}

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for method, model in fits.items():
    history = model.history_[1:]
    seconds = [point["seconds"] for point in history]
    axes.plot(seconds, [point["loss"] for point in history], "o-", ms=3, label=method)
axes.set(xlabel="seconds", ylabel="training loss of the best network", xscale="log", yscale="log")
axes.legend()
plt.show()

for method, model in fits.items():
    print(f"{method:12} {model.history_[-1]['loss']:7.0f}")

# %%
# New rows
# --------
#
# A low training loss is not the aim on 442 rows: 16 neurons with 193 weights fit much of the
# noise. For new rows there is the committee, which is the default: members are trained by
# cross-validation, and say which R2 to expect.

X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=1)
plain = AltReLURegressor(16, random_state=0).fit(X_train, y_train)
committee = AltReLURegressor(random_state=0, max_iter=2).fit(X_train, y_train)  # quick: two rounds

print(f"one plain network: R2 {plain.score(X_test, y_test):.2f} on new rows")
print(f"the committee:     R2 {committee.score(X_test, y_test):.2f}")
print(f"it expected        R2 {committee.expected_r2_:.2f} +- {committee.expected_r2_spread_:.2f}")

# %%
# :doc:`How it works </how-it-works>` has the steps in full, :doc:`the benchmarks
# </benchmarks/index>` have larger data and other methods beside these.
