"""Whether a folder can hold a journal: it has to be there to be read, and on a local filesystem to be written.

SQLite's write-ahead log needs shared memory, which no network filesystem has.
"""

from __future__ import annotations

import os
from pathlib import Path

from .errors import JournalRefused

NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs"}
    | {"gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs"}
)
"""Types of filesystems that several machines share."""


def refuse_unreadable(folder: Path) -> None:
    """Insist on a folder that is there and can be read.

    Raises:
        JournalRefused: it is not, or cannot.
    """
    try:
        os.scandir(folder).close()
    except OSError as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "there is no such folder; name the one that Bus('...') was given" if absent else error.strerror
        raise JournalRefused(folder, reason or str(error), "read a journal from") from error


def network_filesystem(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of the network filesystem that `path` is on; None if it is on a local one, or nobody knows."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    where, found = os.path.realpath(path), ("", "")
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode().decode("unicode_escape")  # a space is written \040
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[0]):
            found = (point, rest.split()[0])
    return found[1] if found[1] in NETWORK else None
