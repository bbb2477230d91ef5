"""The protos as descriptors with their comments, compiled once by buf from the sources themselves."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from tests.contract.buf import run_buf


@dataclass(frozen=True)
class Rpc:
    """One rpc with its place and the comment above it."""

    package: str
    service: str
    method: MethodDescriptorProto
    comment: str

    @property
    def name(self) -> str:
        return f"{self.package}.{self.service}/{self.method.name}"


class Contract:
    """Walks over every proto of the contract."""

    def __init__(self, files: list[FileDescriptorProto]) -> None:
        self.files = files

    def rpcs(self) -> Iterator[Rpc]:
        for file in self.files:
            comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
            for number, service in enumerate(file.service):
                for index, method in enumerate(service.method):
                    # 6: FileDescriptorProto.service, 2: ServiceDescriptorProto.method
                    comment = comments.get((6, number, 2, index), "")
                    yield Rpc(file.package, service.name, method, comment)

    def messages(self) -> Iterator[tuple[str, DescriptorProto]]:
        """(full name, message), nested ones included, map entries not."""
        pending = [(f"{file.package}.{message.name}", message) for file in self.files for message in file.message_type]
        while pending:
            name, message = pending.pop()
            if not message.options.map_entry:
                yield name, message
            pending += [(f"{name}.{nested.name}", nested) for nested in message.nested_type]

    def fields(self) -> Iterator[tuple[str, FieldDescriptorProto]]:
        for name, message in self.messages():
            for field in message.field:
                yield f"{name}.{field.name}", field

    def enums(self) -> Iterator[EnumDescriptorProto]:
        for file in self.files:
            yield from file.enum_type
        for _, message in self.messages():
            yield from message.enum_type


@pytest.fixture(scope="session")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    built: Path = tmp_path_factory.mktemp("contract") / "contract.binpb"
    done: subprocess.CompletedProcess[str] = run_buf("build", "-o", str(built))
    assert done.returncode == 0, done.stderr
    files = FileDescriptorSet.FromString(built.read_bytes()).file
    return Contract([file for file in files if file.package.startswith("soma.")])
