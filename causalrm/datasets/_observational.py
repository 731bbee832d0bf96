"""Observational studies: effects (401(k), LaLonde, NHEFS) and selected outcomes (HIV, Mroz)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalrm.core.errors import MissingDependencyError
from causalrm.datasets._fetch import fetch, sha256_of

if TYPE_CHECKING:
    import pandas as pd

_401K_URL = (
    "https://raw.githubusercontent.com/VC2015/DMLonGitHub/"
    "b91cbf96c01eccd73367fbd6601ecdd7aa78403b/sipp1991.dta"
)
_401K_DTA = "1123d5f0abf6adae1d8e200f756d2a22b0ce0ce30cb228e69342a0098e57b4b2"
_401K_CSV = "d5931a5928becdec5063c3c47d3d4a9e90cd24d6cb31d5014f0d798d7eef4c16"


def fetch_401k(path: str | Path | None = None) -> pd.DataFrame:
    """401(k) eligibility and wealth: households of the 1991 US survey of income (SIPP).

    The file is looked for in the folder that the environment variable CAUSALRM_DATA names
    (``sipp1991/sipp1991.csv.gz`` or ``sipp1991/original/sipp1991.dta``), then in the user's
    cache, and then downloaded (260 kB). Whichever is found is compared with its checksum.

    Parameters
    ----------
    path : str or Path, optional
        A copy of the file, ``.csv.gz`` or the original ``.dta``, to read instead.

    Returns
    -------
    pandas.DataFrame
        9,915 rows, one per household, all integers.

        ============================ =====================================================
        column                       meaning
        ============================ =====================================================
        ``nifa``, ``net_tfa``        net financial assets without and with 401(k), dollars
        ``tw``                       total wealth, dollars
        ``age``, ``educ``            of the head of the household, years
        ``inc``                      household income, dollars
        ``fsize``                    persons in the household
        ``db``                       1 has a defined-benefit pension
        ``marr``, ``twoearn``        1 married; 1 two earners
        ``pira``, ``hown``           1 has an individual retirement account; 1 owns the home
        ``e401``, ``p401``           1 eligible for, 1 takes part in a 401(k) plan
        ============================ =====================================================

    Raises
    ------
    DataError, BackendError
        When the file on this machine is not the published one, or none can be downloaded.

    References
    ----------
    Poterba, Venti, Wise (1995), Do 401(k) contributions crowd out other personal saving?, Journal
    of Public Economics 58(1), 1-32, doi 10.1016/0047-2727(94)01462-W. Chernozhukov, Chetverikov,
    Demirer, Duflo, Hansen, Newey, Robins (2018), Double/debiased machine learning for treatment
    and structural parameters, Econometrics Journal 21(1), C1-C68, doi 10.1111/ectj.12097.

    Examples
    --------
    The first call may use the network:

    >>> from causalrm.datasets import fetch_401k
    >>> households = fetch_401k()  # doctest: +SKIP
    >>> households.groupby("e401")["net_tfa"].mean().round(2).to_dict()  # doctest: +SKIP
    {0: 10788.04, 1: 30347.39}
    """
    import pandas as pd

    local = {
        "sipp1991/sipp1991.csv.gz": _401K_CSV, "sipp1991/original/sipp1991.dta": _401K_DTA
    }  # fmt: skip
    file = fetch("sipp1991/sipp1991.dta", _401K_URL, _401K_DTA, local=local, path=path)
    raw = pd.read_stata(file) if sha256_of(file) == _401K_DTA else pd.read_csv(file)
    return raw.astype("int64")


def _causaldata(name: str) -> Any:
    try:
        import causaldata  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependencyError(
            "This data set is part of the package 'causaldata', which is not installed. Install "
            "it with: pip install causaldata"
        ) from error
    return getattr(causaldata, name).load_pandas().data


_JOBS = ["treat", "age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75", "re78"]


def _jobs(name: str) -> pd.DataFrame:
    frame: pd.DataFrame = _causaldata(name)[_JOBS]
    whole = {c: "int64" for c in _JOBS[:7]}
    return frame.astype({**whole, **{c: float for c in _JOBS[7:]}}).reset_index(drop=True)


def load_lalonde() -> pd.DataFrame:
    """Job training, randomised: the National Supported Work demonstration (LaLonde's men).

    The sample of Dehejia and Wahba, from the package causaldata.

    Returns
    -------
    pandas.DataFrame
        445 rows, one per man: 185 trained and 260 not.

        ============================ ======= =============================================
        column                       dtype   meaning
        ============================ ======= =============================================
        ``treat``                    int     1 was offered training
        ``age``, ``educ``            int     years
        ``black``, ``hisp``          int     1 yes
        ``marr``, ``nodegree``       int     1 married; 1 no high school degree
        ``re74``, ``re75``           float   earnings before, dollars of the year
        ``re78``                     float   earnings after, dollars of 1978
        ============================ ======= =============================================

    Raises
    ------
    MissingDependencyError
        Without the package causaldata.

    References
    ----------
    LaLonde (1986), Evaluating the econometric evaluations of training programs with experimental
    data, American Economic Review 76(4), 604-620. Dehejia, Wahba (1999), Causal effects in
    nonexperimental studies, JASA 94(448), 1053-1062, doi 10.1080/01621459.1999.10473858.

    Examples
    --------
    >>> from causalrm.datasets import load_lalonde
    >>> load_lalonde().groupby("treat")["re78"].mean().round(2).to_dict()
    {0: 4554.8, 1: 6349.14}
    """
    return _jobs("nsw_mixtape")


def load_cps() -> pd.DataFrame:
    """Men of the US current population survey, controls for `load_lalonde`.

    Returns
    -------
    pandas.DataFrame
        15,992 rows with the columns of `load_lalonde`; ``treat`` is 0.

    Raises
    ------
    MissingDependencyError
        Without the package causaldata.

    References
    ----------
    Dehejia, Wahba (1999), Causal effects in nonexperimental studies, JASA 94(448), 1053-1062,
    doi 10.1080/01621459.1999.10473858.

    Examples
    --------
    >>> from causalrm.datasets import load_cps
    >>> len(load_cps())
    15992
    """
    return _jobs("cps_mixtape")


def load_nhefs() -> pd.DataFrame:
    """Smoking cessation and weight: the NHEFS cohort of the book "Causal inference: what if".

    Returns
    -------
    pandas.DataFrame
        1,566 rows, one per smoker of 1971 with a known weight in 1982, and 67 columns as they are
        in the package causaldata. Those of the book's analyses: ``qsmk`` (1 stopped smoking
        by 1982), ``wt82_71`` (weight gain, kg), ``sex``, ``race``, ``age``, ``education``,
        ``smokeintensity`` (cigarettes a day), ``smokeyrs``, ``exercise``, ``active``, ``wt71``
        (kg).

    Raises
    ------
    MissingDependencyError
        Without the package causaldata.

    References
    ----------
    Hernan, Robins (2020), Causal Inference: What If, Chapman & Hall/CRC, chapters 12 and 13.

    Examples
    --------
    >>> from causalrm.datasets import load_nhefs
    >>> load_nhefs().groupby("qsmk")["wt82_71"].mean().round(2).to_dict()
    {0: 1.98, 1: 4.53}
    """
    frame: pd.DataFrame = _causaldata("nhefs_complete").copy()
    return frame.astype({"qsmk": "int64"})


def load_thornton() -> pd.DataFrame:
    """HIV tests in Malawi in 2004, and who came to learn the result (Thornton's experiment).

    Everybody gave a sample; the result lay at a clinic some weeks later. A voucher, drawn at
    random, paid some of them for coming. The result is known whether or not they came, so that a
    method for outcomes seen only for some can be compared with the truth.

    Returns
    -------
    pandas.DataFrame
        2,894 rows, one per person who was tested, from the package causaldata.

        ============================ ======= =============================================
        column                       dtype   meaning
        ============================ ======= =============================================
        ``villnum``                  float   village; missing for 4
        ``got``                      int     1 came to learn the result
        ``hiv2004``                  float   1 HIV positive; missing for 14 indeterminate
        ``age``                      float   years; missing for 6
        ``distvct``                  float   km from home to the place of the results
        ``any``, ``tinc``            float   1 had a voucher; its worth, dollars; missing
                                             for 60
        ============================ ======= =============================================

    Raises
    ------
    MissingDependencyError
        Without the package causaldata.

    References
    ----------
    Thornton (2008), The demand for, and impact of, learning HIV status, American Economic Review
    98(5), 1829-1863, doi 10.1257/aer.98.5.1829.

    Examples
    --------
    >>> from causalrm.datasets import load_thornton
    >>> load_thornton().groupby("got")["hiv2004"].mean().round(3).to_dict()
    {0: 0.071, 1: 0.061}
    """
    frame: pd.DataFrame = _causaldata("thornton_hiv")
    frame = frame[frame["got"].notna()].reset_index(drop=True).astype(float)
    frame["hiv2004"] = frame["hiv2004"].where(frame["hiv2004"] >= 0)
    columns = ["villnum", "got", "hiv2004", "age", "distvct", "any", "tinc"]
    return frame[columns].astype({"got": "int64"})


def load_mroz() -> pd.DataFrame:
    """Wages and labour-force participation of married women in the USA, 1975 (Mroz's data).

    Returns
    -------
    pandas.DataFrame
        753 rows, one per woman, from the package causaldata.

        ============================ ======= =============================================
        column                       dtype   meaning
        ============================ ======= =============================================
        ``lfp``                      int     1 worked for pay in 1975
        ``lwg``                      float   log wage per hour; missing for the 325 who did
                                             not work (the package has imputed values there)
        ``k5``, ``k618``             int     children aged 5 or less, and 6 to 18
        ``age``                      int     years
        ``wc``, ``hc``               int     1 the wife, 1 the husband went to college
        ``inc``                      float   income of the family without hers, 1,000 dollars
        ============================ ======= =============================================

    Raises
    ------
    MissingDependencyError
        Without the package causaldata.

    References
    ----------
    Mroz (1987), The sensitivity of an empirical model of married women's hours of work to economic
    and statistical assumptions, Econometrica 55(4), 765-799, doi 10.2307/1911029.

    Examples
    --------
    >>> from causalrm.datasets import load_mroz
    >>> load_mroz().groupby("wc")["lwg"].mean().round(3).to_dict()
    {0: 1.064, 1: 1.44}
    """
    frame: pd.DataFrame = _causaldata("Mroz")
    whole = {c: "int64" for c in ("lfp", "k5", "k618", "age", "wc", "hc")}
    out = frame[["lfp", "lwg", "k5", "k618", "age", "wc", "hc", "inc"]].astype(whole)
    return out.assign(lwg=out["lwg"].where(out["lfp"] == 1))
