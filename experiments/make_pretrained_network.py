"""Make flowbdt/physics/data/top_jets_network.npz, the network that comes with the package.

    python experiments/make_pretrained_network.py flowbdt/physics/data/top_jets_network.npz

It learns from the training part of the bundled jets: three hidden layers of 128, EDM
preconditioning and loss, 6,000 batches of 1,024, average of weights 0.998; a CPU minute or two.
Torch decides the last bits, so another release of it gives other bytes and the same quality.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

from flowbdt import TableTransform
from flowbdt.networks import Trainer, TrainingConfig
from flowbdt.networks.backbones import TableMLP
from flowbdt.networks.network_files import TableNetwork
from flowbdt.physics import bundled
from flowbdt.seeding import split_mask


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write network and transform."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", help="file to write")
    parser.add_argument("--batches", type=int, default=6000, help="(%(default)s)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    jets = bundled().load("train")
    transform = TableTransform("auto", bundled().relations).fit(jets)
    z = transform.forward(jets)
    valid = split_mask(len(z), 0.1, seed=1)
    config = TrainingConfig(n_steps=given.batches, batch_size=1024, device="cpu", seed=1)
    trainer = Trainer(TableMLP(z.shape[1], width=128), "edm", config)
    began = time.process_time()
    trainer.fit(z[~valid], valid=(z[valid], None))
    print(f"{time.process_time() - began:.0f} CPU s, {trainer.history[-1]}")
    network = TableNetwork(trainer.network(), transform, jets.names, jets.units)
    network.save(given.target)


if __name__ == "__main__":
    main()
