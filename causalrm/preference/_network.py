"""A small network as reward head: trained by torch, applied by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from causalrm.core.errors import ConvergenceError, require


def apply(network: Sequence[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Rewards of rows `x`; `network` holds centre, scale, then weight and bias of each layer."""
    centre, scale, *layers = network
    z = (x - centre) / scale
    for i in range(0, len(layers), 2):
        z = z @ layers[i] + layers[i + 1]
        if i + 2 < len(layers):
            z = np.maximum(z, 0.0)
    return np.asarray(z[:, 0])


def train(
    x_a: np.ndarray,
    x_b: np.ndarray,
    y: np.ndarray,
    margin: np.ndarray,
    w: np.ndarray,
    *,
    squared: bool,
    hidden: Sequence[int],
    penalty: float,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    rng: np.random.Generator,
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Train a network with rectified layers by Adam on the losses of the linear head.

    Parameters
    ----------
    x_a, x_b : ndarray of shape (n, p)
    y, margin, w : ndarray of shape (n,)
        As `causalrm.preference.differences` reduces every loss to.
    squared : bool
    hidden : sequence of int
        Units of the hidden layers.
    penalty : float
        Ridge on all weights, on the scale of the summed loss.
    epochs, batch_size : int
    learning_rate : float
        At the start; it falls to zero along a half cosine.
    rng : Generator
        Of starting weights and batches.

    Returns
    -------
    network : tuple of ndarray
    losses : ndarray of shape (epochs,)
        Mean penalised training loss per unit of weight, by epoch.
    """
    torch = require("torch", "torch")
    both = np.concatenate([x_a, x_b])
    centre, scale = both.mean(axis=0), both.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    sizes = [x_a.shape[1], *hidden, 1]
    layers: list[Any] = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        weight = rng.normal(0.0, np.sqrt(2.0 / fan_in), (fan_in, fan_out))
        layers += [torch.tensor(weight), torch.zeros(fan_out, dtype=torch.float64)]
    for layer in layers:
        layer.requires_grad_(True)
    a, b = (torch.tensor((x - centre) / scale) for x in (x_a, x_b))
    target, m, weight = (torch.tensor(np.asarray(v, dtype=float)) for v in (y, margin, w))

    def reward(z: Any) -> Any:
        for i in range(0, len(layers), 2):
            z = z @ layers[i] + layers[i + 1]
            if i + 2 < len(layers):
                z = torch.relu(z)
        return z[:, 0]

    logs = torch.nn.functional.logsigmoid
    n, total = len(y), float(w.sum())
    optimizer = torch.optim.Adam(layers, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    losses = np.empty(epochs)
    for epoch in range(epochs):
        order, seen = torch.tensor(rng.permutation(n)), 0.0
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            eta = reward(a[rows]) - reward(b[rows])
            t, at = target[rows], m[rows]
            if squared:
                loss = 0.5 * (t - eta) ** 2
            else:
                loss = -(t * logs(eta - at) + (1.0 - t) * logs(-eta - at))
            loss = (weight[rows] * loss).sum()
            ridge = sum((layer**2).sum() for layer in layers[::2])
            loss = (loss + 0.5 * penalty * len(rows) / n * ridge) / total
            optimizer.zero_grad()
            (loss * n / len(rows)).backward()
            optimizer.step()
            seen += float(loss.detach())
        schedule.step()
        losses[epoch] = seen
    if not np.isfinite(losses[-1]):
        raise ConvergenceError(
            f"The loss of the network is not a number after {epochs} epochs. Lower learning_rate "
            "or rescale the features."
        )
    return (centre, scale, *(layer.detach().numpy().copy() for layer in layers)), losses
