"""What a data source holds and what an iterator yields."""

from typing import Any, Protocol, TypeAlias, TypedDict, runtime_checkable


class Record(TypedDict):
    """One captioned picture: the image still encoded, the captions as plain text."""

    image: bytes
    captions: tuple[str, ...]
    name: str


@runtime_checkable
class RecordSource(Protocol):
    """Random access to records; to be shared with worker processes it must pickle."""

    def __len__(self) -> int:
        """How many records there are."""
        ...

    def __getitem__(self, index: int) -> Record:
        """The record at `index` in [0, len)."""
        ...


# `image` uint8 [b h w 3] and `text` [b l d] with `text_length` int32 [b], or `caption` [b].
Batch: TypeAlias = dict[str, Any]
