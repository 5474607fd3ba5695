"""What the project is measured against: gradient descent at its honest best, one thread, float32.

Every baseline trains the network of the project (p = d + 1 inputs with the constant, h hidden
ReLUs, q linear outputs) on standardised inputs and targets and gives a ``Run``: the trace of
(seconds, training MSE over all rows and targets). Evaluating the trace is not charged to a method.
The gradient is written out by hand on flat parameters with a column of ones for the bias: several
times quicker a step than autograd with ``torch.optim`` for networks this small, and the same
numbers (`tests/test_examples.py` compares them).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import minimize

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 4096  # rows a full pass handles at once, so that activations stay in the cache


@dataclass
class Run:
    """A trace of (seconds, training MSE), and why the run ended."""

    trace: list[tuple[float, float]] = field(default_factory=list)
    steps: int = 0
    reason: str = "done"
    validation: float = math.inf  # the least loss on rows held out
    validations: list[tuple[float, float]] = field(default_factory=list)
    best: tuple[np.ndarray, np.ndarray] | None = None  # W (p, h) and V (h + 1, q) that had it

    @property
    def mse(self) -> float:
        """The best loss of the trace."""
        return min((loss for _, loss in self.trace if math.isfinite(loss)), default=math.inf)


class Clock:
    """Seconds of work: what runs between ``pause`` and ``resume`` is not counted."""

    def __init__(self) -> None:
        self._start, self._paused = time.perf_counter(), 0.0

    def seconds(self) -> float:
        return time.perf_counter() - self._start - self._paused

    def uncharged(self, work: Callable[[], float]) -> float:
        begin = time.perf_counter()
        result = work()
        self._paused += time.perf_counter() - begin
        return result


class Network:
    """Parameters and gradient, each flat: (p, h) hidden weights, then (h + 1, q) output weights.

    Buffers for ``rows`` rows are kept, so that no step allocates. Weights start as
    ``torch.nn.Linear`` draws them.
    """

    def __init__(self, X: torch.Tensor, y: torch.Tensor, h: int, rows: int, seed: int) -> None:
        (_, p), q, dtype = X.shape, y.shape[1], X.dtype
        size = p * h + (h + 1) * q
        self.flat = (
            torch.rand(size, generator=torch.Generator().manual_seed(seed))
            .mul_(2)
            .sub_(1)
            .to(dtype)
        )
        self.gradient = torch.empty(size, dtype=dtype)
        (self.W, self.V), (self.W_grad, self.V_grad) = (
            (flat[: p * h].view(p, h), flat[p * h :].view(h + 1, q))
            for flat in (self.flat, self.gradient)
        )
        self.W /= math.sqrt(p - 1)
        self.V /= math.sqrt(h)
        self._out = self.V[:h].T
        self._z, self._back = torch.empty(rows, h, dtype=dtype), torch.empty(rows, h, dtype=dtype)
        self._hidden = torch.ones(rows, h + 1, dtype=dtype)
        self._residual = torch.empty(rows, q, dtype=dtype)
        self._views: dict[int, tuple[torch.Tensor, ...]] = {}

    def _buffers(self, rows: int) -> tuple[torch.Tensor, ...]:
        if rows not in self._views:
            hidden = self._hidden[:rows]
            parts = (
                self._z[:rows],
                hidden,
                hidden[:, :-1],
                hidden.T,
                self._residual[:rows],
                self._back[:rows],
            )
            self._views[rows] = parts
        return self._views[rows]

    def residual(self, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z, hidden, neurons, _, residual, _ = self._buffers(len(X))
        torch.mm(X, self.W, out=z)
        torch.clamp_min(z, 0, out=neurons)
        torch.mm(hidden, self.V, out=residual)
        return residual.sub_(y)

    def step(self, X: torch.Tensor, y: torch.Tensor, scale: float) -> torch.Tensor:
        """Residuals of a batch; leaves the gradient of ``scale / 2`` times their squares."""
        residual = self.residual(X, y)
        z, _, _, hidden_t, _, back = self._buffers(len(X))
        torch.mm(hidden_t, residual, out=self.V_grad)
        torch.mm(residual, self._out, out=back)
        torch.mm(
            X.T, torch.ops.aten.threshold_backward(back, z, 0), out=self.W_grad
        )  # a ReLU's own backward
        self.gradient.mul_(scale)
        return residual

    def loss(self, X: torch.Tensor, y: torch.Tensor) -> float:
        """Mean squared error over all rows and targets, added up in float64."""
        blocks = range(0, len(X), BLOCK)
        return (
            sum(_squares(self.residual(X[i : i + BLOCK], y[i : i + BLOCK])) for i in blocks)
            / y.numel()
        )

    def loss_gradient(self, X: torch.Tensor, y: torch.Tensor) -> tuple[float, np.ndarray]:
        """The same with its gradient, block by block."""
        total, gradient = 0.0, torch.zeros(len(self.flat), dtype=torch.float64)
        for i in range(0, len(X), BLOCK):
            total += _squares(self.step(X[i : i + BLOCK], y[i : i + BLOCK], 2.0))
            gradient += self.gradient
        return total / y.numel(), gradient.div_(y.numel()).numpy()


def predict(best: tuple[np.ndarray, np.ndarray], X: np.ndarray) -> np.ndarray:
    """What a network of (p, h) hidden and (h + 1, q) output weights says of rows X (n, d)."""
    W, V = best
    return np.maximum(X @ W[:-1] + W[-1], 0) @ V[:-1] + V[-1]


def _squares(residual: torch.Tensor) -> float:
    return residual.double().square_().sum().item()


def _tensors(
    X: np.ndarray, y: np.ndarray, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = np.ones((len(X), X.shape[1] + 1), np.float32)
    rows[:, :-1] = X
    return torch.from_numpy(rows).to(dtype), torch.tensor(np.ascontiguousarray(y), dtype=dtype)


def batch_size(n: int) -> int:
    """Rows of a minibatch: 256 on small sets, 1024 on large ones."""
    return min(n, 256 if n <= 20_000 else 512 if n <= 100_000 else 1024)


def default_steps(n: int) -> int:
    """The larger of 300 epochs and 20,000 minibatches."""
    return max(300 * (n // batch_size(n)), 20_000)


def _adam(flat: torch.Tensor, gradient: torch.Tensor) -> Callable[[float, int], None]:
    mean, square, scratch = torch.zeros_like(flat), torch.zeros_like(flat), torch.empty_like(flat)

    def update(rate: float, t: int) -> None:
        correction = math.sqrt(1 - 0.999**t)
        mean.lerp_(gradient, 0.1)
        square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        torch.sqrt(square, out=scratch).add_(1e-8 * correction)
        flat.addcdiv_(mean, scratch, value=-rate * correction / (1 - 0.9**t))

    return update


def _sgd(flat: torch.Tensor, gradient: torch.Tensor) -> Callable[[float, int], None]:
    velocity = torch.zeros_like(flat)

    def update(rate: float, _: int) -> None:
        velocity.mul_(0.9).add_(gradient)
        flat.add_(velocity, alpha=-rate)

    return update


def descend(
    method: str,
    X: np.ndarray,
    y: np.ndarray,
    h: int,
    *,
    rate: float,
    seed: int = 0,
    steps: int | None = None,
    max_seconds: float = math.inf,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
) -> Run:
    """Adam (betas .9, .999) or SGD with momentum .9 on minibatches, the rate falling by a cosine.

    ``steps``: by default those of `default_steps`. The data is shuffled as a whole once
    an epoch, which is quicker than gathering each batch. Where the time limit ends a run, the rate
    follows the time to 0 instead. ``held_out``: rows for validation; the network that is best on
    them, looked at 400 times, is kept. The run is not cut short by them.
    """
    random = torch.Generator().manual_seed(seed + 1)
    n, batch = len(X), batch_size(len(X))
    batches = n // batch
    steps = steps or default_steps(n)
    Xt, yt = _tensors(X, y)
    net = Network(Xt, yt, h, max(batch, min(n, BLOCK)), seed)
    update = (_adam if method == "adam" else _sgd)(net.flat, net.gradient)
    marks = {round(steps ** (i / 60)) for i in range(61)} | {
        round(steps * i / 20) for i in range(1, 21)
    }
    run, clock = Run(), Clock()
    held = None if held_out is None else _tensors(*held_out)
    Xs, ys, done, progress = torch.empty_like(Xt), torch.empty_like(yt), 0, 0.0
    while progress < 1:
        order = torch.randperm(n, generator=random)
        torch.index_select(Xt, 0, order, out=Xs)
        torch.index_select(yt, 0, order, out=ys)
        for i in range(0, batches * batch, batch):
            net.step(Xs[i : i + batch], ys[i : i + batch], 2.0 / (batch * y.shape[1]))
            done += 1
            update(rate * 0.5 * (1 + math.cos(math.pi * progress)), done)
            progress = done / steps
            if held is not None and (done % max(1, steps // 400) == 0 or done in marks):
                loss = clock.uncharged(lambda: net.loss(*held))
                run.validations.append((clock.seconds(), loss))
                if loss < run.validation:
                    run.validation = loss
                    run.best = net.W.numpy().copy(), net.V.numpy().copy()
            if done in marks:
                progress = max(progress, clock.seconds() / max_seconds)
                loss = clock.uncharged(lambda: net.loss(Xt, yt))
                run.trace.append((clock.seconds(), loss))
                if not math.isfinite(loss):
                    run.reason, progress = "diverged", 1.0
            if progress >= 1:
                break
    run.steps = done
    return run


def adam_in_order(
    X: np.ndarray,
    y: np.ndarray,
    h: int,
    *,
    rate: float,
    batch: int,
    seconds: float,
    seed: int = 0,
    growth: float = 1.15,
) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Adam for so many seconds on rows that have no order: each batch is a slice of them.

    Nothing is shuffled but the slices, which is quicker, and the rate falls to 0 with the time.
    Returned are the seconds, the hidden weights (p, h) and the output weights (h + 1, q), ever
    more rarely, and at the end. Their losses are for the caller to compute.
    """
    random = np.random.default_rng(seed)
    clock = Clock()
    batch = min(batch, len(X))
    Xt, yt = _tensors(X, y)
    net = Network(Xt, yt, h, batch, seed)
    update = _adam(net.flat, net.gradient)
    found: list[tuple[float, np.ndarray, np.ndarray]] = []
    done, progress, due = 0, 0.0, 0.02
    while progress < 1:
        for i in random.permutation(len(X) // batch) * batch:
            net.step(Xt[i : i + batch], yt[i : i + batch], 2.0 / (batch * y.shape[1]))
            done += 1
            update(rate * 0.5 * (1 + math.cos(math.pi * progress)), done)
            now = clock.seconds()
            progress = min(1.0, now / seconds)
            if now >= due or progress == 1:
                found.append((now, net.W.numpy().copy(), net.V.numpy().copy()))
                due = now * growth
            if progress == 1:
                break
    return found


def lbfgs(
    X: np.ndarray,
    y: np.ndarray,
    h: int,
    *,
    seed: int = 0,
    iterations: int = 2000,
    max_seconds: float = math.inf,
) -> Run:
    """SciPy's L-BFGS-B, memory 50, all rows; in float64 once the line search fails in float32."""
    run, clock, left = Run(), Clock(), iterations
    position: np.ndarray | None = None
    for dtype in (torch.float32, torch.float64):
        Xt, yt = _tensors(X, y, dtype)
        net = Network(Xt, yt, h, min(len(X), BLOCK), seed)
        position = net.flat.double().numpy() if position is None else position

        def objective(
            flat: np.ndarray, net: Network = net, Xt: torch.Tensor = Xt, yt: torch.Tensor = yt
        ) -> Any:
            net.flat.copy_(torch.from_numpy(flat))
            return net.loss_gradient(Xt, yt)

        def record(intermediate_result: Any) -> None:
            run.trace.append((clock.seconds(), float(intermediate_result.fun)))
            run.steps += 1
            if clock.seconds() > max_seconds:
                raise StopIteration

        limits: Any = {"maxcor": 50, "maxiter": left, "maxfun": 10 * iterations, "maxls": 40}
        limits |= {"ftol": 0.0, "gtol": 1e-9}
        result = minimize(
            objective, position, jac=True, method="L-BFGS-B", options=limits, callback=record
        )
        position, left = result.x, iterations - run.steps
        run.reason = str(result.message).lower()
        if left <= 0 or clock.seconds() > max_seconds:
            break
    return run


def mlp_regressor(
    X: np.ndarray,
    y: np.ndarray,
    h: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    max_seconds: float = math.inf,
) -> Run:
    """scikit-learn's ``MLPRegressor`` as it comes (Adam, rate .001, batches of 200)."""
    from sklearn.neural_network import MLPRegressor

    model = MLPRegressor(hidden_layer_sizes=(h,), alpha=0.0, random_state=seed)
    batches = math.ceil(len(X) / min(200, len(X)))
    epochs = max(1, (steps or max(300 * batches, 20_000)) // batches)
    marks = {round(epochs ** (i / 40)) for i in range(41)}
    target = y if y.shape[1] > 1 else y.ravel()
    run, clock = Run(), Clock()
    for epoch in range(1, epochs + 1):
        model.partial_fit(X, target)
        late = clock.seconds() > max_seconds
        if epoch in marks or late:
            loss = clock.uncharged(
                lambda: float(np.mean((model.predict(X).reshape(y.shape) - y) ** 2))
            )
            run.trace.append((clock.seconds(), loss))
        if late:
            run.reason = "time"
            break
    run.steps = epoch * batches
    return run
