"""Limits per run: what is refused, what is asked of the kernel, what is enforced, and what is said when it is not."""

import pytest
from leasehold.keeper.containment import Group
from leasehold.keeper.limits import check
from leasehold.keeper.protocol import RefusedError
from support.host import alive
from support.keeper import until

pytestmark = pytest.mark.race


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"memory_max": 1048576}, {"memory_max": 1 << 20}),
        ({"memory_max": "512M"}, {"memory_max": 512 << 20}),
        ({"memory_max": "2 GiB"}, {"memory_max": 2 << 30}),
        ({"memory_max": "64kb"}, {"memory_max": 64 << 10}),
        ({"memory_max": "1T"}, {"memory_max": 1 << 40}),
        ({"memory_max": "4096"}, {"memory_max": 4096}),
        ({"pids_max": 100, "cpu_weight": "50"}, {"pids_max": 100, "cpu_weight": 50}),
        ({"memory_max": None}, {}),
        ({"of_a_newer_daemon": 1}, {}),
        ({}, {}),
    ],
)
def test_sizes_are_read_as_people_write_them(given, meant):
    assert check(given) == meant


NONSENSE = [
    {"memory_max": value}
    for value in (0, -1, True, 1.5, "", "lots", "512X", "-5M", "1e9", "5 M 5", [], {}, 1 << 63, "9" * 30, "٣M", "max")
] + [{"pids_max": value} for value in (0, -1, "10M", 1 << 30, "1.5")] + [{"cpu_weight": value} for value in (0, 10_001, "x")]  # fmt: skip


@pytest.mark.parametrize("limits", NONSENSE, ids=str)
def test_nonsense_is_no_limit(limits):
    with pytest.raises(RefusedError, match=next(iter(limits))):
        check(limits)


def test_nonsense_is_refused_in_words_and_starts_nothing(keeper):
    caller = keeper.call()
    answer = caller.sh(1, "echo started", limits={"memory_max": "a lot"})
    assert answer["error"] == "bad_request" and "memory_max" in answer["message"] and "512M" in answer["message"]
    assert caller.run(1) is None and not keeper.path(1, "").exists()
    assert caller.sh(1, "exit 4", limits={})["ok"], "a run id that was refused is not used up"
    assert caller.ended(1)["exit_code"] == 4


@pytest.fixture
def group(tmp_path):
    """A group with every controller, as far as files can be one."""
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.weight", "cgroup.procs"):
        (tmp_path / name).touch()
    return Group(tmp_path, 1)


def test_each_limit_goes_into_its_files(group):
    assert group.limit({"memory_max": 512 << 20, "pids_max": 64, "cpu_weight": 50}) == []
    said = {path.name: path.read_text() for path in group.path.iterdir() if path.read_text()}
    assert said == {
        "memory.max": "536870912", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "64", "cpu.weight": "50",
    }  # fmt: skip


def test_what_has_no_file_is_named_and_the_rest_is_set(group):
    (group.path / "pids.max").unlink()
    (group.path / "pids.max").mkdir()
    (group.path / "memory.swap.max").unlink()
    (group.path / "memory.swap.max").mkdir()
    assert group.limit({"memory_max": 4096, "pids_max": 64}) == ["pids_max"]
    assert (group.path / "memory.max").read_text() == "4096", (
        "a host without swap accounting limits memory all the same"
    )


def test_what_was_used_is_read_as_far_as_the_host_counts(group):
    assert group.usage() == {}
    (group.path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\n")
    (group.path / "memory.peak").write_text("67108864\n")
    (group.path / "pids.peak").write_text("7\n")
    (group.path / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 1\n")
    (group.path / "io.stat").write_text(
        "8:0 rbytes=100 wbytes=20 rios=3 wios=1 dbytes=0 dios=0\n8:16 rbytes=3 wbytes=0\n"
    )
    assert group.usage() == {
        "cpu_seconds": 1.5, "memory_peak": 67108864, "pids_peak": 7, "oom_kills": 2, "io_bytes": 123,
    }  # fmt: skip


def enforces(keeper, *controllers):
    there = keeper.call().ask("about")["containment"]["enforced"]
    return keeper.rung == "cgroup" and set(controllers) <= set(there)


def test_a_limit_that_is_not_enforced_is_named(keeper):
    caller = keeper.call()
    told = caller.sh(
        1, "sleep 300", limits={"memory_max": "64M", "pids_max": 20, "cpu_weight": 50, "no_such": 1, "unset": None}
    )
    owners = {"memory": "memory_max", "pids": "pids_max", "cpu": "cpu_weight"}
    there = caller.ask("about")["containment"]["enforced"]
    assert told["limits_missing"] == sorted({"no_such", *(owners[each] for each in owners if each not in there)})
    assert caller.run(1)["limits_missing"] == told["limits_missing"]


def test_a_memory_hog_is_one_failed_run(keeper):
    if not enforces(keeper, "memory"):
        pytest.skip("NOT TESTED HERE: this host delegates no memory controller")
    caller = keeper.call()
    caller.sh(2, "sleep 300", limits={"memory_max": "64M"})
    caller.sh(1, "sleep 300 & head -c 400M /dev/zero | tail", limits={"memory_max": "64M"})
    record = caller.ended(1)
    assert record["usage"]["oom_kills"] >= 1 and record["usage"]["memory_peak"] <= 64 << 20
    assert caller.run(2)["exit"] is None and keeper.family() == [caller.run(2)["pid"]]


def test_a_fork_bomb_stops_at_its_limit(keeper):
    if not enforces(keeper, "pids"):
        pytest.skip("NOT TESTED HERE: this host delegates no pids controller")
    caller = keeper.call()
    caller.sh(1, "i=0; while [ $i -lt 100 ]; do sleep 300 & i=$((i+1)); done; echo done; wait", limits={"pids_max": 20})
    until(lambda: len(caller.ask("look", run_id=1)["processes"]) >= 15, "many processes")
    assert len(caller.ask("look", run_id=1)["processes"]) <= 20
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    assert caller.ended(1)["usage"].get("pids_peak", 20) <= 20


def test_what_a_run_used_outlives_its_keeper_where_a_group_counts(keeper):
    caller = keeper.call()
    caller.sh(1, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo up; sleep 300")
    until(keeper.path(1, "stdout").read_text, "the agent")
    cgroup = caller.run(1)["cgroup"]
    keeper.kill()
    keeper.start()
    usage = keeper.call().ended(1)["usage"]
    if cgroup is None:
        assert usage == {}
    else:
        assert usage["cpu_seconds"] > 0 and not keeper.group_exists(cgroup)


def test_what_a_run_used_outlives_its_group(keeper):
    caller = keeper.call()
    pid = caller.sh(1, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; setsid sleep 300 & exit 0")["pid"]
    cgroup = (caller.run(1) or {})["cgroup"]
    record = caller.ended(1)
    assert record["usage"]["cpu_seconds"] > 0 and not alive(pid)
    if cgroup is not None:
        until(lambda: not keeper.group_exists(cgroup), "a removed group")
