"""
From a table to risk scores, and whether to believe them
========================================================

Rows of a table are put into words, a language model is asked a question about each, and its
answers become probabilities. This analysis goes all the way on a real table: the answers of 944
voters to the American National Election Study of 1996 (from statsmodels) and the question whom
they mean to vote for. Two models are asked:

- a **small language model**, trained here on the text of a quarter of the voters. It is far from
  the large ones, but a language model all the same: it gives a probability to every word of its
  vocabulary, and nobody has decided how well its answers are calibrated;
- a **simulated model**, so that what is wrong with it is known: it has a decent idea of the odds
  but overstates them by a factor of two on the logit scale, leans further towards Dole (by 2 on
  that scale) for voters of 60 years or more, likes the answer that is listed first, says other
  things a tenth of the time, and sometimes does not answer at all.

Everything after the first sections would be the same with
``causalrm.llm.OpenAICompatible`` and a large model in their place.
"""

import hashlib
import re
from collections import defaultdict

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
voters[["selfLR", "age", "educ", "income", "popul", "TVnews", "vote"]].describe().round(2)

# %%
# The table in words
# ------------------
# A task says what the columns mean and what is asked. It is plain data: ``task.to_json()`` can be
# edited and shared.

lean = ["extremely liberal", "liberal", "slightly liberal", "moderate",
        "slightly conservative", "conservative", "extremely conservative"]  # fmt: skip
school = ["at most 8 grades", "some high school", "high school", "some college", "college",
          "a master's degree", "a doctorate"]  # fmt: skip
task = crm.RiskTask(
    "Whom does this person mean to vote for?",
    {
        "selfLR": crm.ColumnText("political leaning", dict(enumerate(lean, start=1))),
        "age": crm.ColumnText("age", template="{} years"),
        "educ": crm.ColumnText("schooling", dict(enumerate(school, start=1))),
        "income": crm.ColumnText("income", template="bracket {} of 24"),
        "popul": crm.ColumnText("place", template="{} thousand people"),
        "TVnews": crm.ColumnText("television news", template="{} times a week"),
    },
    choices=["Bob Dole", "Bill Clinton"],
    target="vote",
    rule=("==", 1),
    population="The person below answered a survey before the election of 1996 in the "
    "United States.",
)
print(task.prompt(voters.iloc[0]))

# %%
# A small language model
# ----------------------
# It predicts the next word by counting what followed in the text that it was trained on, first
# after any words, then after the same last word, the same last two, and so on. Each count is
# added to what the shorter context said, as in the hierarchical Dirichlet language model of MacKay
# and Peto (1995, doi:10.1017/S1351324900000218). At the end of a question the lines of the
# prompt are contexts, too, each together with the choice that is listed first; they are taken for
# clues that know nothing of one another.


class SmallModel:
    """Counts of the next word, from general contexts to special ones."""

    def __init__(self, texts, order=6):
        self.order = order
        split = [self.split(text) for text in texts]
        self.words = sorted({word for words in split for word in words})
        place = {word: i for i, word in enumerate(self.words)}
        self.counts = defaultdict(lambda: np.zeros(len(self.words)))
        for text, words in zip(texts, split, strict=True):
            for i, word in enumerate(words):
                for n in range(min(order, i + 1)):
                    self.counts[tuple(words[i - n : i])][place[word]] += 1
            for clue in self.clues(text):
                self.counts[clue][place[words[-1]]] += 1

    @staticmethod
    def split(text):
        return re.findall(r"\w+|[^\w\s]|\n", text)

    @staticmethod
    def clues(text):
        first = text[text.index("A. ") : text.index("\nB. ")]
        lines = [line for line in text.split("\n") if line.startswith("- ")]
        return [first, *((first, line) for line in lines)]

    def after(self, context, p):
        counts = self.counts.get(context, np.zeros(1))
        return (counts + p) / (counts.sum() + 1)

    def __call__(self, prompt):
        words = self.split(prompt)
        p = np.full(len(self.words), 1 / len(self.words))
        for n in range(self.order):
            p = self.after(tuple(words[len(words) - n :]), p)
        if words[-2:] == ["Answer", ":"]:
            first, *lines = self.clues(prompt)
            p = self.after(first, p)
            p = p * np.prod([self.after(line, p) / p for line in lines], axis=0)
        return dict(zip(self.words, p / p.sum(), strict=True))


