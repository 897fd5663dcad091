"""Every kind of table goes through one gate, and comes back as it went in."""

from __future__ import annotations

import datetime
import sys
import types
from decimal import Decimal

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import importorskip_format, run

from flowbdt import FlowBDT, seeding
from flowbdt.errors import ConfigError, DataWarning, FormatError, InputError
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import FORMATS, read_conditions, read_table, write_table

pytestmark = pytest.mark.usefixtures("quick_classifiers")

N = 400
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, N))


def small(**settings):
    booster = {"n_estimators": 3}
    return FlowBDT(**{"preset": "fast", "n_steps": 3, "booster": booster, **settings})


def fitted_sample(table, n=50):
    return small(random_state=1).fit(table).sample(n, random_state=2)


# ---- what is refused


def _masked(values, every=10):
    mask = np.zeros(np.shape(values), dtype=bool)
    mask[::every] = True
    return np.ma.masked_array(np.where(mask, -999.0, values), mask=mask)


DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(N)]
TEXTS = {
    "Decimal": [Decimal(i) / 7 for i in range(N)],
    "date": DAYS,
    "Period": pd.period_range("2024-01", periods=N, freq="D"),
    "Interval": pd.interval_range(0, N),
    "Timedelta": pd.to_timedelta(np.arange(N), unit="s"),
    "datetime": pd.date_range("2024-01-01", periods=N, tz="UTC"),
    "complex": X + 1j,
    "1,5": [f"{v:.2f}".replace(".", ",") for v in X],
    "$3": [f"${v:.2f}" for v in X],
    "7 %": [f"{v:.1f} %" for v in X],
    "number": [str(v) for v in X],
    "day": [str(day) for day in DAYS],
    "clock": [f"{i // 60:02d}:{i % 60:02d}" for i in range(N)],
    "event": [f"evt_{i:05d}" for i in range(N)],
    "words": ["".join(RNG.choice(list("abcdefgh"), 12)) for _ in range(N)],
    "list": [[v] for v in X],
    "tuple": [(v, v) for v in X],
    "array": [np.array([v]) for v in X],
    "dict": [{"v": v} for v in X],
    "set": [frozenset([i]) for i in range(N)],
    "bytes that are no text": [b"\xff\xfe"] * N,
    "numbers and texts": [1.0, "one"] * (N // 2),
    "numbers and truth": [2, True] * (N // 2),
    "pandas.cut": pd.cut(X, 4),
    "category of days": pd.Categorical(DAYS),
    "category of numbers and texts": pd.Categorical([1, "one"] * (N // 2)),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_column_of_neither_numbers_nor_categories_is_refused_by_name(kind):
    frame = pd.DataFrame({"x": X, "strange": pd.Series(TEXTS[kind])})
    for hand_in in (EventTable.of, lambda t: EventTable.of(X[:, None], cond=t[["strange"]])):
        with pytest.raises(InputError, match="'strange'"):
            hand_in(frame)


def test_categories_that_are_few_or_meant_are_accepted():
    texts = [f"cell_{i % 40}" for i in range(N)]
    numbers = [f"{i % 7},5" for i in range(N)]
    many = [f"module_{i}" for i in range(N)]
    frame = pd.DataFrame({"cell": texts, "price": numbers, "module": pd.Categorical(many)})
    assert [len(known) for known in EventTable.of(frame).categories.values()] == [40, 7, N]


def test_names_with_a_number_are_categories_where_each_has_many_rows():
    names = pd.DataFrame({"station": [f"Station {i % 60:02d}" for i in range(3000)]})
    assert len(EventTable.of(names).categories["station"]) == 60
    for pattern in ("{} GeV", "{}.5", "run {}.5", "2024-{}", "2 x {}"):
        with pytest.raises(InputError, match="look like numbers"):
            EventTable.of({"v": [pattern.format(i % 60) for i in range(3000)]})


@pytest.mark.parametrize(
    "array",
    [
        _masked(np.column_stack([X, Y])),
        np.array([["2024-01-01", "2024-01-02"]] * 5, dtype="datetime64[D]"),
        np.array([[1, 2]] * 5, dtype="timedelta64[s]"),
        np.array([["1.5", "2"]] * 5),
        np.array([["1.5", 2]] * 5, dtype=object),
        np.array([[Decimal(1), Decimal(2)]] * 5),
        np.array([DAYS[:2]] * 5),
        np.array([[b"1", b"2"]] * 5),
        [[1.0, 2.0], [1.0]],
        np.array([[10**400], [1]], dtype=object),
        np.array([[1, pd.NA]], dtype=object),
    ],
    ids=[
        *("masked", "days", "seconds", "texts", "mixed", "Decimal", "dates", "bytes", "ragged"),
        *("huge", "NA"),
    ],
)
def test_an_array_of_other_things_than_numbers_is_refused(array):
    for use in (EventTable.of, lambda a: EventTable.of(np.zeros((len(a), 1)), cond=a)):
        if use is not EventTable.of and isinstance(array, np.ma.MaskedArray):
            continue  # missing conditions are allowed
        with pytest.raises(InputError):
            use(array)


def test_masked_entries_are_missing_ones_wherever_they_are():
    plain = np.column_stack([X, Y])
    unmasked = np.ma.masked_array(plain, mask=False)
    np.testing.assert_array_equal(EventTable.of(unmasked).x, plain)
    with pytest.raises(InputError, match="80 that are masked"):
        EventTable.of(_masked(plain))
    with pytest.raises(InputError, match="'x'.*masked"):
        EventTable.of({"x": _masked(X), "y": Y})
    with pytest.raises(InputError, match="weights.*masked"):
        EventTable.of(plain, weight=_masked(np.abs(X)))
    with pytest.raises(InputError, match="^the table has missing entries, 80 that are masked"):
        EventTable.of(list(_masked(plain)))
    cond = EventTable.of(plain, cond=_masked(X)).cond
    assert np.isnan(cond[::10]).all()
    assert np.isfinite(cond).sum() == N - N // 10


@pytest.mark.parametrize(
    "weight",
    [
        ["heavy", "light"],
        ["1", "2"],
        np.array(["1", "2"], dtype=object),
        np.array([1, 2], dtype="datetime64[s]"),
        [1j, 1],
        [10**400, 1],
        [1, pd.NA],
    ],
)
def test_weights_that_are_no_numbers_are_refused(weight):
    with pytest.raises(InputError, match="weights must be numbers"):
        EventTable.of(X[:2, None], weight=weight)


def test_a_condition_named_like_a_column_is_refused_before_training():
    with pytest.raises(InputError, match="repeated: y"):
        small().fit(pd.DataFrame({"y": Y}), cond=pd.DataFrame({"y": X}))


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True])
def test_seeds_are_whole_numbers(seed):
    with pytest.raises(ConfigError, match="random_state"):
        seeding.resolve(seed)


# ---- kinds of tables


def test_tables_with_names_keep_them_and_their_kind():
    records = np.empty(N, [("mass", "f4"), ("n", "i2"), ("kind", "U3")])
    records["mass"], records["n"], records["kind"] = X, np.arange(N) % 5, ["top", "qcd"] * (N // 2)
    back = fitted_sample(records)
    assert back.dtype == records.dtype
    assert set(back["kind"]) == {"top", "qcd"}
    columns = {name: records[name] for name in records.dtype.names}
    back = fitted_sample(columns)
    assert isinstance(back, dict)
    assert [(k, v.dtype.kind) for k, v in back.items()] == [
        ("mass", "f"),
        ("n", "i"),
        ("kind", "O"),
    ]
    with pytest.raises(InputError, match="'mass'.*shape"):
        EventTable.of({"mass": np.zeros((3, 2))})
    with pytest.raises(InputError, match="cannot be read"):
        EventTable.of({"mass": X, "n": X[:3]})


def test_arrow_tables_keep_names_and_types():
    pa = pytest.importorskip("pyarrow")
    kinds = pa.array(["top", "qcd"] * (N // 2)).dictionary_encode()
    table = pa.table({"mass": pa.array(X, pa.float32()), "n": np.arange(N) % 5, "kind": kinds})
    back = fitted_sample(table)
    assert back.schema.names == ["mass", "n", "kind"]
    assert [str(t) for t in back.schema.types[:2]] == ["float", "int64"]
    assert pa.types.is_dictionary(back.schema.types[2])
    with pytest.raises(InputError, match="'v'"):
        EventTable.of(pa.table({"v": [[1.0]] * N}))
    with pytest.raises(InputError, match="'v'"):
        EventTable.of(pa.table({"v": pa.array([Decimal("1.5")] * N)}))


def test_tables_that_speak_arrow_come_back_as_their_library_makes_them(monkeypatch):
    pa = pytest.importorskip("pyarrow")
    library = types.ModuleType("polars")

    class Frame:
        def __init__(self, table):
            self.table, self.columns = table, table.column_names

        def __len__(self):
            return len(self.table)

        def __arrow_c_stream__(self, schema=None):
            return self.table.__arrow_c_stream__(schema)

    Frame.__module__ = "polars.dataframe.frame"
    library.from_arrow = Frame
    monkeypatch.setitem(sys.modules, "polars", library)
    back = fitted_sample(Frame(pa.table({"mass": X, "pt": Y})))
    assert isinstance(back, Frame)
    assert back.columns == ["mass", "pt"]


def test_tables_of_a_library_that_takes_none_back_come_back_as_arrow_tables():
    pa = pytest.importorskip("pyarrow")

    class Relation:
        columns = ("mass", "kind")

        def __arrow_c_stream__(self, requested_schema=None):
            return table.__arrow_c_stream__(requested_schema)

    kind = pa.array(["top", "qcd"] * (N // 2))
    table = pa.table({"mass": X, "kind": kind, "code": kind.dictionary_encode()})
    for data in (table, Relation()):
        back = fitted_sample(data)
        assert back.schema == table.schema
        assert set(back["kind"].to_pylist()) == {"top", "qcd"}


def test_awkward_records_come_back_as_such_and_lists_are_refused():
    ak = pytest.importorskip("awkward")
    kind = ak.Array(["top", "qcd"] * (N // 2))
    records = ak.zip({"pt": X.astype("f4"), "kind": kind, "n": np.arange(N) % 5})
    back = fitted_sample(records)
    assert str(back.type) == "50 * {pt: float32, kind: string, n: int64}"
    lists = ak.Array([[1.0], []] * (N // 2))
    for data in (ak.zip({"v": lists, "x": X}, depth_limit=1), {"v": lists}, {"v": records}):
        with pytest.raises(
            InputError, match="column 'v'.* one value per event.* type .*ak.flatten"
        ):
            EventTable.of(data)
    for given in ({"weight": lists}, {"cond": lists}):
        with pytest.raises(InputError, match="must have one value per event"):
            EventTable.of(X[:, None], **given)
    gaps = ak.zip({"x": [1.0, None, 3.0]})
    assert np.isnan(EventTable.of(gaps, missing=True).x[1, 0])
    np.testing.assert_array_equal(EventTable.of(ak.Array([[1, 2], [3, 4]])).x, [[1, 2], [3, 4]])


def test_record_arrays_come_back_as_such():
    records = np.rec.fromarrays([X, np.array([b"top", b"qcd"] * (N // 2))], names="pt,kind")
    back = fitted_sample(records)
    assert type(back) is np.recarray
    assert back.dtype == records.dtype
    assert set(back.kind) == {b"top", b"qcd"}


@pytest.mark.parametrize(
    "columns",
    [
        pd.Index(["pt", "eta"], name="quantity"),
        pd.MultiIndex.from_tuples([("jet", 1), ("jet", 2)], names=["object", "number"]),
    ],
    ids=["index", "levels"],
)
def test_names_of_the_index_of_columns_come_back(columns, tmp_path):
    model = small(random_state=1).fit(pd.DataFrame(np.column_stack([X, Y]), columns=columns))
    model.save(tmp_path / "m.flowbdt")
    for one in (model, FlowBDT.load(tmp_path / "m.flowbdt")):
        back = one.sample(3, random_state=1).columns
        assert back.equals(columns)
        assert list(back.names) == list(columns.names)


@pytest.mark.parametrize(
    "labels",
    [[0, 1], [2.5, "b"], [None, "b"], [("jet", "pt"), ("jet", "eta")], [("jet", 0), ("jet", 1)]],
    ids=str,
)
def test_labels_that_are_no_texts_come_back(labels, tmp_path):
    frame = pd.DataFrame(np.column_stack([X, Y]))
    frame.columns = pd.Index(labels)
    model = small(random_state=1).fit(frame)
    model.save(tmp_path / "m.flowbdt")
    for one in (model, FlowBDT.load(tmp_path / "m.flowbdt")):
        assert one.sample(3, random_state=1).columns.equals(frame.columns)


@pytest.mark.parametrize("labels", [pd.to_datetime(["2024-01", "2024-02"]), [np.inf, "b"]])
def test_labels_that_cannot_be_stored_are_warned_about(labels):
    frame = pd.DataFrame(np.column_stack([X, Y]), columns=labels)
    with pytest.warns(DataWarning, match="come back as texts"):
        fitted_sample(frame)


@pytest.mark.parametrize("labels", [[pd.NA, 1], [("a", pd.NA), ("a", "x")], [("a", np.nan)] * 1])
def test_labels_that_are_missing_come_back_as_missing(labels):
    frame = pd.DataFrame(np.column_stack([X, Y])[:, : len(labels)])
    frame.columns = pd.Index(labels, dtype=object) if labels[0] is pd.NA else pd.Index(labels)
    back = fitted_sample(frame).columns
    expected, found = (
        [*index.to_frame().isna().to_numpy().flat] for index in (frame.columns, back)
    )
    assert found == expected


def test_types_and_category_values_come_back(tmp_path):
    codes = np.arange(N) % 3
    frame = pd.DataFrame(
        {
            "nullable": pd.array(codes, "Int64"),
            "truth": pd.array(codes == 1, "boolean"),
            "narrow": pd.array(X, "Float32"),
            "levels": pd.Categorical.from_codes(codes, ["low", "mid", "high"], ordered=True),
            "numbers": pd.Categorical.from_codes(codes, [10, -3, 7]),
            "halves": pd.Categorical.from_codes(codes, [0.1, 1.5, 1e30]),
            "text": pd.Series(np.array(["a", "b", "c"])[codes], dtype="string"),
            "objects": pd.Series(np.array(["a", "b", "c"])[codes], dtype=object),
            "plain": np.array(["a", "b", "c"])[codes],
            "i1": codes.astype(np.int8),
        }
    )
    model = small(random_state=1).fit(frame)
    model.save(tmp_path / "m.flowbdt")
    for one in (model, FlowBDT.load(tmp_path / "m.flowbdt")):
        back = one.sample(60, random_state=1)
        assert back.dtypes.equals(frame.dtypes)
        for name in ("levels", "numbers", "halves", "text", "objects", "plain"):
            assert set(back[name]) == set(frame[name])


def test_categories_of_truth_values_come_back_as_truth_values():
    back = fitted_sample(pd.DataFrame({"x": X, "flag": pd.Categorical(X > 1)}))
    assert back.flag.dtype == bool  # pandas takes no mean of a category
    assert 0 < back.flag.map(bool).mean() < 0.5
    some = pd.Categorical(np.where(X > 0, X > 1, None))
    gaps = fitted_sample(pd.DataFrame({"x": X, "flag": some}))
    assert gaps.flag.dtype == "boolean"
    assert gaps.flag.isna().any()
    assert set(gaps.flag.dropna()) == {False, True}
    levels = pd.Categorical(X > 1, [False, True], ordered=True)
    back = fitted_sample(pd.DataFrame({"x": X, "flag": levels}))
    assert back.flag.dtype == levels.dtype


def test_conditions_of_numbers_are_found_among_categories_of_numbers_and_the_other_way_round():
    codes = np.arange(N) % 3 + 1
    frame = pd.DataFrame({"y": Y + 10 * codes})
    model = small(random_state=1).fit(frame, cond=pd.DataFrame({"n": pd.Categorical(codes)}))
    expected = model.sample(30, cond=pd.DataFrame({"n": pd.Categorical([2] * 30)}), random_state=1)
    for values in ([2] * 30, [2.0] * 30, ["2"] * 30):
        new = model.sample(30, cond=pd.DataFrame({"n": values}), random_state=1)
        pd.testing.assert_frame_equal(new, expected)
    with pytest.raises(InputError, match=r"unknown categories 4.*known: 1, 2, 3"):
        model.sample(cond=pd.DataFrame({"n": [1, 4]}))
    model = small(random_state=1).fit(frame, cond=pd.DataFrame({"n": codes}))
    texts = model.sample(cond=pd.DataFrame({"n": pd.Categorical([3, 1])}), random_state=1)
    numbers = model.sample(cond=pd.DataFrame({"n": [3, 1]}), random_state=1)
    pd.testing.assert_frame_equal(texts, numbers)


# ---- names


@pytest.fixture(scope="module")
def named():
    frame = pd.DataFrame({"y": 3 * X + 0.2 * Y})
    return small(random_state=1).fit(frame, cond=pd.DataFrame({"pt": X, "eta": Y}))


def test_conditions_with_names_go_by_name_in_any_kind_of_table(named, tmp_path):
    days = [str(day) for day in DAYS[:20]]
    values = {"eta": np.full(20, -2.0), "other": days, "pt": np.full(20, 2.0)}
    frame = pd.DataFrame(values)
    others = {"id": [f"evt_{i:05d}" for i in range(20)], "day": DAYS[:20], "mass": [np.inf] * 20}
    frame.assign(**others).to_csv(tmp_path / "c.csv", index=False)
    expected = named.sample(20, cond=np.array([[2.0, -2.0]]), random_state=1)
    records = frame.to_records(index=False)
    table = EventTable.of(frame)
    for cond in (values, frame, records, table, tmp_path / "c.csv"):
        new = pd.concat(list(named.sample_blocks(20, cond=cond, random_state=1)))
        np.testing.assert_array_equal(new.y, expected.y)
    assert len(named.sample(cond=values, random_state=1)) == 20
    days = frame.assign(other=pd.to_datetime(days))
    np.testing.assert_array_equal(named.sample(20, cond=days, random_state=1).y, expected.y)


def test_conditions_with_other_names_are_refused_in_any_kind_of_table(named, tmp_path):
    frame = pd.DataFrame({"Pt": [2.0], "Eta": [-2.0]})
    frame.to_csv(tmp_path / "c.csv", index=False)
    kinds = (frame, dict(frame), EventTable.of(frame), tmp_path / "c.csv", frame.iloc[:, 0])
    for cond in kinds:
        with pytest.raises(InputError, match="columns pt, eta; missing: pt, eta.*rename"):
            list(named.sample_blocks(1, cond=cond))
    for cond in (frame[["Pt"]].rename(columns={"Pt": "pt"}), {"pt": [1.0]}):
        with pytest.raises(InputError, match="missing: eta"):
            named.sample(cond=cond)


def test_conditions_without_names_go_by_position(named):
    expected = named.sample(5, cond=[[2.0, -2.0]], random_state=1)
    counted = pd.DataFrame([[2.0, -2.0]])
    for cond in (counted, EventTable.of(counted.to_numpy()), np.ma.masked_array(counted)):
        pd.testing.assert_frame_equal(named.sample(5, cond=cond, random_state=1), expected)
    with pytest.raises(InputError, match="2 columns: pt, eta; got 3"):
        named.sample(cond=np.zeros((1, 3)))


def test_a_source_with_other_names_says_what_to_rename():
    frame = pd.DataFrame({"p": X, "q": Y})
    with pytest.raises(InputError, match="missing: p.*It has P: rename"):
        small(coupling="given").fit(frame, source=frame.rename(columns={"p": "P"}))


def test_rare_categories_are_trained_on_and_named():
    kinds = np.array([f"rare{i}" for i in range(20)] + ["e", "mu"] * ((N - 20) // 2))
    frame = pd.DataFrame({"particle": kinds, "x": X})
    with pytest.warns(DataWarning, match=r"'particle': the categories rare.*trained on instead"):
        back = fitted_sample(frame, 20_000)
    assert set(back.particle) == set(kinds)


# ---- files


def _h5(path, **columns):
    with h5py.File(path, "w") as handle:
        for name, values in columns.items():
            handle[name] = values
    return path


def test_fields_of_an_hdf5_data_set_are_columns(tmp_path):
    records = np.empty(N, [("pt", ">f4"), ("n", "i2"), ("kind", "S3")])
    records["pt"], records["n"], records["kind"] = X, np.arange(N), [b"top", b"qcd"] * (N // 2)
    table = read_table(_h5(tmp_path / "t.h5", jets=records, eta=Y), weight=None)
    assert table.names == ("eta", "pt", "n", "kind")
    np.testing.assert_array_equal(table.column("pt"), records["pt"].astype(float))
    assert list(table.typed("kind")[:2]) == ["top", "qcd"]
    assert read_table(tmp_path / "t.h5", ["n"], rows=(5, 8)).x[:, 0].tolist() == [5, 6, 7]
    with pytest.raises(InputError, match="two columns called 'pt'"):
        read_table(_h5(tmp_path / "t.h5", jets=records, pt=Y))
    shaped = np.zeros(3, [("p", "f4", (4,))])
    with pytest.raises(InputError, match=r"'p' must have shape \(n,\), got \(3, 4\)"):
        read_table(_h5(tmp_path / "t.h5", jets=shaped))
    inner = np.zeros(3, [("p", [("x", "f4")])])
    with pytest.raises(InputError, match="'p' must hold numbers or texts"):
        read_table(_h5(tmp_path / "t.h5", jets=inner))


def test_hdf5_files_that_lead_to_other_files_are_refused(tmp_path):
    _h5(tmp_path / "other.h5", x=X)
    with h5py.File(tmp_path / "link.h5", "w") as handle:
        handle["x"] = h5py.ExternalLink("other.h5", "x")
    with h5py.File(tmp_path / "nested.h5", "w") as handle:
        handle["group/x"] = h5py.ExternalLink("other.h5", "x")
        handle["x"] = h5py.SoftLink("/group/x")
    X.tofile(tmp_path / "raw")
    with h5py.File(tmp_path / "storage.h5", "w") as handle:
        handle.create_dataset("x", (N,), "f8", external=[(tmp_path / "raw", 0, X.nbytes)])
    layout = h5py.VirtualLayout((N,), "f8")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (N,))
    with h5py.File(tmp_path / "virtual.h5", "w") as handle:
        handle.create_virtual_dataset("x", layout)
    for name in ("link", "nested", "storage", "virtual"):
        with pytest.raises(FormatError, match=r"other file.*copy"):
            read_table(tmp_path / f"{name}.h5")
    with h5py.File(tmp_path / "broken.h5", "w") as handle:
        handle["x"] = h5py.SoftLink("/nowhere")
    with pytest.raises(InputError, match="'x' is a link that leads nowhere"):
        read_table(tmp_path / "broken.h5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (",a,b\n0,1,2\n1,3,4\n", "column 1 of 3 has no name.*index=False"),
        ("a,b,\n1,2,\n3,4,\n", "column 3 of 3 has no name"),
        ("a b\n1 2\n3 4\n", "commas"),
        ("a|b\n1|2\n3|4\n", "commas"),
        ("a:b\n1:2\n3:4\n", "commas"),
        ("  a   b\n  1   2\n", "commas"),
        ('a,price\n1,"1,5"\n' * 1 + "".join(f'{i},"{i},5"\n' for i in range(60)), "'price'"),
        ("a,day\n" + "".join(f"{i},2024-01-{i:02d}\n" for i in range(1, 30)), "'day'"),
    ],
)
def test_csv_files_of_other_kinds_are_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / "t.csv")
    assert "t.csv" in str(caught.value)


TEXTS_OF_A_CSV = [
    *("NA", "nan", "NaN", "None", "null", "N/A", "", " ", " a", "a ", "\t", "#", "\\", "'", "\0"),
    *(
        'q"q',
        '""',
        "a,b",
        "a\nb",
        "a\rb",
        "a\r\nb",
        "1",
        "01",
        "1.0",
        "1e5",
        "-inf",
        "True",
        "\u00e9",
    ),
]


@pytest.mark.parametrize("text", TEXTS_OF_A_CSV, ids=repr)
def test_categories_of_any_text_come_back_from_our_csv(tmp_path, text):
    path, texts = tmp_path / "t.csv", pd.Categorical([text, "zz", text])
    table = EventTable.of(pd.DataFrame({"k": texts, " x": [0.5, 1.0, 2.0], "1": [3, 4, 5]}))
    write_table(path, table)
    pd.testing.assert_frame_equal(read_table(path).to_frame(), table.to_frame())
    for present in ([text, "zz", text], [text, None, "zz"]):
        cond = pd.DataFrame({"k": pd.Categorical(present, texts.categories)})
        table = EventTable.of(np.zeros((3, 1)), cond=cond)
        if text == "" and None in present:
            with pytest.raises(InputError, match="'k' has missing entries and the category ''"):
                write_table(path, table)
            continue
        write_table(path, table)
        for back in (read_table(path), read_conditions(path)):
            values = back.x if back.cond is None else back.cond
            np.testing.assert_array_equal(values, table.cond)
            assert back.categories == table.categories


def test_categories_of_narrow_numbers_come_back_from_our_csv(tmp_path):
    halves = pd.Categorical(np.array([0.1, 1e30, 0.1], dtype=np.float32))
    table = EventTable.of(pd.DataFrame({"k": halves}))
    write_table(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv").to_frame(), table.to_frame())


def test_words_for_missing_values_are_texts_among_texts_and_missing_among_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("region,n,flag\nNA,1,True\nEU,NA,NA\n,nan,False\n")
    with pytest.warns(DataWarning, match="'region' has the text 'NA', .*leave the field empty"):
        cond = read_conditions(path)
    assert cond.categories == {"region": ("EU", "NA")}
    np.testing.assert_array_equal(cond.x, [[1, 1, 1], [0, np.nan, np.nan], [np.nan, np.nan, 0]])


def test_texts_of_a_csv_are_compared_with_the_categories_of_a_model(tmp_path):
    path, texts = tmp_path / "c.csv", ["NA", "1", "1.5", "nan"] * (N // 4)
    codes = pd.Categorical(texts).codes
    frame = pd.DataFrame({"y": Y + 10 * codes})
    model = small(random_state=1).fit(frame, cond=pd.DataFrame({"k": pd.Categorical(texts)}))
    for given in (["NA", "nan"] * 10, ["1.5", "1"] * 10, ["nan"]):
        pd.DataFrame({"k": given}).to_csv(path, index=False)
        cond = pd.DataFrame({"k": given})
        expected = model.sample(20, cond=cond, random_state=1)
        new = pd.concat(list(model.sample_blocks(20, cond=path, random_state=1)))
        pd.testing.assert_frame_equal(new, expected)
    with pytest.raises(InputError, match="unknown categories 2"):
        model.sample(cond=pd.DataFrame({"k": ["2"]}))


def test_numbers_that_are_several_categories_are_no_choice(tmp_path):
    frame, texts = pd.DataFrame({"y": Y}), ["1", "01"] * (N // 2)
    model = small(random_state=1).fit(frame, cond=pd.DataFrame({"k": pd.Categorical(texts)}))
    with pytest.raises(InputError, match="'k' must hold texts, one of 01, 1"):
        model.sample(cond=pd.DataFrame({"k": [1]}))


@pytest.mark.parametrize("text", ["00501", "0730"])
def test_leading_zeros_that_numbers_lose_are_told(tmp_path, text):
    (tmp_path / "t.csv").write_text(f"zip,x,name\n\n{text},0.5,012\n10001,0,b\n20002,-0.25,c\n")
    with pytest.warns(DataWarning, match=f"'zip' .* {text} comes back as {int(text)}") as caught:
        read_table(tmp_path / "t.csv")
    assert len(caught) == 1


def test_a_csv_column_may_have_a_blank_in_its_name(tmp_path):
    (tmp_path / "t.csv").write_text("jet mass\n1\n2\n")
    assert read_table(tmp_path / "t.csv").names == ("jet mass",)


@pytest.mark.parametrize("ending", FORMATS.names())
def test_order_and_values_of_categories_are_kept_in_files(tmp_path, ending):
    importorskip_format(ending)
    codes = np.arange(12) % 3
    frame = pd.DataFrame(
        {
            "level": pd.Categorical.from_codes(codes, ["low", "mid", "high"], ordered=True),
            "n": pd.Categorical.from_codes(codes, [1, 2, 10]),
            "i": pd.array(codes, "Int64"),
        }
    )
    path = tmp_path / f"t{ending}"
    write_table(path, EventTable.of(frame))
    pd.testing.assert_frame_equal(read_table(path).to_frame(), frame)
    if ending == ".parquet":
        names = ["level", "i"]  # Parquet itself keeps categories of texts only
        pd.testing.assert_frame_equal(pd.read_parquet(path)[names], frame[names])
        frame.to_parquet(tmp_path / "foreign.parquet")
        foreign = read_table(tmp_path / "foreign.parquet")
        pd.testing.assert_frame_equal(foreign.to_frame()[names], frame[names])


def test_a_description_that_is_none_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    for content in ("[]", '{"units": 3}', '{"dtypes": {"a": "nonsense"}}', '{"conditions": "a"}'):
        path.with_name("t.csv.json").write_text(content)
        with pytest.raises(FormatError, match=r"t\.csv\.json"):
            read_table(path)


# ---- the shell


def test_settings_in_another_encoding_are_refused(folder, capsys):
    (folder / "latin.yaml").write_bytes("relations: ['m\xfc = a / b']\n".encode("latin-1"))
    (folder / "day.yaml").write_text("preset: 2024-99-99\n")
    for name in ("latin.yaml", "day.yaml"):
        assert run("fit", "jets.h5", "-o", "run", "--config", name) == 1
        assert f"configuration {name}" in capsys.readouterr().err
    (folder / "wide.yaml").write_text("preset: fast\n", encoding="utf-16")
    assert run("fit", "--config", "wide.yaml", "--dry-run") == 0


@pytest.mark.parametrize(
    "command",
    [
        ["fit", "jets.h5", "-o", "jets.h5"],
        ["fit", "jets.h5", "-o", "jets.h5/run"],
        ["plan", "jets.h5", "-o", "jets.h5"],
        ["tune", "jets.h5", "-o", "jets.h5"],
        ["evaluate", "jets.h5", "jets.h5", "-o", "jets.h5"],
        ["report", "jets.h5", "-o", "jets.h5"],
        ["generate", "jets.h5", "-n", "5", "-o", "."],
        ["compare", "jets.h5", "-o", "."],
        ["demo", "-o", "jets.h5"],
    ],
    ids=" ".join,
)
def test_output_in_the_place_of_something_else_is_refused_at_once(folder, capsys, command):
    before = (folder / "jets.h5").read_bytes()
    assert run(*command) in (1, 2)
    assert "rror" in capsys.readouterr().err
    assert (folder / "jets.h5").read_bytes() == before


def test_negative_seeds_are_refused(folder, capsys):
    assert run("fit", "jets.h5", "-o", "run", "--set", "random_state=-1") == 1
    assert "'random_state' must be" in capsys.readouterr().err


def test_a_table_of_which_texts_were_left_out_is_fitted():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=200), "b": rng.normal(size=200)})
    frame["k"] = np.where(frame.a > 0, "up", "down")
    table = EventTable.of(frame).select(["a", "b"])
    model = FlowBDT(preset="fast", n_steps=2, booster={"n_estimators": 2}, random_state=1)
    assert model.fit(table).sample(5, random_state=1).names == ("a", "b")


def test_conditions_of_two_tables_are_brought_into_one_order():
    x = np.arange(6.0).reshape(3, 2)
    real = EventTable.of(x, ["pt", "mass"], cond=pd.DataFrame({"eta": [1.0, 2.0, 3.0]}))
    other = EventTable.of(x[:, 1:], ["mass"], cond=pd.DataFrame({"pt": x[:, 0], "eta": x[:, 0]}))
    same = real.like(other)
    assert (same.names, same.cond_names) == (("mass",), ("pt", "eta"))
    np.testing.assert_array_equal(same.cond, [[0, 1], [2, 2], [4, 3]])


# ---- tables that are stacked


def _series(*values, dtype=None):
    return pd.Series(values, dtype=dtype)


def _levels(values, order):
    return pd.Series(pd.Categorical(values, order, ordered=True))


STACKED = {
    "integers and floats": (_series(1, 2), _series(0.5), "float64"),
    "widths": (_series(1, 2, dtype="int32"), _series(2**40), "int64"),
    "truth values and integers": (_series(True, False), _series(5), "int64"),
    "nullable and plain": (_series(1, 2, dtype="Int64"), _series(3), "Int64"),
    "nullable": (_series(1, dtype="Int64"), _series(2.5, dtype="Float32"), "Float64"),
    "texts and categories": (_series("a"), _series("b", dtype="category"), pd.Series(["a"]).dtype),
}


@pytest.mark.parametrize(("first", "second", "dtype"), STACKED.values(), ids=STACKED)
def test_stacked_tables_have_a_type_for_the_values_of_both(first, second, dtype):
    for one, other in ((first, second), (second, first)):
        tables = [EventTable.of(pd.DataFrame({"v": column})) for column in (one, other)]
        stacked = EventTable.concatenate(tables).to_frame().v
        assert stacked.dtype == dtype
        assert stacked.tolist() == [*one, *other]


@pytest.mark.parametrize("order", [False, True])
def test_stacked_categories_are_united_unless_their_order_would_be_invented(order):
    columns = [pd.Categorical(["a", last], ["a", last], ordered=order) for last in "bc"]
    tables = [EventTable.of(pd.DataFrame({"v": column})) for column in columns]
    if order:
        with pytest.raises(InputError, match="ordered categories in column 'v'"):
            EventTable.concatenate(tables)
        tables = tables[:1] * 2
    stacked = EventTable.concatenate(tables).to_frame().v
    assert stacked.tolist() == (["a", "b", "a", "b"] if order else ["a", "b", "a", "c"])
    assert stacked.dtype == pd.CategoricalDtype(["a", "b"] if order else ["a", "b", "c"], order)


NOT_STACKED = {
    "texts and numbers": (_series("1", "2"), _series(1, 2)),
    "numbers as categories": (_series(1, 2, dtype="category"), _series(1, 2)),
    "kinds of categories": (_series(1, dtype="category"), _series(1.0, dtype="category")),
    "bytes": (_series(b"a"), _series("a")),
    "nullable truth values": (_series(True, dtype="boolean"), _series(1, dtype="Int64")),
}


@pytest.mark.parametrize(("first", "second"), NOT_STACKED.values(), ids=NOT_STACKED)
def test_tables_of_different_kinds_are_not_stacked(first, second):
    tables = [EventTable.of(pd.DataFrame({"v": column})) for column in (first, second)]
    for pair in (tables, tables[::-1]):
        with pytest.raises(InputError, match="'v'.*convert one of them"):
            EventTable.concatenate(pair)


def test_units_of_no_column_are_refused_and_those_of_a_table_are_replaced():
    table = EventTable.of(pd.DataFrame({"pt": X, "eta": Y}), units={"pt": "GeV"})
    assert table.units == ("GeV", "")
    assert EventTable.of(table, units={"eta": "rad"}).units == ("GeV", "rad")
    for given in (table, table.to_frame()):
        with pytest.raises(InputError, match=r"in units\) 'pT'.*Known: eta, pt"):
            EventTable.of(given, units={"pT": "GeV"})


def test_the_row_of_a_text_among_numbers_is_counted_from_the_first():
    frame = pd.DataFrame({"v": [1.5, np.nan, "abc", 2.5, 3.5]}, index=[7] * 5)
    with pytest.raises(InputError, match="'v'.* row 2 has 'abc' among numbers"):
        EventTable.of(np.zeros((5, 1)), cond=frame)


def test_conditions_without_rows_are_refused(named):
    with pytest.raises(InputError, match="cond has no rows"):
        named.sample(cond=pd.DataFrame({"pt": X, "eta": Y})[:0])


def test_lists_of_different_lengths_and_numbers_beyond_all_floats_are_refused_by_name():
    for values in ([[1, 2], [3]], [10**400, 1]):
        with pytest.raises(InputError, match="'v'"):
            EventTable.of({"v": values})


def test_integers_of_any_kind_that_a_float_rounds_are_told():
    for values in ([2**53 + 1, 1], [2**80 + 1, 1]):
        with pytest.warns(DataWarning, match="'v' has integers beyond"):
            EventTable.of({"v": values})


def test_rows_whose_index_has_another_order_are_told():
    frame, backwards = pd.DataFrame({"x": X, "w": np.abs(X)}), slice(None, None, -1)
    for given in ({"cond": frame[["w"]][backwards]}, {"weight": frame.w[backwards]}):
        with pytest.warns(DataWarning, match="index of the table in another order"):
            EventTable.of(frame[["x"]], **given)
    EventTable.of(frame[["x"]], cond=frame[["w"]], weight=frame.w.reset_index(drop=True))
    EventTable.of(frame[["x"]][backwards].reset_index(drop=True), weight=frame.w.set_axis(X))


def test_blanks_of_a_csv_from_elsewhere_make_no_other_columns_and_no_silent_categories(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("k , b\nx ,1\nx,2\n")
    with pytest.warns(DataWarning, match="'k' has the categories 'x ' and 'x'"):
        assert read_table(path).names == ("k", "b")


@pytest.mark.parametrize("word", ["NULL", "NAN", "#N/A", "-nan"])
def test_other_words_for_missing_among_numbers_are_refused(tmp_path, word):
    (tmp_path / "t.csv").write_text(f"a\n{word}\n2.5\n3\n")
    with pytest.raises(InputError, match=f"'a' must be numeric.* row 0 has '{word}'"):
        read_conditions(tmp_path / "t.csv")


def test_types_that_parquet_does_not_know_are_written_as_others(tmp_path):
    pytest.importorskip("pyarrow")
    wide, sparse = np.array([0.5, 1.0], dtype=np.longdouble), pd.arrays.SparseArray([0, 1.5])
    table = EventTable.of(pd.DataFrame({"wide": wide, "sparse": sparse}))
    write_table(tmp_path / "t.parquet", table)
    np.testing.assert_array_equal(read_table(tmp_path / "t.parquet").x, table.x)
