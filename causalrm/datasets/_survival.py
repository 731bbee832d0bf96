"""Survival data that the package lifelines ships, with tidy columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_NO_YES = ("no", "yes")


def _labels(codes: Any, labels: tuple[str, ...], *, ordered: bool = False) -> pd.Categorical[str]:
    """Codes 0, 1, ... to a categorical in the order of `labels`."""
    import pandas as pd

    return pd.Categorical.from_codes(codes.to_numpy(int), pd.Index(labels), ordered=ordered)


def load_lung() -> pd.DataFrame:
    """Advanced lung cancer, North Central Cancer Treatment Group: survival of 228 patients.

    Returns
    -------
    pandas.DataFrame
        228 rows, one per patient, 165 deaths. Missing values are kept as NaN (counts below).

        =============== =========== ======= ==========================================
        column          dtype       missing meaning
        =============== =========== ======= ==========================================
        ``institution`` float       1       code of the enrolling institution
        ``time``        int                 days of survival or follow-up
        ``event``       int                 1 death, 0 censored
        ``age``         int                 years
        ``sex``         category            ``male`` or ``female``
        ``ph_ecog``     float       1       ECOG performance by the physician, 0 (good)-5
        ``ph_karno``    float       1       Karnofsky score by the physician, 0-100 (good)
        ``pat_karno``   float       3       Karnofsky score by the patient
        ``meal_cal``    float       47      calories at meals
        ``wt_loss``     float       14      pounds lost in the last six months
        =============== =========== ======= ==========================================

    References
    ----------
    Loprinzi, C. L. et al. (1994). Prospective evaluation of prognostic variables from
    patient-completed questionnaires. Journal of Clinical Oncology 12(3), 601-607.
    doi:10.1200/JCO.1994.12.3.601

    Examples
    --------
    >>> from causalrm.datasets import load_lung
    >>> lung = load_lung()
    >>> lung.shape, int(lung["event"].sum())
    ((228, 10), 165)
    >>> lung["sex"].value_counts().to_dict()
    {'male': 138, 'female': 90}
    """
    import lifelines.datasets
    import pandas as pd

    raw = lifelines.datasets.load_lung()
    raw.columns = raw.columns.str.replace(".", "_")
    lung = pd.DataFrame(raw.rename(columns={"inst": "institution", "status": "event"}))
    return lung.assign(sex=_labels(raw["sex"] - 1, ("male", "female")))


def load_gbsg2() -> pd.DataFrame:
    """German Breast Cancer Study Group 2: hormonal therapy and recurrence-free survival.

    Returns
    -------
    pandas.DataFrame
        686 rows, one per woman with node-positive breast cancer, 299 events, none missing.

        ================ =========== =================================================
        column           dtype       meaning
        ================ =========== =================================================
        ``time``         int         days until recurrence, death or censoring
        ``event``        int         1 recurrence or death, 0 censored
        ``hormone``      category    hormonal therapy, ``no`` or ``yes``
        ``age``          int         years
        ``menopause``    category    ``pre`` or ``post``
        ``tumor_size``   int         mm
        ``tumor_grade``  category    ``I`` < ``II`` < ``III``, ordered
        ``nodes``        int         number of positive lymph nodes
        ``progesterone`` int         progesterone receptor, fmol/mg
        ``estrogen``     int         estrogen receptor, fmol/mg
        ================ =========== =================================================

    References
    ----------
    Schumacher, M. et al. (1994). Randomized 2 x 2 trial evaluating hormonal treatment and the
    duration of chemotherapy in node-positive breast cancer patients. Journal of Clinical
    Oncology 12(10), 2086-2093. doi:10.1200/JCO.1994.12.10.2086

    Examples
    --------
    >>> from causalrm.datasets import load_gbsg2
    >>> gbsg2 = load_gbsg2()
    >>> gbsg2.shape, int(gbsg2["event"].sum())
    ((686, 10), 299)
    >>> list(gbsg2["tumor_grade"].cat.categories)
    ['I', 'II', 'III']
    """
    import lifelines.datasets
    import pandas as pd

    raw = lifelines.datasets.load_gbsg2()
    return pd.DataFrame(
        {
            "time": raw["time"],
            "event": raw["cens"],
            "hormone": pd.Categorical(raw["horTh"], _NO_YES),
            "age": raw["age"],
            "menopause": pd.Categorical(raw["menostat"].str.lower(), ("pre", "post")),
            "tumor_size": raw["tsize"],
            "tumor_grade": pd.Categorical(raw["tgrade"], ("I", "II", "III"), ordered=True),
            "nodes": raw["pnodes"],
            "progesterone": raw["progrec"],
            "estrogen": raw["estrec"],
        }
    )


def load_rossi() -> pd.DataFrame:
    """Recidivism after release from prison: a randomised experiment with financial aid.

    Returns
    -------
    pandas.DataFrame
        432 rows, one per man released, 114 arrests, none missing.

        ========== =========== =======================================================
        column     dtype       meaning
        ========== =========== =======================================================
        ``time``   int         weeks until the first arrest, or 52 where none was seen
        ``event``  int         1 arrested, 0 not within the year
        ``fin``    category    financial aid, randomised, ``no`` or ``yes``
        ``age``    int         years at release
        ``race``   category    ``other`` or ``black``
        ``wexp``   category    full-time work before prison, ``no`` or ``yes``
        ``mar``    category    ``not married`` or ``married`` at release
        ``paro``   category    released on parole, ``no`` or ``yes``
        ``prio``   int         number of earlier convictions
        ========== =========== =======================================================

    References
    ----------
    Rossi, P. H., Berk, R. A. and Lenihan, K. J. (1980). Money, Work, and Crime: Some
    Experimental Results. Academic Press, New York. ISBN 978-0-12-598240-2.

    Examples
    --------
    >>> from causalrm.datasets import load_rossi
    >>> rossi = load_rossi()
    >>> rossi.groupby("fin", observed=True)["event"].sum().to_dict()
    {'no': 66, 'yes': 48}
    """
    import lifelines.datasets
    import pandas as pd

    raw = lifelines.datasets.load_rossi()
    return pd.DataFrame(
        {
            "time": raw["week"],
            "event": raw["arrest"],
            "fin": _labels(raw["fin"], _NO_YES),
            "age": raw["age"],
            "race": _labels(raw["race"], ("other", "black")),
            "wexp": _labels(raw["wexp"], _NO_YES),
            "mar": _labels(raw["mar"], ("not married", "married")),
            "paro": _labels(raw["paro"], _NO_YES),
            "prio": raw["prio"],
        }
    )


def load_larynx() -> pd.DataFrame:
    """Cancer of the larynx: survival of 90 men by stage.

    Returns
    -------
    pandas.DataFrame
        90 rows, one per patient, 50 deaths, none missing.

        ========= =========== ========================================================
        column    dtype       meaning
        ========= =========== ========================================================
        ``time``  float       from first treatment to death or the end of the study;
                              years (diagnosed 1970-1978; some copies of the data say
                              months, which the calendar of the study rules out)
        ``event`` int         1 death, 0 censored
        ``age``   int         years at diagnosis
        ``stage`` category    ``I`` < ``II`` < ``III`` < ``IV``, ordered
        ========= =========== ========================================================

    References
    ----------
    Kardaun, O. (1983). Statistical survival analysis of male larynx-cancer patients: a case
    study. Statistica Neerlandica 37(3), 103-125. doi:10.1111/j.1467-9574.1983.tb00806.x

    Examples
    --------
    >>> from causalrm.datasets import load_larynx
    >>> load_larynx()["stage"].value_counts(sort=False).to_dict()
    {'I': 33, 'II': 17, 'III': 27, 'IV': 13}
    """
    import lifelines.datasets
    import pandas as pd

    raw = lifelines.datasets.load_larynx()
    code = raw["Stage_II"] + 2 * raw["Stage_III"] + 3 * raw["Stage_IV"]
    stage = _labels(code, ("I", "II", "III", "IV"), ordered=True)
    return pd.DataFrame(
        {"time": raw["time"], "event": raw["death"], "age": raw["age"], "stage": stage}
    )


def load_kidney_transplant() -> pd.DataFrame:
    """Survival after a kidney transplant, Ohio State University Transplant Center.

    Returns
    -------
    pandas.DataFrame
        863 rows, one per patient, 140 deaths, none missing.

        ========= =========== =======================================================
        column    dtype       meaning
        ========= =========== =======================================================
        ``time``  int         days from transplant to death or the end of follow-up
        ``event`` int         1 death, 0 censored
        ``age``   int         years at transplant
        ``race``  category    ``white`` or ``black``
        ``sex``   category    ``male`` or ``female``
        ========= =========== =======================================================

    References
    ----------
    Klein, J. P. and Moeschberger, M. L. (2003). Survival Analysis: Techniques for Censored and
    Truncated Data, 2nd ed., section 1.7. Springer. doi:10.1007/b97377

    Examples
    --------
    >>> from causalrm.datasets import load_kidney_transplant
    >>> kidney = load_kidney_transplant()
    >>> kidney.groupby("race", observed=True)["event"].sum().to_dict()
    {'white': 112, 'black': 28}
    """
    import lifelines.datasets
    import pandas as pd

    raw = lifelines.datasets.load_kidney_transplant()
    return pd.DataFrame(
        {
            "time": raw["time"],
            "event": raw["death"],
            "age": raw["age"],
            "race": _labels(raw["black_male"] + raw["black_female"], ("white", "black")),
            "sex": _labels(1 - raw["black_male"] - raw["white_male"], ("male", "female")),
        }
    )


def load_waltons() -> pd.DataFrame:
    """Lifetimes of fruit flies by genotype.

    Returns
    -------
    pandas.DataFrame
        163 rows, one per fly, 156 deaths, none missing.

        ========= =========== =======================================================
        column    dtype       meaning
        ========= =========== =======================================================
        ``time``  float       days from birth to death or loss
        ``event`` int         1 died, 0 escaped or killed by accident
        ``group`` category    ``control`` or ``miR-137``
        ========= =========== =======================================================

    References
    ----------
    Davidson-Pilon, C. (2019). lifelines: survival analysis in Python. Journal of Open Source
    Software 4(40), 1317. doi:10.21105/joss.01317 (the package that publishes the data).

    Examples
    --------
    >>> from causalrm.datasets import load_waltons
    >>> load_waltons().groupby("group", observed=True)["time"].median().to_dict()
    {'control': 58.0, 'miR-137': 26.0}
    """
    import lifelines.datasets
    import pandas as pd

    raw = lifelines.datasets.load_waltons()
    group = pd.Categorical(raw["group"], ("control", "miR-137"))
    return pd.DataFrame({"time": raw["T"], "event": raw["E"], "group": group})


def load_diabetes() -> pd.DataFrame:
    """Onset of nephropathy in type 1 diabetes, Steno Memorial Hospital: interval-censored.

    Returns
    -------
    pandas.DataFrame
        731 rows, one per patient who had developed nephropathy, none missing. 595 times are
        exact (``lower`` equals ``upper``), 136 known up to an interval, one of which is
        left-censored (``lower`` 0); none is right-censored.

        ========= =========== =======================================================
        column    dtype       meaning
        ========= =========== =======================================================
        ``lower`` int         time since onset of diabetes, last without nephropathy
        ``upper`` int         time since onset of diabetes, first with nephropathy
        ``sex``   category    ``male`` or ``female``
        ========= =========== =======================================================

        The source names no unit; the figures are those of years (2 to 44, patients followed
        from 1933 to 1984).

    References
    ----------
    Borch-Johnsen, K., Andersen, P. K. and Deckert, T. (1985). The effect of proteinuria on
    relative mortality in type 1 (insulin-dependent) diabetes mellitus. Diabetologia 28(8),
    590-596. doi:10.1007/BF00281993

    Examples
    --------
    >>> from causalrm.datasets import load_diabetes
    >>> diabetes = load_diabetes()
    >>> int((diabetes["lower"] == diabetes["upper"]).sum())
    595
    """
    import lifelines.datasets
    import pandas as pd

    raw = lifelines.datasets.load_diabetes().reset_index(drop=True)
    sex = pd.Categorical(raw["gender"], ("male", "female"))
    return pd.DataFrame({"lower": raw["left"], "upper": raw["right"], "sex": sex})


def load_multicenter_aids_cohort() -> pd.DataFrame:
    """Survival after an AIDS diagnosis, Multicenter AIDS Cohort Study: delayed entry.

    Men diagnosed before they joined the study are seen only because they lived until they
    joined: their times are left-truncated at ``entry``.

    Returns
    -------
    pandas.DataFrame
        78 rows, one per man, 27 deaths, none missing.

        ============= =========== ===================================================
        column        dtype       meaning
        ============= =========== ===================================================
        ``entry``     float       years from diagnosis to study entry, 0 if later
        ``time``      float       years from diagnosis to death or censoring
        ``event``     int         1 death, 0 censored
        ``diagnosis`` float       calendar year of diagnosis
        ============= =========== ===================================================

    References
    ----------
    Cole, S. R. and Hudgens, M. G. (2010). Survival analysis in infectious disease research:
    describing events in time. AIDS 24(16), 2423-2431. doi:10.1097/QAD.0b013e32833dd0ec

    Examples
    --------
    >>> from causalrm.datasets import load_multicenter_aids_cohort
    >>> cohort = load_multicenter_aids_cohort()
    >>> int((cohort["entry"] > 0).sum()), int(cohort["event"].sum())
    (42, 27)
    """
    import lifelines.datasets
    import pandas as pd

    raw = lifelines.datasets.load_multicenter_aids_cohort_study().reset_index(drop=True)
    return pd.DataFrame(
        {"entry": raw["W"], "time": raw["T"], "event": raw["D"], "diagnosis": raw["AIDSY"]}
    )
