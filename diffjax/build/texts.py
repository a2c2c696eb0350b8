"""Opens the frozen text encoder that a config names."""

from ml_collections import ConfigDict

from diffjax.core.errors import ConfigError, require
from diffjax.encoders.text import TextEncoder, load_encoder


def encoder_of(config: ConfigDict) -> TextEncoder:
    """The frozen text encoder. Its width must be that of the config, if the config has one."""
    require("text" in config, "text", None, f"{config.stage} takes no text")
    try:
        encoder = load_encoder(config.text.encoder, max_length=config.text.max_tokens)
    except (ValueError, OSError) as error:
        raise ConfigError("text.encoder", config.text.encoder, str(error)) from None
    width = config.text.width
    require(
        width in (0, encoder.width),
        "text.width",
        width,
        f"{config.text.encoder} says {encoder.width}; 0 asks the encoder",
    )
    return encoder


def text_width_of(config: ConfigDict) -> int:
    """The width of the text embeddings, from the config or its encoder; 0 without text."""
    if "text" not in config:
        return 0
    return config.text.width or encoder_of(config).width
