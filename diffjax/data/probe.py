"""Looks at records before a run begins, so that a bad data set is refused at once."""

import concurrent.futures
import math
import os

from diffjax.core.errors import BadData
from diffjax.data.broken import Broken, Skipped, skipped_of
from diffjax.data.record import BadRecord, RecordSource, captions_of, image_of, name_at
from diffjax.data.transforms import decode

PROBED = 1024  # records at most, spread evenly over the data set
PROBED_BYTES = 256_000_000  # of pictures; the rest is looked at when its turn comes
DEVIATIONS = 3.0  # so far may chance carry a sample away from the whole


def probe(source: RecordSource, broken: Broken) -> int:
    """Decode some records, count those that cannot be read, and say how many were looked at.

    A data set of up to PROBED records is looked at whole, unless it is large in bytes.

    Raises:
      BadData: more of them are broken than the limit allows; or, of a larger data set, so many of
        the sample that chance cannot be why.
    """
    count = min(len(source), PROBED)
    indices = [i * len(source) // count for i in range(count)]
    looked, bytes_seen, found = 0, 0, list[Skipped]()
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, count, 64):
            for size, skipped in pool.map(lambda i: look(source, i), indices[start : start + 64]):
                looked, bytes_seen = looked + 1, bytes_seen + size
                found += [skipped] if skipped else []
            if bytes_seen > PROBED_BYTES:
                break
    expected = broken.share * looked
    if looked < len(source) and len(found) > expected + DEVIATIONS * math.sqrt(expected + 1):
        raise BadData(
            f"{found[0]}; {len(found)} of the {looked} records looked at are broken, and "
            f"data.max_bad_fraction allows {broken.share:g} of all; mend the data or raise it"
        )
    for skipped in found:
        broken.add(skipped)
    return looked


def look(source: RecordSource, index: int) -> tuple[int, Skipped | None]:
    """The bytes of a record's picture, and what is wrong with the record if something is."""
    try:
        record = source[index]
        data = image_of(record)
        captions_of(record)
    except BadRecord as error:
        return 0, skipped_of(index, name_at(source, index), error)
    try:
        decode(data)
    except BadRecord as error:
        return len(data), skipped_of(index, record.get("name", ""), error)
    return len(data), None
