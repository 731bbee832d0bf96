from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from causalrm import DataError
from causalrm.core import frame as frame_module
from causalrm.core.blocks import Rows, length
from causalrm.core.column import Column
from causalrm.core.design import prepare
from causalrm.core.frame import Reader, Source, check, scan

RNG = np.random.default_rng(7)
N = 90
FRAME = pd.DataFrame(
    {
        "x": RNG.normal(size=N),
        "k": RNG.integers(0, 4, N),
        "b": RNG.random(N) < 0.5,
        "g": np.repeat(["c", "a", "b"], N // 3),  # parts of the data have different levels
        "c": pd.Categorical(
            np.repeat(["mid", "lo", "hi"], N // 3), categories=["lo", "none", "mid", "hi"]
        ),
    }
)
COLUMNS = (
    Column("x", None, float(FRAME["x"].min()), float(FRAME["x"].max())),
    Column("b", None, 0.0, 1.0),
    Column("g", ("a", "b", "c")),
    Column("c", ("lo", "mid", "hi")),
    Column("k", (0, 1, 2, 3)),
)
TEXT = "x*g + C(k) + b:c"


def look(data: Any, **uses: Any) -> tuple[Reader, Rows]:
    uses = uses or {"numbers": ["x"], "categories": ["k"], "either": ["b", "g", "c"]}
    return scan(Source(data), **uses)


def whole(rows: Rows) -> dict[str, np.ndarray]:
    parts = [part for _, part in rows.parts()]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def polars_categories(data: pd.DataFrame) -> pl.DataFrame:
    return pl.from_pandas(data).with_columns(pl.col("g").cast(pl.Categorical))


def parquet(folder: Path, data: pd.DataFrame, name: str = "rows", size: int = 20) -> Path:
    table = pa.Table.from_pandas(data, preserve_index=False)
    pq.write_table(table, folder / f"{name}.parquet", row_group_size=size)
    return folder / f"{name}.parquet"


def folder_of(path: Path, data: pd.DataFrame) -> Path:
    for i in range(3):
        parquet(path, data.iloc[30 * i : 30 * (i + 1)], f"part-{i}")
    return path


def text_dictionary(path: Path, data: pd.DataFrame) -> Path:
    table = pa.Table.from_pandas(data, preserve_index=False)
    table = table.set_column(3, "g", table["g"].cast(pa.string()))
    with pq.ParquetWriter(path / "d.parquet", table.schema, use_dictionary=True) as writer:
        for i in range(3):
            writer.write_table(table.slice(30 * i, 30))
    return path / "d.parquet"


def by_polars(path: Path, data: pd.DataFrame) -> Path:
    polars_categories(data).write_parquet(path / "p.parquet", row_group_size=30)
    return path / "p.parquet"


def with_empty_partitions(data: pd.DataFrame) -> Any:
    empty = data.iloc[:0]
    sizes = [0, 35, 0, 0, 40, 15, 0]
    stops = np.cumsum(sizes)
    parts = [data.iloc[b - n : b] for n, b in zip(sizes, stops, strict=True)]
    return dd.from_map(lambda i: parts[i], range(len(parts)), meta=empty)


SOURCES = {
    "pandas": lambda path, data: data,
    "pandas arrow types": lambda path, data: data.convert_dtypes(dtype_backend="pyarrow"),
    "pandas nullable types": lambda path, data: data.convert_dtypes(),
    "polars": lambda path, data: pl.from_pandas(data).with_columns(
        pl.col("c").cast(pl.Enum(["lo", "none", "mid", "hi"]))
    ),
    "polars categories": lambda path, data: polars_categories(data).with_columns(
        pl.col("c").cast(pl.Enum(["lo", "none", "mid", "hi"]))
    ),
    "arrow": lambda path, data: pa.Table.from_pandas(data),
    "arrow chunks": lambda path, data: pa.concat_tables(
        [pa.Table.from_pandas(data.iloc[i : i + 30]) for i in (0, 30, 60)]
    ),
    "arrow of polars": lambda path, data: (
        polars_categories(data)
        .with_columns(pl.col("c").cast(pl.Enum(["lo", "none", "mid", "hi"])))
        .to_arrow()
    ),
    "parquet": lambda path, data: parquet(path, data),
    "parquet as text": lambda path, data: str(parquet(path, data)),
    "parquet folder": folder_of,
    "parquet dictionary": text_dictionary,
    "arrow data set": lambda path, data: pads.dataset(parquet(path, data)),
    "in-memory data set": lambda path, data: pads.dataset(pa.Table.from_pandas(data)),
    "dask": lambda path, data: dd.from_pandas(data, npartitions=4),
    "dask with empty partitions": lambda path, data: with_empty_partitions(data),
    "dask parquet": lambda path, data: dd.read_parquet(str(folder_of(path, data))),
}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_module, "_BATCH", 17)


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_rows_and_designs(kind: str, tmp_path: Path) -> None:
    data = SOURCES[kind](tmp_path, FRAME)
    reader, rows = look(data)
    assert rows.n_obs == N
    assert repr(reader.columns) == repr(COLUMNS)  # NaN is not equal to itself
    _, expected = look(FRAME)
    found = whole(rows)
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    _, rows, designs, _ = prepare(data, {"f": TEXT}, numbers=["b"])
    _, inside, wanted, _ = prepare(FRAME, {"f": TEXT}, numbers=["b"])
    assert designs["f"].terms == wanted["f"].terms
    x = np.concatenate([designs["f"].encode(p, len(p["x"])) for _, p in rows.parts()], axis=1)
    np.testing.assert_array_equal(x, wanted["f"].encode(inside.columns, N))


def test_polars_categories_in_a_file_are_sorted(tmp_path: Path) -> None:
    reader, _ = look(by_polars(tmp_path, FRAME[["x", "g"]]), either=["g"], numbers=["x"])
    assert reader.columns[0].name == "x" and reader.columns[1].levels == ("a", "b", "c")


def test_users_order_survives_parts_with_few_levels() -> None:
    # Each part may see levels in an order that a later part corrects.
    c = pd.Categorical(["a", "c", "b", "a", "c", "b", "a"], categories=list("xcba"))
    data = pd.DataFrame({"c": c})
    for bounds in ([2, 3], [1, 2], [3, 6], [1, 5]):
        parts = np.split(np.arange(7), bounds)
        pieces = [data.iloc[p] for p in parts]
        source = dd.from_map(lambda i, pieces=pieces: pieces[i], range(3), meta=data.iloc[:0])
        assert look(source, either=["c"])[0].columns[0].levels == ("c", "b", "a")


@pytest.mark.parametrize(
    "kind", ["parquet", "parquet folder", "dask", "dask with empty partitions"]
)
@pytest.mark.parametrize("column", ["x", "g", "c"])
def test_missing_values_in_a_later_part(kind: str, column: str, tmp_path: Path) -> None:
    data = FRAME.copy()
    data.loc[[70, 71, 88], column] = None
    with pytest.raises(
        DataError, match=rf"'{column}', but 3 of 90 are missing \(first rows: 70, 71, 88\)"
    ):
        look(SOURCES[kind](tmp_path, data))


@pytest.mark.parametrize("kind", ["pandas", "polars", "parquet", "dask"])
def test_numbers_out_of_scale(kind: str, tmp_path: Path) -> None:
    for factor, message in (
        (1e300, "magnitudes up to 1e.100 in column 'x', but 90 of 90 are larger .*Rescale"),
        (1e-300, "magnitudes above 1e-100 in column 'x', but all 90 values are at most .*Rescale"),
    ):
        with pytest.raises(DataError, match=message):
            look(SOURCES[kind](tmp_path, FRAME.assign(x=(1 + FRAME["x"] ** 2) * factor)))
    one = FRAME.assign(x=np.where(FRAME.index == 80, 1e-300, FRAME["x"]))  # is as good as zero
    look(SOURCES[kind](tmp_path, one))
    tiny = FRAME.assign(x=np.where(FRAME.index < 60, FRAME["x"], 1e-200))  # a part may be tiny
    _, rows = look(SOURCES[kind](tmp_path, tiny))
    assert whole(rows)["x"][89] == 1e-200
    assert look(SOURCES[kind](tmp_path, FRAME.assign(x=0.0)))[0].columns[0].high == 0.0


def test_infinity_where_it_has_a_meaning(tmp_path: Path) -> None:
    data = FRAME.assign(x=np.where(FRAME.index % 2, np.inf, FRAME["x"]))
    for source in (data, parquet(tmp_path, data)):
        reader, rows = look(source, numbers=["x"], infinite=["x"])
        assert np.isinf(whole(rows)["x"]).sum() == 45
        assert reader.columns[0].high == FRAME["x"][::2].max()
        with pytest.raises(DataError, match="45 of 90 are infinite"):
            look(source, numbers=["x"])


def test_messages_use_the_labels_of_the_index() -> None:
    data = FRAME.set_axis([f"row {i}" for i in range(N)])
    data.loc["row 5", "x"] = np.nan
    with pytest.raises(DataError, match=r"1 of 90 are missing \(first rows: row 5\)"):
        look(data)
    data = FRAME.set_index(pd.MultiIndex.from_product([range(9), list("abcdefghij")]))
    data.iloc[12, 0] = np.inf
    with pytest.raises(DataError, match=r"first rows: \(1, c\)"):
        look(data)


# ---------------------------------------------------------------- names


def test_odd_names() -> None:
    names = ["with space", "größe", "a`b", "x:y", "", "np", "C", "a\nb", "[1]", "0"]
    data = pd.DataFrame(np.arange(20.0).reshape(2, 10), columns=names)
    for kind in (data, pl.from_pandas(data), pa.Table.from_pandas(data)):
        _, rows = look(kind, numbers=names)
        assert [rows.columns[name].tolist() for name in names] == [[i, i + 10.0] for i in range(10)]


def test_names_that_are_no_text() -> None:
    data = pd.DataFrame({0: [1.0, 2.0], "x": [3.0, 4.0], ("a", 1): [5.0, 6.0], None: [7.0, 8.0]})
    _, rows = look(data, numbers=["x"])
    assert rows.columns["x"].tolist() == [3.0, 4.0]
    with pytest.raises(DataError, match=r"no such column\. Give one of: 0, 'x', \('a', 1\), None"):
        look(data, numbers=["0"])
    wide = pd.DataFrame([[1.0, 2.0]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
    with pytest.raises(DataError, match="no such column"):
        look(wide, numbers=["a"])


def test_absent_columns(tmp_path: Path) -> None:
    for source in (FRAME, pl.from_pandas(FRAME), parquet(tmp_path, FRAME),
                   dd.from_pandas(FRAME, npartitions=2)):  # fmt: skip
        with pytest.raises(DataError, match=r"a column 'q', .*\. Give one of: 'x', 'k', 'b'"):
            look(source, numbers=["q"])
        with pytest.raises(DataError, match="a column 'q' for phi"):
            Source(source).want(["q"], "phi")
    many = pd.DataFrame(np.ones((1, 40)), columns=[f"v{i}" for i in range(40)])
    with pytest.raises(DataError, match=r"'v11', \.\.\.\."):
        look(many, numbers=["q"])


def test_duplicated_names() -> None:
    twice = pd.concat([FRAME, FRAME[["x"]], FRAME[["x"]]], axis=1)
    table = pa.table([[1.0], [2.0], [3.0]], names=["x", "x", "y"])
    collection = dd.from_pandas(FRAME, npartitions=1).map_partitions(
        lambda part: pd.concat([part, part[["x"]]], axis=1)
    )
    for data, count in ((twice, 3), (table, 2), (collection, 2)):
        with pytest.raises(DataError, match=rf"one column 'x', .* have {count} of .*\. Rename or"):
            look(data, numbers=["x"])
    assert look(twice, numbers=["k"])[1].columns["k"].tolist() == FRAME["k"].tolist()
    assert look(table, numbers=["y"])[1].columns["y"].tolist() == [3.0]
    found = whole(look(collection, numbers=["k"])[1])["k"]
    assert found.tolist() == FRAME["k"].tolist()


# ---------------------------------------------------------------- what is no data


@pytest.mark.parametrize(
    "data",
    [
        None, 3, [1, 2], {"x": [1]}, np.ones((2, 2)), pd.Series([1.0]), pl.Series([1.0]),
        pl.LazyFrame({"x": [1]}), pa.array([1]), pa.RecordBatch.from_pydict({"x": [1]}),
        dd.from_pandas(FRAME, npartitions=1)["x"], iter([FRAME]), object(),
    ],
    ids=lambda d: type(d).__name__,
)  # fmt: skip
def test_what_is_no_data_frame(data: Any) -> None:
    with pytest.raises(DataError, match=r"pandas, polars or pyarrow data frame.*Convert it"):
        Source(data).want(["x"])


def test_empty_data(tmp_path: Path) -> None:
    empty = FRAME.iloc[:0]
    for data in (empty, pl.from_pandas(empty), pa.Table.from_pandas(empty)):
        with pytest.raises(DataError, match="at least one row, but the data have 0 rows.*Check"):
            Source(data)
    for data in (parquet(tmp_path, empty), dd.from_pandas(FRAME, npartitions=2).query("x > 1e9")):
        with pytest.raises(DataError, match="0 rows. Check"):
            look(data, numbers=["x"])


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no.parquet' does not exist\. Check the path"):
        Source(tmp_path / "no.parquet")
    (tmp_path / "data.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match=r"data.csv' cannot be read as one .*Convert it to parquet"):
        Source(str(tmp_path / "data.csv"))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no such column"):
        look(tmp_path / "nothing", numbers=["x"])


def total(block: Any, design: Any) -> tuple[float]:
    return (design.encode(block, length(block)).sum(),)


def test_columns_are_counted_where_none_is_wanted(tmp_path: Path) -> None:
    for data in (FRAME, pl.from_pandas(FRAME), parquet(tmp_path, FRAME),
                 dd.from_pandas(FRAME, npartitions=3)):  # fmt: skip
        _, rows, designs, reader = prepare(data, {"f": "1"})
        assert rows.n_obs == N and reader.columns == ()
        assert rows.total(total, designs["f"]) == (N,)


# ---------------------------------------------------------------- sources and readers


def test_index() -> None:
    data = FRAME.set_axis(np.arange(N) * 2)
    assert Source(data).index is data.index
    for other in (pl.from_pandas(FRAME), pa.Table.from_pandas(data)):
        assert Source(other).index.equals(pd.RangeIndex(N))


def test_memory_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    look_at = frame_module.look_at
    monkeypatch.setattr(
        frame_module, "look_at", lambda name, *a: (seen.append(name), look_at(name, *a))[1]
    )
    prepare(FRAME, {"phi": "x + g", "gamma": "x"}, numbers=["k"], categories=["c"])
    assert sorted(seen) == ["c", "g", "k", "x"]


def test_columns_are_looked_at_on_threads_where_there_are_many_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = look(FRAME)
    monkeypatch.setattr(frame_module, "_MANY", 10)
    for threads in ("1", "3"):
        monkeypatch.setenv("CAUSALRM_NUM_THREADS", threads)
        reader, rows = look(FRAME)
        assert repr(reader.columns) == repr(expected[0].columns)
        assert all(np.array_equal(rows.columns[c], expected[1].columns[c]) for c in rows.columns)
        with pytest.raises(DataError, match="'x', but 1 of 90"):
            look(FRAME.assign(x=[np.nan, *FRAME["x"][1:]]))


def test_reader_reads_native_and_narwhals_frames() -> None:
    reader, rows = look(FRAME)
    for part in (FRAME.iloc[40:50], pl.from_pandas(FRAME.iloc[40:50]), Source(FRAME[40:50]).frame):
        block = reader(part)
        for name, values in rows.columns.items():
            np.testing.assert_array_equal(block[name], values[40:50], err_msg=name)


def test_reader_says_which_levels_are_new() -> None:
    reader = Reader([Column("k", (1, 2)), Column("g", ("a", "b"))])
    with pytest.raises(DataError, match=r"levels \[1, 2\] in .*'k', but 3 of 3 rows .* '1', '2' "):
        reader(pd.DataFrame({"k": ["1", "2", "1"], "g": ["a", "a", "b"]}))
    with pytest.raises(DataError, match=r"others: 'c', 'd' \(first rows: 11, 12\)\. Drop"):
        reader(pd.DataFrame({"k": [1, 1, 2], "g": ["a", "c", "d"]}), offset=10)
    good = reader(pd.DataFrame({"k": [2.0, 1.0], "g": pd.Categorical(["b", "a"], list("zba"))}))
    assert good["k"].tolist() == [1, 0] and good["g"].tolist() == [1, 0]
    with pytest.raises(DataError, match="Expected numbers in column 'x'"):
        Reader([Column("x")])(pd.DataFrame({"x": ["1"]}))


# ---------------------------------------------------------------- check


@pytest.mark.parametrize("kind", ["pandas", "parquet", "dask"])
def test_check(kind: str, tmp_path: Path) -> None:
    data = FRAME.assign(t=np.arange(N) - 3.0, u=5.0)
    data.loc[80, "t"] = -1.0
    _, rows = look(SOURCES[kind](tmp_path, data), numbers=["t", "u"])
    check(rows, ["t"], lambda t: t < -3, "times", "Drop them.")
    with pytest.raises(
        DataError,
        match=r"Expected times above 0 in column 't', but 5 of 90 rows differ "
        r"\(first rows: 0, 1, 2, 3, 80\)\. Drop them\.",
    ):
        check(rows, ["t"], lambda t: t <= 0, "times above 0", "Drop them.")
    with pytest.raises(DataError, match=r"'t' and 'u', but 80 of 90 rows .*: 9, 10, 11, 12,"):
        check(rows, ["t", "u"], lambda t, u: t > u, "t below u", "Swap them.")


def test_check_labels_rows() -> None:
    data = FRAME.set_axis([f"r{i}" for i in range(N)])
    _, rows = look(data, numbers=["k"])
    with pytest.raises(DataError, match="first rows: r"):
        check(rows, ["k"], lambda k: k == 1, "others", "Drop them.", data.index)