def train(people, rng):
    """Train on one question and answer per person, with either candidate listed first."""
    orders = [task.choices, task.choices[::-1]]
    asked = np.array([task.prompts(people, choices=order) for order in orders])
    texts = []
    for i, (answer, k) in enumerate(
        zip(task.answers(people), rng.integers(2, size=len(people)), strict=True)
    ):
        texts.append(f"{asked[k, i]} {'AB'[orders[k].index(answer)]}")
    return SmallModel(texts)


# %%
# It reads the answers of 236 voters and is asked about the 708 others: twice each, with either
# candidate listed first. The instability is the difference that the order makes. It is large, as
# the model has read about each person in one order only.

training = voters.sample(236, random_state=0)
asked = voters.drop(training.index).reset_index(drop=True)
small = train(training, np.random.default_rng(0))
small_scorer = crm.RiskScorer(task, crm.llm.FunctionModel(small, name="small"))
small_scores = small_scorer.score(asked).to_frame()
likely = sorted(small(task.prompt(asked.iloc[0])).items(), key=lambda pair: -pair[1])
print(f"{len(small.words)} words; likeliest after the question about the first voter:")
print("  ".join(f"{word!r} {p:.5f}" for word, p in likely[:4]))
small_scores[["probability", "instability", "mass"]].describe().round(3)

# %%
# The model can stand behind a service as well. Asked by the OpenAI protocol, through a server on
# this machine, it gives the same scores from the log-probabilities in its replies.

some = asked.head(40)
with crm.llm.LoopbackServer(crm.llm.FunctionModel(small, name="small")) as server:
    client = crm.llm.OpenAICompatible("small", base_url=server.base_url, api_key="none")
    served = crm.RiskScorer(task, client).score(some).to_frame()
difference = (served["probability"] - small_scores["probability"].head(40)).abs()
print(f"{server.counts['ok']} requests; scores differ by at most {difference.max():.1g}")

# %%
# The simulated model
# -------------------
# What it "knows" is the prediction of a logistic regression for voters it was not fitted to.

columns = list(task.columns)
idea = make_pipeline(StandardScaler(), LogisticRegression())
odds = cross_val_predict(idea, asked[columns], asked["vote"], method="decision_function")
stated = 2.0 * odds + 2.0 * (asked["age"] >= 60)
belief = stated.groupby(task.describe(asked)).mean().to_dict()


def simulated(prompt):
    if hashlib.sha256(prompt.encode()).digest()[0] < 8:  # three in a hundred
        raise TimeoutError("the simulated service did not answer")
    row = prompt[prompt.index("- political") : prompt.index("\n\nQuestion")]
    dole_first = "A. Bob Dole" in prompt
    p = expit(belief[row] + (0.4 if dole_first else -0.4))
    dole, clinton = ("A", "B") if dole_first else ("B", "A")
    return {dole: 0.9 * p, clinton: 0.9 * (1 - p), "It": 0.1}


simulated_scorer = crm.RiskScorer(task, crm.llm.FunctionModel(simulated, name="simulated"))
print(simulated_scorer.plan(asked))

# %%
# Nobody is dropped: a call without an answer leaves a row with a status, a reason, and bounds that
# say what the answer could have been.

simulated_scores = simulated_scorer.score(asked).to_frame()
shown = ["probability", "lower", "upper", "instability", "mass"]
simulated_scores.groupby("status")[shown].mean().round(3)

# %%
# What follows uses the voters of whom both calls were answered. That is a choice, and it is made
# here, in the open; failures of this simulated service have nothing to do with the voter.

answered = (simulated_scores["status"] == "ok").to_numpy()
people = asked[answered].reset_index(drop=True)
y = task.outcome(people).to_numpy()
scores = {
    "small model": small_scores["probability"].to_numpy()[answered],
    "simulated model": simulated_scores["probability"].to_numpy()[answered],
}
print(f"{answered.sum()} of {len(asked)} voters")

