"""The closed forms against the recursion, against quadrature, and against random walks."""

import numpy as np
import pytest
from scipy import integrate

from diffjax.training import profiles

NUM_STEPS = 1200


def stored_every(every, widths=(0.05, 0.1)):
    steps = range(every, NUM_STEPS + 1, every)
    pairs = [(width, step) for step in steps for width in widths]
    return profiles.profiles_of([w for w, _ in pairs], [s for _, s in pairs])


def recursion(history, gamma):
    """The average after each step, by the update that training makes."""
    average, averages = np.full(history.shape[1:], 1e6), []  # a start that must be forgotten
    for k, params in enumerate(history, start=1):
        beta = (1 - 1 / k) ** (gamma + 1)
        average = beta * average + (1 - beta) * params
        averages.append(average)
    return np.stack(averages)


@pytest.mark.parametrize("sigma_rel", [0.001, 0.01, 0.05, 0.1, 0.25, profiles.WIDEST])
def test_a_width_has_one_exponent_and_is_the_profiles_deviation(sigma_rel):
    gamma = profiles.gamma_of(sigma_rel)
    assert profiles.sigma_rel_of(gamma) == pytest.approx(sigma_rel, rel=1e-12)
    start = max(0.0, 1 - 40 * sigma_rel)  # what lies before is less than float64 sees
    moment = lambda f: integrate.quad(  # noqa: E731
        lambda tau: f(tau) * (gamma + 1) * tau**gamma, start, 1, epsabs=0
    )[0]
    mean = moment(lambda tau: tau)
    assert np.sqrt(moment(lambda tau: (tau - mean) ** 2)) == pytest.approx(sigma_rel, rel=1e-6)


def test_exponents_of_the_papers_widths():
    """Karras et al. 2023, sec. 3.1: 0.05 and 0.10 are gamma = 16.97 and 6.94."""
    assert profiles.gamma_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert profiles.gamma_of(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 0.2887, float("nan")])
def test_widths_that_no_profile_has_are_refused(sigma_rel):
    with pytest.raises(ValueError, match=r"at most 0\.2886"):
        profiles.gamma_of(sigma_rel)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 6.94, 100.0])
def test_weights_are_those_of_the_recursion(gamma):
    of_each_step = recursion(np.eye(60), gamma)  # what is in the average of each step's own vector
    many = profiles.Profiles(np.full(60, gamma), np.arange(1.0, 61.0))
    np.testing.assert_allclose(profiles.weights(many, 60), of_each_step, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(of_each_step.sum(axis=1), 1.0, rtol=1e-12)


def test_inner_products_are_integrals():
    some = profiles.Profiles(np.array([0.0, 2.5, 17.0, 6.9]), np.array([40.0, 7.0, 90.0, 40.0]))

    def profile(i, tau):
        gamma, step = some.gamma[i], some.step[i]
        return (gamma + 1) * tau**gamma / step ** (gamma + 1)

    for i, row in enumerate(profiles.inner(some, some)):
        for j, value in enumerate(row):
            both = lambda tau, i=i, j=j: profile(i, tau) * profile(j, tau)  # noqa: E731
            end = min(some.step[i], some.step[j])
            assert value == pytest.approx(integrate.quad(both, 0, end)[0], rel=1e-9)


@pytest.mark.parametrize("every", [30, 200])
@pytest.mark.parametrize("sigma_rel", [0.05, 0.1])
def test_what_is_stored_comes_out_to_1e_6(every, sigma_rel):
    """Among many that are nearly the same."""
    stored, wanted = stored_every(every), profiles.profiles_of([sigma_rel], [NUM_STEPS])
    x, error = profiles.fit(stored, wanted)
    want = profiles.weights(wanted, NUM_STEPS)[0]
    np.testing.assert_allclose(
        x @ profiles.weights(stored, NUM_STEPS), want, atol=1e-6 * want.max()
    )
    assert error < 1e-6


@pytest.mark.parametrize("every", [30, 200])
@pytest.mark.parametrize("sigma_rel", [0.02, 0.04, 0.07, 0.12, 0.2, 0.28])
def test_what_is_not_stored_misses_by_no_more_than_is_said(every, sigma_rel):
    stored, wanted = stored_every(every), profiles.profiles_of([sigma_rel], [NUM_STEPS])
    x, error = profiles.fit(stored, wanted)
    norm = np.sqrt(profiles.inner(wanted, wanted)[0, 0])
    want = profiles.weights(wanted, NUM_STEPS)[0]
    missed = x @ profiles.weights(stored, NUM_STEPS) - want
    assert x.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.linalg.norm(missed) <= error * norm * (1 + 1e-9)
    assert np.linalg.norm(missed) >= 0.5 * error * norm  # it is no idle bound

    walk = np.random.default_rng(0).standard_normal((NUM_STEPS, 50)).cumsum(axis=0) + 1e3
    snapshots = profiles.weights(stored, NUM_STEPS) @ walk
    made, true = x @ snapshots, want @ walk
    assert np.all(np.abs(made - true) <= error * norm * np.linalg.norm(walk - true, axis=0) + 1e-9)


def test_more_snapshots_and_more_widths_come_nearer():
    wanted = profiles.profiles_of([0.07], [NUM_STEPS])
    errors = [
        profiles.fit(stored, wanted).error
        for stored in (stored_every(400), stored_every(100), stored_every(30),
                       stored_every(30, (0.05, 0.1, 0.2)))
    ]  # fmt: skip
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 1e-3
    assert errors[3] < 1e-4


def test_a_snapshot_that_is_there_twice_does_no_harm():
    once, wanted = stored_every(100), profiles.profiles_of([0.07], [NUM_STEPS])
    twice = profiles.Profiles(*(np.concatenate([column, column]) for column in once))
    assert profiles.fit(twice, wanted).error == pytest.approx(
        profiles.fit(once, wanted).error, rel=1e-3
    )


def test_coefficients_stay_small_beside_the_snapshots_rounding():
    """1e4 times float32's rounding would be seen in the parameters."""
    stored = stored_every(20, (0.05, 0.1, 0.2))
    for sigma_rel in (0.03, 0.07, 0.25):
        x, _ = profiles.fit(stored, profiles.profiles_of([sigma_rel], [NUM_STEPS]))
        assert np.abs(x).sum() < 1e3
