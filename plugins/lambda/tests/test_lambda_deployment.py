"""The package and the template: what a user deploys."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from durable_monty_lambda.packaging import CORE_MODULES

ROOT = Path(__file__).parents[3]
SCRIPTS = Path(sys.executable).parent
SHOP = (
    "from durable_monty import function, flow, workflow\n\n@function\ndef price(n: int) -> int:\n    return 100 * n\n"
)


def run(*command, check=0):
    done = subprocess.run([SCRIPTS / command[0], *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == check, done.stdout + done.stderr
    return done


@pytest.fixture
def package(tmp_path):
    """A package with a module, a package of the user's and a folder of what they need."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "store" / "__pycache__").mkdir(parents=True)
    (tmp_path / "store" / "__pycache__" / "x.pyc").write_bytes(b"")
    (tmp_path / "store" / "__init__.py").write_text("")
    (tmp_path / "store" / "shelves.py").write_text("def count():\n    import needed\n    return needed.COUNT\n")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "needed.py").write_text("COUNT = 3\n")
    run("durable-monty", "lambda", "package", "shop", "store", "--folder", "site", "--output", "out/function.zip")
    return tmp_path / "out" / "function.zip"


def test_the_package_holds_the_handler_the_remote_side_and_the_users_modules(package):
    names = zipfile.ZipFile(package).namelist()
    wanted = {"durable_monty_lambda/remote.py", "durable_monty/remote.py", "shop.py", "store/shelves.py", "needed.py"}
    assert wanted <= set(names)
    unwanted = ("store/store.py", "sandbox", "executor.py", "cli", ".pyc", "hookspecs")
    assert not [name for name in names if any(part in name for part in unwanted)]


