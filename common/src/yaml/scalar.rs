//! Which value a plain scalar stands for: the YAML 1.2 core schema (section 10.3.2), with two departures. A decimal number
//! with a leading zero is text (`0644` is a mode, not six hundred and forty-four). Infinity and "not a number" are refused.

use super::Kind;

/// The value of an unquoted scalar; the error says what was expected.
pub(super) fn resolve(text: &str) -> Result<Kind, &'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Kind::Null),
        "true" | "True" | "TRUE" => return Ok(Kind::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Kind::Bool(false)),
        _ => {}
    }
    let (sign, digits) = match text.as_bytes()[0] {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let unsigned = digits.as_bytes();
    match unsigned.first() {
        Some(b'0') if unsigned.len() > 2 && digits.starts_with("0x") => radix(text, digits, 16),
        Some(b'0') if unsigned.len() > 2 && digits.starts_with("0o") => radix(text, digits, 8),
        Some(b'0') if unsigned.len() > 1 && unsigned[1].is_ascii_digit() => Ok(Kind::Str(text.to_string())),
        Some(b'0'..=b'9') if unsigned.iter().all(u8::is_ascii_digit) => {
            // i128 holds the magnitude of i64::MIN; more digits than that are out of range anyway.
            let value = digits.parse::<i128>().ok().and_then(|n| i64::try_from(sign * n).ok());
            value.map(Kind::Int).ok_or("a whole number of at most 64 bits; quote it to make it text")
        }
        Some(b'0'..=b'9' | b'.') if is_float(unsigned) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Kind::Float(value)),
            _ => Err("a finite number; quote it to make it text"),
        },
        Some(b'.') if matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") => {
            Err("a finite number; quote it to make it text")
        }
        _ => Ok(Kind::Str(text.to_string())),
    }
}

fn radix(text: &str, digits: &str, radix: u32) -> Result<Kind, &'static str> {
    if text.len() != digits.len() || !digits[2..].chars().all(|c| c.is_digit(radix)) {
        return Ok(Kind::Str(text.to_string()));
    }
    let value = i64::from_str_radix(&digits[2..], radix);
    value.map(Kind::Int).map_err(|_| "a whole number of at most 64 bits; quote it to make it text")
}

/// `[0-9]*(\.[0-9]*)?([eE][-+]?[0-9]+)?` with at least one digit before the exponent.
fn is_float(bytes: &[u8]) -> bool {
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = digits(0);
    let mut n_digits = at;
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        n_digits += fraction;
        at += 1 + fraction;
    }
    if n_digits > 0 && matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'-' | b'+')));
        let exponent = if at <= bytes.len() { digits(at) } else { 0 };
        if exponent == 0 {
            return false;
        }
        at += exponent;
    }
    n_digits > 0 && at == bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_resolve_as_the_core_schema_says() {
        let text = |s: &str| Kind::Str(s.to_string());
        for (written, expected) in [
            ("", Kind::Null),
            ("~", Kind::Null),
            ("true", Kind::Bool(true)),
            ("yes", text("yes")),
            ("0", Kind::Int(0)),
            ("-12", Kind::Int(-12)),
            ("-9223372036854775808", Kind::Int(i64::MIN)),
            ("0x1F", Kind::Int(31)),
            ("0o17", Kind::Int(15)),
            ("0644", text("0644")),
            ("1.5", Kind::Float(1.5)),
            (".5", Kind::Float(0.5)),
            ("1e3", Kind::Float(1000.0)),
            ("1e", text("1e")),
            (".", text(".")),
            ("+", text("+")),
            ("1.2.3", text("1.2.3")),
            ("10.0.0.53", text("10.0.0.53")),
            ("5m", text("5m")),
            ("-x", text("-x")),
            ("0xzz", text("0xzz")),
        ] {
            assert_eq!(resolve(written), Ok(expected), "{written}");
        }
        for refused in ["9223372036854775808", ".inf", "-.INF", ".nan", "1e999", "0xffffffffffffffff"] {
            assert!(resolve(refused).is_err(), "{refused}");
        }
    }
}
