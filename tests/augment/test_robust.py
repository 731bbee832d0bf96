"""The robust reward model: its loss, its estimates and their errors, and what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest

import causalrm as crm
from tests.augment.simulation import CAUSAL, ROLES, SPURIOUS, K, augment, model, preferences

SMALL = crm.text.HashedText(48, 16)
ENCODER = crm.text.Features([*CAUSAL, *SPURIOUS])


def stacked(frame: pd.DataFrame, a: str, b: str) -> np.ndarray:
    return np.stack(frame[a].to_numpy()) - np.stack(frame[b].to_numpy())


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    df = preferences(300, rng, per_query=3)
    return df, augment(df, rng)


@pytest.fixture(scope="module")
def texts() -> tuple[pd.DataFrame, pd.DataFrame]:
    df, _ = crm.datasets.make_preferences(120, n_topics=16, rng=0)
    augmenter = crm.CausalAugmenter(
        crm.augment.RuleOracle(), n_attributes=2, neutrals=("irrelevant_query", "paraphrase")
    )
    return df, augmenter.generate(df)


def test_loss_is_that_of_crome(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    # The weights are where the penalised loss, written out, has no slope.
    df, made = data
    fit = crm.RobustRewardModel(ENCODER, tie_weight=0.7, penalty=0.5, drop_attributes=False)
    beta = fit.fit(df, made, **ROLES).result_.weights
    tie = made["target"].to_numpy() == 0.5
    d = stacked(made, "answer_a", "answer_b")
    ordered = np.vstack([stacked(df, "chosen", "rejected"), d[~tie]])

    def log_s(x: np.ndarray) -> np.ndarray:
        return -np.logaddexp(0, -x)

    def loss(b: np.ndarray) -> float:
        neutral = 0.5 * (log_s(d[tie] @ b) + log_s(-d[tie] @ b)).sum()
        return float(-log_s(ordered @ b).sum() - 0.7 * neutral + 0.25 * b @ b)

    slope = [(loss(beta + 1e-5 * e) - loss(beta - 1e-5 * e)) / 2e-5 for e in np.eye(len(beta))[:12]]
    np.testing.assert_allclose(slope, 0, atol=1e-4)
    assert fit.result_.loglik == pytest.approx(-loss(beta) + 0.25 * beta @ beta)


def test_no_weight_of_ties_is_causal_pairs_only(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    none = model(0.0, drop_attributes=False).fit(df, made, **ROLES).result_
    without = made[made["target"] == 1.0]
    only = model(1.0, drop_attributes=False).fit(df, without, **ROLES).result_
    np.testing.assert_array_equal(none.weights, only.weights)  # to the last bit
    np.testing.assert_array_equal(none.weights_se, only.weights_se)


@pytest.mark.parametrize("encoder", [SMALL, crm.text.TfidfText(64, 64)], ids=["hashed", "tfidf"])
def test_no_weight_of_ties_on_text(
    texts: tuple[pd.DataFrame, pd.DataFrame], encoder: object
) -> None:
    df, made = texts
    options = {"drop_attributes": False}
    none = crm.RobustRewardModel(encoder, tie_weight=0, **options).fit(df, made, **ROLES)
    only = crm.RobustRewardModel(encoder, **options).fit(df, made[made["target"] == 1], **ROLES)
    np.testing.assert_array_equal(none.result_.weights, only.result_.weights)


def test_estimates_are_what_they_say(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    fit = model(1.0).fit(df, made, **ROLES)
    gap = stacked(made, "answer_a", "answer_b") @ fit.result_.weights
    own = stacked(df, "chosen", "rejected") @ fit.result_.weights
    frame = fit.to_frame().set_index(["group", "term"]).sort_index()
    for name in CAUSAL:
        rows = made["attribute"] == name
        found = frame.loc[("sensitivity", name)]
        assert found["estimate"] == pytest.approx(gap[rows].mean()) and found["n"] == rows.sum()
    typical = np.sqrt(np.mean(gap[made["target"] == 0.5] ** 2))
    assert frame.loc[("typical gap", "irrelevant_query"), "estimate"] == pytest.approx(typical)
    assert frame.loc[("invariance", "irrelevant_query"), "estimate"] == pytest.approx(
        1 - typical / np.sqrt(np.mean(own**2))
    )
    less = model(1.0, drop_attributes=False).fit(df, made[made["attribute"] != "C2"], **ROLES)
    rows = made["attribute"] == "C2"
    other = stacked(made[rows], "answer_a", "answer_b") @ less.result_.weights
    change = frame.loc[("change when dropped", "C2"), "estimate"]
    assert change == pytest.approx(other.mean() - gap[rows].mean(), abs=1e-5)
    details = fit.result_.dropping.set_index("attribute").loc["C2"]
    assert details["sensitivity"] + change == pytest.approx(details["without"])


def test_errors_agree_with_the_bootstrap_of_queries() -> None:
    rng = np.random.default_rng(1)
    df = preferences(800, rng, per_query=8)
    made = augment(df, rng)
    fit = model(1.0).fit(df, made, **ROLES)
    rows = {q: np.flatnonzero(df["query"] == q) for q in range(100)}
    pairs = {q: np.flatnonzero(made["cluster"] == q) for q in range(100)}
    draws = []
    for _ in range(40):
        drawn = rng.integers(100, size=100)
        one = pd.concat([df.iloc[rows[q]].assign(query=i) for i, q in enumerate(drawn)])
        other = pd.concat(
            [made.iloc[pairs[q]].assign(cluster=i, query=i) for i, q in enumerate(drawn)]
        )
        again = model(1.0).fit(one, other, **ROLES)
        draws.append(again.to_frame().set_index(["group", "term"])["estimate"])
    table = fit.to_frame().set_index(["group", "term"])["std_error"]
    ratio = table / pd.concat(draws, axis=1).std(axis=1)
    assert ratio.between(0.7, 1.4).all(), ratio
    assert 0.88 < ratio.mean() < 1.12


def test_warns_when_features_do_not_depend_on_the_query() -> None:
    df, _ = crm.datasets.make_preferences(150, rng=0)
    made = crm.CausalAugmenter(crm.augment.RuleOracle(), n_attributes=2).generate(df)
    blind = crm.RobustRewardModel(crm.text.HashedText(interaction=False), drop_attributes=False)
    with pytest.warns(crm.IdentificationWarning, match="hardly depend on the query"):
        blind.fit(df, made, **ROLES)
    assert any("hardly" in text for text in blind.result_.warnings)
    (assumption,) = [a for a in blind.result_.assumptions if "depend on the query" in a.name]
    assert assumption.status == "doubtful"
    seeing = crm.RobustRewardModel(drop_attributes=False).fit(df, made, **ROLES)
    (assumption,) = [a for a in seeing.result_.assumptions if "depend on the query" in a.name]
    assert assumption.status == "supported"


def test_warns_when_causal_vectors_stay(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    stay = made.copy()
    rows = np.flatnonzero(stay["target"] == 0.5)
    for side, column in (("answer_a", "chosen"), ("answer_b", "rejected")):
        values = stay[side].to_numpy().copy()
        for i in rows:
            values[i] = df[column].iloc[i % len(df)]
        stay[side] = values
    with pytest.warns(crm.IdentificationWarning, match="irrelevant query"):
        model(1.0, drop_attributes=False).fit(df, stay, **ROLES)


def test_rewards(texts: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = texts
    fit = crm.RobustRewardModel(drop_attributes=False).fit(df, made, **ROLES)
    a = fit.reward(df, answer="chosen")
    assert a.index.equals(df.index)
    np.testing.assert_allclose(a, fit.reward(df["chosen"], df["query"]))
    gap = fit.gap(df)
    np.testing.assert_allclose(gap, a - fit.reward(df, answer="rejected"))
    np.testing.assert_allclose(fit.predict_proba(df), 1 / (1 + np.exp(-gap)))
    swapped = fit.predict_proba(df, a="rejected", b="chosen")
    np.testing.assert_allclose(swapped + fit.predict_proba(df), 1)
    again = pickle.loads(pickle.dumps(fit))
    np.testing.assert_array_equal(again.gap(df), gap)
    restored = crm.RobustRewardModel.from_result(crm.Result.from_json(fit.result_.to_json()))
    np.testing.assert_allclose(restored.gap(df), gap)


def test_a_restored_fit_with_another_encoder_says_what_it_lacks(
    texts: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    df, made = texts
    fit = crm.RobustRewardModel(crm.text.TfidfText(32, 32), drop_attributes=False)
    result = crm.Result.from_json(fit.fit(df, made, **ROLES).result_.to_json())
    restored = crm.RobustRewardModel.from_result(result)
    assert str(restored.summary()) == str(fit.summary())
    with pytest.raises(crm.DataError, match="pickle"):
        restored.gap(df)


def test_check_on_other_pairs(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    rng = np.random.default_rng(5)
    new = augment(preferences(200, rng), rng)
    baseline = model(1.0).fit(df, **ROLES)
    robust = model(1.0, drop_attributes=False).fit(df, made, **ROLES)
    found = [f.check(new).to_frame().set_index("term")["estimate"] for f in (baseline, robust)]
    gap = stacked(new, "answer_a", "answer_b") @ baseline.result_.weights
    assert found[0]["C1"] == pytest.approx(gap[new["attribute"] == "C1"].mean())
    assert found[1]["irrelevant_query"] < 0.5 * found[0]["irrelevant_query"]
    assert "sensitivity" not in set(baseline.to_frame()["group"])


def test_path(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    fit = model(1.0, drop_attributes=False).fit(df, made, **ROLES)
    path = fit.path(df, made, (0.0, 1.0, 10.0), spurious=SPURIOUS, causal=CAUSAL)
    one = path[path["tie_weight"] == 1.0].set_index(["group", "term"])
    own = fit.to_frame().set_index(["group", "term"])
    for key in own.index:
        assert one.loc[key, "estimate"] == pytest.approx(own.loc[key, "estimate"], abs=1e-5)
        assert one.loc[key, "std_error"] == pytest.approx(own.loc[key, "std_error"], rel=1e-3)
    ratio = path[path["group"] == "coefficients"]["estimate"].to_numpy()
    assert (np.diff(ratio) < 0).all()
    w = fit.result_.weights
    assert ratio[1] == pytest.approx(np.linalg.norm(w[K:]) / np.linalg.norm(w[:K]), abs=1e-5)
    ax = fit.plot.path(path)
    assert ax.get_xlabel() == "Weight of neutral pairs"
    assert ax.get_ylabel() == "Spurious / causal weight"
    (line,) = ax.get_lines()
    np.testing.assert_allclose(line.get_ydata(), ratio)
    other = fit.plot.path(path[path["group"] != "coefficients"])
    assert "neutral pairs" in other.get_ylabel()


def test_plots(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    fit = model(1.0).fit(df, made, **ROLES)
    for ax in (fit.plot(), fit.plot.invariance(), fit.plot.dropping(), fit.plot("typical gap")):
        ax.figure.canvas.draw()
        assert ax.get_xlabel()
    assert [t.get_text() for t in fit.plot().get_yticklabels()] == CAUSAL
    with pytest.raises(crm.DataError, match="no group"):
        fit.plot("style")


def test_temperature(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    fit = model(20.0, drop_attributes=False).fit(df, made, **ROLES)
    new = preferences(4000, np.random.default_rng(9))
    found = fit.temperature(new)
    gap = fit.gap(new).to_numpy() / found.estimate
    slope = np.mean(gap / (1 + np.exp(gap)))  # the score at slope 1
    assert slope == pytest.approx(0, abs=1e-8) and found.conf_low < found.estimate


# ---------------------------------------------------------------- rows in and out


def test_statuses_are_counted(texts: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = texts
    broken = made.copy()
    broken.loc[broken.index[5:9], "status"] = "failed"
    broken.loc[broken.index[5:9], "answer_a"] = None
    fit = crm.RobustRewardModel(SMALL, drop_attributes=False).fit(df, broken, **ROLES)
    counts = fit.result_.counts.set_index("kind")
    assert counts.loc["causal", "rows"] == (made["kind"] == "causal").sum()
    assert counts.loc["causal", "failed"] == 4
    assert counts["ok"].sum() == (broken["status"] == "ok").sum()
    assert "identical" in counts


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_other_frames(texts: tuple[pd.DataFrame, pd.DataFrame], library: str) -> None:
    df, made = texts
    expected = crm.RobustRewardModel(SMALL, drop_attributes=False).fit(df, made, **ROLES)
    if library == "polars":
        frames = [polars.from_pandas(f) for f in (df, made)]
    else:
        frames = [pa.Table.from_pandas(f, preserve_index=False) for f in (df, made)]
    fit = crm.RobustRewardModel(SMALL, drop_attributes=False).fit(*frames, **ROLES)
    np.testing.assert_allclose(fit.result_.weights, expected.result_.weights, atol=1e-9)
    np.testing.assert_allclose(fit.gap(frames[0]), expected.gap(df), atol=1e-8)


def test_order_and_index_do_not_matter(texts: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = texts
    expected = crm.RobustRewardModel(SMALL, drop_attributes=False).fit(df, made, **ROLES)
    mixed = crm.RobustRewardModel(SMALL, drop_attributes=False).fit(
        df.sample(frac=1, random_state=0), made.sample(frac=1, random_state=1), **ROLES
    )
    pd.testing.assert_frame_equal(
        mixed.to_frame().sort_values(["group", "term"], ignore_index=True),
        expected.to_frame().sort_values(["group", "term"], ignore_index=True),
        rtol=1e-6,
    )


def test_bad_input(texts: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = texts
    new = crm.RobustRewardModel(drop_attributes=False)

    def refuses(match: str, data: object = df, augmented: object = made) -> None:
        with pytest.raises(crm.DataError, match=match):
            new.fit(data, augmented, **ROLES)

    blank = df.copy()
    blank.loc[[2, 5], "chosen"] = "  "
    refuses(r"2 of 120 texts in column 'chosen'.*first rows: 2, 5", blank)
    missing = df.copy()
    missing.loc[3, "query"] = None
    refuses(r"column 'query'.*1 of 120 are missing.*first rows: 3", missing)
    refuses("column 'rejected'.*120 of 120 are of type int", df.assign(rejected=1))
    refuses("two queries.*same", df.assign(query="one"))
    refuses("column 'answer_a'", df, made.drop(columns="answer_a"))
    refuses("target 1 .*1 of", df, made.assign(target=[3.0, *made["target"][1:]]))
    refuses("belong to none of their queries", df.iloc[:20], made)
    refuses("tie_weight", df) if new.set_params(tie_weight=-1) else None
    new.set_params(tie_weight=1.0)
    with pytest.raises(crm.DataError, match="column 'nothing'"):
        new.fit(df, made, query="nothing", chosen="chosen", rejected="rejected")


def test_identical_answers_are_counted(texts: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df = texts[0].copy()
    df.loc[[1, 4], "chosen"] = df.loc[[1, 4], "rejected"]
    with pytest.warns(crm.CausalRMWarning, match=r"2 of 120 pairs have the same answer"):
        fit = crm.RobustRewardModel().fit(df, **ROLES)
    assert fit.result_.n_obs == 120


def test_separated_pairs_need_a_penalty() -> None:
    rng = np.random.default_rng(0)
    df = preferences(80, rng)
    made = augment(df, rng)
    made = made[made["target"] == 1.0]
    toy = df.assign(
        chosen=[np.array([1.0, 0.0]) + rng.random(2) for _ in range(80)],
        rejected=[np.array([-1.0, 0.0]) + rng.random(2) for _ in range(80)],
    )
    with pytest.raises(crm.IdentificationError, match="penalty"):
        crm.RobustRewardModel(crm.text.Features(), penalty=None).fit(toy, **ROLES)
    firth = crm.RobustRewardModel(crm.text.Features(), penalty="firth").fit(toy, **ROLES)
    assert np.isfinite(firth.result_.weights).all()
