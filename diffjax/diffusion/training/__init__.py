"""What a network learns from: times, losses, weightings."""

from diffjax.diffusion.training.loss import LossAux, diffusion_loss, expected, mean_over
from diffjax.diffusion.training.objectives import (
    Hybrid,
    Objective,
    Simple,
    Vlb,
    hybrid,
    simple,
    vlb,
)
from diffjax.diffusion.training.self_condition import (
    as_denoiser,
    for_sampling,
    for_training,
    with_guess,
)
from diffjax.diffusion.training.terms import num_steps, rung_at, vlb_term, weighted_error
from diffjax.diffusion.training.times import (
    History,
    Importance,
    Times,
    bin_of,
    bin_probabilities,
    discrete,
    empty_history,
    importance,
    record,
    stratified,
    uniform,
)
from diffjax.diffusion.training.uncertainty import apply, features, init, uncertain, uncertain_loss
from diffjax.diffusion.training.variational import continuous_vlb_loss, hybrid_loss, vlb_loss
from diffjax.diffusion.training.weighting import (
    log_weight,
    min_snr,
    named,
    p2,
    relative_weight,
    sigmoid,
)

__all__ = [
    "History",
    "Hybrid",
    "Importance",
    "LossAux",
    "Objective",
    "Simple",
    "Times",
    "Vlb",
    "apply",
    "as_denoiser",
    "bin_of",
    "bin_probabilities",
    "continuous_vlb_loss",
    "diffusion_loss",
    "discrete",
    "empty_history",
    "expected",
    "features",
    "for_sampling",
    "for_training",
    "hybrid",
    "hybrid_loss",
    "importance",
    "init",
    "log_weight",
    "mean_over",
    "min_snr",
    "named",
    "num_steps",
    "p2",
    "record",
    "relative_weight",
    "rung_at",
    "sigmoid",
    "simple",
    "stratified",
    "uncertain",
    "uncertain_loss",
    "uniform",
    "vlb",
    "vlb_loss",
    "vlb_term",
    "weighted_error",
    "with_guess",
]
