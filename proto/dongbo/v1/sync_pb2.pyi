from dongbo.v1 import batch_pb2 as _batch_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEM_UNSPECIFIED: _ClassVar[Kem]
    KEM_X25519: _ClassVar[Kem]
    KEM_MLKEM768_X25519: _ClassVar[Kem]
KEM_UNSPECIFIED: Kem
KEM_X25519: Kem
KEM_MLKEM768_X25519: Kem

class Frame(_message.Message):
    __slots__ = ("hello", "heads", "certificates", "batch", "ack", "credit", "refusal", "fork", "receipt", "done", "chain", "want", "statements")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    FORK_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    heads: Heads
    certificates: Certificates
    batch: bytes
    ack: Ack
    credit: Credit
    refusal: Refusal
    fork: ForkProof
    receipt: Receipt
    done: Done
    chain: Chain
    want: Want
    statements: Statements
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., heads: _Optional[_Union[Heads, _Mapping]] = ..., certificates: _Optional[_Union[Certificates, _Mapping]] = ..., batch: _Optional[bytes] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., fork: _Optional[_Union[ForkProof, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ..., chain: _Optional[_Union[Chain, _Mapping]] = ..., want: _Optional[_Union[Want, _Mapping]] = ..., statements: _Optional[_Union[Statements, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("major", "minor", "software", "tree_id", "node_certificate_sha256", "unit", "epoch", "registry_version", "time", "nonce", "digest")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    TREE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_CERTIFICATE_SHA256_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    software: str
    tree_id: bytes
    node_certificate_sha256: bytes
    unit: str
    epoch: int
    registry_version: _batch_pb2.RegistryVersion
    time: int
    nonce: bytes
    digest: bytes
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., software: _Optional[str] = ..., tree_id: _Optional[bytes] = ..., node_certificate_sha256: _Optional[bytes] = ..., unit: _Optional[str] = ..., epoch: _Optional[int] = ..., registry_version: _Optional[_Union[_batch_pb2.RegistryVersion, _Mapping]] = ..., time: _Optional[int] = ..., nonce: _Optional[bytes] = ..., digest: _Optional[bytes] = ...) -> None: ...

class ScopeHeads(_message.Message):
    __slots__ = ("scope", "heads", "statements", "unconfirmed")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    UNCONFIRMED_FIELD_NUMBER: _ClassVar[int]
    scope: str
    heads: _containers.RepeatedCompositeFieldContainer[_batch_pb2.Head]
    statements: bytes
    unconfirmed: bool
    def __init__(self, scope: _Optional[str] = ..., heads: _Optional[_Iterable[_Union[_batch_pb2.Head, _Mapping]]] = ..., statements: _Optional[bytes] = ..., unconfirmed: _Optional[bool] = ...) -> None: ...

class Heads(_message.Message):
    __slots__ = ("scopes",)
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    scopes: _containers.RepeatedCompositeFieldContainer[ScopeHeads]
    def __init__(self, scopes: _Optional[_Iterable[_Union[ScopeHeads, _Mapping]]] = ...) -> None: ...

class Certificates(_message.Message):
    __slots__ = ("paths",)
    PATHS_FIELD_NUMBER: _ClassVar[int]
    paths: _containers.RepeatedCompositeFieldContainer[CertificatePath]
    def __init__(self, paths: _Optional[_Iterable[_Union[CertificatePath, _Mapping]]] = ...) -> None: ...

class CertificatePath(_message.Message):
    __slots__ = ("certificates",)
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    certificates: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, certificates: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("scopes",)
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    scopes: _containers.RepeatedCompositeFieldContainer[ScopeHeads]
    def __init__(self, scopes: _Optional[_Iterable[_Union[ScopeHeads, _Mapping]]] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    def __init__(self, bytes: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("scope", "head", "reason")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    scope: str
    head: _batch_pb2.Head
    reason: str
    def __init__(self, scope: _Optional[str] = ..., head: _Optional[_Union[_batch_pb2.Head, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ForkProof(_message.Message):
    __slots__ = ("first_header", "first_signature", "second_header", "second_signature")
    FIRST_HEADER_FIELD_NUMBER: _ClassVar[int]
    FIRST_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SECOND_HEADER_FIELD_NUMBER: _ClassVar[int]
    SECOND_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    first_header: bytes
    first_signature: bytes
    second_header: bytes
    second_signature: bytes
    def __init__(self, first_header: _Optional[bytes] = ..., first_signature: _Optional[bytes] = ..., second_header: _Optional[bytes] = ..., second_signature: _Optional[bytes] = ...) -> None: ...

class ScopeDigest(_message.Message):
    __slots__ = ("scope", "applied_heads", "table", "column", "sha256", "rows")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_HEADS_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    scope: str
    applied_heads: _containers.RepeatedCompositeFieldContainer[_batch_pb2.Head]
    table: str
    column: str
    sha256: bytes
    rows: int
    def __init__(self, scope: _Optional[str] = ..., applied_heads: _Optional[_Iterable[_Union[_batch_pb2.Head, _Mapping]]] = ..., table: _Optional[str] = ..., column: _Optional[str] = ..., sha256: _Optional[bytes] = ..., rows: _Optional[int] = ...) -> None: ...

class ReceiptBody(_message.Message):
    __slots__ = ("unit", "epoch", "peer", "held_heads", "digests", "time")
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    HELD_HEADS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    unit: str
    epoch: int
    peer: str
    held_heads: _containers.RepeatedCompositeFieldContainer[ScopeHeads]
    digests: _containers.RepeatedCompositeFieldContainer[ScopeDigest]
    time: int
    def __init__(self, unit: _Optional[str] = ..., epoch: _Optional[int] = ..., peer: _Optional[str] = ..., held_heads: _Optional[_Iterable[_Union[ScopeHeads, _Mapping]]] = ..., digests: _Optional[_Iterable[_Union[ScopeDigest, _Mapping]]] = ..., time: _Optional[int] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("body", "signature")
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    signature: bytes
    def __init__(self, body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Chain(_message.Message):
    __slots__ = ("scope", "origin", "epoch", "from_seq", "hashes")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    HASHES_FIELD_NUMBER: _ClassVar[int]
    scope: str
    origin: str
    epoch: int
    from_seq: int
    hashes: bytes
    def __init__(self, scope: _Optional[str] = ..., origin: _Optional[str] = ..., epoch: _Optional[int] = ..., from_seq: _Optional[int] = ..., hashes: _Optional[bytes] = ...) -> None: ...

class Want(_message.Message):
    __slots__ = ("scopes",)
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    scopes: _containers.RepeatedCompositeFieldContainer[ScopeHeads]
    def __init__(self, scopes: _Optional[_Iterable[_Union[ScopeHeads, _Mapping]]] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ("tag", "body", "signature")
    TAG_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    tag: str
    body: bytes
    signature: bytes
    def __init__(self, tag: _Optional[str] = ..., body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Statements(_message.Message):
    __slots__ = ("statements",)
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    statements: _containers.RepeatedCompositeFieldContainer[Statement]
    def __init__(self, statements: _Optional[_Iterable[_Union[Statement, _Mapping]]] = ...) -> None: ...

class HandoverBody(_message.Message):
    __slots__ = ("tree_id", "unit", "epoch", "key_sha256", "signer", "signer_epoch", "time")
    TREE_ID_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KEY_SHA256_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    SIGNER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    tree_id: bytes
    unit: str
    epoch: int
    key_sha256: bytes
    signer: str
    signer_epoch: int
    time: int
    def __init__(self, tree_id: _Optional[bytes] = ..., unit: _Optional[str] = ..., epoch: _Optional[int] = ..., key_sha256: _Optional[bytes] = ..., signer: _Optional[str] = ..., signer_epoch: _Optional[int] = ..., time: _Optional[int] = ...) -> None: ...

class RevocationBody(_message.Message):
    __slots__ = ("tree_id", "unit", "epoch", "reason", "last", "signer", "signer_epoch", "time")
    TREE_ID_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    SIGNER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    tree_id: bytes
    unit: str
    epoch: int
    reason: str
    last: _containers.RepeatedCompositeFieldContainer[ScopeHeads]
    signer: str
    signer_epoch: int
    time: int
    def __init__(self, tree_id: _Optional[bytes] = ..., unit: _Optional[str] = ..., epoch: _Optional[int] = ..., reason: _Optional[str] = ..., last: _Optional[_Iterable[_Union[ScopeHeads, _Mapping]]] = ..., signer: _Optional[str] = ..., signer_epoch: _Optional[int] = ..., time: _Optional[int] = ...) -> None: ...

class LostBody(_message.Message):
    __slots__ = ("tree_id", "unit", "epoch", "scope", "batch", "chunks", "time")
    TREE_ID_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    tree_id: bytes
    unit: str
    epoch: int
    scope: str
    batch: bytes
    chunks: _containers.RepeatedScalarFieldContainer[bytes]
    time: int
    def __init__(self, tree_id: _Optional[bytes] = ..., unit: _Optional[str] = ..., epoch: _Optional[int] = ..., scope: _Optional[str] = ..., batch: _Optional[bytes] = ..., chunks: _Optional[_Iterable[bytes]] = ..., time: _Optional[int] = ...) -> None: ...

class HeartbeatBody(_message.Message):
    __slots__ = ("tree_id", "unit", "epoch", "heads", "time", "audit_head", "holds")
    TREE_ID_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    AUDIT_HEAD_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    tree_id: bytes
    unit: str
    epoch: int
    heads: _containers.RepeatedCompositeFieldContainer[ScopeHeads]
    time: int
    audit_head: bytes
    holds: _containers.RepeatedCompositeFieldContainer[ScopeHeads]
    def __init__(self, tree_id: _Optional[bytes] = ..., unit: _Optional[str] = ..., epoch: _Optional[int] = ..., heads: _Optional[_Iterable[_Union[ScopeHeads, _Mapping]]] = ..., time: _Optional[int] = ..., audit_head: _Optional[bytes] = ..., holds: _Optional[_Iterable[_Union[ScopeHeads, _Mapping]]] = ...) -> None: ...

class EncryptionKeyBody(_message.Message):
    __slots__ = ("tree_id", "unit", "epoch", "kem", "public_key", "time")
    TREE_ID_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KEM_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    tree_id: bytes
    unit: str
    epoch: int
    kem: Kem
    public_key: bytes
    time: int
    def __init__(self, tree_id: _Optional[bytes] = ..., unit: _Optional[str] = ..., epoch: _Optional[int] = ..., kem: _Optional[_Union[Kem, str]] = ..., public_key: _Optional[bytes] = ..., time: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("node_request", "ca_request", "epoch", "software", "handover")
    NODE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    CA_REQUEST_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    HANDOVER_FIELD_NUMBER: _ClassVar[int]
    node_request: bytes
    ca_request: bytes
    epoch: int
    software: str
    handover: Statement
    def __init__(self, node_request: _Optional[bytes] = ..., ca_request: _Optional[bytes] = ..., epoch: _Optional[int] = ..., software: _Optional[str] = ..., handover: _Optional[_Union[Statement, _Mapping]] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("node_request", "ca_request", "epoch", "software")
    NODE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    CA_REQUEST_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    node_request: bytes
    ca_request: bytes
    epoch: int
    software: str
    def __init__(self, node_request: _Optional[bytes] = ..., ca_request: _Optional[bytes] = ..., epoch: _Optional[int] = ..., software: _Optional[str] = ...) -> None: ...

class EnrolResponse(_message.Message):
    __slots__ = ("unit", "name", "node_path", "ca_certificate", "handover", "signer_path")
    UNIT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_PATH_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    HANDOVER_FIELD_NUMBER: _ClassVar[int]
    SIGNER_PATH_FIELD_NUMBER: _ClassVar[int]
    unit: str
    name: str
    node_path: _containers.RepeatedScalarFieldContainer[bytes]
    ca_certificate: bytes
    handover: Statement
    signer_path: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, unit: _Optional[str] = ..., name: _Optional[str] = ..., node_path: _Optional[_Iterable[bytes]] = ..., ca_certificate: _Optional[bytes] = ..., handover: _Optional[_Union[Statement, _Mapping]] = ..., signer_path: _Optional[_Iterable[bytes]] = ...) -> None: ...
