from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import causalrm as crm
from causalrm.attribution import SetFunction, _kernels
from causalrm.attribution._interactions import _weights
from causalrm.attribution.design import all_coalitions
from causalrm.llm import FunctionModel
from tests.attribution.games import airport, glove, security_council, sigmoid, unanimity


def names(n):
    return [f"p{i}" for i in range(n)]


def test_exact_games_in_player_order():
    fit = crm.PromptShapley().fit(names(3), glove)
    np.testing.assert_allclose(fit.result_.phi, [1 / 6, 1 / 6, 2 / 3], atol=1e-10)
    fit = crm.PromptShapley().fit(names(3), airport([1, 2, 3]))
    np.testing.assert_allclose(fit.result_.phi, [1 / 3, 5 / 6, 11 / 6], atol=1e-10)
    assert fit.to_frame()["term"].tolist() == names(3)
    assert fit.result_.method == "exact" and not fit.result_.std_error.any()


def test_the_security_council_exactly():
    budget = crm.Budget(calls=2**15)
    fit = crm.PromptShapley(budget=budget).fit(names(15), security_council)
    expected = [421 / 2145] * 5 + [4 / 2145] * 10
    np.testing.assert_allclose(fit.result_.phi, expected, atol=1e-10)


def test_one_player_has_the_whole_difference():
    fit = crm.PromptShapley().fit(["a"], lambda Z: 2.0 * Z[:, 0] + 1.0)
    assert fit.result_.phi == pytest.approx([2.0])
    assert fit.result_.value_none == 1.0


def test_a_bigger_game_has_intervals_that_hold_the_truth():
    value, phi = sigmoid(10, np.random.default_rng(2))
    fit = crm.PromptShapley("link", crm.Budget(calls=120), rng=3).fit(names(10), value)
    found = fit.result_
    assert found.n_coalitions == 120 and not found.trace.empty
    assert np.abs(found.phi - phi).max() < 0.02
    assert (np.abs(found.phi - phi) < 4 * found.std_error + 1e-9).all()
    looks = found.convergence()
    assert looks.groupby("look")["calls"].first().tolist() == [22, 44, 88, 120]
    first, last = (looks[looks["look"] == k] for k in (1, 4))
    width = (last["conf_high"] - last["conf_low"]).to_numpy() / found.std_error
    assert (width > 2 * 1.96).all() and len(first) == 10


def test_reanalysis_by_another_method_needs_no_call():
    value, phi = sigmoid(8, np.random.default_rng(4))
    asked = []

    def counted(Z):
        asked.append(len(Z))
        return value(Z)

    fit = crm.PromptShapley("kernel", crm.Budget(calls=100)).fit(names(8), counted)
    before = sum(asked)
    for method in ("leverage", "odd_gp", "link", "tree", "auto"):
        again = crm.PromptShapley(method).reanalyse(names(8), counted, fit.archive_)
        assert np.abs(again.result_.phi - phi).max() < 0.05, method
    assert sum(asked) == before == 100
    with pytest.raises(crm.IdentificationError, match="all 2\\^8"):
        crm.PromptShapley("exact").reanalyse(names(8), counted, fit.archive_)


def test_permutation_covers_itself_and_can_be_read_again():
    value, phi = sigmoid(7, np.random.default_rng(5))
    budget = crm.Budget(calls=100)
    fit = crm.PromptShapley("permutation", budget).fit(names(7), value)
    assert fit.result_.method == "permutation"
    assert np.abs(fit.result_.phi - phi).max() < 6 * fit.result_.std_error.max()
    again = crm.PromptShapley("permutation").reanalyse(names(7), value, fit.archive_)
    np.testing.assert_allclose(again.result_.phi, fit.result_.phi)


def players(groups, stages):
    return [
        crm.Component(f"p{i}", group=g, stage=s)
        for i, (g, s) in enumerate(zip(groups, stages, strict=True))
    ]


def test_owen_values_and_their_groups():
    value, _ = sigmoid(6, np.random.default_rng(6))
    game = players(["a", "a", "a", "b", "b", "c"], [0] * 6)
    fit = crm.PromptShapley(kind="owen").fit(game, value)
    table = value(all_coalitions(6))
    np.testing.assert_allclose(
        fit.result_.phi, _kernels.owen(table, np.array([0, 0, 0, 1, 1, 2])), atol=1e-12
    )
    # The groups' own game: its Shapley values are the sums of Owen values
    Z = all_coalitions(3)
    own = _kernels.shapley(value(Z[:, [0, 0, 0, 1, 1, 2]]))
    np.testing.assert_allclose(fit.result_.group_values()["estimate"], own, atol=1e-12)
    walk = crm.PromptShapley(kind="owen", budget=crm.Budget(calls=45)).fit(game, value)
    assert walk.result_.method == "permutation"
    assert np.abs(walk.result_.phi - fit.result_.phi).max() < 0.15


