#!/usr/bin/env python3
"""Joins the bills of materials that cargo-cyclonedx wrote for the crates of a program into one that names no machine, and validates it
against the schema of CycloneDX.

    sbom.py NAME VERSION SECONDS COMMIT OUT.json IN.json...
"""

import json
import sys
import time

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

SPEC = "1.5"


def clean(component):
    """Without paths of the machine: crates of the workspace are named by their version alone."""
    kept = {key: value for key, value in component.items() if key in ("type", "name", "version", "scope", "purl", "licenses", "hashes", "description")}
    purl = kept.get("purl", "")
    if "download_url=file" in purl:
        kept["purl"] = purl.split("?")[0]
    kept["bom-ref"] = kept.get("purl") or f"pkg:cargo/{component['name']}@{component['version']}"
    return kept


def main(name, version, seconds, commit, out, paths):
    """Writes the document; what is wrong with it, or nothing."""
    components, edges = {}, {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        names = {}
        for component in [document["metadata"]["component"], *document.get("components", [])]:
            cleaned = clean(component)
            names[component["bom-ref"]] = cleaned["bom-ref"]
            components[cleaned["bom-ref"]] = cleaned
        for edge in document.get("dependencies", []):
            below = {names[one] for one in edge.get("dependsOn", []) if one in names}
            if edge["ref"] in names:
                edges.setdefault(names[edge["ref"]], set()).update(below)
    product = f"pkg:generic/{name}@{version}"
    own = {ref for ref, one in components.items() if one["version"] == version and one["name"].startswith(("vigo", "envoy"))}
    edges[product] = own
    text = json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": SPEC,
            "version": 1,
            "metadata": {
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
                "component": {"type": "application", "name": name, "version": version, "bom-ref": product},
                "properties": [{"name": "commit", "value": commit}],
            },
            "components": [components[ref] for ref in sorted(components)],
            "dependencies": [{"ref": ref, "dependsOn": sorted(edges[ref])} for ref in sorted(edges)],
        },
        indent=1,
        sort_keys=True,
    )
    if "file:" in text or "path+" in text:
        return "a path of this machine is in it"
    problem = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    if problem is not None:
        return str(problem)
    if len(components) < 50 or not own:
        return f"only {len(components)} components"
    with open(out, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    print(f"# {len(components)} components")
    return None


if __name__ == "__main__":
    if len(sys.argv) < 7:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5], sys.argv[6:]))
