"""How likely the data is under the model."""

from diffjax.diffusion.likelihood.bound import (
    Bound,
    ByTime,
    decoder_nats,
    log_small_variance,
    step_kl,
    to_bits,
    to_nats,
    vlb,
    vlb_by_time,
    vlb_continuous,
)
from diffjax.diffusion.likelihood.chain import (
    ChainBits,
    Shrunk,
    augmented,
    cascade_bits_per_dim,
    chain_bits_per_dim,
    noised,
    rounded,
)
from diffjax.diffusion.likelihood.flow import (
    Likelihood,
    decode,
    dequantised_nats,
    encode,
    log_likelihood,
    velocity,
)
from diffjax.diffusion.likelihood.gaussian import (
    discretised_log_likelihood,
    gaussian_kl,
    gaussian_log_likelihood,
    prior_kl,
)

__all__ = [
    "Bound",
    "ByTime",
    "ChainBits",
    "Likelihood",
    "Shrunk",
    "augmented",
    "cascade_bits_per_dim",
    "chain_bits_per_dim",
    "decode",
    "decoder_nats",
    "dequantised_nats",
    "discretised_log_likelihood",
    "encode",
    "gaussian_kl",
    "gaussian_log_likelihood",
    "log_likelihood",
    "log_small_variance",
    "noised",
    "prior_kl",
    "rounded",
    "step_kl",
    "to_bits",
    "to_nats",
    "velocity",
    "vlb",
    "vlb_by_time",
    "vlb_continuous",
]
