"""What is said of persons who may have been entered twice."""

from __future__ import annotations

ENGLISH: dict[str, str] = {
    "duplicates.value": "{label} {value}",
    "duplicates.where": "{rows} records of {unit} and the units below it",
    "duplicates.more_rows": "... and {count} more",
    "duplicates.next": "Next: look which record is right. Delete the other one, or correct the number in it. Nothing is"
    " blocked or deleted by itself.",
    "duplicates.none": "No number that belongs to one person stands in two records that only this unit sees together."
    " --all looks at the units below as well.",
    "duplicates.none_all": "No number that belongs to one person stands in two records here.",
    "duplicates.no_fields": "The registry names no field that belongs to one person (identifies = true).",
    "duplicates.no_field": "{table} has no field that belongs to one person",
    "duplicates.no_field.hint": "the registry says so with 'identifies = true': see 'dongbo registry show'",
    "duplicates.more": "There are more than these {count}: settle some, or see more with --limit.",
}
