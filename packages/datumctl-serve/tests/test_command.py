"""The command as a process: what it answers without a control plane, and what it loads for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datumctl_serve.completion import COMMANDS as COMPLETED
from datumctl_serve.completion import OPTIONS
from datumctl_serve.manifest import VERSION

HEAVY = (
    "drtp_agent",
    "drtp_api",
    "drtp_protocol",
    "asyncio",
    "httpx2",
    "cattrs",
    "attr",
    "ssl",
    "cryptography",
    "rich",
)


def run(*args, env=None, check_traceback=True):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DATUM", "DRTP", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-m", "datumctl_serve", *args],
        env={**environment, **(env or {})}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if check_traceback:
        assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def state(tmp_path):
    """Return an environment whose state directory is empty."""
    return {"DRTP_STATE_DIR": str(tmp_path / "state"), "DATUM_SERVE_CONFIG": str(tmp_path / "serve.toml")}


@pytest.fixture
def here(state, monkeypatch):
    """Return the command in this process, with the state fixture's environment and nothing else of ours."""
    from datumctl_serve.cli import run as run_here

    for name in [n for n in os.environ if n.startswith(("DATUM", "DRTP"))]:
        monkeypatch.delenv(name)
    for name, value in state.items():
        monkeypatch.setenv(name, value)
    return run_here


