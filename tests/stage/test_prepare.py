"""What is done in a worktree before the agent: commands, once, within their clock; and a file of settings that never gets into a commit."""

import stat

import pytest

ENV = {"path": ".env", "text": "KEY=value\n"}


def test_commands_are_done_once_in_a_worktree_and_their_words_are_no_agents_words(stage):
    prepare = [["sh", "-c", "echo out; echo err >&2; echo x >> prepared"], ["touch", "second"]]
    assert stage.sh("cat prepared", prepare=prepare) == 0
    assert stage.said() == "x\n" and stage.said("stderr") == "out\nerr\n"
    assert stage.sh("cat prepared", prepare=prepare) == 0
    assert stage.said() == "x\n" and stage.said("stderr") == ""


def test_a_command_that_fails_is_named_with_its_last_words_and_done_again_by_the_next_attempt(stage):
    prepare = [["sh", "-c", "echo x >> tries; echo it is broken >&2; exit 3"]]
    assert stage.sh("echo never", prepare=prepare) == 125
    assert stage.said() == "" and stage.failed["kind"] == "workspace" and stage.failed["step"] == "prepare 1"
    assert stage.failed["message"].endswith("exited with 3: it is broken")
    assert stage.sh("true", prepare=prepare) == 125
    assert (stage.tree() / "tries").read_text() == "x\nx\n"


def test_a_command_that_is_no_program_is_named(stage):
    assert stage.sh("true", prepare=[["no-such-tool", "install"]]) == 125
    assert "no-such-tool" in stage.failed["message"]


def test_one_that_does_not_end_is_ended_with_all_that_it_started(stage):
    assert stage.sh("true", prepare=[["sh", "-c", "sleep 77.7 & trap '' TERM; sleep 77.7"]], prepare_timeout=1.5) == 125
    assert stage.failed["kind"] == "timeout" and "1.5 seconds" in stage.failed["message"]


@pytest.mark.rule("S61")
def test_the_env_file_is_there_while_the_agent_is_and_for_its_user_alone(stage):
    assert stage.sh("cat .env; stat -c %a .env; git add -A; git status --porcelain", env_file=ENV) == 0
    assert stage.said() == "KEY=value\n600\n"
    assert not (stage.tree() / ".env").exists()
    assert stage.changes == {}


def test_not_even_an_agent_that_forces_it_in_has_it_in_the_diff(stage):
    assert stage.sh("git add -f .env; echo x > y.txt", env_file=ENV) == 0
    assert stage.changes == {"y.txt": "added"} and "KEY" not in stage.diff


def test_a_file_of_the_repository_itself_is_left_alone(stage, repository):
    repository.commit(__env="THEIRS=1\n")
    assert stage.sh("true", env_file=ENV) == 125
    assert stage.failed["message"] == "the repository has a file .env of its own"
    assert (stage.tree() / ".env").read_text() == "THEIRS=1\n"


def test_a_link_leads_it_nowhere(stage, repository, tmp_path):
    (repository.path / ".env").symlink_to(tmp_path)
    repository.git("add", ".env")
    repository.git("commit", "--quiet", "-m", "a trap")
    assert stage.sh("true", env_file={"path": ".env/local", "text": "x"}) == 125
    assert stage.failed["step"] == "env file" and not (tmp_path / "local").exists()


def test_a_link_that_an_agent_left_is_replaced_and_not_followed(stage, tmp_path):
    assert stage.sh(f"ln -s {tmp_path}/target .env") == 0
    assert stage.sh("cat .env", env_file=ENV) == 0
    assert stage.said() == "KEY=value\n" and not (tmp_path / "target").exists()


def test_it_may_lie_in_a_directory(stage):
    assert stage.sh("cat .env/local", env_file={"path": ".env/local", "text": "A=1\n"}) == 0
    assert stage.said() == "A=1\n"
    assert stat.S_ISDIR((stage.tree() / ".env").stat().st_mode)