def test_the_package_works_on_a_machine_that_has_nothing_else(package, tmp_path):
    """`-I -S`: no site-packages at all. Every module in it can be imported."""
    zipfile.ZipFile(package).extractall(tmp_path / "task")
    modules = [f"durable_monty.{name}" for name in CORE_MODULES if name not in ("__init__", "_prelude")]
    code = f"""
import importlib, sys
sys.path.insert(0, {str(tmp_path / "task")!r})
for module in {modules!r}:
    importlib.import_module(module)
import durable_monty_lambda
from durable_monty import remote
envelope = remote.make_envelope("shop.price", [7], job_id="e-0-1").decode()
print(remote.read_reply(durable_monty_lambda.handler({{"envelope": envelope}}, None)["reply"]).value)
print(durable_monty_lambda.handler({{"function_name": "shop.price", "args": [2], "call_id": 0}}, None))
print(durable_monty_lambda.handler({{"probe": {{"functions": ["shop.price"]}}}}, None)["missing"])
remote.configure(allow=["store.*"])
print(durable_monty_lambda.handler({{"function_name": "store.shelves.count", "args": []}}, None))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["700", "{'result': 200}", "{}", "{'result': 3}"]


def test_the_handler_runs_no_function_that_is_not_registered_whatever_the_event():
    from durable_monty.errors import FunctionRefused
    from durable_monty_lambda import handler

    with pytest.raises(FunctionRefused):
        handler({"function_name": "os.getcwd", "args": []}, None)
    with pytest.raises(ValueError, match="is this function invoked by something else"):
        handler({"Records": []}, None)


def test_the_handler_takes_events_without_an_envelope():
    """As the first documentation of this project showed them; ids may come along."""
    from durable_monty_lambda import handler

    ids = {"execution_id": "e", "call_id": 0}
    assert handler({"function_name": "support.functions.add", "args": [1, 2], **ids}, None) == {"result": 3}
    assert handler({"function_name": "support.functions.nap", "args": [0.01, 5]}, None) == {"result": 5}
    with pytest.raises(ValueError, match=r"^no$"):
        handler({"function_name": "support.functions.fail", "args": ["ValueError", "no"]}, None)


def test_an_event_without_a_signature_runs_nothing_where_a_key_is_set(monkeypatch):
    from durable_monty.errors import SignatureMismatch
    from durable_monty_lambda import handler

    event = {"function_name": "support.functions.add", "args": [1, 2]}
    assert handler(event, None) == {"result": 3}
    monkeypatch.setenv("DURABLE_MONTY_SIGNING_KEY", "0123456789abcdef")
    with pytest.raises(SignatureMismatch, match="send an envelope"):
        handler(event, None)


def test_the_package_is_the_same_whenever_it_is_built(package, tmp_path):
    first = package.read_bytes()
    for path in tmp_path.glob("*.py"):
        path.touch()
    run("durable-monty", "lambda", "package", "shop", "store", "--folder", "site", "--output", "out/function.zip")
    assert package.read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "there is no such module of Python source here"),
        (["shop.py"], "write `shop`, not `shop.py`"),
        (["--folder", "gone"], "give one that `pip --target` filled"),
    ],
)
def test_what_cannot_be_packed_is_named(tmp_path, arguments, words):
    (tmp_path / "shop.py").write_text(SHOP)
    done = run("durable-monty", "lambda", "package", *arguments, check=2)
    assert words in " ".join(done.stderr.split())


@pytest.mark.thorough
def test_cfn_lint_accepts_the_templates_and_would_find_a_mistake(tmp_path):
    names = []
    for flags in ((), ("--payload-bucket",), ("--durable",), ("--durable", "--payload-bucket")):
        names.append(f"template{'-'.join(flags)}.json")
        (tmp_path / names[-1]).write_text(run("durable-monty", "lambda", "template", *flags).stdout)
    run("cfn-lint", "--regions", "eu-central-1", "--include-checks", "I", "--template", *names)
    wrong = json.loads((tmp_path / names[0]).read_text())
    wrong["Resources"]["EventInvokeConfig"]["Properties"]["MaximumRetryAttempts"] = 3
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    assert "3 is greater than the maximum of 2" in run("cfn-lint", "--template", "wrong.json", check=2).stdout


def test_the_template_is_what_the_check_asks_for():
    resources = json.loads(run("durable-monty", "lambda", "template").stdout)["Resources"]
    config = resources["EventInvokeConfig"]["Properties"]
    assert config["MaximumRetryAttempts"] == 0
    queue = {"Destination": {"Fn::GetAtt": ["ResultsQueue", "Arn"]}}
    assert config["DestinationConfig"] == {"OnSuccess": queue, "OnFailure": queue}
    assert resources["Function"]["Properties"]["Handler"] == "durable_monty_lambda.handler"


def test_no_role_of_the_template_has_a_right_to_everything():
    for flags in ((), ("--payload-bucket",), ("--durable",)):
        resources = json.loads(run("durable-monty", "lambda", "template", *flags).stdout)["Resources"]
        policies = [item["PolicyDocument"] for item in resources["FunctionRole"]["Properties"]["Policies"]]
        policies.append(resources["WorkerPolicy"]["Properties"]["PolicyDocument"])
        for statement in (statement for policy in policies for statement in policy["Statement"]):
            assert not [action for action in statement["Action"] if "*" in action]
            assert "*" not in statement["Resource"]


def loaded_by(code):
    program = f"import sys; before = set(sys.modules); {code}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_package_imports_neither_boto3_nor_pydantic():
    loaded = loaded_by("import durable_monty_lambda; durable_monty_lambda.handler")
    assert loaded - sys.stdlib_module_names == {"durable_monty", "durable_monty_lambda"}


def test_a_worker_without_a_lambda_executor_imports_no_boto3(tmp_path):
    (tmp_path / "shop.py").write_text(SHOP)
    loaded = loaded_by(
        "from durable_monty import OrchestratorService, Worker, init_db, config; import shop;"
        "service = OrchestratorService(init_db('sqlite:///a.db'), config.load());"
        "service.start_execution('await price(1)', [shop.price], execution_id='e');"
        "Worker(service).run(until_complete=True);"
        "assert service.get_result('e') == 100"
    )
    assert "pydantic" in loaded
    assert loaded.isdisjoint({"boto3", "botocore", "durable_monty_lambda"})


def test_the_executor_for_scripts_comes_from_the_core():
    from durable_monty import LambdaExecutor

    executor = LambdaExecutor("fn", results_queue_url="http://127.0.0.1:1/queue", region="us-east-1")
    assert executor.settings.function_name == "fn"
    executor.stop(0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "results_queue_url is missing"),
        ({"results_queue_url": "q", "event_format": "plain", "payload_bucket": "b"}, "goes with neither"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    from durable_monty_lambda import LambdaSettings

    with pytest.raises(ValueError, match=words):
        LambdaSettings(function_name="fn", **settings)


def test_every_setting_is_described_and_documented():
    from durable_monty_lambda import LambdaSettings

    page = (ROOT / "docs/howto/lambda.md").read_text()
    for name, field in LambdaSettings.model_fields.items():
        assert field.description, name
        assert f"| `{name}` |" in page, name
