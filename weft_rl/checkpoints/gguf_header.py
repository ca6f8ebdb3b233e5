"""Header of a GGUF file: its metadata and tensor table, checked against the size of the file."""

import struct
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from weft_rl.errors import UserError
from weft_rl.io.safe_files import regular_size

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
# Codes of struct by GGUF's type of a value; 8 is a text, 9 an array.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_NUMBERS |= {12: "d"}
_TEXT, _ARRAY = 8, 9
_ALIGNMENT = 32  # of the tensors, unless the metadata has another. Source: the GGUF specification
_MOST_DIMENSIONS = 4  # source: ggml
COPY = "copy it again"


class GgufTensor(NamedTuple):
    """An entry of the tensor table. kind: number of its quantization type."""

    name: str
    elements: int
    kind: int
    offset: int  # from the start of the tensors


class GgufHeader(NamedTuple):
    """Metadata, without the content of arrays, and tensors of a GGUF file."""

    metadata: dict[str, Any]
    tensors: list[GgufTensor]
    start: int  # of the tensors, in bytes
    size: int  # of the file, in bytes


def read_header(path: Path) -> GgufHeader:
    """Read the header. Raises UserError for another kind of file and a truncated or damaged one."""
    size = regular_size(path)
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"{path}: is not a GGUF file; name one, or a model's folder")
        try:
            return _Header(file, size).read()
        except (ArithmeticError, LookupError, TypeError, ValueError, struct.error) as error:
            raise UserError(f"{path}: is truncated or damaged ({error}); {COPY}") from error


class _Header:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self) -> GgufHeader:
        version = self._number("I")
        if version not in _VERSIONS:
            raise ValueError(f"GGUF version {version}, not {' or '.join(map(str, _VERSIONS))}")
        num_tensors, num_fields = self._number("Q"), self._number("Q")
        metadata = {}
        for _ in range(num_fields):
            name = self._text()
            metadata[name] = self._value(self._number("I"))
        tensors = [self._tensor() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        start = -(-self._file.tell() // alignment) * alignment
        return GgufHeader(metadata, tensors, start, self._size)

    def _tensor(self) -> GgufTensor:
        name, dimensions = self._text(), self._number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        elements = prod(self._number("Q") for _ in range(dimensions))
        return GgufTensor(name, elements, self._number("I"), self._number("Q"))

    def _bytes(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise ValueError("the file ends too early")
        return self._file.read(count)

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}")))[0]

    def _text(self) -> str:
        return self._bytes(self._number("Q")).decode()

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind != _ARRAY:
            return self._number(_NUMBERS[kind])
        item, count = self._number("I"), self._number("Q")
        for _ in range(count if item == _TEXT else 0):
            self._text()
        if item != _TEXT:
            self._bytes(count * struct.calcsize(f"<{_NUMBERS[item]}"))
        return count
