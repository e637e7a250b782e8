"""No form in which a password, a token or a key is written gets past what hides it."""

from __future__ import annotations

import sys

import pytest

from unfused import secrets
from unfused.config import ConfigError
from unfused.store import StoreError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:s3cret@host:5432/optuna", "postgresql://me:***@host:5432/optuna"),
        ("postgresql+psycopg2://me:p@ss@host/x", "postgresql+psycopg2://me:***@host/x"),
        ("--study-storage=mysql://me:a/b:c@host/x", "--study-storage=mysql://me:***@host/x"),
        ("mysql://me:p@s/s@host/x?charset=utf8", "mysql://me:***@host/x?charset=utf8"),
        ("postgresql://me:what?ever@host/x", "postgresql://me:***@host/x"),
        ("http://me:s3cret@host:5000", "http://***@host:5000"),
        ("http://me:p@ss@host:5000/path", "http://***@host:5000/path"),
        ("http://me:p%40ss%2Fx@host", "http://***@host"),
        ("http://me:pa/ss@host", "http://***@host"),
        ("http://me:pa#ss@host", "http://***@host"),
        ("http://:token@host", "http://***@host"),
        ("https://hf_TOKEN@host/repository", "https://***@host/repository"),
        ("git+https://TOKEN@host/me/it.git@main", "git+https://***@host/me/it.git@main"),
        ("s3://KEY:SECRET@bucket/clips/a@b.wav", "s3://***@bucket/clips/a@b.wav"),
        ("s3://KEY:SE/CR+ET@bucket/clips", "s3://***@bucket/clips"),
        ("s3://b?access_key=KEY&secret_key=SECRET&x=1", "s3://b?access_key=***&secret_key=***&x=1"),
        ("postgresql://h/d?user=me&password=a&x=1", "postgresql://h/d?user=me&password=***&x=1"),
        ("postgresql://h/d?sslpassword=a b", "postgresql://h/d?sslpassword=*** b"),
        ("https://h/c?sv=1&sig=a%2Fb%3D&se=2", "https://h/c?sv=1&sig=***&se=2"),
        ("https://h?X-Amz-Signature=ab12&x=1", "https://h?X-Amz-Signature=***&x=1"),
        ("mssql:///?odbc_connect=UID%3Dme%3BPWD%3Da%3BX", "mssql:///?odbc_connect=UID%3Dme%3BPWD%3D***%3BX"),
        ("passwd=a, token='b' api_key=c", "passwd=*** token='***' api_key=***"),
        ("access_token=a&refresh-token=b", "access_token=***&refresh-token=***"),
        ("AWS_SECRET_ACCESS_KEY=a/b+c PGPASSWORD=d", "AWS_SECRET_ACCESS_KEY=*** PGPASSWORD=***"),
        ("{'user': 'me', 'password': 'a'}", "{'user': 'me', 'password': '***'}"),
        ('{"client_secret":"a","x":"me@host"}', '{"client_secret":"***","x":"me@host"}'),
        ("Authorization: Basic bWU6YQ==", "Authorization: Basic ***"),
        ("Cannot open 's3://K:S@b' (no, 'http://u:p@h')", "Cannot open 's3://***@b' (no, 'http://***@h')"),
    ],
)  # fmt: skip
def test_a_secret_is_hidden_however_it_is_written(text, shown):
    assert secrets.hidden(text) == shown
    assert secrets.hidden(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/path", "s3://bucket/folder@2/a:b@c.wav", "http://host:5000/path/a@b",
        "http://host:5000", "http://[::1]:5000/a@b", "sqlite:////home/me@work/mlflow.db",
        "sqlite:///me:x@y.db", "file:///clips/a@b.wav", "/clips/me@host/a@b.wav",
        "postgresql://me@host/optuna", "ssh://git@host/me/it.git", "git@host:me/it.git",
        "abfss://container@account.dfs.core.windows.net/clips", "me@host:clips/",
        "recorded by me@host.org: see http://host and mail you@host.org",
        '{"uri":"http://host","mail":"me@host.org"}', "models:/sounds@champion",
        "distill.temperature=3", "class=token", "num_tokens=5", "the password is wrong",
        "RAY_AUTH_MODE=token", "onnx:teachers/a.onnx", "config=1 design=2",
    ],
)  # fmt: skip
def test_what_holds_no_secret_stays_as_it_is(text):
    assert secrets.hidden(text) == text


def test_what_the_environment_holds_is_hidden_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJal/rXU+tnFEMI")
    monkeypatch.setenv("DB_PASSWORD", "castle")
    monkeypatch.setenv("X_API_KEY", "short")
    monkeypatch.setenv("MIRROR", "https://me:orchard@host/files")
    text = "wJal/rXU+tnFEMI of wJal%2FrXU%2BtnFEMI; a castle, castles; short; orchard"
    assert secrets.hidden(text) == "*** of ***; a ***, castles; short; ***"


def test_what_the_command_line_holds_is_hidden_when_a_library_took_it_apart(monkeypatch):
    address = "http://me:lantern@harbour@host:80"
    monkeypatch.setattr(sys, "argv", ["unfused", "--tracking-uri", address])
    assert secrets.hidden("bad port: 'lantern@harbour@host'") == "bad port: '***@host'"
    assert secrets.hidden('no host name "harbour@host"') == 'no host name "***@host"'
    monkeypatch.setattr(sys, "argv", ["unfused", "--store", "s3://KEY:lan tern@bucket"])
    assert secrets.hidden("what is s3://KEY:lan tern@bucket?") == "what is s3://KEY:***@bucket?"


def test_numbers_names_and_keys_of_a_json_value_stay():
    value = {"a": ["http://me:x1@h", 1, None, ("token=b",)], "token=c": 0.5}
    shown = {"a": ["http://***@h", 1, None, ["token=***"]], "token=c": 0.5}
    assert secrets.hidden_in(value) == shown


def test_a_command_says_where_its_secret_goes():
    assert secrets.command("mlflow ui") == "mlflow ui"
    told = secrets.command("mlflow ui --backend-store-uri postgresql://me:a@host/x")
    assert told.startswith("mlflow ui --backend-store-uri postgresql://me:***@host/x  (")


@pytest.mark.parametrize("kind", [ConfigError, StoreError])
def test_the_sentence_of_an_error_holds_none(kind):
    assert str(kind("Cannot open 's3://KEY:SECRET@bucket'.")) == "Cannot open 's3://***@bucket'."
