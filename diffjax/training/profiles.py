"""How much of each step is in a power-function average, and how averages make up another.

After step t the average of exponent gamma holds step k = 1 ... t with the weight

    w_k = (k / t)^(gamma + 1) - ((k - 1) / t)^(gamma + 1),

for an update keeps (1 - 1 / k)^(gamma + 1) = ((k - 1) / k)^(gamma + 1) of what was before, and
such factors cancel in a product. So it is, with no error, the continuous average

    (gamma + 1) / t^(gamma + 1) * integral over 0 < tau <= t of tau^gamma theta(tau)

(Karras et al. 2023, sec. 3.1) of parameters that stay what step k made of them for
k - 1 < tau <= k; its weights sum to 1, and nothing is left of the random start. Hence what holds
for profiles p(tau) holds for weights: a sum of profiles that equals another gives that other's
weights exactly, and a sum that misses it by r(tau) misses the weights by no more,

    sum_k (integral of r over step k)^2 <= integral of r^2    (Cauchy and Schwarz),

which is known in closed form. Everything here is NumPy in float64.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# The relative width of gamma = 0, the plain mean of all steps. Wider would favour the early ones.
WIDEST = math.sqrt(1 / 12)
# Of what is stored, relative to its size: float32.
ROUNDING = 2.0**-24
# A squared distance over a squared norm that float64 cannot tell from 0, and never claims to.
RESOLVED = 1e-15


class Profiles(NamedTuple):
    """Profiles p(tau) = (gamma + 1) tau^gamma / step^(gamma + 1) on 0 < tau <= step."""

    gamma: Float[np.ndarray, " n"]
    step: Float[np.ndarray, " n"]


class Fit(NamedTuple):
    """Averages times coefficients, which sum to 1, that come nearest to another average.

    error: the distance of the profiles, and no less than that of the weights, over the wanted
    profile's norm.
    """

    coefficients: Float[np.ndarray, " n"]
    error: float


def sigma_rel_of(gamma: float) -> float:
    """sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))): a profile's deviation over its length."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def gamma_of(sigma_rel: float) -> float:
    """The exponent gamma >= 0 of the profile of this relative width: `sigma_rel_of`'s inverse.

    u = gamma + 1 is the largest root of u^3 + 4 u^2 + (5 - 1 / sigma_rel^2) u + 2.

    Raises:
      ValueError: there is none, for the width is not above 0 and at most sqrt(1 / 12) = 0.2886.
    """
    if not 0 < sigma_rel <= WIDEST:
        raise ValueError(f"a relative width of {sigma_rel}: want one above 0, at most 0.2886")
    roots = np.roots([1.0, 4.0, 5.0 - sigma_rel**-2.0, 2.0])
    return max(float(roots.real.max()) - 1.0, 0.0)


def profiles_of(sigma_rel: list[float], step: list[int]) -> Profiles:
    """The profiles of these relative widths after so many steps.

    Raises:
      ValueError: no profile has such a width.
    """
    gammas = [gamma_of(width) for width in sigma_rel]
    return Profiles(np.array(gammas, np.float64), np.array(step, np.float64))


def inner(one: Profiles, other: Profiles) -> Float[np.ndarray, "n m"]:
    """The integral of p q for each p of `one` and q of `other`.

    With t <= s the earlier and the later step, and g the exponent of the later's profile, it is
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
    """What to multiply the stored averages with, so that they add up to the wanted one.

    Least squares in the norm of profiles, all divided by their norms, with the squares of the
    coefficients times ROUNDING^2 added: what the rounding of the stored averages costs. That the
    coefficients of the averages themselves sum to 1 is kept exactly, so what all steps share
    comes out as it is.
    """
    products = inner(stored, stored)
    norm = np.sqrt(np.diag(products))
    wanted_norm = math.sqrt(float(inner(wanted, wanted)[0, 0]))
    among = products / (norm[:, None] * norm)
    target = inner(stored, wanted)[:, 0] / (norm * wanted_norm)
    scale = wanted_norm / norm  # a coefficient of normed profiles -> one of averages
    values, vectors = np.linalg.eigh(among)
    # what float64 cannot tell from 0 may come out below it
    damped = np.maximum(values, 0.0) + ROUNDING**2
    solve = lambda b: vectors @ ((vectors.T @ b) / damped)  # noqa: E731
    free, towards_one = solve(target), solve(scale)
    y = free + towards_one * (1.0 - scale @ free) / (scale @ towards_one)
    missed = y @ among @ y - 2.0 * y @ target + 1.0
    return Fit(scale * y, math.sqrt(max(missed, RESOLVED)))
