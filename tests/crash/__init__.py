"""Real crashes: a node's own process dies at every place it can die, and nothing it acknowledged is lost.

``python -m tests.crash`` runs everything; ``--step``, ``--kind`` and ``--k`` replay one death with a trace.

Design. A warm parent, which has made the tree and has no database open and no thread running, forks each actor: the
process that dies in one small step of work, its peer, and the judge. The dying one tells on a pipe what it has
acknowledged, before an ack leaves it and after a commit returns; what is on the pipe when it is dead must be there for
ever.

``kinds``     how to die: at each SQL statement, each write system call (through a preloaded shim, or strace), again
              during the recovery, in a power cut (the shim records every write and sync; ``disk`` builds what a disk
              may hold after each of them), on a full disk (a small tmpfs), at a failing fsync.
``steps``     what is done: capture, seal, apply, ack (both ends), start-up, upgrade, set-up; production code on real
              homes that ``homes`` prepares with real keys. What is edited is the story of ``story``.
``oracle``    judges a survivor without the product's code: the story says what each key should be, given which
              batches are applied and which notes are left; headers are hashed and chained anew.
``judge``     start-up, the oracle, the step done again to its end, and the final state against an undisturbed run's.
``mutants``   defects that the harness must notice, switched on in the forked processes alone.

Role: proof for I1-I3, I9, I11 and I17 under the fault classes crash, power cut, failing fsync and full disk.
Reach: everything of ours; Linux. What is missing on a machine (strace, cc, root) is said and left out.
Invariant: the clock of all actors stands still, chance does not: two batches sealed from the same edits differ.
"""
