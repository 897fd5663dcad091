"""What comes out on the public files that lie in a folder, beside what others have published?

    python -m experiments.public --data FOLDER [--smoke] [--only photons] [-o FOLDER]

FOLDER has what ``flowbdt data fetch NAME -o FOLDER/NAME`` brought. Every use case is a study of
its own, which prints our figures and, where there are any, the published ones; what is not there is
named, with the command that fetches it. Nothing is fetched. Studies keep what is finished in the
folder of ``-o``, ``public`` without it, so that this command goes on where it was stopped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import common

UNREAD = ("calochallenge3", "flowsim", "jetnet150")
"""Records that no study reads: `flowbdt fit` takes their files, or they are larger than a study."""


class UseCase(NamedTuple):
    """A study on files of a record."""

    record: str
    files: tuple[str, ...]
    command: tuple[str, ...]
    folder: str = "."  # of --data, within that with all records


USE_CASES = {
    "observables": UseCase("jetnet", ("t.hdf5",), ("jetnet_hlv", "--seeds", "1")),
    "particles": UseCase(
        "jetnet", ("t.hdf5",), ("jetnet_particles", "--jets", "t", "--seeds", "1")
    ),
    "photons": UseCase(
        "calochallenge1",
        ("dataset_1_photons_1.hdf5",),
        ("calochallenge", "photons", "--rejection"),
        "calochallenge1",
    ),
    "pions": UseCase(
        "calochallenge1",
        ("dataset_1_pions_1.hdf5",),
        ("calochallenge", "pions", "--rejection"),
        "calochallenge1",
    ),
    "electrons": UseCase(
        "calochallenge2",
        ("dataset_2_1.hdf5",),
        ("calochallenge", "large", "--showers", "20000"),
        "calochallenge2",
    ),
    "unfolding": UseCase(
        "omnifold",
        ("Pythia26_Zjet_pTZ-200GeV_0.npz", "Herwig_Zjet_pTZ-200GeV_0.npz"),
        ("unfolding", "--seeds", "1"),
    ),
}


def high_level(particles: Path, target: Path) -> None:
    """Write the twelve observables of the jets of a JetNet file, unless they are there."""
    import h5py

    from flowbdt.physics import HLV_RELATIONS
    from flowbdt.physics.jets.jetnet_files import HLV_COLUMNS
    from flowbdt.physics.jets.observables import jet_observables
    from flowbdt.tables.formats import write_table
    from flowbdt.tables.formulas.expressions import declared

    if target.exists():
        return
    with h5py.File(particles) as file:
        jets = file["particle_features"][:].astype(np.float64)
        pt = file["jet_features"][:, 0].astype(np.float64)
    ratios, _ = declared(HLV_RELATIONS, {})
    given = [name for name in HLV_COLUMNS if name not in ratios.names]
    table = ratios.added_to(jet_observables(jets, given, pt_scale=pt))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_table(target, table.select(list(HLV_COLUMNS)))


def missing(case: UseCase, data: Path | None) -> list[str]:
    """Return the files of a use case that are not there."""
    return [
        name for name in case.files if data is None or not (data / case.record / name).is_file()
    ]


def run(name: str, case: UseCase, data: Path, output: Path, smoke: bool) -> object:
    """Run a study, show what it prints, return its figures."""
    folder, (study, *options) = data / case.folder, case.command
    if name == "observables":
        folder = output / "made"
        high_level(data / "jetnet" / "t.hdf5", folder / "jetnet" / "t_hlv12.h5")
    command = [sys.executable, "-m", f"experiments.{study}", *options, "--data", str(folder)]
    command += ["-o", str(output / name), *(["--smoke"] if smoke else [])]
    print(f"\n# {name}: {' '.join(command[1:])}\n", flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return {"failed": done.returncode}
    *text, figures = done.stdout.splitlines()
    print("\n".join(text), flush=True)
    return json.loads(figures)


def main() -> None:
    """Run every study whose files are there, name the others, end in JSON."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=sorted(USE_CASES), help="one use case; all by default")
    options = parser.parse_args()
    output = options.output or Path("public")
    figures: dict[str, object] = {}
    for name, case in USE_CASES.items():
        if options.only not in (None, name):
            continue
        if absent := missing(case, options.data):
            fetch = f"flowbdt data fetch {case.record} {' '.join(absent)} -o FOLDER/{case.record}"
            print(f"{name}: not there, {fetch}", flush=True)
            figures[name] = {"missing": absent}
        else:
            figures[name] = run(name, case, options.data, output, options.smoke)
    print(f"\nfetched as well, but read by no study: {', '.join(UNREAD)}")
    common.finish(figures, options.output, "public")
    if any("failed" in str(found) for found in figures.values()):
        raise SystemExit("a study failed, see above")


if __name__ == "__main__":
    main()
