//! `common/src/limits.rs` as a table: constants, their values and their reasons.

use std::collections::BTreeMap;
use std::fmt::Write;

/// One constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name.
    pub name: String,
    /// What it evaluates to.
    pub value: u64,
    /// What it evaluates to where pointers have 32 bits, if that differs.
    pub value_32: Option<u64>,
    /// Its documentation, on one line.
    pub reason: String,
}

/// Reads every `pub const NAME: TYPE = EXPRESSION;` with the documentation in front of it.
///
/// # Errors
///
/// Names the constant whose expression is not made of numbers, other constants, `*`, `<<` and `+`.
pub fn parse(text: &str) -> Result<Vec<Limit>, String> {
    let mut known = BTreeMap::new();
    let mut out = Vec::new();
    let mut reason = String::new();
    for line in text.lines() {
        if let Some(doc) = line.strip_prefix("///") {
            reason = format!("{reason} {}", doc.trim()).trim().to_string();
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            let bad = || format!("cannot read `{line}`; keep a limit on one line, of numbers, *, << and other limits");
            let (name, rest) = rest.split_once(':').ok_or_else(bad)?;
            let expression = rest.split_once('=').and_then(|(_, e)| e.trim().strip_suffix(';')).ok_or_else(bad)?;
            let (wide, narrow) = by_width(expression);
            let value = evaluate(wide, &known).ok_or_else(bad)?;
            let value_32 = narrow.map(|narrow| evaluate(narrow, &known).ok_or_else(bad)).transpose()?;
            known.insert(name.to_string(), value);
            out.push(Limit { name: name.to_string(), value, value_32, reason: std::mem::take(&mut reason) });
        } else {
            reason.clear();
        }
    }
    Ok(out)
}

/// The table as Markdown.
pub fn markdown(limits: &[Limit]) -> String {
    let mut out = String::from(
        "# Limits\n\n\
         Every bound of the product, generated from `common/src/limits.rs` by `UPDATE_DOCS=1 cargo test -p vigo-tidy`. Relations between\n\
         limits are asserted there, by the compiler. What happens at a bound is in `docs/BAD_INPUT.md` and, for the agent's queue, in\n\
         `docs/STATE.md`.\n\n\
         | limit | value | what it bounds |\n|---|---|---|\n",
    );
    for limit in limits {
        let reason = limit.reason.replace('|', "\\|");
        let narrow = limit.value_32.map(|value| format!("; 32-bit: {}", human(&limit.name, value))).unwrap_or_default();
        let _ = writeln!(out, "| `{}` | {}{narrow} | {reason} |", limit.name, human(&limit.name, limit.value));
    }
    out
}

/// The two branches of `if cfg!(target_pointer_width = "64") { wide } else { narrow }`.
fn by_width(expression: &str) -> (&str, Option<&str>) {
    let branches = || {
        let rest = expression.trim().strip_prefix("if cfg!(target_pointer_width = \"64\") {")?;
        let (wide, rest) = rest.split_once('}')?;
        Some((wide, rest.trim().strip_prefix("else {")?.strip_suffix('}')?))
    };
    branches().map_or((expression, None), |(wide, narrow)| (wide, Some(narrow)))
}

/// With a unit, where the name says which.
fn human(name: &str, value: u64) -> String {
    let words: Vec<&str> = name.split('_').collect();
    let unit = |steps: &[(u64, &str)]| {
        let step = steps.iter().find(|(size, _)| value >= *size && value.is_multiple_of(*size));
        step.map_or_else(|| value.to_string(), |(size, unit)| format!("{} {unit}", value / size))
    };
    if words.contains(&"BYTES") {
        unit(&[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes")])
    } else if words.contains(&"MS") {
        unit(&[(3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")])
    } else if words.contains(&"PERCENT") {
        format!("{value} %")
    } else {
        value.to_string()
    }
}

/// Sums of products of shifts, which is the precedence of `+`, `*` and a parenthesised `<<` as far as limits use them.
fn evaluate(expression: &str, known: &BTreeMap<String, u64>) -> Option<u64> {
    let expression = expression.trim();
    if let Some((left, right)) = expression.split_once("<<") {
        return evaluate(left, known)?.checked_shl(evaluate(right, known)?.try_into().ok()?);
    }
    if let Some((left, right)) = expression.split_once('+') {
        return evaluate(left, known)?.checked_add(evaluate(right, known)?);
    }
    if let Some((left, right)) = expression.split_once('*') {
        return evaluate(left, known)?.checked_mul(evaluate(right, known)?);
    }
    // `X as u64` is X.
    let atom = expression.split_whitespace().next()?;
    known.get(atom).copied().or_else(|| atom.replace('_', "").parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_evaluate() {
        let known = BTreeMap::from([("A".to_string(), 3)]);
        for (expression, value) in [("16 << 20", 16 << 20), ("72 * 3_600_000", 259_200_000), ("A * 2 + 1", 7), ("A", 3)]
        {
            assert_eq!(evaluate(expression, &known), Some(value), "{expression}");
        }
        assert_eq!(evaluate("unknown()", &known), None);
    }

    #[test]
    fn a_limit_may_depend_on_the_width_of_pointers() {
        let text = "pub const X_BYTES: u64 = if cfg!(target_pointer_width = \"64\") { 2 << 10 } else { 1 << 10 };";
        let limits = parse(text).unwrap();
        assert_eq!((limits[0].value, limits[0].value_32), (2_048, Some(1_024)));
    }

    #[test]
    fn a_limit_keeps_its_reason() {
        let text = "//! Doc.\n/// One\n/// reason.\npub const X_BYTES_MAX: usize = 2 << 10;\n";
        let limits = parse(text).unwrap();
        assert_eq!(limits[0].reason, "One reason.");
        assert!(markdown(&limits).contains("| `X_BYTES_MAX` | 2 KiB | One reason. |"));
    }
}
