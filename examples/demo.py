"""What `make demo` runs: a survival analysis of real patients, on the screen and as a page.

    python examples/demo.py [folder]

writes figures and index.html into the folder, demo-results by default. No network is needed.
"""

from __future__ import annotations

import html
import sys
import time
import warnings
from pathlib import Path

STYLE = """
body { max-width: 54rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.55;
       font-family: system-ui, sans-serif; color: #1b1b1b; background: #ffffff; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.frame { border-collapse: collapse; border: solid; border-width: 2px 0; font-size: 90%; }
.frame th, .frame td { padding: 0.2em 0.7em; text-align: left; }
img { max-width: 100%; background: #ffffff; } code { font-size: 95%; }
@media (prefers-color-scheme: dark) { body { color: #e4e4e4; background: #161616; } }
"""


class Report:
    """Sections that are printed as they come and written as one page at the end."""

    def __init__(self, folder: Path, title: str):
        self.folder, self.parts, self.start = (
            folder,
            [f"<h1>{html.escape(title)}</h1>"],
            time.time(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        print(f"\n{title}\n{'#' * len(title)}")

    def section(self, heading: str, text: str) -> None:
        """Start a section with a paragraph."""
        print(f"\n\n{heading}  [{time.time() - self.start:.1f} s]\n{'-' * len(heading)}")
        self.parts.append(f"<h2>{html.escape(heading)}</h2>")
        self.say(text)

    def say(self, text: str) -> None:
        """Add a paragraph."""
        import textwrap

        print(textwrap.fill(" ".join(text.split()), 88), end="\n\n")
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, table: object) -> None:
        """Add a table or a data frame."""
        if hasattr(table, "to_string"):
            table = table.rename(columns={"level_0": "", "level_1": ""})
            print(table.to_string(index=False), end="\n\n")
            self.parts.append(table.to_html(index=False, border=0, classes="frame"))
        else:
            print(table, end="\n\n")
            self.parts.append(table.to_html())  # type: ignore[attr-defined]

    def figure(self, figure: object, name: str, caption: str) -> None:
        """Save a figure under a name."""
        figure.savefig(self.folder / f"{name}.png", dpi=160)  # type: ignore[attr-defined]
        print(f"  figure: {self.folder / name}.png")
        text = html.escape(caption)
        self.parts.append(f'<img src="{name}.png" alt="{text}"><p><small>{text}</small></p>')

    def close(self) -> Path:
        """Write the page."""
        page = self.folder / "index.html"
        body = "\n".join(self.parts)
        head = f'<meta charset="utf-8"><title>causalrm demo</title><style>{STYLE}</style>'
        page.write_text(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")
        return page


def main(folder: Path) -> None:
    """Analyse the breast cancer trial and write the report."""
    print("Loading causalrm (the first run compiles its kernels) ...", flush=True)
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    import pandas as pd

    import causalrm as crm

    report = Report(folder, "Hormone therapy after breast cancer surgery")
    df = crm.datasets.load_gbsg2().assign(years=lambda d: d["time"] / 365.25)
    roles = {"time": "years", "event": "event"}
    report.say(
        f"The German Breast Cancer Study Group followed {len(df)} women with node-positive breast "
        f"cancer; {int(df['event'].sum())} had a recurrence or died. Does hormone therapy delay "
        "it, and by how much?"
    )

    report.section(
        "1  Which hazard shape?",
        "Weibull, log-logistic, Burr: familiar families are points of one distribution. Each is "
        "fitted with the covariates in the speed of time (aft) and in the level of the hazard "
        "(ph); 'full' lets the data choose both shape parameters.",
    )
    others = "log(nodes) + log(progesterone + 1) + tumor_grade + tumor_size + age + menopause"
    phi = f"hormone + {others}"
    choice = crm.survival.select(
        df,
        phi,
        **roles,
        families=["weibull", "loglogistic", "burr", "free", "full"],
        structures=["aft", "ph"],
    )
    report.table(choice.summary())

    report.section(
        "2  Does therapy act on time or on shape?",
        "The flexible model beside the Weibull, and with therapy in the shape as well.",
    )
    flexible = crm.SurvivalRegression(phi=phi, lam="1").fit(df, **roles)
    shape = crm.SurvivalRegression(phi=phi, lam="1", gamma="hormone").fit(df, **roles)
    weibull = choice.results["weibull", "aft"]
    report.table(crm.table(weibull, flexible, shape, names=["Weibull", "flexible", "+ shape"]))
    report.say(f"Therapy in time and shape, joint Wald test: {shape.result_.wald_test('hormone')}")
    report.say(f"In the shape alone: {shape.result_.lr_test(flexible.result_)}")
    slower = flexible.contrast({("phi", "hormone[T.yes]"): -1.0})
    ratio, low, high = np.exp([slower.estimate, slower.conf_low, slower.conf_high])
    report.say(
        f"With therapy in phi alone, the time to recurrence is multiplied by {ratio:.2f} (95% "
        f"interval {low:.2f} to {high:.2f})."
    )

    report.section(
        "3  Does the model hold?",
        "Each assumption with what was seen of it, and the model against the data.",
    )
    report.table(flexible.summary())
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.6), layout="constrained")
    flexible.plot(by="hormone", ax=axes[0, 0])
    flexible.plot.hazard(by="hormone", ax=axes[0, 1])
    flexible.plot.cox_snell(ax=axes[1, 0])
    flexible.plot.forest(ax=axes[1, 1])
    report.figure(
        figure, "model", "Survival against Kaplan-Meier, hazard, Cox-Snell residuals, coefficients"
    )

    report.section(
        "4  What would therapy for all change?",
        "Averaged over the women of the study: survival if all had been given hormone therapy "
        "against survival if none had. The g-formula trusts the model; the doubly robust estimate "
        "is right when either the model, or propensities and censoring, are.",
    )
    asked = {"treatment": "hormone", "times": np.arange(0.5, 6.01, 0.25), "rmst": 5.0}
    estimates = {
        "g-formula": crm.survival.standardized_contrast(flexible, df, **asked),
        "AIPW": crm.survival.standardized_contrast(flexible, df, method="aipw", **asked),
    }
    for name, estimate in estimates.items():
        report.say(f"{name}, years gained within five: {estimate.contrast(rmst=5.0)}")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    estimates["AIPW"].plot.survival(ax=left)
    for name, estimate in estimates.items():
        estimate.plot(ax=right, label=name)
    report.figure(figure, "contrast", "Marginal survival (AIPW), and differences by two methods")

    report.section(
        "5  And for one woman?",
        "Probability to be free of recurrence after five years, for a woman of 55 with five "
        "positive nodes, and the time within which half of such women have a recurrence.",
    )
    women = pd.DataFrame(
        {
            "hormone": ["no", "yes"], "nodes": 5, "progesterone": 30, "tumor_grade": "II",
            "tumor_size": 25, "age": 55, "menopause": "post",
        },
        index=["without therapy", "with therapy"],
    )  # fmt: skip
    found = {
        "free of recurrence after 5 years": flexible.predict_survival(women, 5, ci=True),
        "median years to recurrence": flexible.predict_quantile(women, 0.5, ci=True),
    }
    report.table(pd.concat({k: f.droplevel(1) for k, f in found.items()}).round(2).reset_index())

    page = report.close()
    print(f"\n\nDone in {time.time() - report.start:.0f} s. Open {page}")


if __name__ == "__main__":
    warnings.simplefilter("default")
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results"))
