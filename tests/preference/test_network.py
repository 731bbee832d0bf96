"""Networks as reward heads: what torch trains, numpy applies.

torch is not in the default environment; `make test-transformers` runs this file where it is.
"""

from __future__ import annotations

import builtins
import pickle

import numpy as np
import pytest
from scipy import special

import causalrm as crm
from causalrm import PreferenceRewardModel
from causalrm.core.errors import MissingDependencyError
from causalrm.preference import _network


def curved(n, seed):
    """Simulated pairs whose reward is a bump that no line can follow."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, 2))
    reward = [2.0 * np.abs(x[:, 0]) - x[:, 1] for x in (a, b)]
    y = (rng.uniform(size=n) < special.expit(reward[0] - reward[1])).astype(float)
    return a, b, y, reward[0] - reward[1]


def test_layers_are_applied_as_they_are_written():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 3))
    w1, b1, w2, b2 = (rng.normal(size=s) for s in ((3, 4), 4, (4, 1), 1))
    z = np.where((x - 0.5) / 2 @ w1 + b1 > 0, (x - 0.5) / 2 @ w1 + b1, 0)
    network = (np.full(3, 0.5), np.full(3, 2.0), w1, b1, w2, b2)
    np.testing.assert_allclose(_network.apply(network, x), (z @ w2 + b2)[:, 0])


def test_without_torch_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "torch":
            raise ImportError("no torch")
        return real(name, *args, **kwargs)

    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    monkeypatch.setattr(builtins, "__import__", without)
    a, b, y, _ = curved(20, 0)
    with pytest.raises(MissingDependencyError, match=r"causalrm\[torch\]"):
        PreferenceRewardModel(head="mlp").fit(a, b, y)


class TestWithTorch:
    """What needs torch."""

    @pytest.fixture(autouse=True)
    def _torch(self):
        pytest.importorskip("torch", reason="torch has its environment (make test-transformers)")

    def test_learns_what_a_line_cannot(self):
        a, b, y, _ = curved(2000, 1)
        test = curved(4000, 2)
        options = {"hidden": (16,), "epochs": 40, "penalty": 1.0}
        network = PreferenceRewardModel(head="mlp", **options).fit(a, b, y)
        line = PreferenceRewardModel().fit(a, b, y)
        right = [np.mean((m.reward(test[0]) > m.reward(test[1])) == (test[3] > 0))
                 for m in (network, line)]  # fmt: skip
        assert right[0] > 0.93 and right[1] < 0.75
        assert network.result_.diagnostics["losses"][-1] < network.result_.diagnostics["losses"][0]
        p = network.predict_proba(*test[:2])
        assert np.abs(p - special.expit(test[3])).mean() < 0.06
        assert network.result_.n_params == 2 * 16 + 16 + 16 + 1
        assert "reproduced" in str(network.summary())

    @pytest.mark.parametrize("loss", ["bt", "margin", "scaled", "regression"])
    def test_without_hidden_layers_it_is_the_linear_head(self, loss):
        rng = np.random.default_rng(3)
        a, b = rng.normal(size=(2, 300, 2))
        y = rng.choice([0.0, 0.5, 1.0], 300)
        m = None if loss == "bt" else rng.integers(1, 4, 300)
        w = rng.uniform(0.5, 2, 300)
        common = {"penalty": 3.0, "tie_weight": 0.5}
        options = {"hidden": (), "epochs": 600, "batch_size": 300, "learning_rate": 0.05}
        # Its ridge is on the weights of features in units of their standard deviation.
        scale = np.concatenate([a, b]).std(axis=0)
        network = PreferenceRewardModel(loss, head="mlp", **common, **options)
        network.fit(a / scale, b / scale, y, strength=m, weights=w)
        line = PreferenceRewardModel(loss, **common)
        line.fit(a / scale, b / scale, y, strength=m, weights=w)
        weights = network.result_.network[2][:, 0]
        np.testing.assert_allclose(weights, line.result_.estimates, atol=1e-4)

    def test_a_seed_repeats_the_fit_and_json_keeps_it(self):
        a, b, y, _ = curved(200, 4)
        model = PreferenceRewardModel(head="mlp", hidden=(8, 4), epochs=5, rng=7).fit(a, b, y)
        again = PreferenceRewardModel(head="mlp", hidden=(8, 4), epochs=5, rng=7).fit(a, b, y)
        other = PreferenceRewardModel(head="mlp", hidden=(8, 4), epochs=5, rng=8).fit(a, b, y)
        np.testing.assert_array_equal(model.reward(a), again.reward(a))
        assert not np.array_equal(model.reward(a), other.reward(a))
        restored = crm.Estimator.from_result(crm.Result.from_json(model.result_.to_json()))
        np.testing.assert_array_equal(restored.reward(a), model.reward(a))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).reward(a), model.reward(a))
        assert model.result_.entropy == 7

    def test_a_step_that_is_too_long_is_told(self):
        a, b, y, _ = curved(100, 5)
        model = PreferenceRewardModel("regression", head="mlp", learning_rate=1e200, epochs=3)
        with pytest.raises(crm.ConvergenceError, match="learning_rate"):
            model.fit(a, b, y)
