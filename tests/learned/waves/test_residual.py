"""Residual of the wave equation on snapshots, against exact solutions; needs torch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from consolve.learned.waves.residual import MARGIN, divergence_of_flux, wave_residual  # noqa: E402


def grid(n):
    x = np.linspace(0, 1, n)
    return np.meshgrid(x, x, indexing="xy")  # x along the last axis


def plane_wave(n, dt, times=5, c=0.8, angle=0.5, wavenumber=12.0):
    x, y = grid(n)
    t = dt * np.arange(times)[:, None, None]
    phase = wavenumber * (x * np.cos(angle) + y * np.sin(angle) - c * t)
    return torch.from_numpy(np.sin(phase))[None]


def constant(n, value):
    return torch.full((1, 1, n, n), value, dtype=torch.float64)


def order(errors):
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


def test_exact_plane_wave_leaves_a_residual_of_fourth_order():
    """The residual is a mean square relative to u_tt, so halving h and dt divides it by 4^4."""
    rms = []
    for n, dt in ((25, 0.04), (49, 0.02), (97, 0.01)):
        residual = wave_residual(plane_wave(n, dt), constant(n, 0.8), constant(n, 0.0), dt, 1 / (n - 1))
        assert residual.shape == (1,)
        rms.append(float(residual) ** 0.5)
    assert rms[-1] < 1e-4
    assert (order(rms) > 3.8).all(), order(rms)


def test_flux_in_a_smooth_medium_is_of_fourth_order():
    errors = []
    for n in (25, 49, 97):
        x, y = grid(n)
        u, c = np.sin(5 * x + 3 * y), np.sqrt(1 + 0.3 * np.sin(2 * x) * np.cos(y))
        # div(c^2 grad u) = c^2 lap u + grad c^2 . grad u
        exact = -(c**2) * 34 * u
        exact += 0.3 * 2 * np.cos(2 * x) * np.cos(y) * 5 * np.cos(5 * x + 3 * y)
        exact -= 0.3 * np.sin(2 * x) * np.sin(y) * 3 * np.cos(5 * x + 3 * y)
        found = divergence_of_flux(
            torch.from_numpy(u)[None, None], torch.from_numpy(c)[None, None], 1 / (n - 1)
        )
        assert found.shape == (1, 1, n - 6, n - 6)
        inner = exact[MARGIN:-MARGIN, MARGIN:-MARGIN]
        errors.append(np.abs(found[0, 0].numpy() - inner).max())
    assert (order(errors) > 3.7).all(), order(errors)


def test_the_axes_are_not_confused():
    n = 33
    x, y = grid(n)
    c = torch.from_numpy(np.sqrt(1 + x))[None, None]
    u = torch.from_numpy(y**2 + 0 * x)[None, None]
    inner = (1 + x)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    np.testing.assert_allclose(divergence_of_flux(u, c, 1 / 32)[0, 0], 2 * inner, rtol=1e-9)
    along = torch.from_numpy(x**2 + 0 * y)[None, None]  # ((1 + x) 2 x)' = 2 + 4 x
    expected = (2 + 4 * x)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    np.testing.assert_allclose(divergence_of_flux(along, c, 1 / 32)[0, 0], expected, rtol=1e-9)


def test_a_wrong_speed_is_seen():
    u = plane_wave(49, 0.02)
    residual = float(wave_residual(u, constant(49, 0.4), constant(49, 0.0), 0.02, 1 / 48))
    assert residual == pytest.approx((1 - 0.25) ** 2, rel=0.02)  # u_tt - c'^2/c^2 u_tt


def test_vertices_near_fixed_ones_do_not_count():
    n, dt = 49, 0.02
    u, fixed = plane_wave(n, dt), constant(n, 0.0)
    fixed[0, 0, 20, 30] = 1
    broken = u.clone()
    broken[:, :, 20, 30] = 0.0
    clean = float(wave_residual(u, constant(n, 0.8), fixed, dt, 1 / (n - 1)))
    assert float(wave_residual(broken, constant(n, 0.8), fixed, dt, 1 / (n - 1))) == pytest.approx(clean)
    assert float(wave_residual(broken, constant(n, 0.8), constant(n, 0.0), dt, 1 / (n - 1))) > 100 * clean
    broken[:, :, 20, 34] = 0.0  # four vertices away: this one is seen
    assert float(wave_residual(broken, constant(n, 0.8), fixed, dt, 1 / (n - 1))) > 100 * clean


def test_one_value_for_each_run_and_none_for_nothing():
    u = torch.cat([plane_wave(33, 0.02), 7 * plane_wave(33, 0.02), torch.zeros(1, 5, 33, 33)])
    c, fixed = constant(33, 0.8).repeat(3, 1, 1, 1), constant(33, 0.0).repeat(3, 1, 1, 1)
    found = wave_residual(u, c, fixed, 0.02, 1 / 32)
    assert found.shape == (3,) and found[2] == 0
    assert float(found[1]) == pytest.approx(float(found[0]))  # relative: the amplitude does not matter
    all_fixed = wave_residual(u.float(), c.float(), torch.ones_like(fixed).float(), 0.02, 1 / 32)
    assert torch.isfinite(all_fixed).all() and not all_fixed.any()
