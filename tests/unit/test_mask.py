"""Secrets of an agent's environment in what it writes: stars, wherever the reader cuts."""

import json
import time

from hypothesis import given
from hypothesis import strategies as st
from leasehold.events.mask import Hidden, secrets_of

KEY = "sk-abcabcabd-0123"


def hidden(secrets, *pieces):
    mask = Hidden(secrets)
    return b"".join([*(mask.hide(piece) for piece in pieces), mask.rest()])


def test_what_a_variable_is_called_says_whether_it_is_secret():
    env = {"OPENAI_API_KEY": KEY, "GH_TOKEN": "ghp_12345678", "PATH": "/usr/bin:/bin", "SHORT_KEY": "abc", "LANG": "C"}
    assert secrets_of(env) == {KEY, "ghp_12345678"}


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


@given(st.integers(1, 300), st.lists(st.integers(1, 90), max_size=8))
def test_a_long_secret_is_hidden_to_its_last_byte_wherever_it_is_cut(length, cuts):
    secret = "".join(chr(33 + n * n * 7 % 89) + chr(48 + n // 7 % 70) for n in range(200))[: length + 7]
    said, pieces, at = f"it is {secret}.".encode(), [], 0
    for cut in cuts:
        pieces.append(said[at : at + cut])
        at += cut
    assert hidden({secret}, *pieces, said[at:]) == b"it is " + b"*" * len(secret) + b"."


def test_to_hold_what_may_be_a_beginning_costs_next_to_nothing():
    mask = Hidden({("eyJhbGciOiJSUzI1NiIs" + letter * 1983) for letter in "xy"})
    mask.hide(b"e")
    began = time.thread_time()
    for _ in range(1000):
        mask.hide(b"e" * 100)
    assert time.thread_time() - began < 0.5  # 2.3 s when every end was compared to every secret


@given(st.lists(st.integers(1, 90), max_size=8))
def test_secrets_that_overlap_or_begin_alike_are_hidden_all_of_them(cuts):
    said, pieces, at = b"a: 0123456789-abcdefgh-0123456789-xyz! 0123456789", [], 0
    for cut in cuts:
        pieces.append(said[at : at + cut])
        at += cut
    secrets = {"0123456789-", "0123456789-abcdefgh", "abcdefgh-0123456789", "0123456789-xyz"}
    assert hidden(secrets, *pieces, said[at:]) == b"a: " + b"*" * 34 + b"! 0123456789"


def test_secrets_that_are_all_alike_cost_an_agent_s_output_no_more_than_some_looks_at_each_byte():
    mask = Hidden({"a" * 4000 + str(n) for n in range(1000, 1008)} | {"a" * 50 + str(n) for n in range(1000, 1100)})
    began = time.thread_time()
    for _ in range(16):
        mask.hide(b"ab" * 8192)
        mask.hide(b"a" * 47 + b"b" * 16384)
    assert time.thread_time() - began < 1


def test_what_is_a_secret_within_the_beginning_of_another_is_hidden_and_no_more():
    assert hidden({KEY, "begins with xxxxxxxx and ends"}, b"begins with", b" xxxxxxxx") == b"begins with xxxxxxxx"
    assert hidden({KEY, f"begins with {KEY} and ends"}, b"begins with ", KEY.encode()) == b"begins with " + b"*" * len(
        KEY
    )


def test_half_a_character_in_a_secret_is_no_reason_to_fail():
    secret = "\ud800" + KEY
    assert hidden({secret}, json.dumps({"said": secret}).encode()) == b'{"said": "' + b"*" * (len(KEY) + 6) + b'"}'