def test_ordered_values_respect_stages():
    def chain(Z):  # a alone is worth 1, b adds nothing without or with it
        return (Z[:, 0] | Z[:, 1]).astype(float)

    ordered = crm.PromptShapley(kind="ordered")
    found = ordered.fit(players([""] * 2, [0, 1]), chain).result_
    np.testing.assert_allclose(found.phi, [1.0, 0.0])
    both = crm.PromptShapley().fit(names(2), chain).result_
    np.testing.assert_allclose(both.phi, [0.5, 0.5])


def test_interactions_are_exact_from_all_coalitions():
    value, _ = sigmoid(5, np.random.default_rng(7))
    fit = crm.PromptShapley(order=2).fit(names(5), value)
    table = value(all_coalitions(5))
    for index in _kernels.INDICES:
        frame = fit.result_.interaction(index)
        expected = list(_kernels.interactions(table, index, 2).values())
        np.testing.assert_allclose(frame["estimate"], expected, atol=1e-12)
    assert frame["group"].value_counts().to_dict() == {"order 1": 5, "order 2": 10}


def test_permutation_uses_its_budget():
    value, _ = sigmoid(10, np.random.default_rng(5))
    fit = crm.PromptShapley("permutation", crm.Budget(calls=160)).fit(names(10), value)
    assert 160 - 4 * 9 < fit.result_.n_obs <= 160
    assert fit.result_.df == len(fit.archive_.orders) / 2 - 1


@pytest.mark.parametrize("order", [2, 3])
def test_interactions_from_some_coalitions_have_errors_as_large_as_they_say(order):
    z = {index: [] for index in _kernels.INDICES}
    for seed, game in enumerate((sigmoid, unanimity, sigmoid, unanimity)):
        value, _ = game(8, np.random.default_rng(seed))
        table = value(all_coalitions(8)).astype(float)
        budget = crm.Budget(calls=120 if order == 2 else 200)
        found = crm.PromptShapley("kernel", budget, order=order).fit(names(8), value).result_
        for index in _kernels.INDICES:
            frame = found.interaction(index)
            exact = np.array(list(_kernels.interactions(table, index, order).values()))
            error, se = (frame["estimate"] - exact).to_numpy(), frame["std_error"].to_numpy()
            z[index] += (error / np.maximum(se, 1e-9)).tolist()
            if index == "STII":  # lower orders are derivatives at the empty set, all asked
                assert np.abs(error[:8]).max() < 1e-12 and not se[:8].any()
    for index, found in z.items():
        found = np.array(found)[np.abs(found) > 0]
        assert 0.7 < np.sqrt(np.mean(found**2)) < 1.35, index
        assert np.mean(np.abs(found) < 1.96) > 0.85, index


def test_interactions_that_cannot_be_told_apart_are_refused():
    value, _ = sigmoid(9, np.random.default_rng(8))
    with pytest.raises(crm.DataError, match="needs 92 or more"):
        crm.PromptShapley("kernel", crm.Budget(calls=60), order=2).fit(names(9), value)
    fit = crm.PromptShapley("kernel", crm.Budget(calls=60)).fit(names(9), value)
    with pytest.raises(crm.IdentificationError, match="cannot tell apart. Ask 92"):
        crm.PromptShapley("kernel", order=2).reanalyse(names(9), value, fit.archive_)


def test_closed_form_weights_are_those_of_the_transformed_table():
    rng = np.random.default_rng(3)
    for n, order in ((3, 3), (5, 2), (6, 3)):
        Z, table = all_coalitions(n), rng.normal(size=2**n)
        for index in ("SII", "k-SII", "STII"):
            for players, exact in _kernels.interactions(table, index, order).items():
                w = _weights(n, len(players), index, order)
                found = table @ w[Z.sum(axis=1), Z[:, players].sum(axis=1)]
                assert found == pytest.approx(exact, abs=1e-12)


def test_reply_noise_reaches_interactions():
    rng = np.random.default_rng(9)
    value, _ = sigmoid(4, np.random.default_rng(10))
    exact = _kernels.interactions(value(all_coalitions(4)), "SII", 2)
    z = []
    for _ in range(40):
        game = SetFunction(lambda Z: rng.random(len(Z)) < value(Z), binary=True)
        budget = crm.Budget(calls=600)
        found = crm.PromptShapley("exact", budget, order=2).fit(names(4), game)
        frame = found.result_.interaction("SII")
        z.append((frame["estimate"] - list(exact.values())) / frame["std_error"])
    assert 0.85 < np.sqrt(np.mean(np.square(z))) < 1.15


