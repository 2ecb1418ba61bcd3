//! Base64 with padding (RFC 4648, section 4), as in the keys of OpenSSH. Decoding only, and strict: whatever an encoder would
//! not have written is refused.

/// The bytes of a text; `None` where it is not canonical base64.
///
/// ```
/// assert_eq!(common::base64::decode("dmlnbw=="), Some(b"vigo".to_vec()));
/// assert_eq!(common::base64::decode("dmlnbw"), None);
/// ```
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let digits = bytes.iter().rposition(|byte| *byte != b'=').map_or(0, |at| at + 1);
    if bytes.len() - digits > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    let (mut held, mut n_held) = (0_u32, 0);
    for byte in &bytes[..digits] {
        held = held << 6 | digit(*byte)?;
        n_held += 6;
        if n_held >= 8 {
            n_held -= 8;
            out.push((held >> n_held) as u8);
            held &= (1 << n_held) - 1;
        }
    }
    // Bits that no byte took are zero in what an encoder writes.
    (held == 0).then_some(out)
}

fn digit(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_text_is_decoded() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9vYmFy", Some(b"foobar")),
            ("+/8=", Some(b"\xfb\xff")),
            ("Zg", None),
            ("Zh==", None),
            ("Zg=a", None),
            ("Z===", None),
            ("====", None),
            ("Zm 9", None),
            ("Zm9\u{e9}", None),
        ] {
            assert_eq!(decode(text).as_deref(), bytes, "{text:?}");
        }
    }
}
