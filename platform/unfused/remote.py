"""Places that fail: disks that are full, object stores that are slow, away or closed.

The rule of this file: a place is asked again a few times, more and more slowly, and what it said at
last becomes a reason and a remedy in plain words.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

ATTEMPTS = 6
"""Of one request: half a minute of a store that answers with errors, slower each time."""
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
"""Without a byte from the store."""
KEPT = (
    "region",
    "scheme",
    "endpoint_override",
    "allow_bucket_creation",
    "allow_bucket_deletion",
    "check_directory_existence_before_creation",
    "force_virtual_addressing",
    "tls_ca_file_path",
)
"""What a URI says of a store on S3, beside keys."""
KEYS = ("access_key", "secret_key", "session_token")


@dataclass(frozen=True)
class Fault:
    """Why a place failed, and what helps."""

    reason: str
    remedy: str


FULL = Fault("no space left", "free some space there")
CLOSED = Fault(
    "it is read-only or somebody else's", "make it writable or name another with --store"
)
NO_FOLDER = Fault("there is a file in its place", "move that away or name a folder with --store")
OF_SYSTEM = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: Fault("the quota is used up", "free some space there"),
    errno.EFBIG: Fault("a file became larger than is allowed", "raise the limit (ulimit -f)"),
    errno.EROFS: CLOSED,
    errno.EACCES: CLOSED,
    errno.EPERM: CLOSED,
    errno.ENOTDIR: NO_FOLDER,
    errno.EEXIST: NO_FOLDER,
    errno.EIO: Fault("the disk fails", "see the system's log"),
}
NO_BUCKET = "Bucket not found"
"""As Arrow says it when it would have to make one."""
BUCKETLESS = Fault("there is no such bucket", "make it or name another with --store")
NOT_LET_IN = Fault(
    "it does not let these credentials in",
    "give others (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)",
)
AWAY = Fault("nothing answers", "see that its endpoint is right and reachable")
SLOW = Fault("it answers with errors, or not in time", "wait until it is well")
OF_S3 = {
    "NO_SUCH_BUCKET": BUCKETLESS,
    "ACCESS_DENIED": NOT_LET_IN,
    "INVALID_ACCESS_KEY_ID": NOT_LET_IN,
    "INVALID_CLIENT_TOKEN_ID": NOT_LET_IN,
    "SIGNATURE_DOES_NOT_MATCH": NOT_LET_IN,
    "UNRECOGNIZED_CLIENT": NOT_LET_IN,
    "NETWORK_CONNECTION": AWAY,
}
"""Every other error of S3 is a matter of time."""


def patient(found: fs.FileSystem, uri: str) -> fs.FileSystem:
    """A file system that waits and asks again; others than S3's do so as they are.

    Args:
        found: what Arrow makes of `uri`, which has no words for that.
        uri: keys in it are kept; else they are looked for, and renewed, as ever.
    """
    if found.type_name != "s3":
        return found
    _, (options,) = found.__reduce__()
    names = KEPT + (KEYS if "@" in uri.partition("://")[2].partition("/")[0] else ())
    kept: dict[str, Any] = {name: options[name] for name in names if options[name]}
    return fs.S3FileSystem(
        **kept,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=ANSWER_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def fault_of(error: BaseException) -> Fault | None:
    """What an error says of a place; None where it says nothing.

    Args:
        error: the system's or Arrow's own, or one that has its text.
    """
    text = str(error)
    if re.match(r"Bucket ('.*' )?not found", text):
        return BUCKETLESS
    if code := re.search(r"AWS Error (\w+)", text):
        status = re.search(r"HTTP status (\d+)", text)
        if code[1] == "UNKNOWN" and status and status[1] in ("401", "403"):
            return NOT_LET_IN
        return OF_S3.get(code[1], SLOW)
    number = getattr(error, "errno", None) or _number(text)
    return OF_SYSTEM.get(number) if number else None


def path_of(error: BaseException) -> str:
    """The file that an error of the system names, if any."""
    found = re.search(r"'(/[^']+)'", str(error))
    return str(getattr(error, "filename", None) or (found[1] if found else ""))


def _number(text: str) -> int | None:
    found = re.search(r"\[Errno (\d+)\]|errno:? (\d+)", text)
    return int(found[1] or found[2]) if found else None
