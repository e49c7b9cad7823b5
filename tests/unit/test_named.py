"""Secrets of the files that an agent is given: known by their names, in any text, at the cost of a look at each character."""

import json
import time

import pytest
from leasehold.events import named
from leasehold.events.named import secrets_in, secrets_of_address

KEY = "sk-abcabcabd-0123"
CAPITALS = "ABCDEFGHIJKLMNOPQRST"
SPACED = "correct horse, battery; staple"
LINES = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQDexampleexampl", "c2hvcnRlbmQgb2YgaXQ="]
PEM = "\n".join(["-----BEGIN PRIVATE KEY-----", *LINES, "-----END PRIVATE KEY-----", ""])
HOSTILE = {
    "names without end": "KEY", "names with values": "KEY=", "dots and dashes": "a.b-c_", "quotes without end": 'KEY="',
    "both quotes": "KEY='KEY=\"", "spaces": "KEY ", "only spaces": " ", "settings": "aa=", "options": '--key", ', "bearers": "auth: bearer ",
    "lists": "[", "objects": '{"keys":', "backslashes": "\\", "keys that only begin": "-----BEGIN PRIVATE KEY-----", "a quote": 'KEY="\\\\',
}  # fmt: skip
SIZE = 256 * 1024


@pytest.mark.parametrize("text", [
    f"PATH=/usr/bin:/usr/sbin\nexport OPENAI_API_KEY='{KEY}'\nLANG=C\n",
    f'model = "gpt-5"\nenv_key = "SOMEBODYS_API_KEY"\nbearer_token_env_var = "SOMEBODYS_2ND_KEY"\nbearer_token = "{KEY}"\n',
    json.dumps({"auth_mode": "chatgpt", "tokens": {"access_token": KEY, "id": "one"}, "last_refresh": None}),
    json.dumps({"openai": {"type": "oauth", "refresh": KEY, "expires": 1764000000000}}, indent=2),
    json.dumps({"headers": {"Authorization": f"Bearer {KEY}"}}),
    f'http_headers = {{ "Authorization" = "Bearer {KEY}" }}',
    f"Authorization: token {KEY}\n",
    json.dumps({"args": ["--verbose", "--api-key", KEY, "a-path-that-is-none-of-them"]}),
    json.dumps({"args": [f"--token={KEY}"]}),
    json.dumps({"args": ["-c", f"serve --token {KEY} --port 80"]}),
    f'args = ["--api-key",\n  "{KEY}"]',
    json.dumps({"apiKeys": {"somebody": KEY}, "more_secrets": [KEY, KEY]}),
    f"PGPASSWORD={KEY}",
    f'// not quite JSON\n{{"accessToken": "{KEY}", }}',
])  # fmt: skip
def test_what_a_text_calls_so_is_a_secret_and_the_name_of_a_variable_is_none(text):
    assert secrets_in(text) == {KEY}


@pytest.mark.parametrize("text", [f"API_KEY={CAPITALS}", f'key = "{CAPITALS}"', json.dumps({"apiKey": CAPITALS})])
def test_a_value_in_capitals_is_one_too(text):
    assert secrets_in(text) == {CAPITALS}


@pytest.mark.parametrize("text", [f'password = "{SPACED}"', f"password: '{SPACED}'", json.dumps({"password": SPACED})])
def test_of_a_quoted_value_it_is_all_between_the_quotes(text):
    assert secrets_in(text) == {SPACED}


@pytest.mark.parametrize(
    "text", [PEM, json.dumps({"private_key": PEM}), f"key = '{json.dumps(PEM)[1:-1]}'", f"x\n{PEM}x\n"]
)
def test_of_a_private_key_it_is_each_of_its_lines(text):
    assert secrets_in(text) == set(LINES)


@pytest.mark.parametrize("name", [
    "author", "authority", "authorized_dir", "tokenizer", "keybindings", "keyboard_layout", "access_log", "accessLog", "last_refresh",
    "monkey", "path", "passage", "compass",
])  # fmt: skip
def test_a_name_tells_by_its_whole_words(name):
    assert secrets_in(f"{name} = {KEY}") == secrets_in(json.dumps({name: KEY})) == set()


@pytest.mark.parametrize("value", [
    "https://example.org/oauth/token", "/etc/somewhere/auth.json", "~/.config/somewhere.json", "./somewhere/else.json",
    "2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00+00:00", "${SOMEBODYS_API_KEY}", "{env:SOMEBODYS_API_KEY}",
])  # fmt: skip
def test_a_place_a_date_and_what_is_said_elsewhere_are_none(value):
    assert secrets_in(f'token_endpoint = "{value}"') == secrets_in(json.dumps({"token": value})) == set()


@pytest.mark.parametrize("value", [
    "https://me:a-password@example.org/", "/k7MDENG/bPxRfiCYEXAMPLEKEYwJalrXUtnFEMI", "/k7MDENGbPxRfiCYEXA=", "~k7MDENGbPxRfiCYEXA",
])  # fmt: skip
def test_an_address_with_a_password_and_base64_that_begins_like_a_path_are_secrets(value):
    assert secrets_in(f"aws_secret_access_key = {value}") == {value}


def cost(text):
    began = time.thread_time()
    secrets_in(text)
    return time.thread_time() - began


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_no_text_costs_more_than_some_looks_at_each_of_its_characters(piece):
    harmless = min(cost("name = some_value\n" * (SIZE // 18)) for _ in range(3))
    assert min(cost((piece * SIZE)[:SIZE]) for _ in range(2)) < 30 * harmless


def test_they_are_not_more_than_can_be_looked_for_and_the_longest_come_first():
    many = {f"key_{n}_token": f"secret-number-{n:04}" + "x" * (n // 100) for n in range(1000)}
    found = secrets_in(json.dumps(many | {"huge_key": "x" * (named.LONGEST + 1)}))
    assert found == set(sorted(many.values(), key=lambda each: (-len(each), each))[: named.MOST])
    assert sum(map(len, secrets_in("\n".join(f"KEY={n}" + "y" * 8000 for n in range(100))))) <= named.ENOUGH


@pytest.mark.parametrize(("address", "secrets"), [
    ("https://ghp_0123456789abcdef@example.org/x.git", {"ghp_0123456789abcdef"}),
    ("https://somebody:p%40ssword@example.org/x.git", {"p%40ssword", "p@ssword"}),
    ("https://somebody@example.org/x.git", set()),
    ("https://example.org/a@b.git", set()),
    ("git@example.org:a/b.git", set()),
    ("", set()),
])  # fmt: skip
def test_a_token_that_an_address_begins_with_is_a_secret_and_a_name_is_none(address, secrets):
    assert secrets_of_address(address) == secrets