# %%
# Can the scores be believed?
# ---------------------------
# Both models tell the voters apart, and neither means what it says: their slopes are below one, so
# that the scores are too extreme. That of the simulated model should be one half or somewhat less:
# it doubles the log-odds, and what it adds for age is noise to the slope. Nobody built a fault into
# the small model. To it the numbers in the table are words like others, many of which it has
# read a few times, and it makes too much of them.

reports = {
    name: crm.calibration_report(y, p, groups=people["group"], n_boot=400, rng=0)
    for name, p in scores.items()
}
key = ["observed_expected", "calibration_slope", "ece", "brier", "auc"]
shown = ["estimate", "conf_low", "conf_high"]
pd.concat({n: r.to_frame().query("group == 'all'").set_index("term").loc[key, shown]
           for n, r in reports.items()}).round(3)  # fmt: skip

# %%

figure, axes = plt.subplots(1, 2, figsize=(9, 4.8), layout="constrained")
for ax, (name, report) in zip(axes, reports.items(), strict=True):
    report.plot.curve(ax)
    ax.set_title(name)

# %%
# For whom? ``groups`` gave every measure for each group, and its difference from the rest. The
# simulated scores are far too high for the older voters, and not for the younger, which the ratio
# of observed to expected hid when all were together. No such difference is clear in the small
# model's, which does not prove that there is none.


def contrasts(report, term="calibration_in_the_large"):
    """Differences between a group and the rest."""
    frame = report.contrasts.query("term == @term").set_index("group")
    return frame[["estimate", "conf_low", "conf_high", "p_adjusted"]]


pd.concat({name: contrasts(report) for name, report in reports.items()}).round(3)

# %%

figure, axes = plt.subplots(1, 2, figsize=(9, 2.4), layout="constrained", sharex=True)
for ax, (name, report) in zip(axes, reports.items(), strict=True):
    report.plot.groups(ax, term="calibration_in_the_large")
    ax.set_title(name)

# %%
# Without groups to begin with, the audit looks for segments in which outcomes and scores part, and
# tests those that it found on voters that were not used to find them. ``estimate`` is the mean
# outcome less the mean score. In the simulated model's scores it comes upon the older voters by
# itself; the test, with half of the voters and all segments to allow for, is just not sure.

segments = people[["group", "educ", "TVnews"]]
audits = {
    name: cal.multicalibration_audit(y, p, segments, depth=1, n_boot=400, rng=0).to_frame()
    for name, p in scores.items()
}
shown = ["n", "estimate", "conf_low", "conf_high", "p_adjusted"]
pd.concat({name: a.set_index("term")[shown].head(3) for name, a in audits.items()}).round(3)

# %%
# Does the model use the age?
# ---------------------------
# A gap between groups can have many causes. A change of one line of the description, with all
# else kept, has one: 150 voters are scored as if they were 45 and as if they were 70 years old.
# Voters of whom a call failed at either age are left out.

