"""The styles of a data set, which a prompt may name."""

from ml_collections import ConfigDict

# By the name of the data set. It is a table, because what makes the data is slow to import.
STYLES = {
    "emoji": {
        "openmoji": "an openmoji drawing of {}",
        "twemoji": "a twemoji drawing of {}",
    },
    "emoji_styles": {
        "openmoji": "an openmoji drawing of {}",
        "twemoji": "a twemoji drawing of {}",
        "fluent": "a fluent drawing of {}",
        "noto": "a noto drawing of {}",
    },
}


def styles_of(config: ConfigDict) -> dict[str, str]:
    """How a prompt names each style that a stage was trained on; {} if nothing is known of them."""
    return STYLES.get(config.data.name.partition("/")[0], {})