def imported(*args, env=None):
    """Return the top-level packages that a run imports."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DATUM", "DRTP", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "datumctl_serve", *args],
        env={**environment, **(env or {})}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:") and "|" in line]
    return done, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("args", [["--plugin-manifest"], ["create", "--bogus", "--plugin-manifest", "x", "--"]])
def test_the_manifest_answers_before_anything_is_imported(args):
    began = time.perf_counter()
    done, modules = imported(*args)
    sys.stdout.write(f"{time.perf_counter() - began:.3f} s with -X importtime\n")
    assert done.returncode == 0
    manifest = json.loads(done.stdout)
    assert manifest == {
        "name": "serve",
        "version": f"v{VERSION}",
        "description": manifest["description"],
        "min_datumctl_version": "v0.18.0",
        "api_version": 1,
        "min_api_version": 1,
    }
    assert not modules & {*HEAVY, "click", "json", "typing"}


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["localhost:8080", "--help"], ["create", "--help"]])
def test_help_needs_no_environment_and_loads_nothing_of_the_agent(args):
    began = time.perf_counter()
    done, modules = imported(*args, env={"HOME": "/nonexistent", "PATH": ""})
    sys.stdout.write(f"{time.perf_counter() - began:.3f} s with -X importtime\n")
    assert done.returncode == 0
    assert "Usage: datumctl-serve" in done.stdout
    assert not modules & set(HEAVY)


def test_help_begins_with_what_it_does_and_ends_with_the_exit_codes():
    text = run("--help").stdout
    assert "datumctl-serve localhost:8080 --public" in text
    assert "69 control plane or target not" in text
    assert "kubectl" not in text


@pytest.mark.parametrize(
    ("words", "expected", "directive"),
    [
        (["st"], {"status", "stop"}, 4),
        ([""], set(COMPLETED), 4),
        (["--pro"], {"--protocol", "--proxy-protocol"}, 4),
        (["localhost:8080", "--protocol", ""], {"tcp", "http"}, 4),
        (["--secret-file", ""], set(), 0),
        (["stop", "w"], {"web"}, 4),
        (["--name", ""], {"web", "db"}, 4),
        ([], set(COMPLETED), 4),
    ],
)
def test_completion_speaks_the_protocol_of_cobra(tmp_path, words, expected, directive):
    for name in ("web", "db"):
        (tmp_path / "serve" / name).mkdir(parents=True)
    done = run("__complete", *words, env={"DRTP_STATE_DIR": str(tmp_path)})
    *lines, last = done.stdout.splitlines()
    assert last == f":{directive}"
    assert {line.partition("\t")[0] for line in lines} == expected
    assert done.returncode == 0


def test_what_is_completed_exists():
    from datumctl_serve.cli import COMMANDS, serve_command

    assert set(COMPLETED) == set(COMMANDS)
    known = {option for parameter in serve_command.params for option in parameter.opts}
    assert set(OPTIONS) - {"--help"} <= known


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_completion_script(shell):
    done = run("completion", shell)
    assert "__complete" in done.stdout


def test_the_bash_completion_script_completes():
    script = run("completion", "bash").stdout
    body = f'{script}\nCOMP_WORDS=(datumctl-serve unp); COMP_CWORD=1; _datumctl_serve; echo "${{COMPREPLY[@]}}"'
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", body], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.strip() == "unpublish", done.stderr


@pytest.mark.parametrize(
    ("args", "code", "exit_code"),
    [
        (["0.0.0.0:8080"], "DRTP-1002", 2),
        (["nonsense"], "DRTP-1001", 2),
        (["udp://localhost:53"], "DRTP-1012", 2),
        (["https://localhost:443"], "DRTP-1012", 2),
        (["8080", "--protocol", "udp"], "DRTP-1012", 2),
        (["169.254.169.254:80"], "DRTP-4008", 2),
        (["8080", "--name", "Not Valid"], "DRTP-1003", 2),
        (["8080", "--allow", "10.0.0.1/8"], "DRTP-1008", 2),
        (["8080", "--port", "99"], "DRTP-1004", 2),
        (["tcp://localhost:1", "--port", "99999"], "DRTP-1010", 2),
        (["tcp://localhost:1", "--hostname", "a.example"], "DRTP-1004", 2),
        (["--bogus"], "DRTP-1004", 2),
        (["8080", "8081"], "DRTP-1004", 2),
        (["8080", "--servers", "9"], "DRTP-1004", 2),
        (["8080", "--service", "db", "--public"], "DRTP-1004", 2),
        (["8080", "--service", "db", "--name", "other"], "DRTP-1004", 2),
        (["8080", "--secret", "x"], "DRTP-1004", 2),
        (["8080", "--detail", "a/TCP/h/1"], "DRTP-1004", 2),
        (["--service", "db", "--secret-file", "/nonexistent"], "DRTP-1009", 78),
        (["stop"], "DRTP-1004", 2),
        (["stop", "web"], "DRTP-2006", 77),
        (["create"], "DRTP-1004", 2),
        (["create", "UPPER"], "DRTP-1003", 2),
        (["8080"], "DRTP-2001", 69),
        (["list"], "DRTP-2001", 69),
        (["publish", "web"], "DRTP-2001", 69),
    ],
)
def test_every_refusal_has_its_code_its_next_step_and_its_exit_code(here, capsys, args, code, exit_code):
    returned = here([*args, "-o", "json"])
    done = capsys.readouterr()
    (line,) = done.out.splitlines()
    event = json.loads(line)
    assert (event["type"], event["code"], returned) == ("error", code, exit_code), done.err
    assert event["message"]
    assert event["hint"]
    assert set(event) == {"type", "code", "message", "hint", "retryable"}
    assert code in done.err
    assert "Traceback" not in done.err


def test_an_unwritable_state_directory_is_a_coded_error(tmp_path):
    (tmp_path / "file").write_text("")
    done = run("8080", "-o", "json", env={"DRTP_STATE_DIR": str(tmp_path / "file")})
    assert (json.loads(done.stdout)["code"], done.returncode) == ("DRTP-1006", 78)


def test_a_control_plane_that_is_gone_is_a_coded_error_within_seconds(state):
    began = time.monotonic()
    done = run("8080", "--no-target-check", "--api-url", "http://127.0.0.1:9", "--service", "db", "-o", "json",
               env={**state, "DATUM_SERVE_SECRET": "s", "http_proxy": "http://127.0.0.1:1"})  # fmt: skip
    error, stopped = map(json.loads, done.stdout.splitlines())
    assert (error["code"], stopped, done.returncode) == (
        "DRTP-2002",
        {"type": "tunnel_stopped", "reason": "failed"},
        69,
    )
    assert time.monotonic() - began < 15


def test_no_token_for_a_control_plane_means_not_signed_in(state):
    done = run("8080", "--no-target-check", "--api-url", "http://127.0.0.1:9", "-o", "json", env=state)
    assert (json.loads(done.stdout.splitlines()[0])["code"], done.returncode) == ("DRTP-2003", 77)


def test_a_secret_on_the_command_line_is_warned_of_and_never_repeated(state):
    done = run("8080", "--service", "db", "--secret", "s3cr3t-value", env=state)
    assert "--secret-file" in done.stderr
    assert "s3cr3t-value" not in done.stdout + done.stderr
    done = run("8080", "--service", "db", env={**state, "DATUM_SERVE_SECRET": "s3cr3t-value"})
    assert "--secret-file" not in done.stderr
    assert "s3cr3t-value" not in done.stdout + done.stderr


def test_an_option_pasted_with_a_dash_for_its_hyphens_is_understood(state):
    done = run("8080", "\u2013service", "db", "\u2014secret=s3cr3t-value", env=state)
    assert "warning: read a pasted dash as --service" in done.stderr
    assert "s3cr3t-value" not in done.stdout + done.stderr
    assert "No such option" not in done.stderr


def test_without_arguments_the_help_is_shown_as_a_usage_error(state):
    done = run(env=state)
    assert done.returncode == 2
    assert "Usage:" in done.stdout


def test_people_get_a_sentence_and_a_next_step_in_any_encoding(state):
    done = run("nonsense", env={**state, "PYTHONIOENCODING": "ascii"})
    assert done.stderr.splitlines()[0].startswith("x DRTP-1001 'nonsense' has no port")
    assert "try: " in done.stderr
    done = run("nonsense", env={**state, "PYTHONIOENCODING": "utf-8"})
    assert done.stderr.startswith("✗ DRTP-1001")
    assert "\x1b" not in done.stderr, "colour only on a terminal"


def test_colour_is_for_terminals_that_want_it(state):
    assert "\x1b[31m" in run("nonsense", env={**state, "FORCE_COLOR": "1"}).stderr
    assert "\x1b" not in run("nonsense", env={**state, "FORCE_COLOR": "1", "NO_COLOR": "1"}).stderr


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_logs_come_in_the_form_asked_for(state, form):
    line = run("nonsense", "-o", "json", env={**state, "DATUM_SERVE_LOG_FORMAT": form}).stderr
    assert "DRTP-1001" in line


def test_yaml_is_one_document_each(state):
    import yaml

    documents = list(yaml.safe_load_all(run("nonsense", "-o", "yaml", env=state).stdout))
    assert [d["code"] for d in documents] == ["DRTP-1001"]


def test_a_traceback_appears_with_debug_only(state):
    assert "Traceback" in run("nonsense", "--debug", env=state, check_traceback=False).stderr


def test_a_flag_wins_over_the_environment_wins_over_the_file(state, tmp_path):
    (tmp_path / "serve.toml").write_text('port = 1\nhostname = "file.example"\norg = "from-file"\n')
    done = run("config", "show", "--origin", "-o", "json", "--", env=state)
    env = {**state, "DATUM_SERVE_PORT": "2", "DATUM_ORG": ""}
    done = run("config", "show", "--origin", "-o", "json", env=env)
    shown = {e["name"]: e for e in map(json.loads, done.stdout.splitlines())}
    assert (shown["port"]["value"], shown["port"]["origin"]) == (2, "environment")
    assert (shown["hostname"]["value"], shown["hostname"]["origin"]) == ("file.example", str(tmp_path / "serve.toml"))
    assert shown["organization"]["value"] == "from-file"
    assert shown["servers"]["origin"] == "default"
    assert shown["state-dir"]["value"] == state["DRTP_STATE_DIR"]
    done = run("config", "show", "--origin", "tcp://x:1", "--port", "3", "-o", "json", env=env)
    shown = {e["name"]: e for e in map(json.loads, done.stdout.splitlines())}
    assert (shown["port"]["value"], shown["port"]["origin"]) == (3, "flag")


def test_the_secret_is_never_shown_by_the_configuration(state):
    done = run("config", "show", env={**state, "DATUM_SERVE_SECRET": "s3cr3t-value"})
    assert "s3cr3t-value" not in done.stdout
    assert "secret           set" in done.stdout


@pytest.mark.parametrize("text", ["prot = 1", 'secret = "x"', "port = ["])
def test_a_faulty_configuration_file_is_a_coded_error(state, tmp_path, text):
    (tmp_path / "serve.toml").write_text(text)
    done = run("8080", "-o", "json", env=state)
    assert (json.loads(done.stdout)["code"], done.returncode) == ("DRTP-1007", 78)


def test_a_command_that_does_not_exist_is_a_coded_error(state):
    env = {**state, "DATUM_SERVE_API_URL": "http://127.0.0.1:9", "DATUM_SERVE_SECRET": "s"}
    done = run("8080", "--service", "db", "-o", "json", "--", "/nonexistent/program", env=env)
    assert (json.loads(done.stdout)["code"], done.returncode) == ("DRTP-1007", 78)


def test_a_command_that_fails_before_it_listens_gives_its_exit_code(state):
    env = {**state, "DATUM_SERVE_API_URL": "http://127.0.0.1:9", "DATUM_SERVE_SECRET": "s"}
    done = run("9", "--service", "db", "-o", "json", "--", sys.executable, "-c", "raise SystemExit(7)", env=env)
    assert done.returncode == 7
    assert done.stdout == ""


def test_the_version_is_printed_for_people_and_programs():
    assert run("version").stdout == f"datumctl-serve v{VERSION}\n"
    assert json.loads(run("version", "-o", "json").stdout)["version"] == f"v{VERSION}"


def test_a_first_word_is_a_command_only_where_it_is_one(state):
    assert "DRTP-1001" in run("statuss", env=state).stderr
    assert run("status", env=state).returncode == 0
