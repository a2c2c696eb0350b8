"""The colours of a decoded picture as 8-bit sRGB over a plain ground."""

import functools
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms

WHITE = "white"
# What a profile of these words describes is what is taken without a profile.
SRGB_NAMES = ("srgb",)


def flatten(image: Image.Image, ground: str, mode: str) -> Image.Image:
    """The picture in "RGB" or "L", over `ground` (a colour that Pillow knows) where transparent.

    Grey, palette, CMYK and 16-bit pictures are converted; an embedded profile is applied first.
    """
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.mode == "F":
        image = Image.fromarray(np.clip(np.nan_to_num(np.asarray(image)), 0, 255).astype(np.uint8))
    image = to_srgb(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, ground), rgba)
    return image if image.mode == mode else image.convert(mode)


def opacity(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """255 where the picture is opaque, 0 where nothing of it is seen."""
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    return np.array(image.convert("RGBA").getchannel("A"))


def to_srgb(image: Image.Image) -> Image.Image:
    """The picture in sRGB, by the profile that it carries; as it is without one or with a bad one.

    The rendering intent is relative colorimetric, as browsers render.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    plain = image if alpha is None else image.convert(image.mode[:-1])
    try:
        convert = _conversion(profile, plain.mode)
        if convert is None:
            return image
        shown = ImageCms.applyTransform(plain, convert)
    except (ImageCms.PyCMSError, ValueError, OSError):  # damaged, or of another kind of colours
        return image
    assert shown is not None  # it is only where it works in place
    if alpha is not None:
        shown.putalpha(alpha)
    return shown


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen bits scaled to eight: a plain conversion would clip them at 255."""
    values = np.asarray(image).astype(np.int32)
    grey = Image.fromarray(np.clip((values + 128) // 257, 0, 255).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        grey = grey.convert("LA")
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


@functools.lru_cache(maxsize=32)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB; None where they are sRGB already."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    about = str(source.profile.profile_description or "").lower()
    if any(name in about for name in SRGB_NAMES) and mode == "RGB":
        return None
    return ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
