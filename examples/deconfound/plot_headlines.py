"""
Headlines logged under a changing time of day
=============================================

A newsroom has a log of headlines and of their clicks, and wants a reward for writing new ones. But
clicks depend on the hour as well, and editors kept the good hours for the good headlines, and
decorated what they ran there. A reward that is learnt from raw clicks pays for decoration; one
learnt from clicks adjusted for the hour in the obvious way punishes quality.

The log is simulated, so that every reward can be compared with the truth.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalrm as crm

log, truth = crm.datasets.make_headlines(5000, rng=1)
log[["headline", "hour", "readers", "clicks"]].head(4)

# %%
# What readers click on is a figure, a place and a source. Teasers and exclamation marks are worth
# nothing, but in the log they go with the hours in which many readers are online.

attributes = truth.attributes.assign(readers=log["readers"], clicks=log["clicks"])
pd.DataFrame(
    {
        "clicks with": [attributes.query(f"{a} == 1")["clicks"].mean() for a in truth.theta],
        "clicks without": [attributes.query(f"{a} == 0")["clicks"].mean() for a in truth.theta],
        "readers with": [attributes.query(f"{a} == 1")["readers"].mean() for a in truth.theta],
        "readers without": [attributes.query(f"{a} == 0")["readers"].mean() for a in truth.theta],
        "true effect": list(truth.theta.values()),
    },
    index=list(truth.theta),
).round(1)

# %%
# Text in
# -------
# The confounder is the number of readers online, which was fixed before anyone saw the headline.
# Rows of one editor are dependent. The text is encoded anew in every fold, and neither an editor's
# rows nor two copies of a headline are ever split between folds.

roles = {
    "outcome": "clicks",
    "text": "headline",
    "confounders": ["readers"],
    "cluster": "editor",
    "timing": {"readers": "pre"},
}
fit = crm.DeconfoundedReward("plr").fit(log, **roles)
fit.summary()

# %%
# Is text quality entangled with the confounder? The text predicts part of the readers online, and
# the slope of clicks on readers is not the same with the text as without: what the slope alone
# would subtract is partly the quality of what ran at good hours. (The true effect is 0.4.)

fit.plot()

# %%
# Enough of the confounder is left to learn from: at every level of what the text predicts,
# headlines ran before audiences of very different size.

fit.plot.entanglement()

# %%
# Against the other ways
# ----------------------
# The lottery that moved some headlines to other hours is an instrument. It needs no assumption
# about what else editors knew, and pays with wider intervals.

fits = {
    "plr": fit,
    "iv": crm.DeconfoundedReward("iv").fit(log, **roles, instruments=["lottery"]),
}
for method in ("input", "ignore", "residualise", "invariance"):
    fits[method] = crm.DeconfoundedReward(method).fit(log, **roles)

new, new_truth = crm.datasets.make_headlines(4000, rng=8)
names = list(truth.theta)
wanted = new_truth.reward(new["headline"])


def judge(reward):
    """Slope of a reward on each attribute, and the regret of the best of eight by it."""
    x = np.column_stack([np.ones(len(new)), new_truth.attributes[names]])
    slopes = np.linalg.lstsq(x, reward, rcond=None)[0][1:]
    groups = np.asarray(reward).reshape(-1, 8).argmax(axis=1)[:, None]
    true = wanted.reshape(-1, 8)
    regret = (true.max(axis=1) - np.take_along_axis(true, groups, axis=1)[:, 0]).mean()
    return dict(zip(names, slopes, strict=True)) | {"regret": regret}


rows = {"truth": judge(wanted)}
for method, found in fits.items():
    rows[method] = judge(found.predict_reward(new)["reward"].to_numpy())
comparison = pd.DataFrame(rows).T
comparison.round(2)

# %%
# Ignoring the readers pays for teasers and exclamation marks. Residualising clicks on readers, and
# a score that must not correlate with readers, both punish them, and underpay quality.

fig, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
colors = ["#000000", "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#E69F00"]
width = 0.12
for i, (method, row) in enumerate(comparison.iterrows()):
    place = np.arange(len(names)) + (i - 3) * width
    ax.bar(place, row[names], width, label=method, color=colors[i])
ax.axhline(0, color="#767676", linewidth=0.8)
ax.set_xticks(range(len(names)), names)
ax.set_ylabel("Reward per attribute (clicks per thousand)")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize="small", ncols=2)

# %%
# Pairs out
# ---------
# Headlines of the same story, ordered by their deconfounded clicks, are preference pairs; the
# margin and the weight carry over how much they differ and how noisy the subtraction was.
# ``path="pairs.jsonl"`` would write them for a fine-tuning tool.

pairs = fit.to_pairs(log, prompt="story", min_margin=2.0, max_pairs=150)
pairs.head(3)

# %%
# A reward model that sees the attributes and nothing but these pairs recovers the truth, up to
# scale; the same model on pairs ordered by raw clicks does not. Pairs whose attributes are equal
# say nothing here and are left out.

models = {}
for name, found in (("deconfounded", fits["plr"]), ("raw clicks", fits["ignore"])):
    pairs = found.to_pairs(log, prompt="story", min_margin=2.0, max_pairs=150)
    a, b = (truth.measure(pairs[side])[names] for side in ("chosen", "rejected"))
    differ = (a != b).any(axis=1).to_numpy()
    model = crm.PreferenceRewardModel("bt").fit(
        a[differ], b[differ], np.ones(differ.sum()), weights=pairs["weight"][differ]
    )
    models[name] = model.to_frame().set_index("term")["estimate"]
learnt = pd.DataFrame(models | {"truth": pd.Series(truth.theta)})
(learnt / learnt.loc["figure"]).round(2)  # relative to the worth of a figure

# %%
# What the choice is worth
# ------------------------
# The value of showing the best of four headlines of a story by the out-of-fold reward, from the
# log alone, with the noise of the subtraction in the interval.

fit.best_of_n(4, prompt=log["story"]).round(3)
