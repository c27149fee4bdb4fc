"""What the record of administrative acts says, and what was refused to units that ask too much."""

from __future__ import annotations

ENGLISH = {
    "audit.none": "Nothing is recorded for that time.",
    "audit.more": "The last {shown} records. All of them: 'dongbo audit --all'; since a day: 'dongbo audit --since"
    " DATE'.",
    "audit.service": "the service",
    "audit.begun": "begun",
    "audit.failed": "refused: {code}",
    "audit.init": "made the root of the tree",
    "audit.join": "joined the tree",
    "audit.invite": "invited a unit",
    "audit.enrol": "certified a unit's first keys",
    "audit.load": "loaded rows from a file",
    "audit.dump": "exported rows into a file",
    "audit.resolve": "settled a conflict",
    "audit.overturn": "decided a conflict anew",
    "audit.rename": "gave the second person an id of their own",
    "audit.release": "let an unusually large change go out",
    "audit.undo": "took an accident back",
    "audit.release-held": "let in a value that was held",
    "audit.refuse-held": "refused a value that was held",
    "audit.registry-publish": "published a registry version",
    "audit.registry-apply": "brought a registry version into force",
    "audit.batch-refused": "refused a batch that breaks a rule",
    "audit.certificate-refused": "refused a certificate",
    "audit.call-refused": "refused a call",
    "audit.fence": "stopped, because history was lost here",
    "audit.new-life": "began a new life of this node",
    "audit.recover": "recovered this node",
    "audit.recover-approve": "let a unit's node be recovered",
    "audit.restore": "restored a backup",
    "audit.rotate": "changed this node's keys",
    "audit.renew": "renewed a certificate",
    "audit.revoke": "revoked a unit's key",
    "audit.backup": "made a backup",
    "audit.repair": "repaired stored data",
    "audit.config": "settings were changed in node.toml",
    "audit.start": "the service started",
    "audit.stop": "the service ended",
    "audit.proof.ok": "Records: {records}, none changed, none missing. The last is {no}, {hash}.",
    "audit.proof.empty": "Nothing has been recorded here yet.",
    "audit.proof.changed": "RECORD {no} IS NOT AS IT WAS WRITTEN, or one before it.",
    "audit.proof.missing": "RECORD {no} IS MISSING.",
    "audit.anchor.holds": "On {at} {unit} signed that the last record was {no}, {hash}: it is here.",
    "audit.anchor.former": "On {at} {unit} signed that the last record was {no}, {hash}. It was lost when an older copy"
    " was restored; that is on record here.",
    "audit.anchor.cut": "On {at} {unit} signed that the last record was {no}, {hash}. IT IS NOT HERE: records were"
    " taken away at the end, or an older copy was restored and nobody said so.",
    "audit.anchor.rewritten": "On {at} {unit} signed that record {no} was {hash}. HERE IT IS ANOTHER: the records were"
    " written anew.",
    "audit.anchor.none": "Nothing signed is here yet to compare with: that comes with the first heartbeat.",
    "audit.heads": "What units below have signed as the last of their own records. On their machines 'dongbo audit"
    " --verify --head {sample}' tells whether it still is.",
    "audit.head.given": "The record that was named",
    "column.when": "when",
    "column.by": "by",
    "column.act": "what",
    "column.about": "about",
    "look.caps": "{unit} asks more than its share: calls refused or cut since the service started: {refused}; kept"
    " waiting: {slowed} s. Last at {at}: {why}. Others are not held up by it.",
}