idea.fit(asked[columns], asked["vote"])
some = asked.head(150)
altered = pd.concat([some.assign(age=years) for years in (45.0, 70.0)], ignore_index=True)
stated = 2.0 * idea.decision_function(altered[columns]) + 2.0 * (altered["age"] >= 60)
belief |= dict(zip(task.describe(altered), stated, strict=True))
voter = np.tile(np.arange(len(some)), 2)
moved = {}
for name, asking in (("small model", small_scorer), ("simulated model", simulated_scorer)):
    at = asking.score(altered).to_frame()
    both = ~np.isin(voter, voter[at["status"] != "ok"])
    years = altered.loc[both, ["age"]].astype(int)
    found = cal.discrimination_audit(at["probability"][both], years, voter[both]).to_frame()
    moved[name] = found[["term", *shown[1:4]]].assign(voters=both.sum() // 2)
pd.concat(moved).droplevel(1).rename(columns={"term": "age, not 45"}).round(3)

# %%
# On the logit scale the simulated model's scores rise by 2 from 60 years on, and by twice what
# the logistic regression says for 25 years. (The mean of two probabilities, one per order of the
# choices, is a little nearer to one half than their log-odds would have it.) The small model's
# scores fall: it has read about a handful of voters of exactly 45 or 70 years, and takes what they
# answered for what these ages mean.

slope = idea[-1].coef_[0][columns.index("age")] / asked["age"].std(ddof=0)
print(f"built in: {2.0 + 2.0 * 25.0 * slope:.3f}")

# %%
# Recalibration
# -------------
# Platt scaling, learnt on other voters than those it is applied to, mends the slope. It knows
# nothing of age; a map for each group does, and learns from fewer voters.

versions = {}
for name, p in scores.items():
    by_group = np.empty_like(p)
    for rows in people.groupby("group").indices.values():
        by_group[rows] = cal.crossfit(cal.PlattScaling(), p[rows], y[rows], rng=0)
    platt = cal.crossfit(cal.PlattScaling(), p, y, rng=0)
    versions[name] = {"as it is": p, "recalibrated": platt, "by group": by_group}

lines = [
    (name, version, group, cal.calibration_slope(y[rows], q[rows], n_boot=0).estimate,
     cal.calibration_in_the_large(y[rows], q[rows], n_boot=0).estimate,
     cal.brier(y[rows], q[rows], n_boot=0).estimate)
    for name, several in versions.items()
    for version, q in several.items()
    for group, rows in people.groupby("group").indices.items()
]  # fmt: skip
names = ["model", "scores", "group", "slope", "in the large", "Brier"]
pd.DataFrame(lines, columns=names).set_index(names[:3]).unstack("group").round(3)

# %%
# Is the smaller Brier score more than noise? For the simulated model it is. The small model's
# slope was wrong, but few voters got scores that were wrong by much.

for name, several in versions.items():
    better = cal.compare(y, several, n_boot=200).to_frame().query("term == 'brier'")
    for row in better.query("group.str.endswith('as it is')").itertuples():
        print(f"{name}, {row.group}: {row.estimate:.4f} ({row.conf_low:.4f}, {row.conf_high:.4f})")

# %%
# For what decision?
# ------------------
# A campaign that calls voters whose chance to vote for Dole is above a threshold gains one for each
# of them who would, and loses the odds of the threshold for each who would not. Near one half
# calibration changes little, since few voters cross the threshold. At high thresholds the
# overstated scores of the simulated model send the campaign to too many of the wrong people, and
# calling nobody would be better.

figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
thresholds = np.arange(0.05, 0.96, 0.05)
for ax, (name, several) in zip(axes, versions.items(), strict=True):
    for version, q in several.items():
        curve = cal.decision_curve(y, q, thresholds, n_boot=0)
        ax.plot(curve["threshold"], curve["estimate"], label=version)
    ax.plot(curve["threshold"], curve["treat_all"], color="0.6", label="call everybody")
    ax.axhline(0, color="0.6", linestyle=":", label="call nobody")
    ax.set(xlabel="Threshold", title=name, ylim=(-0.1, 0.45))
axes[0].set_ylabel("Net benefit")
axes[1].legend(frameon=False)

# %%
# The gain over the better of calling everybody and nobody, with its interval. Neither model, as
# it is or recalibrated, is known to be worth following at a threshold of .9: few voters are that
# certain.

lines = []
for name, several in versions.items():
    for version, q in several.items():
        curve = cal.decision_curve(y, q, [0.5, 0.8, 0.9])
        gains = curve[["threshold", "gain", "gain_low", "gain_high"]].to_numpy()
        lines += [(name, version, *line) for line in gains]
names = ["model", "scores", "threshold", "gain", "gain_low", "gain_high"]
pd.DataFrame(lines, columns=names).set_index(names[:3]).round(3)

# %%
# The whole report, for a reviewer, as one page that needs no other file: tables, curves, the
# assumptions, and the items of the TRIPOD+AI checklist that it speaks to.

page = crm.calibration_report(
    y, versions["small model"]["recalibrated"], groups=people["group"], n_boot=400
).to_html()
print(f"{len(page) / 1024:.0f} kB; report.to_html('report.html') writes it")
