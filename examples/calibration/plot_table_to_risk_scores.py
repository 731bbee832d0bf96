"""
From a table to risk scores, and whether to believe them
========================================================

Rows of a table are put into words, a language model is asked a question about each, and its
answers become probabilities. This analysis goes all the way on a real table: the answers of 944
voters to the American National Election Study of 1996 (from statsmodels) and the question whom
they mean to vote for.

The language model is **simulated**, so that what is wrong with it is known: it has a decent idea of
the odds but overstates them by a factor of two on the logit scale, leans further towards Dole for
voters of 60 years or more, likes the answer that is listed first, says other things a tenth of the
time, and sometimes does not answer at all. Everything after the first section would be the same
with ``causalrm.llm.OpenAICompatible`` in its place.
"""

import hashlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import causalrm as crm
from causalrm import calibration as cal

voters = sm.datasets.anes96.load_pandas().data
voters["group"] = np.where(voters["age"] >= 60, "60 or older", "under 60")
voters[["selfLR", "age", "educ", "TVnews", "vote"]].describe().round(2)

# %%
# The table in words
# ------------------
# A task says what the columns mean and what is asked. It is plain data: ``task.to_json()`` can be
# edited and shared.

lean = ["extremely liberal", "liberal", "slightly liberal", "moderate", "slightly conservative",
        "conservative", "extremely conservative"]  # fmt: skip
school = ["at most 8 grades", "some high school", "high school", "some college", "college",
          "a master's degree", "a doctorate"]  # fmt: skip
task = crm.RiskTask(
    "Whom does this person mean to vote for?",
    {
        "selfLR": crm.ColumnText("political leaning", dict(enumerate(lean, start=1))),
        "age": crm.ColumnText("age", template="{} years"),
        "educ": crm.ColumnText("schooling", dict(enumerate(school, start=1))),
        "TVnews": crm.ColumnText("television news", template="{} times a week"),
    },
    choices=["Bob Dole", "Bill Clinton"],
    target="vote",
    rule=("==", 1),
    population="The person below answered a survey before the election of 1996 in the United "
    "States.",
)
print(task.prompt(voters.iloc[0]))

# %%
# The simulated model
# -------------------
# What it "knows" is the prediction of a logistic regression for voters it was not fitted to.

columns = list(task.columns)
idea = make_pipeline(StandardScaler(), LogisticRegression())
odds = cross_val_predict(idea, voters[columns], voters["vote"], method="decision_function")
stated = 2.0 * odds + 1.5 * (voters["age"] >= 60)
belief = dict(zip(task.describe(voters), stated, strict=True))


def simulated(prompt):
    if hashlib.sha256(prompt.encode()).digest()[0] < 8:  # three in a hundred
        raise TimeoutError("the simulated service did not answer")
    row = prompt[prompt.index("- political") : prompt.index("\n\nQuestion")]
    dole_first = "A. Bob Dole" in prompt
    p = expit(belief[row] + (0.4 if dole_first else -0.4))
    dole, clinton = ("A", "B") if dole_first else ("B", "A")
    return {dole: 0.9 * p, clinton: 0.9 * (1 - p), "It": 0.1}


scorer = crm.RiskScorer(task, crm.llm.FunctionModel(simulated, name="simulated"))
print(scorer.plan(voters))

# %%
# One score per voter
# -------------------
# Each voter is asked about twice, with either candidate first. Nobody is dropped: a call without
# an answer leaves a row with a status, a reason, and bounds that say what the answer could have
# been. The instability is the difference that the order makes.

scores = scorer.score(voters)
scores.summary()

# %%

found = scores.to_frame()
found.groupby("status")[["probability", "lower", "upper", "instability", "mass"]].mean().round(3)

# %%
# What follows uses the voters of whom both calls were answered. That is a choice, and it is made
# here, in the open; failures of this simulated service have nothing to do with the voter.

answered = (found["status"] == "ok").to_numpy()
people, p = voters[answered], found["probability"][answered].to_numpy()
y = task.outcome(people).to_numpy()
print(f"{answered.sum()} of {len(voters)} voters")

# %%
# Can the scores be believed?
# ---------------------------
# The slope should be near one half, as the simulated model doubles the log-odds.

report = crm.calibration_report(y, p, groups=people["group"], n_boot=400, rng=0)
shown = ["term", "estimate", "conf_low", "conf_high"]
key = ["observed_expected", "calibration_slope", "ece", "brier", "auc"]
everyone = report.to_frame().query("group == 'all'")
everyone[everyone["term"].isin(key)][shown].set_index("term").round(3)

# %%

report.plot()

# %%
# By whom? ``groups`` gave every measure for each group, and its difference from the rest. The mean
# score of the older voters is far too high and that of the younger too low, which the ratio of
# observed to expected hid when all were together.

contrast = report.contrasts
large = contrast[contrast["term"] == "calibration_in_the_large"]
large[["group", "estimate", "conf_low", "conf_high", "p_adjusted"]].round(3)

