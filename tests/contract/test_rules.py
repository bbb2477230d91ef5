"""The rules that every proto keeps, read from the protos themselves."""

from __future__ import annotations

import re
from dataclasses import fields

from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions

from soma_contract.errors import Code
from soma_contract.limits import Limits
from tests.contract.conftest import Contract
from tests.contract.keywords import KEYWORDS, TAKEN, languages_with

_SNAKE_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def spellings(name: str) -> set[str]:
    """The forms that generators give to a name: Name, name_of, nameOf, NameOf."""
    snake = _SNAKE_START.sub("_", name).lower()
    pascal = "".join(part.capitalize() for part in snake.split("_"))
    return {name, snake, pascal, pascal[:1].lower() + pascal[1:]}


def test_every_rpc_is_there(contract: Contract) -> None:
    services: dict[str, set[str]] = {}
    for rpc in contract.rpcs():
        services.setdefault(rpc.service, set()).add(rpc.method.name)

    assert set(services) == {
        "MemoryService",
        "WorkingMemoryService",
        "ContextService",
        "WatchService",
        "SessionService",
        "GraphService",
        "BatchService",
        "TenantService",
        "OperatorService",
    }
    assert services["WorkingMemoryService"] == {
        "Observe",
        "ListItems",
        "Tick",
        "PromoteItems",
        "CloseSession",
        "Configure",
    }
    assert services["SessionService"] == {"SaveSession", "LoadSession", "ListSessions", "DeleteSession"}


def test_no_name_is_a_keyword_of_a_language_we_serve(contract: Contract) -> None:
    names = {rpc.method.name for rpc in contract.rpcs()}
    names |= {field.name for _, field in contract.fields()}
    names |= {oneof.name for _, message in contract.messages() for oneof in message.oneof_decl}
    names |= {message.name for _, message in contract.messages()}
    names |= {enum.name for enum in contract.enums()}

    clashes = {name: found for name in names if (found := set().union(*map(languages_with, spellings(name))))}

    assert clashes == {}


def test_no_field_is_renamed_by_a_generator(contract: Contract) -> None:
    assert {name for name, field in contract.fields() if field.name in TAKEN} == set()


def test_the_keyword_check_knows_each_language() -> None:
    assert {language for language in KEYWORDS if "import" in KEYWORDS[language]} == {
        "Python",
        "Go",
        "Java",
        "TypeScript",
    }
    assert languages_with("lambda") == {"Python"}
    assert languages_with("range") == {"Go"}
    assert languages_with("synchronized") == {"Java"}
    assert languages_with("dyn") == {"Rust"}
    assert languages_with("typeof") == {"Rust", "TypeScript"}
    assert any(languages_with(spelling) for spelling in spellings("Import"))


def test_every_rpc_says_whether_it_may_be_repeated(contract: Contract) -> None:
    silent = [rpc.name for rpc in contract.rpcs() if not rpc.method.options.HasField("idempotency_level")]

    assert silent == []


def test_only_what_cannot_be_repeated_says_so(contract: Contract) -> None:
    unknown = {
        rpc.method.name
        for rpc in contract.rpcs()
        if rpc.method.options.idempotency_level == MethodOptions.IDEMPOTENCY_UNKNOWN
    }

    assert unknown == {"Tick", "CreateKey", "RotateKey"}


def test_every_rpc_has_its_own_request_and_response(contract: Contract) -> None:
    for rpc in contract.rpcs():
        assert rpc.method.input_type == f".{rpc.package}.{rpc.method.name}Request"
        assert rpc.method.output_type == f".{rpc.package}.{rpc.method.name}Response"


def test_no_body_outside_administration_names_a_tenant(contract: Contract) -> None:
    named = [name for name, _ in contract.fields() if "tenant" in name.lower() and not name.startswith("soma.admin.")]

    assert named == []


def test_imports_stay_within_the_clone(contract: Contract) -> None:
    foreign = {
        (file.name, imported)
        for file in contract.files
        for imported in file.dependency
        if not imported.startswith(("google/protobuf/", "soma/"))
    }

    assert foreign == set()


def test_every_file_names_its_go_and_java_packages(contract: Contract) -> None:
    for file in contract.files:
        _, area, version = file.package.split(".")
        assert file.options.go_package == f"soma.dev/gen/soma/{area}/{version};{area}{version}"
        assert file.options.java_package == f"dev.soma.{area}.{version}"
        assert file.options.java_multiple_files


def test_one_service_a_file(contract: Contract) -> None:
    assert {file.name: len(file.service) for file in contract.files if len(file.service) > 1} == {}


def test_errors_named_in_comments_exist(contract: Contract) -> None:
    enums = list(contract.enums())
    reasons = {value.name.removeprefix("ERROR_REASON_") for e in enums if e.name == "ErrorReason" for value in e.value}
    values = {value.name for enum in enums for value in enum.value}
    codes = {code.name for code in Code}

    named = {
        (rpc.name, word)
        for rpc in contract.rpcs()
        for sentence in re.findall(r"Errors:(.*)", rpc.comment, re.DOTALL)
        for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", sentence)
    }

    assert named, "no rpc names its errors"
    assert {(rpc, word) for rpc, word in named if word not in reasons | values | codes} == set()


def test_the_limits_served_are_those_enforced(contract: Contract) -> None:
    (limits,) = [message for name, message in contract.messages() if name == "soma.admin.v1.Limits"]

    served = {field.name for field in limits.field}

    # A duration carries its unit in its type.
    assert served == {field.name.removesuffix("_s") for field in fields(Limits)}


def test_a_broken_rule_is_noticed(contract: Contract) -> None:
    broken = FileDescriptorSet(file=contract.files).file[0]
    message = broken.message_type.add(name="Import")
    message.field.add(name="tenant_id")
    found = Contract([broken])

    assert any("tenant" in name for name, _ in found.fields())
    assert any(languages_with(s) for _, message in found.messages() for s in spellings(message.name))