def test_stops_when_the_target_is_met_at_two_checkpoints():
    rng = np.random.default_rng(11)
    value, phi = sigmoid(5, np.random.default_rng(12))
    game = SetFunction(lambda Z: rng.random(len(Z)) < value(Z), binary=True)
    budget = crm.Budget(calls=20_000, target_se=0.04)
    found = crm.PromptShapley("exact", budget).fit(names(5), game).result_
    assert found.diagnostics["stopped"] == "target_se"
    assert found.std_error.max() <= 0.04 and found.n_obs < 20_000
    met = found.trace.groupby("look")["std_error"].max() <= 0.04
    assert met.iloc[-2:].all() and not met.iloc[:-2].any()
    assert (np.abs(found.phi - phi) < 4 * found.std_error).all()


def test_the_same_seed_gives_the_same_fit_and_none_is_recorded():
    value, _ = sigmoid(8, np.random.default_rng(13))
    budget = crm.Budget(calls=60)
    fits = [crm.PromptShapley("kernel", budget, rng=5).fit(names(8), value) for _ in range(2)]
    assert fits[0].to_frame().equals(fits[1].to_frame())
    free = crm.PromptShapley("kernel", budget, rng=None).fit(names(8), value)
    again = crm.PromptShapley("kernel", budget, rng=free.result_.entropy).fit(names(8), value)
    assert free.to_frame().equals(again.to_frame())


@pytest.mark.parametrize(
    ("players", "value", "message"),
    [
        (["a", "a"], glove, "names must differ"),
        ("abc", glove, "must be a list"),
        ([], glove, "Between 1 and 1,000"),
        (names(10_000), glove, "got 10,000"),
        (["a", "b"], 3.0, "needs a function"),
        (["a", "b"], lambda Z: Z * 1.0, "one number for each"),
        (["a", "b"], lambda Z: Z[:1, 0] * 1.0, "one number for each"),
        (["a", "b"], lambda Z: np.array(["x"] * len(Z)), "one number for each"),
    ],
)
def test_bad_games_are_refused(players, value, message):
    with pytest.raises(crm.DataError, match=message):
        crm.PromptShapley().fit(players, value)


@pytest.mark.parametrize("budget", [{"calls": 0}, {"calls": 2.5}, {"cost": 1.0}, {"seconds": -1}])
def test_bad_budgets_are_refused(budget):
    with pytest.raises(crm.DataError):
        crm.Budget(**budget)


def test_too_small_a_budget_says_what_is_needed():
    with pytest.raises(crm.DataError, match="8 or more, 8 calls"):
        crm.PromptShapley(budget=crm.Budget(calls=5)).fit(names(10), lambda Z: Z.sum(1) * 1.0)


def test_exact_is_exact_without_a_budget_where_calls_are_free():
    def value(Z):
        return Z[:, 0] * Z[:, 1] + Z @ np.arange(12.0)

    result = crm.PromptShapley("exact").fit(names(12), value).result_
    assert result.method == "exact" and result.n_coalitions == 2**12
    np.testing.assert_allclose(result.phi, np.arange(12.0) + [0.5, 0.5, *[0.0] * 10], atol=1e-12)
    assert crm.PromptShapley().fit(names(12), value).result_.n_coalitions < 2**12
    parts = [crm.Component(name, f"{name} ") for name in names(10)]
    template = crm.PromptTemplate("Say: " + "".join(f"{{{name}}}" for name in names(10)), parts)
    free = crm.PromptShapley("exact").fit(template, crm.ScoreValue(len)).result_
    assert free.method == "exact" and free.n_coalitions == 2**10
    paid = crm.ScoreValue(len, FunctionModel(lambda prompt: "yes"), temperature=0)
    for players, game in ((template, paid), (names(21), value)):
        with pytest.raises(crm.DataError, match="Without a number of calls a fit has") as caught:
            crm.PromptShapley("exact").fit(players, game)
        assert "None" not in str(caught.value)
    with pytest.raises(crm.DataError, match="The budget of 100 calls allows 100 coalitions"):
        crm.PromptShapley("exact", crm.Budget(calls=100)).fit(names(12), value)


@pytest.mark.parametrize("bad", ["nan", "raise"])
def test_replies_before_a_failure_are_kept(bad, monkeypatch):
    monkeypatch.setattr(SetFunction, "batch", lambda self: 10)
    calls = []

    def value(Z):
        calls.append(len(Z))
        out = Z.sum(axis=1) * 1.0
        if len(calls) == 3 and bad == "raise":
            raise KeyError("lost")
        if len(calls) == 3:
            out[4] = np.nan
        return out

    estimator = crm.PromptShapley(budget=crm.Budget(calls=64))
    error = crm.DataError if bad == "nan" else crm.BackendError
    with pytest.raises(error, match="with . of 6 components.*are in the archive"):
        estimator.fit(names(6), value)
    assert len(estimator.archive_) == (63 if bad == "nan" else 30)
    fit = estimator.fit(names(6), value, archive=estimator.archive_)
    assert sum(calls) == 64 + (1 if bad == "nan" else 34)
    np.testing.assert_allclose(fit.result_.phi, 1.0)


