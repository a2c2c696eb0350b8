"""Data with a density in closed form: mixtures of Gaussians over whole examples of any shape.

x_0 = a draw of sum_k w_k N(m_k, C_k) gives x_t = alpha x_0 + sigma eps the density
sum_k w_k N(alpha m_k, alpha^2 C_k + sigma^2 1), and E[x_0 | x_t] follows. With C_k = U e U' all of
it is diagonal in U. Every method works under jit, in the precision of its arguments.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.core import rng
from diffjax.diffusion.process import alpha_sigma


def gaussian(mean, covariance):
    """N(mean, covariance): mean [*shape]; covariance a number, [d] or [d d], d numbers in all."""
    return mixture(np.asarray(mean)[None], np.asarray(covariance)[None], [1.0])


def mixture(means, covariances, weights=None):
    """means [k *shape]; covariances a number or [k], [k d] or [k d d]; weights [k], else equal."""
    means = np.asarray(means, np.float64)
    num, dims = means.shape[0], means[0].size
    covariances = np.asarray(covariances, np.float64)
    if covariances.ndim == 3:
        values, vectors = np.linalg.eigh(covariances)
    else:
        values = covariances if covariances.ndim == 2 else covariances.reshape(-1, 1)
        values = np.broadcast_to(values, (num, dims))
        vectors = np.broadcast_to(np.eye(dims), (num, dims, dims))
    weights = np.full(num, 1.0 / num) if weights is None else np.asarray(weights, np.float64)
    return Mixture(weights / weights.sum(), means, np.maximum(values, 0.0), vectors)


def smooth_covariance(shape, variance=0.25, reach=1.5, floor=0.02):
    """[d d]: variance exp(-|distance|^2 / (2 reach^2)) over the axes, plus floor on itself."""
    at = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    at = at.reshape(-1, len(shape)).astype(np.float64)
    square = np.sum((at[:, None] - at[None]) ** 2, -1)
    return variance * np.exp(-square / (2 * reach**2)) + floor * np.eye(len(at))


@dataclass(frozen=True)
class Mixture:
    """weights [k], means [k *shape], and covariances as values [k d] and vectors [k d d]."""

    weights: np.ndarray
    means: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    @property
    def shape(self):
        """The shape of an example."""
        return self.means.shape[1:]

    def moments(self):
        """The mean [d] and the covariance [d d] of x_0."""
        means = self.means.reshape(len(self.weights), -1)
        each = np.einsum("kie,ke,kje->kij", self.vectors, self.values, self.vectors)
        mean = self.weights @ means
        second = each + np.einsum("ki,kj->kij", means, means)
        return mean, np.einsum("k,kij->ij", self.weights, second) - np.outer(mean, mean)

    def denoise(self, x_t, logsnr_t):
        """E[x_0 | x_t]."""
        alpha, share, along, spread = self._parts(x_t, logsnr_t)
        gain = alpha * self.values.astype(x_t.dtype) / spread
        shift = jnp.einsum("kie,bke->bki", self.vectors.astype(x_t.dtype), gain * along)
        each = self.means.astype(x_t.dtype).reshape(len(self.weights), -1) + shift
        return jnp.einsum("bk,bki->bi", jax.nn.softmax(share, -1), each).reshape(x_t.shape)

    def log_density(self, x_t, logsnr_t=None):
        """log p(x_t), [b] in nats; of x_0 itself where no logsnr_t is given."""
        if logsnr_t is None:
            logsnr_t = jnp.full(x_t.shape[:1], jnp.inf, x_t.dtype)
        return jax.nn.logsumexp(self._parts(x_t, logsnr_t)[1], -1)

    def mode(self, x_t, logsnr_t=None):
        """p(k | x_t), [b k]: which component x_t came from."""
        if logsnr_t is None:
            logsnr_t = jnp.full(x_t.shape[:1], jnp.inf, x_t.dtype)
        return jax.nn.softmax(self._parts(x_t, logsnr_t)[1], -1)

    def sample(self, key, num, dtype=jnp.float32):
        """`num` draws of x_0, [num *shape]."""
        key_mode, key_x = jax.random.split(key)
        mode = jax.random.categorical(key_mode, jnp.log(self.weights), shape=(num,))
        noise = jax.random.normal(key_x, (num, self.values.shape[1]), dtype)
        # the symmetric root of the covariance: the eigenvectors of equal eigenvalues are any basis,
        # another on every machine, and what is drawn must not depend on it
        vectors, root = (np.float64(part) for part in (self.vectors, np.sqrt(self.values)))
        roots = np.einsum("kie,ke,kje->kij", vectors, root, vectors).astype(dtype)
        x = jnp.einsum("bij,bj->bi", jnp.asarray(roots)[mode], noise)
        return jnp.asarray(self.means, dtype)[mode] + x.reshape(num, *self.shape)

    def _parts(self, x_t, logsnr_t):
        """alpha, log(w_k p_k(x_t)), x_t - alpha m_k along the axes of C_k, variances there."""
        alpha, sigma = (part.reshape(-1, 1, 1) for part in alpha_sigma(logsnr_t))
        means = jnp.asarray(self.means.reshape(len(self.weights), -1), x_t.dtype)
        off = x_t.reshape(x_t.shape[0], 1, -1) - alpha * means
        along = jnp.einsum("bki,kie->bke", off, self.vectors.astype(x_t.dtype))
        spread = alpha**2 * self.values.astype(x_t.dtype) + sigma**2
        quadratic = jnp.sum(along**2 / spread + jnp.log(2 * jnp.pi * spread), -1)
        return alpha, jnp.log(self.weights.astype(x_t.dtype)) - 0.5 * quadratic, along, spread


def cubature(monkeypatch):
    """Noise whose batch means of quadratics are exact: the 2d points +-sqrt(d) e_i, in turn.

    They have the mean 0 and the covariance 1 of N(0, 1) in the d dimensions of an example. So the
    mean over a batch of 2d copies of one example is the expectation over noise, to rounding, of
    anything quadratic in it, as a bound is for Gaussian data. A batch of several examples repeats
    each 2d times. Replaces `rng.normal` for data; numbers per example stay random.
    """
    normal = rng.normal

    def points(key, shape):
        if len(shape) == 1:
            return normal(key, shape)
        dims = int(np.prod(shape[1:]))
        points = np.sqrt(dims) * np.concatenate([np.eye(dims), -np.eye(dims)])
        return jnp.asarray(np.tile(points, (shape[0] // (2 * dims), 1)).reshape(shape))

    monkeypatch.setattr(rng, "normal", points)


def quantiles(monkeypatch):
    """Noise for examples of one number: the normal's quantiles, shuffled; means to about 1e-4."""
    normal = rng.normal

    def points(key, shape):
        if len(shape) == 1:
            return normal(key, shape)
        levels = (np.random.default_rng(0).permutation(shape[0]) + 0.5) / shape[0]
        return jax.scipy.special.ndtri(jnp.asarray(levels)).reshape(shape)

    monkeypatch.setattr(rng, "normal", points)
