"""Export to C++: files and arguments that are wrong, and models that cannot be exported."""

from __future__ import annotations

import ctypes
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from exported_models import (
    BAD_ARGUMENT,
    BAD_EVENT,
    BAD_FILE,
    KINDS,
    SMALL,
    Exported,
    booster,
    flow_of,
    plain,
    pointer,
)
from sklearn.exceptions import NotFittedError

from flowbdt import FlowBDT
from flowbdt.errors import ConfigError, RunError
from flowbdt.generation.export import write_cpp


@pytest.fixture(scope="module")
def rejecting():
    return KINDS["rejection"]()


@pytest.fixture(scope="module")
def rejecting_file(rejecting, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rejecting") / "made" / "here"
    write_cpp(rejecting, folder)
    return folder / "model.bin"


DAMAGES = {
    "begin with FLOWBDT": lambda b: b"X" + b[1:],
    "byte order": lambda b: b[:12] + b[15:11:-1] + b[16:],
    "format version 9, this flowbdt.hpp reads versions 3 to 5": lambda b: b[:8] + b"\x09" + b[9:],
    "truncated": lambda b: b[:-64],
    "only 10 bytes": lambda b: b[:10],
    "checksum": lambda b: b[:-100] + bytes([b[-100] ^ 1]) + b[-99:],
}


@pytest.mark.parametrize("words", DAMAGES)
def test_a_bad_file_is_named_with_what_is_wrong(rejecting_file, tmp_path, library, words):
    path = tmp_path / "bad.bin"
    path.write_bytes(DAMAGES[words](rejecting_file.read_bytes()))
    exported = Exported(library, path)
    assert exported.status == BAD_FILE
    assert not exported.handle
    assert words in exported.error
    assert "bad.bin" in exported.error


KINDS_OF_NUMBERS = [np.uint8, np.uint16, np.int64, np.float32, np.float64]


class Forged:
    """A model file whose checksum is right, but not what it says."""

    def __init__(self, path):
        self.content = bytearray(path.read_bytes())
        count = struct.unpack_from("<I", self.content, 28)[0]
        self._entries = {}
        for entry in range(64, 64 * (count + 1), 64):
            name = bytes(self.content[entry : entry + 40]).rstrip(b"\0").decode()
            self._entries[name] = entry

    def __getitem__(self, name):
        """The numbers of an array; writing to them changes the file."""
        entry = self._entries[name]
        kind = struct.unpack_from("<I", self.content, entry + 40)[0]
        begin, size = struct.unpack_from("<QQ", self.content, entry + 48)
        return np.frombuffer(self.content, KINDS_OF_NUMBERS[kind], size, begin)

    def shorten(self, name, size):
        struct.pack_into("<Q", self.content, self._entries[name] + 56, size)

    def write(self, path):
        struct.pack_into("<I", self.content, 24, zlib.crc32(self.content[64:]))
        path.write_bytes(self.content)


def input_that_no_tree_has(file):
    file["trees.feature"][:] = 65535


def trees_whose_number_overflows(file):
    file["trees.table"][:2] = 1 << 33, 31


def type_limits_before_the_first_number(file):
    file["inverse.columns"][4] = -1


def transform_whose_numbers_end_too_early(file):
    file["inverse.ops"][1] = len(file["inverse.numbers"]) - 1


def relation_cut_off(file):
    file.shorten("inverse.relations", 3)


def operation_without_operands(file):
    begin = file["inverse.relations"][1]
    file["inverse.terms"][2 * begin] = 2


def column_that_is_not_there(file):
    number = file["inverse.terms"][2 * file["inverse.relations"][1] + 1]
    file["inverse.numbers"][number] = 1e9


def mixture_without_components(file):
    for name in ("log_weights", "means", "covariances"):
        file.shorten(f"mixture.{name}", 0)


def slots_beyond_all_memory(file):
    file["walk.sizes"][2] = 1 << 20


def size_whose_square_overflows(file):
    file["form.sizes"][4] = (1 << 32) - 1


def end_point_without_closed_form(file):
    file["walk.sizes"][4], file["form.sizes"][0] = 1, 0


def scale_of_a_condition_that_is_zero(file):
    file["scaling.scale"][-1] = 0.0


FORGERIES = {
    scale_of_a_condition_that_is_zero: "scaling of columns",
    input_that_no_tree_has: "nodes of trees",
    trees_whose_number_overflows: "forests",
    type_limits_before_the_first_number: "columns",
    transform_whose_numbers_end_too_early: "transforms",
    relation_cut_off: "relations",
    operation_without_operands: "relations",
    column_that_is_not_there: "relations",
    mixture_without_components: "components of the mixture",
    slots_beyond_all_memory: "steps",
    size_whose_square_overflows: "sizes",
    end_point_without_closed_form: "closed forms",
}


@pytest.mark.parametrize("forge", FORGERIES)
def test_arrays_that_do_not_fit_together_are_refused(rejecting_file, tmp_path, library, forge):
    """Told before anything outside of the file is read or written."""
    file = Forged(rejecting_file)
    file.write(tmp_path / "same.bin")
    assert (tmp_path / "same.bin").read_bytes() == rejecting_file.read_bytes()
    forge(file)
    file.write(tmp_path / "bad.bin")
    exported = Exported(library, tmp_path / "bad.bin")
    assert exported.status == BAD_FILE
    assert f"its {FORGERIES[forge]} do not fit together" in exported.error


def test_a_folder_is_not_taken_for_a_file(tmp_path, library):
    exported = Exported(library, tmp_path)
    assert exported.status == BAD_FILE
    assert "folder" in exported.error


def test_a_missing_file_is_named(tmp_path, library):
    exported = Exported(library, tmp_path / "none.bin")
    assert exported.status == BAD_FILE
    assert "none.bin" in exported.error


@pytest.mark.parametrize(
    ("cond", "words"),
    [
        ([], "2 condition(s)"),
        ([1.0], "got 1"),
        ([1.0, 2.0, 3.0], "got 3"),
        ([1.0, np.inf], "infinite"),
    ],
)
def test_wrong_conditions_are_told(rejecting_file, library, cond, words):
    with Exported(library, rejecting_file) as exported:
        exported.one(cond, 1, 0)
        assert exported.status == BAD_ARGUMENT
        assert words in exported.said()


def test_null_pointers_and_infinite_noise_are_told(rejecting_file, library):
    cond, out = np.zeros(2), np.zeros(9)
    with Exported(library, rejecting_file) as exported:
        size, zero = ctypes.c_size_t(2), ctypes.c_uint64(0)
        assert exported.call("one", pointer(cond), size, zero, zero, None) == BAD_ARGUMENT
        assert exported.call("one", None, size, zero, zero, pointer(out)) == BAD_ARGUMENT
        noise = np.full(exported.size("n_latent"), np.inf)
        given = pointer(cond)
        status = exported.call("from_noise", pointer(noise), given, size, pointer(out), None)
        assert status == BAD_EVENT
        assert "not finite" in exported.said()
    assert library.flowbdt_open(None, None) == BAD_ARGUMENT
    library.flowbdt_close(None)


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        ({"solver": "ddpm"}, "'ddpm' draws random numbers.*export with another sampler"),
        ({"n_steps": 2, "interpolate": True}, "interpolates.*whose times were trained"),
    ],
)
def test_samplers_that_cannot_be_exported_are_named(rejecting, tmp_path, sampler, words):
    with pytest.raises(ConfigError, match=words):
        write_cpp(flow_of(rejecting, sampler=sampler), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_be_exported_are_named(tmp_path):
    x, _ = plain(300)
    given = FlowBDT(**{**SMALL, "n_steps": 2, "coupling": "given"})
    with pytest.raises(ConfigError, match="starts from source events"):
        write_cpp(given.fit(x[:, :3], source=x[:, :3] + 0.3), tmp_path)
    deep = booster(max_depth=20, min_child_weight=0, n_estimators=1, reg_lambda=0)
    with pytest.raises(ConfigError, match="decisions"):
        write_cpp(FlowBDT(**{**SMALL, "n_steps": 1, **deep}).fit(x[:, :3]), tmp_path)
    half = pd.DataFrame({"a": x[:, 0].astype(np.float16), "b": x[:, 1]})
    with pytest.raises(ConfigError, match="column cannot be exported.*'a'.*float16"):
        write_cpp(FlowBDT(**{**SMALL, "n_steps": 1}).fit(half), tmp_path)
    with pytest.raises(NotFittedError, match="not fitted"):
        write_cpp(FlowBDT(), tmp_path)


def test_a_folder_that_cannot_be_made_is_named(rejecting, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        write_cpp(rejecting, tmp_path / "file")
