//! The OpenAPI 3.1 document, made from the table of routes that a test compares with the handlers.

use serde_json::{Map, Value, json};

use super::Response;

/// Method, path, summary, whether it is open to everybody.
pub(super) const ROUTES: [(&str, &str, &str, bool); 28] = [
    ("get", "/health", "How the server is", true),
    ("get", "/metrics", "Metrics in Prometheus text format", true),
    ("get", "/bootstrap", "Shell script that installs and enrolls an agent", true),
    ("get", "/agents/{name}", "An agent binary, or its .sha256", true),
    ("get", "/api/v1/openapi.json", "This document", false),
    ("get", "/api/v1/status", "How server and fleet are", false),
    ("get", "/api/v1/envoys", "Envoys; query: name, status, revoked, sort, offset, limit", false),
    ("get", "/api/v1/envoys/{envoy}", "One envoy, by UUID or host name", false),
    ("get", "/api/v1/envoys/{envoy}/traits", "What it found out about its host", false),
    ("post", "/api/v1/envoys/push", "Tells every held envoy to check in", false),
    ("post", "/api/v1/envoys/rebootstrap", "Moves every envoy to another server", false),
    ("post", "/api/v1/envoys/{envoy}/push", "Tells it to check in", false),
    ("post", "/api/v1/envoys/{envoy}/revoke", "Bars it; body: reason", false),
    ("post", "/api/v1/envoys/{envoy}/approve", "Gives it full standing", false),
    ("post", "/api/v1/envoys/{envoy}/rename", "Another host name; body: hostname", false),
    ("post", "/api/v1/envoys/{envoy}/rekey", "Asks it for another sealing key", false),
    ("post", "/api/v1/envoys/{envoy}/rebootstrap", "Moves it to another server", false),
    ("post", "/api/v1/tokens", "A one-time enrollment token; body: hostname, replace, ttl", false),
    ("get", "/api/v1/runs", "Runs, newest first; query: envoy, before, limit", false),
    ("get", "/api/v1/runs/{run}", "One run with its outcomes", false),
    ("get", "/api/v1/events", "Events, newest first; query: limit", false),
    ("get", "/api/v1/config/status", "What is published", false),
    ("post", "/api/v1/config/validate", "Checks the policy tree", false),
    ("get", "/api/v1/backups", "Archives under paths.snapshots", false),
    ("get", "/api/v1/backups/{archive}", "One archive, or its .sha256", false),
    ("get", "/api/v1/secrets", "Paths and versions of secrets, never values", false),
    (
        "post",
        "/api/v1/secrets/changed",
        "Reads secrets again, and gives the envoys that a change concerns a new serial",
        false,
    ),
    (
        "post",
        "/api/v1/config/publish",
        "Checks and publishes it; body: message, tree (a hash of the history: rolls back to it)",
        false,
    ),
];

pub(super) fn document() -> Response {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, summary, open) in ROUTES {
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let security = if open { json!([]) } else { json!([{"adminSocket": []}]) };
        entry[method] = json!({
            "summary": summary,
            "security": security,
            "parameters": parameters,
            "responses": {
                "200": {"description": "done"},
                "default": {
                    "description": "what went wrong and what to do",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                },
            },
        });
    }
    let error = json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["code", "message", "hint"],
            "properties": {
                "code": {"type": "string"}, "message": {"type": "string"}, "hint": {"type": "string"},
            },
        }},
    });
    let scheme = json!({
        "type": "apiKey", "in": "header", "name": "SO_PEERCRED",
        "description": "The Unix socket run/admin.sock; the peer must be root or the owner of the server root",
    });
    Response::json(&json!({
        "openapi": "3.1.0",
        "info": {"title": "Vigo", "version": common::cli::VERSION},
        "paths": paths,
        "components": {"schemas": {"Error": error}, "securitySchemes": {"adminSocket": scheme}},
    }))
}
