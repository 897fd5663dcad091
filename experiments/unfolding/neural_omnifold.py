"""OmniFold by networks as the package ``omnifold`` does it; run by its own interpreter.

    python neural_omnifold.py EVENTS.npz WEIGHTS.npz SEED EPOCHS

EVENTS has ``truth``, ``reco`` (n, d), ``pass_truth``, ``pass_reco`` (n,) of the simulation, and
``data`` (m, d); WEIGHTS gets ``weight`` (n,) and ``cpu_s``. All is the package's default (two MLPs
of 64, 128 and 64, three iterations, batches of 128, rate 1e-4, patience of 10 epochs); columns are
standardised, as networks need it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

import numpy as np


def main() -> None:
    """Unfold and write the weights."""
    import tensorflow as tf
    from omnifold import MLP, DataLoader, MultiFold
    from omnifold.net import weighted_binary_crossentropy

    # later versions of Keras than the package's ask for it where a model is cloned
    tf.keras.utils.register_keras_serializable()(weighted_binary_crossentropy)
    events, out, seed, epochs = sys.argv[1:]
    tf.keras.utils.set_random_seed(int(seed))
    with np.load(events) as stored:
        sample = {name: stored[name] for name in stored.files}
    start = time.process_time()
    levels = {}
    for name, passes in (("truth", "pass_truth"), ("reco", "pass_reco")):
        known = sample[name][sample[passes]]
        mean, width = known.mean(axis=0), known.std(axis=0)
        levels[name] = ((sample[name] - mean) / width).astype(np.float32)
        if name == "reco":
            data = ((sample["data"] - mean) / width).astype(np.float32)
    simulation = DataLoader(
        reco=levels["reco"],
        gen=levels["truth"],
        pass_reco=sample["pass_reco"],
        pass_gen=sample["pass_truth"],
        normalize=True,
    )
    n_columns = data.shape[1], levels["truth"].shape[1]
    with tempfile.TemporaryDirectory() as folder:
        model = MultiFold(
            "study",
            MLP(n_columns[0]),
            MLP(n_columns[1]),
            DataLoader(reco=data, normalize=True),
            simulation,
            weights_folder=folder,
            log_folder=folder,
            epochs=int(epochs),
        )
        model.Unfold()
        weight = model.reweight(levels["truth"], model.model2, batch_size=1000)
    np.savez(out, weight=weight, cpu_s=time.process_time() - start)


if __name__ == "__main__":
    main()
