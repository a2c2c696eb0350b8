"""Opens what reads the texts of a config: a frozen encoder, or a tokenizer."""

from ml_collections import ConfigDict

from diffjax.core.errors import ConfigError, require
from diffjax.encoders import gpt2, tokens
from diffjax.encoders.clip import vocabulary
from diffjax.encoders.text import Reads, TextEncoder, load_encoder
from diffjax.encoders.tokens import TokenReader

# Vocabularies whose sizes are known without their files, so that any machine can plan.
SIZES = {vocabulary.OPENAI: vocabulary.NUM_OPENAI, tokens.GPT2: gpt2.VOCABULARY}


def reads_of(config: ConfigDict) -> Reads | None:
    """What reads the texts of a stage that makes pictures; None if it takes none.

    Raises what `encoder_of` and `token_reader_of` do.
    """
    if "tokens" in config:
        return token_reader_of(config)
    return encoder_of(config) if "text" in config else None


def token_reader_of(config: ConfigDict) -> TokenReader:
    """What reads texts for a text transformer inside the network.

    Raises:
      ConfigError: there is no such vocabulary.
    """
    name = config.tokens.vocabulary
    try:
        return TokenReader(name, config.tokens.length, tokens.load(name))
    except ValueError as error:
        raise ConfigError("tokens.vocabulary", name, str(error)) from None


def num_tokens(config: ConfigDict) -> int:
    """The number of ids of the vocabulary.

    Raises:
      ConfigError: there is no such vocabulary.
    """
    name = config.tokens.vocabulary
    return SIZES[name] if name in SIZES else token_reader_of(config).units.vocabulary


def encoder_of(config: ConfigDict) -> TextEncoder:
    """The frozen text encoder. Its width must be that of the config, if the config has one."""
    require("text" in config, "text", None, f"{config.stage} takes no text")
    name = config.text.encoder
    require(not name.endswith(":"), "text.encoder", name, f'say where it lies: "{name}PLACE"')
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
