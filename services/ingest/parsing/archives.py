"""Archives that are looked at before they are opened: what they say they hold has bounds.

What an archive says of its members' sizes is checked by zipfile while it inflates them: it gives no
more bytes than were said, and an error where there are other ones.
"""

from __future__ import annotations

import zipfile
from typing import BinaryIO

from services.ingest.parsing.refusals import Refused

_MAX_MEMBERS = 10_000
_MAX_BYTES = 400_000_000
_MAX_RATIO = 200
_FREE_BYTES = 10_000_000


def checked(file: BinaryIO) -> zipfile.ZipFile:
    """An archive within bounds.

    Raises:
        Refused: It is broken, locked or a bomb.
    """
    try:
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise Refused("BROKEN", "The archive is broken.") from error
    packed = sum(each.compress_size for each in members)
    whole = sum(each.file_size for each in members)
    ratio = whole > _FREE_BYTES and whole > packed * _MAX_RATIO
    if len(members) > _MAX_MEMBERS or whole > _MAX_BYTES or ratio:
        raise Refused("TOO_LARGE", "What is packed in it is too large.")
    if any(each.flag_bits & 1 for each in members):
        raise Refused("LOCKED", "It is locked with a password.")
    return archive