# %%

report.plot.groups(term="calibration_in_the_large")

# %%
# Without groups to begin with, the audit looks for segments in which outcomes and scores part, and
# tests those that it found on voters that were not used to find them.

audit = cal.multicalibration_audit(
    y, p, people[["group", "educ", "TVnews"]].reset_index(drop=True), depth=1, n_boot=400, rng=0
)
audit.to_frame()[["term", "n", "estimate", "conf_low", "conf_high", "p_adjusted"]].head(5).round(3)

# %%
# Does the model use the age?
# ---------------------------
# A gap between groups can have many causes. A change of one line of the description, with all
# else kept, has one: 150 voters are scored as if they were 45 and as if they were 70 years old.
# The difference on the logit scale should be near 1.5, and a little more for what age tells
# honestly. Voters of whom a call failed at either age are left out, and counted.

idea.fit(voters[columns], voters["vote"])
some = voters.sample(150, random_state=0)
altered = pd.concat([some.assign(age=age) for age in (45.0, 70.0)], ignore_index=True)
stated = 2.0 * idea.decision_function(altered[columns]) + 1.5 * (altered["age"] >= 60)
belief |= dict(zip(task.describe(altered), stated, strict=True))
at = scorer.score(altered).to_frame()
voter = np.tile(np.arange(len(some)), 2)
both = np.isin(voter, voter[at["status"] != "ok"], invert=True)
print(f"{len(some) - both.sum() // 2} of {len(some)} voters left out")
age = altered.loc[both, ["age"]].astype(int)
cal.discrimination_audit(at["probability"][both], age, voter[both]).to_frame().round(3)

# %%
# So it is, nearly: the simulated model's log-odds rise by 1.5 from 60 on, and by twice what the
# logistic regression says for 25 years. The order of the choices moves them up and down, and the
# mean of two probabilities is a little nearer to one half than their log-odds would have it.

slope = idea[-1].coef_[0][columns.index("age")] / voters["age"].std(ddof=0)
print(f"built in: {1.5 + 2.0 * 25.0 * slope:.3f}")

# %%
# Recalibration
# -------------
# Platt scaling, learnt on other voters than those it is applied to, mends the slope. It knows
# nothing of age; a map for each group does.

platt = cal.crossfit(cal.PlattScaling(), p, y, rng=0)
by_group = np.empty_like(p)
for group in people["group"].unique():
    rows = (people["group"] == group).to_numpy()
    by_group[rows] = cal.crossfit(cal.PlattScaling(), p[rows], y[rows], rng=0)

versions = {"simulated model": p, "recalibrated": platt, "recalibrated by group": by_group}
rows = []
for name, q in versions.items():
    for group in ("under 60", "60 or older"):
        mine = (people["group"] == group).to_numpy()
        slope = cal.calibration_slope(y[mine], q[mine])
        large = cal.calibration_in_the_large(y[mine], q[mine])
        brier = cal.brier(y[mine], q[mine])
        rows.append((name, group, slope.estimate, large.estimate, brier.estimate))
columns = ["scores", "group", "slope", "in the large", "Brier"]
pd.DataFrame(rows, columns=columns).set_index(["scores", "group"]).round(3)

# %%
# For what decision?
# ------------------
# A campaign that calls voters whose chance to vote for Dole is above a threshold gains one for each
# of them who would, and loses the odds of the threshold for each who would not. Near one half
# calibration changes little, since few voters cross the threshold.

figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
thresholds = np.arange(0.05, 0.96, 0.05)
for name, q in versions.items():
    curve = cal.decision_curve(y, q, thresholds, n_boot=0)
    ax.plot(curve["threshold"], curve["estimate"], label=name)
ax.plot(curve["threshold"], curve["treat_all"], color="0.6", label="call everybody")
ax.axhline(0, color="0.6", linestyle=":", label="call nobody")
ax.set(xlabel="Threshold", ylabel="Net benefit", ylim=(-0.1, 0.45))
ax.legend(frameon=False)

# %%
# At high thresholds the overstated scores send the campaign to too many of the wrong people, and
# calling nobody would be better. Above .85 or so hardly anybody is left to call after
# recalibration, and the curves are noise. The gain over the better of calling everybody
# and nobody, with its interval:

rows = []
for name, q in versions.items():
    curve = cal.decision_curve(y, q, [0.5, 0.8])
    rows += [(name, *line) for line in curve[["threshold", "gain", "gain_low", "gain_high"]].values]
gains = pd.DataFrame(rows, columns=["scores", "threshold", "gain", "gain_low", "gain_high"])
gains.set_index(["scores", "threshold"]).round(3)

# %%
# The whole report, for a reviewer, as one page that needs no other file: tables, curves, the
# assumptions, and the items of the TRIPOD+AI checklist that it speaks to.

page = crm.calibration_report(y, by_group, groups=people["group"], n_boot=400).to_html()
print(f"{len(page) / 1024:.0f} kB; report.to_html('report.html') writes it")
