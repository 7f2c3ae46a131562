"""CustomResourceDefinitions: checked, given their status, and turned into kinds. Pure functions.

Rules:
- A definition is established at once: there is no other server to agree with.
- Names must not collide with a kind that is already served; then the condition says so and nothing is served.
- Rules in CEL are compiled when the definition is taken; one that we cannot evaluate is a condition and a warning.
- Versions are not converted: only `strategy: None` is accepted.
What must not enter: the store, the objects of a kind.
"""

from __future__ import annotations

import copy
from typing import Any

from drtp_api.kube import Obj, Resource
from drtp_controller.apiserver.cel.rules import SchemaRules, check_rules
from drtp_controller.apiserver.faults import Fault, forbidden, invalid, not_supported, required
from drtp_controller.apiserver.formats import compile_pattern, is_dns_label, is_dns_subdomain
from drtp_controller.apiserver.jsonpath import compile_path
from drtp_controller.apiserver.kinds import FREE, Column, Kind, Registry, Schema
from drtp_controller.apiserver.metadata import METADATA_SCHEMA

_TYPES = {"array", "boolean", "integer", "number", "object", "string"}
SKIPPED_RULES = "ValidationRulesSkipped"
"""The condition of a definition with CEL rules that this server cannot evaluate."""
_SHOWN = 8
_SUBSCHEMAS = ("allOf", "anyOf", "oneOf")


def prepare_crd(new: Obj, _old: Obj | None) -> None:
    """Fill in the names that have a default."""
    spec = new.get("spec")
    names = spec.get("names") if isinstance(spec, dict) else None
    if isinstance(spec, dict) and isinstance(names, dict) and isinstance(names.get("kind"), str):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", names["kind"] + "List")
        spec.setdefault("conversion", {"strategy": "None"})


def check_crd(new: Obj, old: Obj | None) -> list[Fault]:
    """Return what is wrong with a definition whose outline has been validated."""
    faults: list[Fault] = []
    spec = new["spec"]
    expected = f"{spec['names']['plural']}.{spec['group']}"
    if new["metadata"]["name"] != expected:
        why = f'must be spec.names.plural+"."+spec.group: expected "{expected}"'
        faults.append(invalid("metadata.name", new["metadata"]["name"], why))
    if not is_dns_subdomain(spec["group"]) or "." not in spec["group"]:
        faults.append(invalid("spec.group", spec["group"], "should be a domain with at least one dot"))
    if not is_dns_label(spec["names"]["plural"]):
        faults.append(invalid("spec.names.plural", spec["names"]["plural"], "must be a DNS label"))
    strategy = (spec.get("conversion") or {}).get("strategy", "None")
    if strategy != "None":
        faults.append(not_supported("spec.conversion.strategy", strategy, ["None"]))
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        why = "must have exactly one version marked as storage version"
        faults.append(invalid("spec.versions", len(spec["versions"]), why))
    for index, version in enumerate(spec["versions"]):
        faults += _check_version(version, f"spec.versions[{index}]")
    if old is not None:
        for field in ("group", "scope"):
            if old["spec"][field] != spec[field]:
                faults.append(invalid(f"spec.{field}", spec[field], "field is immutable"))
        for field in ("plural", "kind"):
            if old["spec"]["names"][field] != spec["names"][field]:
                faults.append(invalid(f"spec.names.{field}", spec["names"][field], "field is immutable"))
    return faults


def _check_version(version: Obj, path: str) -> list[Fault]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if not isinstance(schema, dict):
        return [required(f"{path}.schema.openAPIV3Schema", "schemas are required")]
    faults: list[Fault] = []
    where = f"{path}.schema.openAPIV3Schema"
    if schema.get("type") != "object":
        faults.append(invalid(f"{where}.type", schema.get("type"), "must be object at the root"))
    structure = _check_structural(schema, where, typed=True)
    faults += structure
    if not structure:
        faults += check_rules(schema, where)[0]
    for index, column in enumerate(version.get("additionalPrinterColumns") or []):
        place = f"{path}.additionalPrinterColumns[{index}]"
        faults += [required(f"{place}.{name}") for name in ("name", "type", "jsonPath") if not column.get(name)]
        try:
            compile_path(column.get("jsonPath", ""))
        except ValueError as error:
            faults.append(invalid(f"{place}.jsonPath", column["jsonPath"], str(error)))
    return faults


def unsupported_rules(crd: Obj) -> list[tuple[str, str]]:
    """Return the rules of a checked definition that this server cannot evaluate: their places, and why."""
    return [
        found
        for index, version in enumerate(crd["spec"]["versions"])
        for found in check_rules(
            version["schema"]["openAPIV3Schema"], f"spec.versions[{index}].schema.openAPIV3Schema"
        )[1]
    ]


