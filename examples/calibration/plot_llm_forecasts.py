"""
Forecasts of language models: calibrated, and as good as a crowd?
=================================================================

Halawi, Zhang, Yueh-Han and Steinhardt (2024, arXiv:2402.18563) had language models read the news
and forecast questions of public forecasting platforms: will it happen, yes or no? The answers are
now known, and so is what the crowd of the platform thought on the same day. Three questions: do
the models' probabilities mean what they say, do they do as well as the crowd's, and does
recalibration close the gap?

The forecasts are real. They are fetched from the authors' repository (0.3 MB), or read from the
folder named by the environment variable ``CAUSALRM_DATA``.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalrm as crm
from causalrm import calibration as cal

forecasts = crm.datasets.fetch_llm_forecasts()
forecasts.groupby("source", observed=True).agg(
    forecasts=("probability", "size"),
    distinct=("probability", "nunique"),
    zeros=("probability", lambda p: int((p == 0).sum())),
    ones=("probability", lambda p: int((p == 1).sum())),
    mean=("probability", "mean"),
    came_true=("outcome", "mean"),
).round(3)

# %%
# The models write their probability as text, so that few values are used again and again, zero and
# one among them. The crowd's are averages of many people.
#
# Who depends on whom
# -------------------
# Each question was asked at up to five dates before it was settled, several times at each. Replies
# about one question at one date are a cluster. The source does not tell which question of one date
# is which of the next, so clusters cannot span the dates; what that does to the intervals is
# looked at below. A forecaster is one row per question and date: one reply of the base model, the
# mean of all replies of all models (the authors use a trimmed mean, which differs little), or the
# crowd.

keys = ["retrieval", "question"]
forecasts["asked"] = forecasts.groupby(keys).ngroup()
first_reply = (forecasts["source"] == "base") & (forecasts["sample"] == 0)
questions = pd.DataFrame(
    {
        "outcome": forecasts.groupby(keys)["outcome"].first(),
        "one reply": forecasts[first_reply].set_index(keys)["probability"],
        "models": forecasts[forecasts["source"] != "crowd"].groupby(keys)["probability"].mean(),
        "crowd": forecasts[forecasts["source"] == "crowd"].set_index(keys)["probability"],
    }
).reset_index()
names = ["one reply", "models", "crowd"]
y = questions["outcome"].to_numpy()
questions.groupby("retrieval").agg(questions=("outcome", "size"), came_true=("outcome", "mean"))

# %%
# Are they calibrated?
# --------------------
# A report for each forecaster. ``if calibrated`` is what a perfectly calibrated forecaster would
# show: 1 for the slope and for the ratio of observed to expected, and for the error measures the
# part that is noise.

reports = {name: cal.calibration_report(y, questions[name]) for name in names}
key = ["observed_expected", "calibration_slope", "ece", "mcb", "dsc", "brier", "log_loss", "auc"]
shown = ["estimate", "conf_low", "conf_high", "if_calibrated", "p_value"]
tables = {name: r.to_frame().set_index("term").loc[key, shown] for name, r in reports.items()}
pd.concat(tables).round(4)

# %%

figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.8), layout="constrained", sharey=True)
for ax, (name, report) in zip(axes, reports.items(), strict=True):
    report.plot(ax=ax)
    ax.set_title(name)
    if name != "one reply":
        ax.get_legend().remove()
        ax.set_ylabel("")

# %%
# Neither the models nor the crowd are perfectly calibrated, and they err in opposite directions:
# more was forecast by the models than came true, and less by the crowd. The slope of a single
# reply is somewhat below one (too extreme, and clearly so with all replies below), that of the
# mean above one (too timid): averaging takes noise out of opinions and leaves them less sure than
# they could be.

for name, report in reports.items():
    oe, slope = report["observed_expected"], report["calibration_slope"]
    print(
        f"{name:10s} observed/expected {oe['estimate']:.2f} "
        f"({oe['conf_low']:.2f} to {oe['conf_high']:.2f}), slope {slope['estimate']:.2f} "
        f"({slope['conf_low']:.2f} to {slope['conf_high']:.2f})"
    )

# %%
# All replies of the base model, clustered, say what one reply says with less noise. Replies that
# are certain and wrong make the log loss infinite. They are counted, neither clipped nor dropped.

base = forecasts[forecasts["source"] == "base"]
replies = cal.calibration_report(base["outcome"], base["probability"], cluster=base["asked"])
slope = replies["calibration_slope"]
print(
    f"{replies.n_obs:,} replies in {replies.diagnostics['clusters']:,} clusters: slope "
    f"{slope['estimate']:.2f} ({slope['conf_low']:.2f} to {slope['conf_high']:.2f}); "
    f"{replies.diagnostics['infinite']} certain and wrong"
)

# %%
# Against the crowd
# -----------------
# The Brier score is miscalibration (MCB) less discrimination (DSC) plus a part that belongs to the
# questions. Paired on the questions, the models lose to the crowd, and nearly all of the gap is
# discrimination: the crowd knows more, not better how to say it.

versus = cal.compare(y, {name: questions[name] for name in ("crowd", "models")})
against = versus.to_frame().set_index("term")
for pair, verdict in versus.diagnostics["drives"].items():
    print(f"Brier score, {pair}:\n  {verdict}")
against.loc[["brier", "auc", "ece", "mcb"], shown[:3] + ["p_value"]].round(4)

# %%
# Within a date every question is there once, so that its interval is honest. Over the dates, the
# intervals above took one question at two dates for two questions. However strongly the dates
# depend on one another, though, the standard error of a pooled mean is at most the weighted mean
# of those of the dates.


def by_date(one, other):
    """Paired difference of the Brier scores, one less the other, at each date."""
    lines = []
    for date, rows in questions.groupby("retrieval").indices.items():
        found = cal.compare(y[rows], {"other": other[rows], "one": one[rows]}, n_boot=0)
        brier = found.to_frame().set_index("term").loc["brier"]
        lines.append((date, rows.size, brier["estimate"], brier["std_error"]))
    return pd.DataFrame(lines, columns=["date", "questions", "difference", "std_error"])


def pooled(dates):
    """Difference over all dates, with an interval whatever the dependence of the dates."""
    mean, most = (np.average(dates[c], weights=dates["questions"]) for c in dates.columns[2:])
    return (
        f"{mean:.4f}, standard error at most {most:.4f}, interval {mean - 1.96 * most:.4f} "
        f"to {mean + 1.96 * most:.4f}"
    )


models, crowd = questions["models"].to_numpy(), questions["crowd"].to_numpy()
dates = by_date(models, crowd)
print("models - crowd:", pooled(dates))
dates.set_index("date").round(4)

# %%
# The conclusion does not hang on the dependence. At later dates the models are further behind;
# one reading is that news reach the crowd of a question sooner than they reach the models.
#
# Does recalibration help?
# ------------------------
# Four maps, each learnt on four fifths of the questions of a date and applied to the rest. Across
# dates nothing is learnt, as the same question could be on both sides. The crowd is
# given the same chance.

maps = {
    "temperature": cal.TemperatureScaling(),
    "Platt": cal.PlattScaling(),
    "beta": cal.BetaCalibration(),
    "isotonic": cal.IsotonicCalibration(),
}
rows, recalibrated = [], {}
for name in ("models", "crowd"):
    versions = {"as it is": questions[name].to_numpy()}
    for label, learner in maps.items():
        q = np.empty(len(questions))
        for date in questions.groupby("retrieval").indices.values():
            q[date] = cal.crossfit(learner, versions["as it is"][date], y[date])
        versions[label] = recalibrated[name, label] = q
    for label, q in versions.items():
        parts = cal.corp(y, q, n_boot=0)
        slope = cal.calibration_slope(y, q, n_boot=0)
        error = cal.ece(y, q, n_boot=0).estimate
        rows.append((name, label, parts.score.estimate, parts.mcb.estimate, parts.dsc.estimate,
                     error, slope.estimate))  # fmt: skip
columns = ["forecaster", "map", "Brier", "MCB", "DSC", "ECE", "slope"]
pd.DataFrame(rows, columns=columns).set_index(["forecaster", "map"]).round(4)

# %%
# Maps with a shift (Platt, beta) repair what was wrong with the models, which is mostly that yes
# was expected too often; temperature alone cannot, since it turns about one half. The more flexible
# isotonic map learns noise too, with a few hundred questions to learn from, and its steps cost
# discrimination. Is the gain more than noise, and what is left of the gap to the crowd?

after = cal.compare(y, {"crowd": crowd, "models": models, "Platt": recalibrated["models", "Platt"]})
for pair, verdict in after.diagnostics["drives"].items():
    print(f"Brier score, {pair}:\n  {verdict}")
print()
print("Platt - models:", pooled(by_date(recalibrated["models", "Platt"], models)))
print("Platt - crowd: ", pooled(by_date(recalibrated["models", "Platt"], crowd)))

# %%

platt = cal.calibration_report(y, recalibrated["models", "Platt"])
figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
reports["models"].plot(ax=axes[0])
axes[0].set_title("models")
platt.plot(ax=axes[1])
axes[1].set_title("models, Platt (cross-fitted)")
floor = platt.diagnostics["noise_floor"]
print(
    f"ECE {platt['ece']['estimate']:.3f}; a perfectly calibrated forecaster would show "
    f"{floor['expected']:.3f}"
)
brier = after.to_frame().query("term == 'brier'").set_index("group")["estimate"]
print(f"recalibration closes {1 - brier['Platt - crowd'] / brier['models - crowd']:.0%} of the gap")

# %%
# The error is smaller than chance alone would make it: the maps, although cross-fitted, have seen
# the share of yes among the very questions that judge them. Forecasts of other questions will not
# look as good.
#
# Recalibration is cheap and closes a small part of the gap, a gain that is clear if the dates are
# independent and just not if they are as dependent as can be. The rest cannot be had from any
# map of the probabilities that keeps the order of the questions; it needs better information.
#
# What this rests on
# ------------------
# The questions are those that platforms asked and that were settled; how often yes came true among
# them is not how often it comes true elsewhere, and a shift that was learnt here need not carry
# over. The crowd's forecast may have been among the news that the models read. And the calibration
# is that of these models, prompts and years.

reports["models"].summary()
