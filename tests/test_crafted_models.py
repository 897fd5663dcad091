"""Model files made to do harm, with right digests: a FormatError, or a model that gives events."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest
from conftest import PLAIN, QUICK
from hashed_members import hashed

from flowbdt import EventTable, FlowBDT
from flowbdt.errors import FormatError, InputError
from flowbdt.training.run_directory import PACKED

N_TRIALS = 120
COND = np.zeros((3, 1))


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Name and content of the members of a model with transforms of many kinds."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5))
    x[:, 1], x[:, 2] = np.round(np.exp(x[:, 1]), 1), rng.integers(0, 30, 300)
    x[:, 3], x[:, 4] = rng.uniform(-3.1, 3.1, 300), 1 / (1 + x[:, 0] ** 2)
    table = EventTable.of(x, list("abcde"), cond=rng.normal(size=(300, 1)))
    settings = {**PLAIN, "preconditioner": {"name": "mixture", "n_components": 2}}
    model = FlowBDT(
        **{**settings, "n_steps": 2, "booster": QUICK, "random_state": 1},
        transforms={"b": "rank", "c": "integer", "d": "circular"},
        relations=["e = 1 / (1 + a ** 2)"],
    ).fit(table)
    path = tmp_path_factory.mktemp("crafted") / "model.flow"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def crafted(members, name, content):
    """The members with another content of one, and its digest wherever it is stated."""
    changed = {k: v for k, v in {**members, name: content}.items() if k != PACKED}
    return changed if name == "manifest.json" else hashed(changed)


def events(path):
    return FlowBDT.load(path).sample(cond=COND, compiled=False, random_state=1)


def parent_of(content, place):
    for key in place[:-1]:
        content = content[key]
    return content


WRONG = [
    ("plan.json", ("n_latent",), 10**12),
    ("plan.json", ("n_latent",), -1),
    ("plan.json", ("kind",), "antigravity"),
    ("plan.json", ("grid", "times"), [0.0] * 5),
    ("plan.json", ("grid", "boundaries"), None),
    ("plan.json", ("fingerprint", "columns", "dtypes", 0), "object"),
    ("plan.json", ("fingerprint", "columns", "dtypes", 0), "V99999999999"),
    ("plan.json", ("fingerprint", "columns", "names"), ["a"]),
    ("plan.json", ("fingerprint", "columns", "conditions"), ["c", "d"]),
    ("plan.json", ("fingerprint", "columns", "categories"), 3),
    ("plan.json", ("fingerprint", "settings", "solver"), {"name": "euler", "steps": 10**9}),
    ("plan.json", ("fingerprint", "settings", "path"), []),
    ("plan.json", ("fingerprint", "settings"), {}),
    ("transform.json", ("columns", 0, "transform", "state", "scale"), 1e999),
    ("transform.json", ("columns", 0, "transform", "state", "scale"), float("nan")),
    ("transform.json", ("columns", 0, "transform", "state", "scale"), "1"),
    ("transform.json", ("columns", 1, "transform", "state", "x"), [1.0]),
    ("transform.json", ("columns", 2, "transform", "state", "inner"), None),
    ("transform.json", ("columns", 3, "transform", "name"), "chain"),
    ("transform.json", ("joint", "state", "mean"), [0.0]),
    ("transform.json", ("relations",), ["e = a ** a ** a ** z"]),
    ("manifest.json", ("models",), []),
    ("manifest.json", ("files", "plan.json"), 3),
]


@pytest.mark.parametrize(("name", "place", "value"), WRONG)
def test_a_wrong_entry_is_a_format_error(members, tmp_path, name, place, value):
    content = json.loads(members[name])
    parent_of(content, place)[place[-1]] = value
    write(tmp_path / "m.flow", crafted(members, name, json.dumps(content).encode()))
    with pytest.raises(FormatError, match=r"m\.flow"):
        events(tmp_path / "m.flow")


def test_deeply_nested_json_is_a_format_error(members, tmp_path):
    write(tmp_path / "m.flow", crafted(members, "plan.json", b"[" * 100_000))
    with pytest.raises(FormatError, match=r"plan\.json"):
        events(tmp_path / "m.flow")


def arrays_of(content):
    with np.load(io.BytesIO(content)) as stored:
        return dict(stored)


def npz(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["means", "log_weights", "covariances", "sizes"])
@pytest.mark.parametrize("wrong", ["missing", "text", "shorter", "deeper", "nan"])
def test_a_wrong_array_is_a_format_error(members, tmp_path, name, wrong):
    arrays = arrays_of(members["preconditioner.npz"])
    array = arrays.pop(name)
    change = {
        "text": array.astype("U9"),
        "shorter": array[:-1],
        "deeper": array[..., None],
        "nan": array + np.nan,
    }
    arrays |= {name: change[wrong]} if wrong in change else {}
    write(tmp_path / "m.flow", crafted(members, "preconditioner.npz", npz(arrays)))
    with pytest.raises(FormatError, match="preconditioner"):
        events(tmp_path / "m.flow")


def test_a_covariance_that_is_none_is_a_format_error(members, tmp_path):
    arrays = arrays_of(members["preconditioner.npz"])
    arrays["covariances"] = -arrays["covariances"]
    write(tmp_path / "m.flow", crafted(members, "preconditioner.npz", npz(arrays)))
    with pytest.raises(FormatError, match=r"m\.flow"):
        events(tmp_path / "m.flow")


VALUES = [None, -1, 0, 3.5, -1e300, 10**30, "x", "", [], {}, True, [1.0] * 5, [[1]], [None]]


def places(content, above=()):
    """Places of all entries; of long lists the first ones."""
    items = content.items() if isinstance(content, dict) else list(enumerate(content))[:4]
    for key, value in items:
        yield (*above, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*above, key))


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_changed_there_is_a_format_error_or_there_are_events(members, tmp_path):
    rng, refused, lost = np.random.default_rng(3), 0, []
    for _ in range(N_TRIALS):
        name = rng.choice(["plan.json", "transform.json", "manifest.json"])
        content = json.loads(members[name])
        known = list(places(content))
        place = known[rng.integers(len(known))]
        parent = parent_of(content, place)
        if rng.random() < 0.2:
            del parent[place[-1]]
        else:
            parent[place[-1]] = VALUES[rng.integers(len(VALUES))]
        write(tmp_path / "m.flow", crafted(members, name, json.dumps(content).encode()))
        try:
            assert len(events(tmp_path / "m.flow").x) == len(COND)
        except FormatError:
            refused += 1
        except InputError as error:  # the model may be another one, whose events are lost
            lost.append(str(error))
    assert refused > N_TRIALS / 4
    assert all("beyond all numbers" in text or "finite" in text for text in lost)


# ---- the zip around it


def central(content):
    """Where the central directory begins."""
    return struct.unpack("<I", content[-6:-2])[0]


@pytest.mark.parametrize(
    ("at", "field"),
    [(6, 999), (8, 1), (8, 0x40), (10, 8), (10, 99), (20, 1 << 31), (24, 1 << 31), (42, 1 << 31)],
)
def test_odd_members_are_refused(members, tmp_path, at, field):
    """Version, encryption, method, sizes and place of the first member."""
    write(tmp_path / "m.flow", members)
    content = bytearray((tmp_path / "m.flow").read_bytes())
    at += central(content)
    size = 4 if field > 1 << 16 else 2
    content[at : at + size] = field.to_bytes(size, "little")
    (tmp_path / "m.flow").write_bytes(content)
    with pytest.raises(FormatError, match=r"m\.flow"):
        events(tmp_path / "m.flow")


def test_compressed_members_are_refused_before_they_are_read(members, tmp_path):
    blanks = {**members, "plan.json": b" " * 50_000_000}
    write(tmp_path / "m.flow", blanks, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "m.flow").stat().st_size < 500_000
    with pytest.raises(FormatError, match="compressed"):
        events(tmp_path / "m.flow")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["plan.json", "../plan.json", "steps/", "other.txt"])
def test_members_twice_or_of_other_names_are_refused(members, tmp_path, name):
    write(tmp_path / "m.flow", members)
    with zipfile.ZipFile(tmp_path / "m.flow", "a") as archive:
        archive.writestr(name, b"{}")
    with pytest.raises(FormatError, match="none of a flowBDT model"):
        events(tmp_path / "m.flow")


def test_packed_arrays_belong_to_the_manifest(members, tmp_path):
    from flowbdt import open_sampler

    content = bytearray(members[PACKED])
    content[-1] ^= 1
    write(tmp_path / "m.flow", {**members, PACKED: bytes(content)})  # with a right CRC
    with pytest.raises(FormatError, match=r"packed\.bin is damaged"):
        open_sampler(tmp_path / "m.flow")
    manifest = json.loads(members["manifest.json"])
    del manifest["packed"]
    unnamed = {**members, "manifest.json": json.dumps(manifest).encode()}
    write(tmp_path / "m.flow", unnamed)  # then the whole flow is used
    event = open_sampler(tmp_path / "m.flow", random_state=1).one(COND[0])
    write(tmp_path / "m.flow", members)
    assert np.array_equal(open_sampler(tmp_path / "m.flow", random_state=1).one(COND[0]), event)
