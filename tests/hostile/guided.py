"""``python -m tests.hostile.guided --seconds N``: bytes found by coverage of our code, for decode and verify.

Role: atheris drives; each input is shown as a frame, as a batch, and with its chunks put into a signed batch.
Reach: corpus, judge. Invariant: its corpus is made from real frames at start; only what fails is kept, as a file.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

INSTRUMENTED = (
    "sync_engine",
    "conflict",
    "node.storage.inbox",
    "node.storage.proving",
    "node.storage.apply",
    "node.storage.registers",
)
MISSING = (
    "atheris is not installed; it is only for this. 'make fuzz' installs it and starts; by hand:\n"
    "  python -m pip install --require-hashes -r requirements-fuzz.lock"
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.guided", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=Path(".fuzz"), help="where failing inputs are kept")
    parser.add_argument("--only", type=Path, help="show one kept input again, without atheris")
    arguments = parser.parse_args()
    if arguments.only:
        with TemporaryDirectory() as folder:
            _show(Path(folder))(arguments.only.read_bytes())
        print("nothing wrong with it")
        return 0
    try:
        import atheris
    except ImportError:
        print(MISSING, file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        import tests.hostile.judge  # noqa: F401 - and with it the code that is watched
    with TemporaryDirectory() as folder:
        show = _show(Path(folder), Path(folder) / "corpus")
        arguments.found.mkdir(exist_ok=True)
        options = [f"-max_total_time={arguments.seconds}", f"-seed={arguments.seed}", "-max_len=8192", "-timeout=20"]
        options += [f"-artifact_prefix={arguments.found}/", "-rss_limit_mb=1024", "-print_final_stats=1"]
        child = os.fork()  # the fuzzer ends its process by itself; the folder is removed by this one
        if child == 0:
            atheris.Setup([sys.argv[0], *options, str(Path(folder) / "corpus")], show)
            atheris.Fuzz()
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        print(f"found something: {sorted(each.name for each in arguments.found.iterdir())}; show one again with --only")
    return 1 if code else 0


def _show(folder: Path, inputs: Path | None = None) -> Callable[[bytes], None]:
    """What is done with each input: its first byte says how it is shown. Raises what must not happen."""
    from tests.hostile.corpus import ABOVE, Corpus
    from tests.hostile.forged import signed
    from tests.hostile.judge import Bench
    from tests.hostile.surgery import parse
    from tests.hostile.unsigned import Mutant

    corpus = Corpus(folder)
    bench = Bench(corpus)
    header = corpus.fresh[ABOVE][0].header_bytes
    chunks = corpus.fresh[ABOVE][0].chunks

    def mutant_of(data: bytes) -> Mutant:
        way, content = data[:1], data[1:]
        if way == b"f":
            return Mutant("frame", "frame", ABOVE, content)
        if way == b"b":
            return Mutant("batch", "batch", ABOVE, content)
        if way == b"h":
            return Mutant("header", "forged", ABOVE, signed(corpus, content, chunks))
        return Mutant("chunk", "forged", ABOVE, _with_chunk(corpus, content))

    def show(data: bytes) -> None:
        verdict = bench.judge(mutant_of(data), Random(1), thorough=False)
        if verdict.fault is not None:
            raise AssertionError(verdict.fault)

    if inputs is not None:
        inputs.mkdir()
        seeds = [b"f" + data for data in corpus.frames.values()]
        seeds += [b"b" + batch.data for batch in (*corpus.fresh[ABOVE], *corpus.stored[ABOVE][:3])]
        seeds += [b"h" + header, *(b"h" + batch.header_bytes for batch in corpus.fresh[ABOVE])]
        seeds += [b"c" + bytes([at]) + _plain(chunk) for at, chunk in list(chunks[0].items())]
        assert all(parse(seed[1:]) for seed in seeds if seed[:1] in b"fb")
        for number, seed in enumerate(seeds):
            (inputs / f"{number:03}").write_bytes(seed)
    return show


def _plain(chunk: bytes) -> bytes:
    import zstandard

    plain: bytes = zstandard.ZstdDecompressor().decompress(chunk)
    return plain


def _with_chunk(corpus: Any, content: bytes) -> bytes:
    """One column's plain bytes as they were found, packed, described and signed: what decoding meets."""
    import zstandard

    from sync_engine.batch import encode_header
    from tests.hostile.corpus import ABOVE
    from tests.hostile.forged import Draft, signed, with_chunk

    batch = corpus.fresh[ABOVE][0]
    draft = Draft(batch.header, tuple(dict(each) for each in batch.chunks))
    at, plain = (content[:1] or b"\0")[0] % len(batch.header.sections[0].columns), content[1:]
    packed = zstandard.ZstdCompressor(level=3).compress(plain)
    draft = with_chunk(draft, 0, at, packed, len(plain))
    return signed(corpus, encode_header(draft.header), draft.chunks)


if __name__ == "__main__":
    sys.exit(main())
