"""The part of a config that tells one trained network from another, beside its parameters."""

import json

from ml_collections import ConfigDict

from diffjax.build.options import upgrade
from diffjax.core.json_types import JsonObject


def identity(options: ConfigDict) -> JsonObject:
    """The part of a config on which pictures depend beside the parameters: network, noise, ..."""
    parts = {
        name: upgrade.without_defaults(name, options[name].to_dict())
        for name in ("model", "diffusion", "low_res")
        if name in options
    }
    said = {
        **parts,
        "stage": options.stage,
        "size_px": options.data.size_px,
        "max_tokens": options.text.max_tokens if "text" in options else 0,
    }
    if "tokens" in options and "diffusion" in options:  # the fingerprint of its merges is elsewhere
        said["max_tokens"] = options.tokens.length
    if "latent" in options:  # not where the autoencoder lies, but which one it is
        latent = options.latent
        said["latent"] = {k: latent[k] for k in ("mark", "scale", "shift", "tile_px")}
    if "vectors" in options:  # of which CLIP they are, wherever it lies
        said["vectors"] = {k: x for k, x in options.vectors.items() if k != "clip"}
    if "autoregressive" in options:
        said["basis"] = options.autoregressive.mark
    return json.loads(json.dumps(said))