def _check_structural(schema: Any, path: str, *, typed: bool) -> list[Fault]:
    """Check that a schema is structural: every field has a type, and the list extensions fit together."""
    if not isinstance(schema, dict):
        return [invalid(path, schema, "must be an object")]
    faults: list[Fault] = []
    kind = schema.get("type")
    loose = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if kind is not None and kind not in _TYPES:
        faults.append(not_supported(f"{path}.type", kind, sorted(_TYPES)))
    elif kind is None and typed and not loose:
        faults.append(required(f"{path}.type", "must not be empty for specified object fields"))
    if "$ref" in schema:
        faults.append(forbidden(f"{path}.$ref", "$ref is not supported"))
    if "properties" in schema and isinstance(schema.get("additionalProperties"), dict):
        faults.append(forbidden(f"{path}.additionalProperties", "is mutually exclusive with properties"))
    if kind == "array" and typed and "items" not in schema:
        faults.append(required(f"{path}.items", "must be specified"))
    if schema.get("x-kubernetes-list-type") == "map":
        faults += _check_list_map(schema, path)
    if "pattern" in schema:
        try:
            compile_pattern(schema["pattern"])
        except Exception as error:
            faults.append(invalid(f"{path}.pattern", schema["pattern"], f"must be a valid pattern: {error}"))
    for name, sub in (schema.get("properties") or {}).items():
        faults += _check_structural(sub, f"{path}.properties[{name}]", typed=typed)
    for name in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(name), dict):
            faults += _check_structural(schema[name], f"{path}.{name}", typed=typed and name != "not")
    for name in _SUBSCHEMAS:
        for index, sub in enumerate(schema.get(name) or []):
            faults += _check_structural(sub, f"{path}.{name}[{index}]", typed=False)
    return faults


def _check_list_map(schema: Schema, path: str) -> list[Fault]:
    keys = schema.get("x-kubernetes-list-map-keys")
    if not keys:
        return [required(f"{path}.x-kubernetes-list-map-keys", "must not be empty")]
    items = schema.get("items") or {}
    properties = items.get("properties") or {}
    return [
        required(
            f"{path}.items.properties[{key}].default",
            "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        )
        for key in keys
        if key not in items.get("required", []) and "default" not in properties.get(key, {})
    ]


def kinds_of(crd: Obj) -> list[Kind]:
    """Return the kinds a checked definition serves, one per served version."""
    spec = crd["spec"]
    names = spec["names"]
    return [
        Kind(
            resource=Resource(
                spec["group"],
                version["name"],
                names["plural"],
                names["kind"],
                spec["scope"] == "Namespaced",
            ),
            singular=names["singular"],
            list_kind=names["listKind"],
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            schema=_with_head(version["schema"]["openAPIV3Schema"]),
            rules=_rules(version["schema"]["openAPIV3Schema"]),
            columns=tuple(_column(column) for column in version.get("additionalPrinterColumns") or ()),
            has_status="status" in (version.get("subresources") or {}),
        )
        for version in spec["versions"]
        if version.get("served")
    ]


def _rules(schema: Schema) -> SchemaRules | None:
    rules = SchemaRules(schema)
    return rules if rules.any else None


def _with_head(schema: Schema) -> Schema:
    """Return a schema that knows the fields every object has."""
    properties = copy.deepcopy(schema.get("properties") or {})
    properties |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": METADATA_SCHEMA,
    }
    return (FREE if not schema.get("properties") else {}) | schema | {"properties": properties}


def _column(column: Obj) -> Column:
    return Column(
        name=column["name"],
        type=column["type"],
        json_path=column["jsonPath"],
        format=column.get("format", ""),
        description=column.get("description", ""),
        priority=column.get("priority", 0),
    )


def name_conflict(crd: Obj, registry: Registry) -> str:
    """Return why a definition's names cannot be served, an empty string when they can."""
    spec = crd["spec"]
    for kind in registry:
        if kind.resource.group != spec["group"] or kind.resource.plural == spec["names"]["plural"]:
            continue
        if kind.resource.kind == spec["names"]["kind"]:
            return f'"{spec["names"]["kind"]}" is already in use'
        taken = {kind.resource.plural, kind.singular, *kind.short_names}
        wanted = {spec["names"]["plural"], spec["names"]["singular"], *(spec["names"].get("shortNames") or ())}
        if both := taken & wanted:
            return f'"{min(both)}" is already in use'
    return ""


def established_status(crd: Obj, conflict: str, now: str) -> Obj:
    """Return the status of a definition: served, or not and why."""
    old = {condition["type"]: condition for condition in (crd.get("status") or {}).get("conditions", [])}
    accepted = ("False", "NameConflict", conflict) if conflict else ("True", "NoConflicts", "no conflicts found")
    established = (
        ("False", "NotAccepted", "not all names are accepted")
        if conflict
        else ("True", "InitialNamesAccepted", "the initial names have been accepted")
    )
    conditions = []
    for name, (status, reason, message) in (("NamesAccepted", accepted), ("Established", established)):
        since = old[name]["lastTransitionTime"] if old.get(name, {}).get("status") == status else now
        conditions.append(
            {"type": name, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}
        )
    if skipped := unsupported_rules(crd):
        since = old.get(SKIPPED_RULES, {}).get("lastTransitionTime", now)
        message = "; ".join(f"{place}: {what}" for place, what in skipped[:_SHOWN])
        more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        conditions.append(
            {
                "type": SKIPPED_RULES,
                "status": "True",
                "reason": "NotEvaluated",
                "message": f"these rules are valid elsewhere and not evaluated by this server: {message}{more}",
                "lastTransitionTime": since,
            }
        )
    spec = crd["spec"]
    stored = list((crd.get("status") or {}).get("storedVersions") or [])
    current = next(version["name"] for version in spec["versions"] if version.get("storage"))
    return {
        "acceptedNames": {} if conflict else spec["names"],
        "conditions": conditions,
        "storedVersions": stored if current in stored else [*stored, current],
    }
