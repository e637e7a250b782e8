"""What nobody may read in a text: passwords, tokens and keys.

The rule of this file: what is shown, logged or kept goes through `hidden`; what connects is handed
the address as it was given.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

MASK = "***"
DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "redis")
NAMING = {*DATABASES, "ssh", "sftp", "scp", "hdfs", "viewfs", "abfs", "abfss", "wasb", "wasbs"}
"""Schemes that have a name before the @; elsewhere all of it may be a token."""
LEAST = 6
"""Characters of a value that is hidden wherever it stands; shorter ones are words of their own."""
LONG = 12
"""Characters from which it is hidden inside of other words as well."""
SPACE = "\0"
ONE_ADDRESS = re.compile(r"(--[\w-]+=)?[\w+.-]+://")
"""A word that is an address as a whole: what is in the place of a space in it is `SPACE`."""

OF_DATABASE = re.compile(
    rf'(?<![\w+.-])((?:{"|".join(DATABASES)})(?:\+\w+)?)://(?!/)([^\s"?]*)@', re.I
)
"""A database's address has no @ behind its host, so that all before the last one is login."""
OF_ADDRESS = re.compile(
    r"""(?<![\w+.-]) ([a-z][\w+.-]*) ://
    ( [^\s"/?\#]* | [^\s"/:@\[]* : (?! \d+ (?:[/?\#\s"']|$) ) [^\s"]* ) @""",
    re.I | re.X,
)
"""Login up to the last @ before the path; a password may have a slash, a port has only digits."""
OF_PAIR = re.compile(
    r"""(?: (?<![\w.-]) | (?<=%3B) | (?<=%26) | (?<=%3F) )
    ((?: [\w.-]*(?:password|passwd|passphrase)
       | (?:[\w.-]*[._-])?(?:pwd|token|secret|sig|signature|credential|(?:api|access|secret|account
         |private)[_-]?key|secret_access_key) )
     (?: =["']? | %3D | ["']\s*:\s*["'] ))
    ((?: (?!%3B|%26) [^\s&;"'] )+)""",
    re.I | re.X,
)
OF_HEADER = re.compile(r"(\bauthorization\W{1,4}(?:basic|bearer)\s+)([^\s\"']+)", re.I)
OF_VARIABLE = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|TOKEN|SECRET|(SECRET_?ACCESS|SECRET|API|ACCOUNT|PRIVATE)_?KEY)$",
    re.I,
)
"""Names of environment variables that are secrets."""


def hidden(text: str) -> str:
    """A text that everybody may read: the same, with `***` for every secret in it.

    Secrets are the login of an address (`scheme://login@host`; where the scheme has a name there,
    the name stays), what is told as `password=`, `token=`, `sig=`, `api_key=` and the like, and
    what this process was given as such by its environment or its command line.
    """
    for login in (OF_DATABASE, OF_ADDRESS):
        text = login.sub(lambda found: f"{found[1]}://{_masked(*found.groups())}@", text)
    for pair in (OF_PAIR, OF_HEADER):
        text = pair.sub(rf"\1{MASK}", text)
    given = _given(_environment(), tuple(sys.argv))
    return given.sub(MASK, text) if given else text


def hidden_in(value: Any) -> Any:
    """A JSON value with the secrets of all its texts hidden; keys stay."""
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, dict):
        return {key: hidden_in(one) for key, one in value.items()}
    return [hidden_in(one) for one in value] if isinstance(value, list | tuple) else value


def command(text: str) -> str:
    """A command that somebody is to type, and, where it has a secret, that it is to be put in."""
    shown = hidden(text)
    return shown if shown == text else f"{shown}  (with the secret in the place of {MASK})"


def without_login(address: str) -> str:
    """An address that says nothing of who asks, as a browser's."""
    return OF_ADDRESS.sub(lambda found: f"{found[1]}://", address)


def _masked(scheme: str, login: str) -> str:
    """What is shown of a login."""
    name, colon, _ = login.partition(":")
    if not _has_name(scheme):
        return MASK
    return f"{name}:{MASK}" if colon else name


def _secret_of(scheme: str, login: str) -> str:
    """What alone is secret of a login, wherever it stands."""
    name, colon, password = login.partition(":")
    return password if colon else "" if _has_name(scheme) else name


def _has_name(scheme: str) -> bool:
    return not NAMING.isdisjoint(scheme.lower().split("+"))


def _environment() -> tuple[tuple[Any, Any], ...]:
    """The names and values of this moment, as they are kept: to have each decoded takes twenty
    times as long, and a text is hidden for every clip."""
    return tuple(getattr(os.environ, "_data", os.environ).items())


@lru_cache(maxsize=4)
def _given(
    environment: tuple[tuple[Any, Any], ...], words: tuple[str, ...]
) -> re.Pattern[str] | None:
    """What finds the secrets that a process was given, in every spelling."""
    variables = [(os.fsdecode(name), os.fsdecode(value)) for name, value in environment]
    found = {value for name, value in variables if OF_VARIABLE.search(name)}
    found |= {*_told([*words, *(value for _, value in variables)])}
    spelt = {way(one) for one in found for way in (str, unquote, lambda one: quote(one, safe=""))}
    return _any_of([one for one in spelt if len(one) >= LEAST and one != MASK])


def _told(words: Iterable[str]) -> Iterator[str]:
    """The secrets in some words, and the parts that a library may take them apart into."""
    for word in words:
        word = word.replace(" ", SPACE) if ONE_ADDRESS.match(word) else word
        for form in (OF_DATABASE, OF_ADDRESS):
            for scheme, login in form.findall(word):
                told = _secret_of(scheme, login).replace(SPACE, " ")
                yield from (told, *told.split("@"))
        for form in (OF_PAIR, OF_HEADER):
            yield from (value.replace(SPACE, " ") for _, value in form.findall(word))


def _any_of(secrets: list[str]) -> re.Pattern[str] | None:
    def whole(one: str) -> str:
        return re.escape(one) if len(one) >= LONG else rf"(?<!\w){re.escape(one)}(?!\w)"

    longest_first = sorted(secrets, key=len, reverse=True)
    return re.compile("|".join(map(whole, longest_first))) if secrets else None
