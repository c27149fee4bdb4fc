from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SectionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SECTION_KIND_UNSPECIFIED: _ClassVar[SectionKind]
    SECTION_KIND_ROWS: _ClassVar[SectionKind]
    SECTION_KIND_DELETE: _ClassVar[SectionKind]
SECTION_KIND_UNSPECIFIED: SectionKind
SECTION_KIND_ROWS: SectionKind
SECTION_KIND_DELETE: SectionKind

class Head(_message.Message):
    __slots__ = ("origin", "epoch", "seq", "hash")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    origin: str
    epoch: int
    seq: int
    hash: bytes
    def __init__(self, origin: _Optional[str] = ..., epoch: _Optional[int] = ..., seq: _Optional[int] = ..., hash: _Optional[bytes] = ...) -> None: ...

class RegistryVersion(_message.Message):
    __slots__ = ("number", "sha256")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    number: int
    sha256: bytes
    def __init__(self, number: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "sha256", "compressed_size", "plain_size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    COMPRESSED_SIZE_FIELD_NUMBER: _ClassVar[int]
    PLAIN_SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: bytes
    compressed_size: int
    plain_size: int
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[bytes] = ..., compressed_size: _Optional[int] = ..., plain_size: _Optional[int] = ...) -> None: ...

class SectionHeader(_message.Message):
    __slots__ = ("table", "kind", "rows", "columns")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    table: str
    kind: SectionKind
    rows: int
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, table: _Optional[str] = ..., kind: _Optional[_Union[SectionKind, str]] = ..., rows: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class BatchHeader(_message.Message):
    __slots__ = ("tree_id", "format", "origin", "epoch", "scope", "seq", "prev", "seen_delta", "registry_version", "again", "sections", "braked", "settles", "repeats_header", "repeats_signature")
    TREE_ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    PREV_FIELD_NUMBER: _ClassVar[int]
    SEEN_DELTA_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_VERSION_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    BRAKED_FIELD_NUMBER: _ClassVar[int]
    SETTLES_FIELD_NUMBER: _ClassVar[int]
    REPEATS_HEADER_FIELD_NUMBER: _ClassVar[int]
    REPEATS_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    tree_id: bytes
    format: int
    origin: str
    epoch: int
    scope: str
    seq: int
    prev: bytes
    seen_delta: _containers.RepeatedCompositeFieldContainer[Head]
    registry_version: RegistryVersion
    again: bool
    sections: _containers.RepeatedCompositeFieldContainer[SectionHeader]
    braked: bool
    settles: Settlement
    repeats_header: bytes
    repeats_signature: bytes
    def __init__(self, tree_id: _Optional[bytes] = ..., format: _Optional[int] = ..., origin: _Optional[str] = ..., epoch: _Optional[int] = ..., scope: _Optional[str] = ..., seq: _Optional[int] = ..., prev: _Optional[bytes] = ..., seen_delta: _Optional[_Iterable[_Union[Head, _Mapping]]] = ..., registry_version: _Optional[_Union[RegistryVersion, _Mapping]] = ..., again: _Optional[bool] = ..., sections: _Optional[_Iterable[_Union[SectionHeader, _Mapping]]] = ..., braked: _Optional[bool] = ..., settles: _Optional[_Union[Settlement, _Mapping]] = ..., repeats_header: _Optional[bytes] = ..., repeats_signature: _Optional[bytes] = ...) -> None: ...

class Settlement(_message.Message):
    __slots__ = ("from_seq", "undone")
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    UNDONE_FIELD_NUMBER: _ClassVar[int]
    from_seq: int
    undone: _containers.RepeatedCompositeFieldContainer[Undone]
    def __init__(self, from_seq: _Optional[int] = ..., undone: _Optional[_Iterable[_Union[Undone, _Mapping]]] = ...) -> None: ...

class Undone(_message.Message):
    __slots__ = ("table", "register")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    table: str
    register: str
    def __init__(self, table: _Optional[str] = ..., register: _Optional[str] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("column", "data")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    column: int
    data: bytes
    def __init__(self, column: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Section(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    def __init__(self, chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("header", "signature", "sections")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    header: bytes
    signature: bytes
    sections: _containers.RepeatedCompositeFieldContainer[Section]
    def __init__(self, header: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., sections: _Optional[_Iterable[_Union[Section, _Mapping]]] = ...) -> None: ...
