"""Secrets of an agent's environment in what it writes: stars, wherever the reader cuts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leasehold.events.mask import Hidden, secrets_in, secrets_of, secrets_of_address

KEY = "sk-abcabcabd-0123"


def hidden(secrets, *pieces):
    mask = Hidden(secrets)
    return b"".join([*(mask.hide(piece) for piece in pieces), mask.rest()])


def test_what_a_variable_is_called_says_whether_it_is_secret():
    env = {"OPENAI_API_KEY": KEY, "GH_TOKEN": "ghp_12345678", "PATH": "/usr/bin:/bin", "SHORT_KEY": "abc", "LANG": "C"}
    assert secrets_of(env) == {KEY, "ghp_12345678"}


@pytest.mark.parametrize("text", [
    f"PATH=/usr/bin:/usr/sbin\nexport OPENAI_API_KEY='{KEY}'\nLANG=C\n",
    f'model = "gpt-5"\nenv_key = "SOMEBODYS_API_KEY"\nexperimental_bearer_token = "{KEY}"\n',
    json.dumps({"auth_mode": "chatgpt", "tokens": {"access_token": KEY, "id": "one"}, "last_refresh": None}),
    json.dumps({"openai": {"type": "oauth", "refresh": KEY, "expires": 1764000000000}}, indent=2),
])  # fmt: skip
def test_what_a_file_of_settings_calls_so_is_a_secret_and_the_name_of_a_variable_is_none(text):
    assert secrets_in(text) == {KEY}


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


def test_every_byte_of_a_secret_is_a_star_so_that_offsets_stay():
    said = f"the key {KEY} is {KEY}!".encode()
    assert hidden({KEY}, said) == said.replace(KEY.encode(), b"*" * len(KEY))


def test_what_only_begins_like_a_secret_is_passed_on():
    assert hidden({KEY}, b"sk-abcabc", b"abc, no", b"sk-abc") == b"sk-abcabcabc, nosk-abc"


def test_a_secret_within_a_line_of_json_is_found_as_it_is_written_there():
    secret = 'a "quoted"\nsecret'
    line = json.dumps({"said": secret}).encode()
    assert b"quoted" not in hidden({secret}, line)
    assert len(hidden({secret}, line)) == len(line)


def test_without_secrets_nothing_is_touched_or_held():
    assert Hidden(()).hide(b"sk-") == b"sk-"


@given(
    st.lists(st.sampled_from([KEY, KEY[:7], "abc", "\n", "x"]), max_size=12), st.lists(st.integers(1, 9), max_size=40)
)
def test_wherever_it_is_cut_it_reads_the_same(words, cuts):
    said, pieces, at = "".join(words).encode(), [], 0
    for cut in cuts:
        pieces.append(said[at : at + cut])
        at += cut
    assert hidden({KEY}, *pieces, said[at:]) == said.replace(KEY.encode(), b"*" * len(KEY))