def test_a_killed_run_goes_on_without_a_repeated_call(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys, time
        import causalrm as crm
        from causalrm.llm import FunctionModel
        log, path, last = sys.argv[1], sys.argv[2], int(sys.argv[3])

        def simulated(prompt):
            time.sleep(0.06)
            with open(log, "a") as file:
                file.write(repr(prompt) + "\\n")
            if sum(1 for _ in open(log)) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            p = 0.2 + 0.3 * ("warm" in prompt) + 0.2 * ("dry" in prompt)
            return {"A": p, "B": 1 - p}

        template = crm.PromptTemplate(
            "Today it is {w} {d} {q}.",
            [crm.Component("w", "warm"), crm.Component("d", "dry"), crm.Component("q", "quiet")],
        )
        value = crm.ChoiceValue(FunctionModel(simulated), ["walk", "stay"], counterbalance=False)
        fit = crm.PromptShapley().fit(template, value, archive=path)
        print(fit.result_.phi.tolist())
    """)

    def run(log, path, last):
        command = [sys.executable, "-c", script, str(log), str(path), str(last)]
        env = os.environ | {"PYTHONPATH": str(Path(crm.__file__).parents[1])}
        return subprocess.run(command, capture_output=True, text=True, env=env)

    for suffix in ("jsonl", "sqlite"):
        log, path = tmp_path / f"log {suffix}", tmp_path / f"archive.{suffix}"
        killed = run(log, path, 5)
        assert killed.returncode == -signal.SIGKILL
        done = run(log, path, -1)
        assert done.returncode == 0, done.stderr
        # Eight coalitions, two of them twice, and the call that was under way when it was killed
        prompts = Counter(log.read_text().splitlines())
        assert len(prompts) == 8 and prompts.total() == 8 + 2 + 1
        np.testing.assert_allclose(json.loads(done.stdout), [0.3, 0.2, 0.0], atol=1e-12)


def test_refining_opens_the_groups_that_matter_and_asks_nothing_twice(tmp_path):
    text = "One a. Two b. Three c.\n\nFour d. Five e.\n\nSix f. Seven g. Eight h."
    template = crm.PromptTemplate.from_text(text, "words", baseline=crm.Mask("_"))
    asked = []

    def score(prompt):
        asked.append(prompt)
        one = "One" in prompt
        return 2.0 * one + 1.0 * one * ("b." in prompt) + 0.5 * ("Five" in prompt)

    fit = crm.PromptShapley(budget=crm.Budget(calls=200))
    found = fit.refine(template, crm.ScoreValue(score), archive=tmp_path / "a.jsonl").result_
    values = dict(zip(found.names, found.phi, strict=True))
    # One and b. share what they do together, with their sentences as players
    assert values.pop("section 1 / sentence 1 / 1 One") == pytest.approx(2.5)
    assert values.pop("section 1 / sentence 2 / 4 b.") == pytest.approx(0.5)
    assert values.pop("section 2 / sentence 5 / 9 Five") == pytest.approx(0.5)
    np.testing.assert_allclose(list(values.values()), 0.0, atol=1e-12)
    assert "section 1 / sentence 3" in values and "section 3" in values
    assert found.diagnostics["refined"][:2] == ["section 1", "section 2"]
    assert len(asked) == len(set(asked)) == len(fit.archive_)
    again = fit.refine(template, crm.ScoreValue(score), archive=tmp_path / "a.jsonl").result_
    assert len(asked) == len(fit.archive_) and again.phi.tolist() == found.phi.tolist()
    coarse = fit.refine(template, crm.ScoreValue(score), least=1.0).result_
    assert "section 2" in coarse.names and "section 1 / sentence 2" in coarse.names
    with pytest.raises(crm.DataError, match="refine needs groups"):
        fit.refine(["a", "b"], glove)


def test_refining_all_groups_gives_owen_values():
    value, _ = sigmoid(6, np.random.default_rng(6))
    game = players(["a", "a", "a", "b", "b", ""], [0] * 6)
    fit = crm.PromptShapley().refine(game, value)
    exact = _kernels.owen(value(all_coalitions(6)), np.array([0, 0, 0, 1, 1, 2]))
    np.testing.assert_allclose(fit.result_.phi, exact, atol=1e-12)
    np.testing.assert_allclose(
        fit.result_.group_values()["estimate"], [exact[:3].sum(), exact[3:5].sum(), exact[5]]
    )
