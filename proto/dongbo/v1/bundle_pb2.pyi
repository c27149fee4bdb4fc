from dongbo.v1 import sync_pb2 as _sync_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Envelope(_message.Message):
    __slots__ = ("kem", "key_id", "file_key")
    KEM_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    FILE_KEY_FIELD_NUMBER: _ClassVar[int]
    kem: _sync_pb2.Kem
    key_id: bytes
    file_key: bytes
    def __init__(self, kem: _Optional[_Union[_sync_pb2.Kem, str]] = ..., key_id: _Optional[bytes] = ..., file_key: _Optional[bytes] = ...) -> None: ...

class BundleHeader(_message.Message):
    __slots__ = ("tree_id", "sender", "epoch", "recipient", "heard_epoch", "number", "part", "time", "expires", "path", "renew_request", "renewal", "encryption")
    TREE_ID_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    HEARD_EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RENEW_REQUEST_FIELD_NUMBER: _ClassVar[int]
    RENEWAL_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_FIELD_NUMBER: _ClassVar[int]
    tree_id: bytes
    sender: str
    epoch: int
    recipient: str
    heard_epoch: int
    number: int
    part: int
    time: int
    expires: int
    path: _containers.RepeatedScalarFieldContainer[bytes]
    renew_request: bytes
    renewal: bytes
    encryption: _sync_pb2.Statement
    def __init__(self, tree_id: _Optional[bytes] = ..., sender: _Optional[str] = ..., epoch: _Optional[int] = ..., recipient: _Optional[str] = ..., heard_epoch: _Optional[int] = ..., number: _Optional[int] = ..., part: _Optional[int] = ..., time: _Optional[int] = ..., expires: _Optional[int] = ..., path: _Optional[_Iterable[bytes]] = ..., renew_request: _Optional[bytes] = ..., renewal: _Optional[bytes] = ..., encryption: _Optional[_Union[_sync_pb2.Statement, _Mapping]] = ...) -> None: ...

class BundleEnd(_message.Message):
    __slots__ = ("body", "signature")
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    signature: bytes
    def __init__(self, body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class BundleEndBody(_message.Message):
    __slots__ = ("sha256", "parts", "tree_id")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    TREE_ID_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    parts: int
    tree_id: bytes
    def __init__(self, sha256: _Optional[bytes] = ..., parts: _Optional[int] = ..., tree_id: _Optional[bytes] = ...) -> None: ...

class HandRequest(_message.Message):
    __slots__ = ("body", "signature")
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    signature: bytes
    def __init__(self, body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class HandRequestBody(_message.Message):
    __slots__ = ("enrol", "unit", "name", "kem", "public_key")
    ENROL_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEM_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    enrol: bytes
    unit: str
    name: str
    kem: _sync_pb2.Kem
    public_key: bytes
    def __init__(self, enrol: _Optional[bytes] = ..., unit: _Optional[str] = ..., name: _Optional[str] = ..., kem: _Optional[_Union[_sync_pb2.Kem, str]] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("request", "response", "carry", "carry_path")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    CARRY_FIELD_NUMBER: _ClassVar[int]
    CARRY_PATH_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    response: bytes
    carry: _sync_pb2.Statement
    carry_path: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, request: _Optional[bytes] = ..., response: _Optional[bytes] = ..., carry: _Optional[_Union[_sync_pb2.Statement, _Mapping]] = ..., carry_path: _Optional[_Iterable[bytes]] = ...) -> None: ...
