"""Backbones of diffusion: published sizes, symmetries, geometry."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")

from flowbdt.errors import ConfigError, InputError  # noqa: E402
from flowbdt.networks.backbones import SetAttention, TableMLP, build_backbone  # noqa: E402
from flowbdt.networks.calo_unet import (  # noqa: E402  # noqa: E402
    PUBLISHED,
    Block,
    CaloUNet,
    CylinderConv,
    CylinderUp,
    LinearAttention,
)
from flowbdt.networks.geometry_map import PHOTONS, PIONS, GeometryMap, Layers  # noqa: E402

COUNTS = {
    "dataset 1, photons": 521_581,
    "dataset 1, pions": 525_901,
    "dataset 2": 517_969,
    "dataset 3": 1_221_153,
}
RING = (1, 3, 1)
SMALL = Layers(((0, 1, 3, 4), (0, 2, 4, 6), (0, 1, 2)), (1, 4, 4))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def picture(*shape: int):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_published_configurations_have_the_published_number_of_parameters(name):
    assert CaloUNet(**PUBLISHED[name]).n_parameters() == COUNTS[name]


def test_geometry_map_of_photons_and_pions_has_the_published_number_of_parameters():
    for layers, count in ((PHOTONS, 3180), (PIONS, 3404)):
        assert sum(p.numel() for p in GeometryMap(layers).parameters()) == count


def test_geometries_have_the_published_voxels_and_grids():
    assert (PHOTONS.n_voxels, PHOTONS.shape) == (368, (5, 10, 30))
    assert (PIONS.n_voxels, PIONS.shape) == (533, (7, 10, 23))


@pytest.mark.parametrize("name", ["dataset 1, photons", "dataset 1, pions", "dataset 2"])
def test_networks_answer_in_voxels(name):
    net = CaloUNet(**PUBLISHED[name])
    x = picture(2, net.n_voxels)
    assert net(x, torch.zeros(2), torch.full((2, 1), 0.5)).shape == x.shape
    with pytest.raises(InputError, match="voxels"):
        net(x[:, 1:], torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(InputError, match="conditions"):
        net(x, torch.zeros(2))


@pytest.mark.parametrize("shift", [1, 3, 7])
@pytest.mark.parametrize("kernel", [(1, 1, 1), (3, 3, 3), (1, 3, 3)])
def test_cylinder_convolution_commutes_with_rotation_in_alpha(kernel, shift):
    layer, x = CylinderConv(3, 4, kernel), picture(2, 3, 5, 10, 7)
    turned = layer(torch.roll(x, shift, dims=3))
    assert (turned - torch.roll(layer(x), shift, dims=3)).abs().max() < 1e-5
    assert (turned - layer(x)).abs().max() > 0.1


def test_blocks_and_attention_commute_with_rotation_in_alpha():
    x, condition = picture(2, 8, 5, 10, 7), picture(2, 6)
    for layer in (Block(8, 16, 6), LinearAttention(8)):
        given = (condition,) if isinstance(layer, Block) else ()
        turned = layer(torch.roll(x, 4, dims=3), *given)
        assert (turned - torch.roll(layer(x, *given), 4, dims=3)).abs().max() < 1e-5


def test_halving_and_doubling_turn_with_the_cylinder():
    down = CylinderConv(2, 2, (3, 4, 4), 2, padding=1)
    up = CylinderUp(2, (3, 4, 4), (5, 8, 8))
    x, small = picture(1, 2, 5, 8, 8), picture(1, 2, 3, 4, 4)
    assert down(x).shape == small.shape
    assert up(small).shape == x.shape
    two = down(torch.roll(x, 2, dims=3)) - torch.roll(down(x), 1, dims=3)
    one = up(torch.roll(small, 1, dims=3)) - torch.roll(up(small), 2, dims=3)
    assert max(two.abs().max(), one.abs().max()) < 1e-5


def test_a_ring_in_one_dimension_is_the_same_as_in_three():
    layer, up = (
        CylinderConv(3, 4, (1, 4, 1), 2, padding=1),
        CylinderUp(3, (1, 4, 1), (1, 8, 1), RING),
    )
    x, small = picture(2, 3, 1, 8, 1), picture(2, 3, 1, 4, 1)
    wide = torch.cat([x[:, :, :, -1:], x, x[:, :, :, :1]], dim=3)
    torch.testing.assert_close(layer(x), torch.nn.Conv3d.forward(layer, wide))
    closed = torch.cat([small[:, :, :, -1:], small, small[:, :, :, :1]], dim=3)
    whole = torch.nn.ConvTranspose3d.forward(up, closed)
    torch.testing.assert_close(up(small), whole[:, :, :, 3:11])


@pytest.mark.parametrize("fold", [1, 7, "all", [2, 10], [3, 7]])
def test_folding_is_undone(fold):
    net, x = CaloUNet("photons", [8, 8], n_blocks=1, fold=fold), picture(3, 1, 5, 10, 30)
    assert torch.equal(net._unfolded(net._folded(x)), x)


@pytest.mark.parametrize("shift", [2, 6])
def test_a_network_of_rings_turns_with_the_shower(shift):
    given = {"geometry": "photons", "fold": "all", "inverse": "mean", "angle": False}
    net, x, noise = (
        CaloUNet(widths=[8, 8, 16], n_blocks=1, **given),
        picture(4, 368),
        torch.zeros(4),
    )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)

    def turned(voxels):
        parts, first = [], 0
        for layer, bins in zip(PHOTONS.edges, PHOTONS.n_alpha, strict=True):
            size = bins * (len(layer) - 1)
            part = voxels[:, first : first + size].reshape(len(voxels), bins, -1)
            parts.append(torch.roll(part, shift if bins > 1 else 0, dims=1).flatten(1))
            first += size
        return torch.cat(parts, dim=1)

    one, other = turned(net(x, noise, x[:, :1])), net(turned(x), noise, x[:, :1])
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert (one - net(x, noise, x[:, :1])).abs().max() > 0.1


def test_a_fold_of_nothing_is_refused():
    for fold in (0, [5, 0], [1, 2, 3], "some", None):
        with pytest.raises(ConfigError, match="fold"):
            CaloUNet("photons", fold=fold)


def test_a_map_of_means_copies_values_and_takes_them_back():
    mapping, x = GeometryMap(PHOTONS, jitter=0.0, inverse="mean"), picture(5, 368)
    cylinder = mapping(x)
    torch.testing.assert_close(mapping.inverse(cylinder), x)
    first = torch.unique(cylinder[0, 0, 0])
    assert set(first.tolist()) == {0.0, *x[0, :8].tolist()}  # 0 beyond the outermost ring


@pytest.mark.parametrize("layers", [PHOTONS, PIONS, SMALL], ids=["photons", "pions", "small"])
def test_geometry_map_and_its_inverse_conserve_energy(layers):
    mapping = GeometryMap(layers, jitter=0.0)
    energy = picture(20, layers.n_voxels).exp()
    cylinder = mapping(energy)
    assert cylinder.shape == (20, 1, *layers.shape)
    back = mapping.inverse(cylinder)
    torch.testing.assert_close(cylinder.sum((1, 2, 3, 4)), energy.sum(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(back.sum(1), energy.sum(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(back, energy, rtol=1e-4, atol=1e-5)


def test_published_jitter_loses_little_energy():
    mapping = GeometryMap(PHOTONS)
    energy = picture(20, 368).exp()
    back = mapping.inverse(mapping(energy)).detach()
    assert (back.sum(1) / energy.sum(1) - 1).abs().max() < 5e-3
    assert (back - energy).abs().max() > 1e-6


def test_summing_inverse_conserves_the_energy_of_any_picture_within_the_layers():
    mapping = GeometryMap(SMALL, jitter=0.0, inverse="sum")
    cylinder = picture(5, 1, *SMALL.shape).exp()
    for layer, edges in enumerate(SMALL.edges):
        outside = SMALL.union[1:] > edges[-1]
        cylinder[:, :, layer, :, torch.from_numpy(outside)] = 0.0
    voxels = mapping.inverse(cylinder)
    torch.testing.assert_close(voxels.sum(1), cylinder.sum((1, 2, 3, 4)), rtol=1e-5, atol=0)


def test_rings_are_split_by_area():
    split = SMALL.split(0)  # rings 0-1, 1-3, 3-4 on edges 0 1 2 3 4 6
    np.testing.assert_allclose(split[:, 1], [0.0, 3 / 8, 5 / 8, 0.0, 0.0])
    np.testing.assert_allclose(split.sum(axis=0), 1.0)


def test_layers_with_different_alpha_bins_are_refused():
    with pytest.raises(ConfigError, match="alpha"):
        Layers(((0, 1), (0, 1)), (4, 6))


def test_permuting_particles_permutes_the_answer():
    net = SetAttention(3, 1)
    torch.nn.init.normal_(net.last[1].weight)
    x, noise, cond = picture(4, 6, 3), picture(4), picture(4, 1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        net(x[:, order], noise, cond), net(x, noise, cond)[:, order], rtol=1e-4, atol=1e-5
    )


def test_particles_that_are_not_real_are_neither_seen_nor_moved():
    net = SetAttention(3, 1, count_column=0)
    torch.nn.init.normal_(net.last[1].weight)
    x, noise, cond = picture(3, 6, 3), picture(3), torch.tensor([[6.0], [2.0], [0.0]])
    other = x.clone()
    other[1, 2:] += 5.0
    answer = net(x, noise, cond)
    torch.testing.assert_close(net(other, noise, cond), answer)
    assert (answer[1, 2:] == 0).all()
    assert (answer[2] == 0).all()
    assert answer.isfinite().all()


def test_table_network_uses_noise_level_and_conditions():
    net = TableMLP(4, 2, width=16)
    torch.nn.init.normal_(net.last.weight)
    x, noise, cond = picture(5, 4), picture(5), picture(5, 2)
    base = net(x, noise, cond)
    assert base.shape == x.shape
    assert (net(x, noise + 0.5, cond) != base).any()
    assert (net(x, noise, cond + 0.5) != base).any()
    cond[0, 0] = float("nan")
    assert net(x, noise, cond).isfinite().all()


def test_backbones_are_built_by_name():
    net = build_backbone({"name": "table_mlp", "n_columns": 3, "width": 8})
    assert net.settings()["width"] == 8
    with pytest.raises(ConfigError, match="cylinder_unet"):
        build_backbone("unet")
    with pytest.raises(ConfigError, match="geometry"):
        CaloUNet("electrons")
