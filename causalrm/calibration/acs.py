"""Ready-made tasks on the American Community Survey (ACS): codes to words.

The codes are those of the survey's public data dictionary for persons, 2018; the wording is
ours. Occupations are told at the level of the survey's groups of codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from causalrm.calibration.column_text import ColumnText
from causalrm.calibration.task import RiskTask
from causalrm.core.column import look_at
from causalrm.core.errors import DataError, check_choice
from causalrm.core.frame import Source
from causalrm.datasets._acs_like import ACS_FEATURES, ACS_POPULATIONS, ACS_TARGETS

ACS_TASKS = tuple(ACS_FEATURES)

_STATES = """1 Alabama;2 Alaska;4 Arizona;5 Arkansas;6 California;8 Colorado;9 Connecticut;
10 Delaware;11 the District of Columbia;12 Florida;13 Georgia (US);15 Hawaii;16 Idaho;17 Illinois;
18 Indiana;19 Iowa;20 Kansas;21 Kentucky;22 Louisiana;23 Maine;24 Maryland;25 Massachusetts;
26 Michigan;27 Minnesota;28 Mississippi;29 Missouri;30 Montana;31 Nebraska;32 Nevada;
33 New Hampshire;34 New Jersey;35 New Mexico;36 New York;37 North Carolina;38 North Dakota;39 Ohio;
40 Oklahoma;41 Oregon;42 Pennsylvania;44 Rhode Island;45 South Carolina;46 South Dakota;
47 Tennessee;48 Texas;49 Utah;50 Vermont;51 Virginia;53 Washington (state);54 West Virginia;
55 Wisconsin;56 Wyoming;72 Puerto Rico"""
_ABROAD = """60 American Samoa;66 Guam;69 the Northern Mariana Islands;78 the US Virgin Islands;
100 Albania;102 Austria;103 Belgium;104 Bulgaria;105 Czechoslovakia;106 Denmark;108 Finland;
109 France;110 Germany;116 Greece;117 Hungary;118 Iceland;119 Ireland;120 Italy;126 the Netherlands;
127 Norway;128 Poland;129 Portugal;130 the Azores;132 Romania;134 Spain;136 Sweden;137 Switzerland;
138 the United Kingdom;139 England;140 Scotland;142 Northern Ireland;147 Yugoslavia;
148 the Czech Republic;149 Slovakia;150 Bosnia and Herzegovina;151 Croatia;152 Macedonia;154 Serbia;
156 Latvia;157 Lithuania;158 Armenia;159 Azerbaijan;160 Belarus;161 Georgia (country);162 Moldova;
163 Russia;164 Ukraine;165 the USSR;166 Europe;167 Kosovo;168 Montenegro;169 elsewhere in Europe;
200 Afghanistan;202 Bangladesh;203 Bhutan;205 Myanmar;206 Cambodia;207 China;208 Cyprus;
209 Hong Kong;210 India;211 Indonesia;212 Iran;213 Iraq;214 Israel;215 Japan;216 Jordan;217 Korea;
218 Kazakhstan;219 Kyrgyzstan;222 Kuwait;223 Laos;224 Lebanon;226 Malaysia;228 Mongolia;229 Nepal;
231 Pakistan;233 the Philippines;235 Saudi Arabia;236 Singapore;238 Sri Lanka;239 Syria;240 Taiwan;
242 Thailand;243 Turkey;245 the United Arab Emirates;246 Uzbekistan;247 Vietnam;248 Yemen;249 Asia;
253 South Central Asia;254 elsewhere in Asia;300 Bermuda;301 Canada;303 Mexico;310 Belize;
311 Costa Rica;312 El Salvador;313 Guatemala;314 Honduras;315 Nicaragua;316 Panama;
321 Antigua and Barbuda;323 the Bahamas;324 Barbados;327 Cuba;328 Dominica;
329 the Dominican Republic;330 Grenada;332 Haiti;333 Jamaica;338 St. Kitts and Nevis;339 St. Lucia;
340 St. Vincent and the Grenadines;341 Trinidad and Tobago;343 the West Indies;344 the Caribbean;
360 Argentina;361 Bolivia;362 Brazil;363 Chile;364 Colombia;365 Ecuador;368 Guyana;369 Paraguay;
370 Peru;372 Uruguay;373 Venezuela;374 South America;399 elsewhere in the Americas;400 Algeria;
407 Cameroon;408 Cabo Verde;412 Congo;414 Egypt;416 Ethiopia;417 Eritrea;420 the Gambia;421 Ghana;
423 Guinea;425 Ivory Coast;427 Kenya;429 Liberia;430 Libya;436 Morocco;440 Nigeria;442 Rwanda;
444 Senegal;447 Sierra Leone;448 Somalia;449 South Africa;451 Sudan;453 Tanzania;454 Togo;
456 Tunisia;457 Uganda;459 the Democratic Republic of the Congo;460 Zambia;461 Zimbabwe;462 Africa;
463 South Sudan;464 northern Africa;467 western Africa;468 elsewhere in Africa;469 eastern Africa;
501 Australia;508 Fiji;511 the Marshall Islands;512 Micronesia;515 New Zealand;523 Tonga;527 Samoa;
554 elsewhere in Oceania or at sea"""
# The first code of each group of occupations (2018); a group ends where the next begins.
_OCCUPATIONS = """10 management;500 business operations;800 finance;1005 computing and mathematics;
1305 architecture and engineering;1600 science;2001 community and social services;2100 law;
2205 education and libraries;2600 arts, design, entertainment, sports and media;
3000 medicine and health care;3601 health care support;3700 protective services;
4000 food preparation and serving;4200 cleaning and maintenance of buildings and grounds;
4330 personal care and service;4700 sales;5000 office and administrative support;
6005 farming, fishing and forestry;6200 construction;6800 mining and extraction;
7000 installation, maintenance and repair;7700 production;
9005 transportation and moving of material;9800 the military;
9920 none in the last five years or ever"""


def _codes(text: str) -> dict[int, str]:
    pairs = (item.strip().split(" ", 1) for item in text.split(";"))
    return {int(code): words for code, words in pairs}


def _ranges(text: str, last: int | None) -> list[tuple[int | None, int | None, str]]:
    """Ranges from their first values; for amounts (no last code) both ends are open."""
    lows = list(_codes(text).items())
    highs = [low for low, _ in lows[1:]] + [None if last is None else last + 1]
    found = [(low, high, words) for (low, words), high in zip(lows, highs, strict=True)]
    return [(None, *found[0][1:]), *found[1:]] if last is None else list(found)


def _column(
    description: str, values: str = "", coarse: str = "", missing: str | None = None, **options: str
) -> ColumnText:
    codes = _codes(values) if values else {}
    last = max(codes) if codes else None
    return ColumnText(
        description,
        codes or None,
        coarse=_ranges(coarse, last) if coarse else None,
        missing=missing,
        **options,
    )


_NEVER_WORKED = "not applicable (under 16, or no work in the last five years)"
_NO_WORK = "not applicable (not at work)"
_PRESENT = "1 present;2 absent"

ACS_COLUMNS = {
    "AGEP": _column(
        "age",
        template="{} years",
        coarse="0 under 18 years;18 18 to 29 years;30 30 to 44 years;45 45 to 64 years;"
        "65 65 years or more",
    ),
    "COW": _column(
        "kind of employer",
        "1 a private company;2 a non-profit organization;3 the local government;"
        "4 the state government;5 the federal government;6 self-employed, not incorporated;"
        "7 self-employed, incorporated;8 unpaid in a family business;"
        "9 none in the last five years or ever",
        "1 private;3 government;6 self-employed;8 unpaid in a family business;9 none",
        _NEVER_WORKED,
    ),
    "SCHL": _column(
        "highest level of schooling",
        "1 none;2 nursery school;3 kindergarten;4 grade 1;5 grade 2;6 grade 3;7 grade 4;8 grade 5;"
        "9 grade 6;10 grade 7;11 grade 8;12 grade 9;13 grade 10;14 grade 11;"
        "15 grade 12 without a diploma;16 high school diploma;"
        "17 high school equivalency (such as GED);18 less than one year of college;"
        "19 one or more years of college without a degree;20 associate's degree;"
        "21 bachelor's degree;22 master's degree;23 professional degree beyond a bachelor's;"
        "24 doctorate",
        "1 no high school diploma;16 high school;18 some college;21 bachelor's degree;"
        "22 graduate degree",
        "not applicable (under 3)",
    ),
    "MAR": _column(
        "marital status",
        "1 married;2 widowed;3 divorced;4 separated;5 never married",
        "1 married;2 not married",
    ),
    "OCCP": ColumnText(
        "occupation",
        _ranges(_OCCUPATIONS, 9920),
        coarse=_ranges(
            "10 management, business or finance;1005 a profession;3601 services;"
            "4700 sales or office;6005 manual work;9800 the military;9920 none",
            9920,
        ),
        missing=_NEVER_WORKED,
    ),
    "POBP": _column(
        "place of birth",
        f"{_STATES};{_ABROAD}",
        "1 the United States;60 a territory of the United States;100 Europe;200 Asia;"
        "300 the Americas;400 Africa;500 Oceania",
    ),
    "RELP": _column(
        "relation to the first person of the household",
        "0 the same person;1 spouse;2 biological child;3 adopted child;4 stepchild;5 sibling;"
        "6 parent;7 grandchild;8 parent-in-law;9 child-in-law;10 another relative;"
        "11 roomer or boarder;12 housemate;13 unmarried partner;14 foster child;"
        "15 another person who is not a relative;16 resident of an institution;"
        "17 resident of group quarters that are no institution",
        "0 the same person;1 a relative;11 not a relative;16 in group quarters",
    ),
    "WKHP": _column(
        "usual hours of work per week",
        template="{} hours",
        coarse="0 part time;35 full time;45 more than full time",
        missing="not applicable (no work in the last year)",
    ),
    "SEX": _column("sex", "1 male;2 female"),
    "RAC1P": _column(
        "race",
        "1 White;2 Black or African American;3 American Indian;4 Alaska Native;"
        "5 American Indian or Alaska Native, tribe not told or several;6 Asian;"
        "7 Native Hawaiian or other Pacific Islander;8 some other race;9 two or more races",
    ),
    "DIS": _column("disability", _PRESENT),
    "ESP": _column(
        "parents and their work",
        "1 lives with both parents, both at work;2 lives with both parents, the father at work;"
        "3 lives with both parents, the mother at work;4 lives with both parents, none at work;"
        "5 lives with the father, who is at work;6 lives with the father, who is not at work;"
        "7 lives with the mother, who is at work;8 lives with the mother, who is not at work",
        missing="not applicable (not a child in the family)",
    ),
    "CIT": _column(
        "citizenship",
        "1 born in the United States;2 born in Puerto Rico or another US territory;"
        "3 born abroad to American parents;4 US citizen by naturalization;5 not a US citizen",
        "1 US citizen;5 not a US citizen",
    ),
    "MIG": _column(
        "home one year ago",
        "1 the same;2 another, outside the United States and Puerto Rico;"
        "3 another, in the United States or Puerto Rico",
        missing="not applicable (under 1)",
    ),
    "MIL": _column(
        "military service",
        "1 on active duty now;2 on active duty in the past;"
        "3 active duty only for training in the reserves or National Guard;4 none",
        missing="not applicable (under 17)",
    ),
    "ANC": _column(
        "ancestry reported",
        "1 one;2 several;3 not classified;4 none;8 suppressed for the area",
    ),
    "NATIVITY": _column("nativity", "1 native of the United States;2 foreign born"),
    "DEAR": _column("difficulty in hearing", _PRESENT),
    "DEYE": _column("difficulty in seeing", _PRESENT),
    "DREM": _column(
        "difficulty in remembering or concentrating", _PRESENT, missing="not applicable (under 5)"
    ),
    "PINCP": _column(
        "income in the last year",
        number=",.0f",
        template="${}",
        coarse="0 none or a loss;1 under $15,000;15000 $15,000 to $50,000;50000 $50,000 or more",
        missing="not applicable (under 15)",
    ),
    "ESR": _column(
        "employment",
        "1 employed, at work;2 employed, absent from work;3 unemployed;4 in the armed forces;"
        "5 in the armed forces, absent from work;6 not in the labor force",
        "1 employed;3 unemployed;4 in the armed forces;6 not in the labor force",
        "not applicable (under 16)",
    ),
    "ST": _column("state of residence", _STATES),
    "FER": _column(
        "number of children born to this person in the last year",
        "1 one or more;2 none",
        missing="not applicable (not a woman of 15 to 50)",
    ),
    "GCL": _column(
        "number of own grandchildren in the home",
        "1 one or more;2 none",
        missing="not applicable (under 30)",
    ),
    "JWMNP": _column(
        "travel time to work",
        template="{} minutes",
        coarse="0 up to 20 minutes;21 more than 20 minutes",
        missing="not applicable (not at work, or works at home)",
    ),
    "JWTR": _column(
        "means of travel to work",
        "1 car, truck or van;2 bus;3 streetcar;4 subway or elevated train;5 railroad;6 ferry;"
        "7 taxi;8 motorcycle;9 bicycle;10 on foot;11 works at home;12 other",
        "1 by car;2 public transport;7 taxi or motorcycle;9 bicycle or on foot;11 works at home;"
        "12 other",
        _NO_WORK,
    ),
    "PUMA": _column("code of the area (PUMA) of residence"),
    "POWPUMA": _column("code of the area (PUMA) of work", missing=_NO_WORK),
    "POVPIP": _column(
        "income of the family as a percentage of the poverty threshold",
        template="{}%",
        coarse="0 below the threshold;100 up to twice the threshold;"
        "200 twice the threshold or more",
        missing="not determined",
    ),
}
"""Texts of all columns that the tasks show, by code of the column."""

# Question, choices with the positive one first, and the event as a clause.
_QUESTIONS = {
    "ACSIncome": (
        "How much did this person earn in the last year?",
        ("More than $50,000", "$50,000 or less"),
        "this person earned more than $50,000 in the last year",
    ),
    "ACSPublicCoverage": (
        "Is this person covered by public health insurance?",
        ("Yes", "No"),
        "this person is covered by public health insurance",
    ),
    "ACSMobility": (
        "Did this person move to another home in the last year?",
        ("Yes", "No"),
        "this person moved to another home in the last year",
    ),
    "ACSEmployment": (
        "Is this person employed as a civilian and at work?",
        ("Yes", "No"),
        "this person is employed as a civilian and at work",
    ),
    "ACSTravelTime": (
        "How long does this person travel to work?",
        ("More than 20 minutes", "20 minutes or less"),
        "this person travels more than 20 minutes to work",
    ),
}


def acs_task(name: str = "ACSIncome", columns: Iterable[str] | None = None) -> RiskTask:
    """Make one of the five tasks of the literature on ACS data.

    Parameters
    ----------
    name : {"ACSIncome", "ACSPublicCoverage", "ACSMobility", "ACSEmployment", "ACSTravelTime"}
    columns : iterable of str, optional
        Fewer or other columns of `ACS_COLUMNS`; by default those of the literature.

    Returns
    -------
    RiskTask
        For the survey's own codes (person records of 2018, missing values as missing: undo a
        replacement by -1 first). The outcome of a row without the target is missing: people
        who work at home have no travel time, which some of the literature counts as short.

    Raises
    ------
    DataError
        For a name or a column that is not known.

    References
    ----------
    Ding, Hardt, Miller, Schmidt (2021). Retiring Adult: new datasets for fair machine
    learning. arXiv:2108.04884.

    Cruz, Hardt, Mendler-Duenner (2024). Evaluating language models as risk scores.
    arXiv:2407.14614 (moving, and not staying, is the positive outcome of ACSMobility).

    Examples
    --------
    >>> import pandas as pd
    >>> task = acs_task("ACSIncome", columns=["AGEP", "SCHL", "COW"])
    >>> rows = pd.DataFrame({"AGEP": [45], "SCHL": [21], "COW": [None]})
    >>> print(task.describe(rows, format="sentence")[0])
    The age is 45 years. The highest level of schooling is bachelor's degree. ...
    """
    check_choice("name", name, ACS_TASKS)
    shown = list(ACS_FEATURES[name].split() if columns is None else columns)
    if unknown := [c for c in shown if c not in ACS_COLUMNS]:
        raise DataError(f"{unknown[0]!r} is not one of the columns {', '.join(ACS_COLUMNS)}.")
    question, choices, event = _QUESTIONS[name]
    target, sign, value = ACS_TARGETS[name]
    return RiskTask(
        question,
        {c: ACS_COLUMNS[c] for c in shown},
        choices=choices,
        event=event,
        target=target,
        rule=(sign, value),
        population="The information below is about one person who answered a survey of the "
        "population of the United States in 2018.",
    )


def acs_population(data: Any, name: str = "ACSIncome") -> pd.Series:
    """Tell which rows of ACS person records belong to the population of a task.

    Parameters
    ----------
    data : data frame
        With the columns AGEP, and WKHP and PINCP (ACSIncome), PINCP (ACSPublicCoverage) or ESR
        (ACSTravelTime).
    name : str
        As in :func:`acs_task`. Employment is asked of people of 16 years or more, as in the
        survey; some of the literature counts younger ones as not employed.

    Returns
    -------
    pandas.Series of bool
    """
    check_choice("name", name, ACS_TASKS)
    limits = dict(ACS_POPULATIONS[name])
    if name == "ACSIncome":
        limits["PINCP"] = (101, np.inf)
    source = Source(data)
    source.want(limits, f"the population of {name}")
    kept = np.ones(source.n_obs, dtype=bool)
    for column, (low, high) in limits.items():
        x = look_at(column, source.frame[column], ["numbers"]).values
        kept &= (x >= low) & (x < high)  # who was not asked has no value, and is not in it
    return pd.Series(kept, index=source.index, name="eligible")
