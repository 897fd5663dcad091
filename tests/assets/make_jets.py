"""Make jets.npz and jets.json: 20 jets, their stored observables, and scores by other packages.

    python tests/assets/make_jets.py FOLDER      (needs h5py, jetnet and energyflow)

FOLDER holds t.hdf5 and t_hlv12.h5 in JetNet's layout: self-generated jets (Pythia 8), free to
redistribute. Run with jetnet 0.2.5, EnergyFlow 1.4.0, numpy 1.26.4. The tests compare flowbdt with
the numbers that are stored here; none of these packages is needed for that.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
from energyflow.emd import emds
from jetnet import evaluation, utils
from jetnet.evaluation import gen_metrics

HERE = Path(__file__).parent
N = 20


def features(seed: int, n: int = 2000) -> np.ndarray:
    """Return correlated, skewed columns; the test makes the same ones."""
    rng = np.random.default_rng(seed)
    return np.exp(0.3 * rng.normal(size=(n, 4)) @ (np.eye(4) + 0.2 * seed))


def main(folder: Path) -> None:
    """Write both files."""
    warnings.simplefilter("ignore")
    with h5py.File(folder / "t.hdf5") as file:
        jets, jet = file["particle_features"][:N], file["jet_features"][:N]
    with h5py.File(folder / "t_hlv12.h5") as file:
        stored = {name: file[name][:N] for name in file}
    np.savez_compressed(HERE / "jets.npz", jets=jets, jet_pt=jet[:, 0], **stored)
    plain = jets[..., :3].astype(np.float64)
    first, second = features(1), features(2)
    small = {"min_samples": 500, "max_samples": 2000, "num_batches": 4, "num_points": 5}
    result = {
        "mass": utils.jet_features(plain)["mass"].tolist(),
        "pt": utils.jet_features(plain)["pt"].tolist(),
        "efps_4_4_prime": utils.efps(plain, efp_jobs=1).tolist(),
        "efps_up_to_4": evaluation.get_fpd_kpd_jet_features(plain, efp_jobs=1).tolist(),
        "emds": emds(plain[:10][..., [2, 0, 1]], plain[10:][..., [2, 0, 1]]).tolist(),
        "fpd": [float(v) for v in gen_metrics.fpd(first, second, **small)],
        "kpd": [float(v) for v in gen_metrics.kpd(first, second, batch_size=300)],
    }
    (HERE / "jets.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
