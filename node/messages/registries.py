"""What is said of registry versions."""

from __future__ import annotations

ENGLISH: dict[str, str] = {
    # why a batch waits
    "registry.cause.absent": "registry version {version} (it has not come yet)",
    "registry.cause.by hand": "registry version {version} (run 'dongbo registry apply')",
    "registry.cause.unreadable": "registry version {version} (it needs newer software)",
    "registry.cause.unfit": "registry version {version} (it cannot follow the one in force)",
    # what status says
    "look.registry.by hand": "Registry version {version} has come and is not in force here; batches waiting for it:"
    " {batches}. See 'dongbo registry plan', then run 'dongbo registry apply'.",
    "look.registry.unreadable": "Registry version {version} needs newer software than this; batches waiting for it:"
    " {batches}. Install a newer dongbo; until then all is kept and passed on.",
    "look.registry.unfit": "Registry version {version} cannot follow the one in force: {reason}. Tell the root's"
    " operator.",
    # registry show
    "registry.in_force": "Registry version {version} ({name}) is in force at {unit}.",
    "registry.none": "No registry has come to {unit} yet.",
    "registry.mode.root": "This is the root: 'dongbo registry apply FILE' publishes a new version for all units.",
    "registry.mode.at once": "A new version changes the tables here as it arrives.",
    "registry.mode.by hand": "A new version changes the tables here when somebody runs 'dongbo registry apply'.",
    "registry.column.field": "field",
    "registry.column.label": "label",
    "registry.column.type": "type",
    "registry.column.merge": "merge rule",
    "registry.column.read": "read by",
    "registry.column.write": "changed by",
    "registry.all": "all",
    "registry.read_up_to": "up to {level}",
    "registry.table_read_up_to": "Read {up_to}, besides the unit it belongs to and the one right above it; further up"
    " only its keys are there.",
    "registry.identifies": "belongs to one person",
    "registry.write_from": "{level} and above",
    # a plan
    "registry.plan.title": "From version {before} to version {after}:",
    "registry.plan.same": "Nothing changes but the number.",
    "registry.plan.nothing": "No newer version waits here: version {version} is in force.",
    "registry.plan.refused": "This version is refused, because something would be lost:",
    "registry.plan.refusal": "line {line}: {message}",
    "registry.plan.batches": "Batches that wait for it here: {batches}.",
    "registry.change.name": "the registry is called {after} instead of {before}",
    "registry.change.table added": "table {table} is new: {label}, fields: {after}",
    "registry.change.table label": "table {table} is labelled {after} instead of {before}",
    "registry.change.delete rule": "table {table}: a delete beside an edit is settled by '{after}' instead of"
    " '{before}'; records where both have happened are shown anew",
    "registry.change.field added": "{table}.{field} is new: {label} ({after})",
    "registry.change.field order": "table {table}: its fields come in another order",
    "registry.change.label": "{table}.{field} is labelled {after} instead of {before}",
    "registry.change.merge rule": "{table}.{field} is merged by '{after}' instead of '{before}'; records with rival"
    " values are shown anew",
    "registry.change.values added": "{table}.{field} may also be: {after}",
    "registry.change.values freed": "{table}.{field} may be anything, no longer only: {before}",
    "registry.change.values order": "{table}.{field}: its values rank {after}; where the rule is max or min, records"
    " with rival values are shown anew",
    "registry.change.digits": "{table}.{field} may be any text, no longer only {before} digits",
    "registry.change.partial": "{table}.{field} may be a year or a month alone",
    "registry.change.write from": "{table}.{field} is changed by {after}; before: by {before}",
    "registry.change.identifies": "{table}.{field}: a value belongs to one person from now on; records that share one"
    " are listed by 'dongbo duplicates'",
    "registry.change.identifies no more": "{table}.{field}: records that share a value are no longer listed as"
    " duplicates",
    "registry.access.reads": "{level} reads {fields}",
    "registry.access.hidden": "{level} reads {fields} only in its own records and in those of units right below",
    "registry.access.may_change": "{level} may change {fields}",
    "registry.access.no_longer_changes": "{level} may no longer change {fields}",
    # registry apply
    "registry.apply.ask_publish": "Publish version {version} for all units? It cannot be taken back.",
    "registry.apply.ask": "Bring version {version} into force here?",
    "registry.apply.needs_yes": "nobody can be asked here: --yes says that the plan is wanted",
    "registry.apply.left": "Nothing was changed.",
    "registry.apply.published": "Version {version} is in force here and goes to every unit with the next exchange.",
    "registry.apply.done": "Version {version} is in force here. Batches that waited for it and are applied: {batches}.",
}
