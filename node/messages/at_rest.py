"""What is said of encryption at rest, of backups and of restoring one."""

from __future__ import annotations

ENGLISH = {
    "encrypt.one_place": "say where the secret comes from: --secret-file FILE or --secret-env NAME, one of them",
    "encrypt.needs_flag": "--secret-file and --secret-env go with --encrypt",
    "encrypt.decrypts": "--decrypt and --show-key take the secret from where node.toml says that it is",
    "encrypt.done": "Database and keys in {home} are encrypted.",
    "encrypt.next": "Keep a copy of the secret in a safe: without it nobody can open this home any more.",
    "encrypt.no_key": "This home lies plain: there is no key to give.",
    "encrypt.undone": "Database and keys in {home} lie plain.",
    "backup.progress": "{done} of {of} MB saved ...",
    "backup.done": "Backed up {unit} into {file}: {size}.",
    "backup.next": "It opens with its passphrase alone: keep that in another place than the file.",
    "backup.without_ca": "The key that certifies units below is not in it, for it is not on this machine.",
    "backup.passphrase": "Passphrase for the backup",
    "backup.asked": "a passphrase is needed: --passphrase-file FILE or --passphrase-env NAME",
    "backup.typed": "what was typed",
    "restore.one_form": "--plain and --encrypt are two wishes: give one",
    "restore.passphrase": "Passphrase of the backup",
    "restore.progress": "{done} of {of} MB restored ...",
    "restore.done": "{unit} ({name}) stands in {home} again, as it was at its backup of {at}.",
    "restore.parent": "When it runs, this node takes up a new life and fetches what happened since the backup of {day}"
    " from its parent, {parent}.",
    "restore.root": "When it runs, this node takes up a new life and fetches what happened since the backup of {day}"
    " from the units below.",
    "restore.next": "Next: 'dongbo run' here. The machine that the backup was made on must not run it any more.",
    "status.at_rest": "on the disk",
    "status.encrypted": "encrypted",
    "status.backup": "last backup",
    "look.backup": "The last backup is {days} days old. See why it is not made any more.",
}
