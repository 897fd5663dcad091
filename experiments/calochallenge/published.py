"""The submissions to the CaloChallenge, dataset 1, as its organisers stored them.

From CaloChallenge/homepage, commit 9b41df7, final_results/CaloChallenge_results_ds1_*.hdf: AUC of
the low- and high-level classifier, separation power of Etot/Einc and mean of all histograms, both
times 1000 (the mean computed here), CPU time per shower in batches of 10,000 (ms), parameters. At
121,000 showers: an AUC at another number cannot be compared. The first row is Geant4 against
Geant4.
"""

from __future__ import annotations

COLUMNS = ("submission", "auc_low", "auc_high", "etot", "mean", "cpu_ms", "parameters")

PHOTONS = (
    ("Geant4", 0.4992, 0.4995, 0.396, 0.240, None, None),
    ("CaloINN", 0.6259, 0.6377, 0.641, 1.21, 2.878, 18_821_350),
    ("CaloDiffusion", 0.6346, 0.5364, 18.97, 1.08, 4500, 521_581),
    ("CaloFlow teacher", 0.7330, 0.6359, 0.510, 1.22, 1912, 28_043_810),
    ("CaloScore", 0.7515, 0.5521, 0.503, 0.617, 12871, 2_447_366),
    ("CaloFlow student", 0.7606, 0.6666, 0.508, 1.53, 6.108, 56_554_930),
    ("CaloScore distilled", 0.8157, 0.6409, 0.671, 1.10, 1276, 2_447_366),
    ("CaloGraph", 0.8204, 0.6722, 48.23, 4.62, 1382, 823_617),
    ("CaloForest", 0.8449, 0.9235, 82.63, 10.21, 27.29, 3_837_598_845),
    ("CaloScore single-shot", 0.8656, 0.7260, 0.850, 4.04, 19.82, 2_447_366),
    ("CaloVAE+INN", 0.8888, 0.9659, 2.02, 6.75, 1.203, 8_321_308),
    ("BoloGAN", 0.9265, 0.9662, 22.38, 42.63, 0.5529, 368_558),
    ("CaloShower3GAN", 0.9281, 0.9466, 3.99, 11.12, 1.197, 472_120),
    ("CaloShower2GAN", 0.9383, 0.9424, 3.66, 9.20, 1.284, 367_380),
    ("Calo-VQ", 0.9984, 0.9887, 8.69, 20.42, 14.06, 2_152_637),
    ("CaloMan", 0.9997, 0.9988, 20.63, 36.06, 1.462, 17_061_148),
)

PIONS = (
    ("Geant4", 0.6089, 0.5579, 0.402, 0.279, None, None),
    ("DNN CaloSim", 0.6764, 0.8187, 10.09, 29.03, 0.3869, 3_169_663),
    ("CaloDiffusion", 0.6804, 0.6524, 9.15, 2.96, 4501, 525_901),
    ("CaloINN", 0.7841, 0.7321, 2.28, 4.74, 4.571, 26_592_624),
    ("CaloGraph", 0.8112, 0.7634, 6.71, 4.04, 2419, 823_617),
    ("CaloFlow teacher", 0.8447, 0.7966, 0.577, 3.61, 3509, 57_079_326),
    ("CaloVAE+INN", 0.8528, 0.9215, 2.48, 9.84, 1.202, 9_165_275),
    ("CaloFlow student", 0.8838, 0.8269, 0.583, 3.86, 10.2, 53_426_622),
    ("CaloShowerGAN", 0.8889, 0.9217, 1.21, 11.37, 1.604, 880_541),
    ("CaloForest", 0.9088, 0.9650, 123.12, 27.30, 41.24, 5_297_822_388),
    ("BoloGAN", 0.9126, 0.9689, 1.03, 39.73, 0.4926, 848_733),
    ("Calo-VQ", 0.9578, 0.9761, 1.66, 14.67, 16.54, 2_237_538),
    ("CaloMan", 0.9986, 0.9991, 33.64, 77.63, 7.383, 16_032_327),
)

TABLES = {"photons": PHOTONS, "pions": PIONS}
