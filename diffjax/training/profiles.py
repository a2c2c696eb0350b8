"""The weights of the steps in power-function averages, and how to combine averages into another.

In the average with exponent gamma after step t, step k = 1 ... t has the weight

    w_k = (k / t)^(gamma + 1) - ((k - 1) / t)^(gamma + 1),

because the update at step k keeps (1 - 1 / k)^(gamma + 1) = ((k - 1) / k)^(gamma + 1) of the
average before it, and in the product of such factors all but two terms cancel. So the discrete
average equals, without error, the continuous average

    (gamma + 1) / t^(gamma + 1) * integral over 0 < tau <= t of tau^gamma theta(tau)

(Karras et al. 2023, sec. 3.1) of parameters that are constant for k - 1 < tau <= k. Its weights sum
to 1, and nothing of the random start is left. Therefore we may compute with the profiles p(tau)
instead of the weights. If a sum of profiles equals another profile, it gives exactly the weights of
that other. If it misses the profile by r(tau), it misses the weights by no more,

    sum_k (integral of r over step k)^2 <= integral of r^2    (Cauchy and Schwarz),

and the right side is known in closed form. Everything here is NumPy in float64.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# The relative width for gamma = 0, the plain mean of all steps. Wider averages favour early steps.
WIDEST = math.sqrt(1 / 12)
# The relative rounding error of the stored averages, which are float32.
ROUNDING = 2.0**-24
# Float64 cannot tell a smaller squared distance, relative to the squared norm, from 0.
RESOLVED = 1e-15


class Profiles(NamedTuple):
    """Profiles p(tau) = (gamma + 1) tau^gamma / step^(gamma + 1) on 0 < tau <= step."""

    gamma: Float[np.ndarray, " n"]
    step: Float[np.ndarray, " n"]


class Fit(NamedTuple):
    """Coefficients with the sum 1, with which averages come nearest to another average.

    error: the distance of the profiles divided by the norm of the wanted profile. It is an upper
    bound for the distance of the weights.
    """

    coefficients: Float[np.ndarray, " n"]
    error: float


def sigma_rel_of(gamma: float) -> float:
    """sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))): a profile's deviation / its length."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def gamma_of(sigma_rel: float) -> float:
    """The exponent gamma >= 0 of the profile of this relative width; inverse of `sigma_rel_of`.

    u = gamma + 1 is the largest root of u^3 + 4 u^2 + (5 - 1 / sigma_rel^2) u + 2.

    Raises:
      ValueError: the width is not above 0, or is above sqrt(1 / 12) = 0.2886.
    """
    if not 0 < sigma_rel <= WIDEST:
        raise ValueError(f"a relative width of {sigma_rel}: want one above 0, at most 0.2886")
    roots = np.roots([1.0, 4.0, 5.0 - sigma_rel**-2.0, 2.0])
    return max(float(roots.real.max()) - 1.0, 0.0)


def profiles_of(sigma_rel: list[float], step: list[int]) -> Profiles:
    """The profiles of these relative widths, each after the number of steps beside it.

    Raises:
      ValueError: no profile has such a width.
    """
    gammas = [gamma_of(width) for width in sigma_rel]
    return Profiles(np.array(gammas, np.float64), np.array(step, np.float64))


def inner(one: Profiles, other: Profiles) -> Float[np.ndarray, "n m"]:
    """The integral of p q for each p of `one` and q of `other`.

    With t <= s the earlier and the later step, and g the exponent of the profile at s, it is
    (gamma_p + 1) (gamma_q + 1) / (gamma_p + gamma_q + 1) * (t / s)^g / s.
    """
    gamma_p, step_p = one.gamma[:, None], one.step[:, None]
    gamma_q, step_q = other
    early, late = np.minimum(step_p, step_q), np.maximum(step_p, step_q)
    gamma_late = np.where(step_p <= step_q, gamma_q, gamma_p)
    scale = (gamma_p + 1) * (gamma_q + 1) / (gamma_p + gamma_q + 1)
    return scale * (early / late) ** gamma_late / late


def weights(profiles: Profiles, num_steps: int) -> Float[np.ndarray, "n num_steps"]:
    """The weight of each step 1 ... num_steps in each average; 0 after the average's own step."""
    until = np.minimum(np.arange(num_steps + 1.0) / profiles.step[:, None], 1.0)
    until **= profiles.gamma[:, None] + 1
    return np.diff(until, axis=1)


def fit(stored: Profiles, wanted: Profiles) -> Fit:
    """The coefficients with which the stored averages come nearest to the wanted one.

    This is a least-squares fit of profiles that are divided by their norms. A penalty of ROUNDING^2
    times the squared coefficients accounts for the rounding of the stored averages. The
    coefficients sum to exactly 1, so parameters that are constant over the steps are reproduced.
    """
    products = inner(stored, stored)
    norm = np.sqrt(np.diag(products))
    wanted_norm = math.sqrt(float(inner(wanted, wanted)[0, 0]))
    among = products / (norm[:, None] * norm)
    target = inner(stored, wanted)[:, 0] / (norm * wanted_norm)
    scale = wanted_norm / norm  # turns coefficients of normed profiles into those of averages
    values, vectors = np.linalg.eigh(among)
    # rounding may give a small negative number in place of 0
    damped = np.maximum(values, 0.0) + ROUNDING**2
    solve = lambda b: vectors @ ((vectors.T @ b) / damped)  # noqa: E731
    free, towards_one = solve(target), solve(scale)
    y = free + towards_one * (1.0 - scale @ free) / (scale @ towards_one)
    missed = y @ among @ y - 2.0 * y @ target + 1.0
    return Fit(scale * y, math.sqrt(max(missed, RESOLVED)))
