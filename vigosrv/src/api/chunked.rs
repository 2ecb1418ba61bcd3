//! A body in chunks (RFC 9112, section 7.1), taken off the wire as it comes.
//!
//! Pure. Bounded in everything: the body by its route, the line of a chunk, the trailers, which are read and dropped.
//! Extensions of chunks are ignored; a line that does not end in CR LF, or a size that is not plain hexadecimal, is refused.

use bytes::{Buf, Bytes, BytesMut};
use common::limits;
use http::StatusCode;

use super::http::BadRequest;

/// Bytes of the line before a chunk.
const LINE_BYTES_MAX: usize = 256;
/// Digits of its size: more than any body may have.
const SIZE_DIGITS_MAX: usize = 8;

/// A body on its way.
#[derive(Debug)]
pub struct Chunked {
    body: BytesMut,
    body_bytes_max: usize,
    trailer_bytes: usize,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size,
    /// So many bytes of the chunk are missing.
    Data(usize),
    /// The line end behind a chunk.
    Boundary,
    Trailers,
}

const fn bad(why: &'static str) -> BadRequest {
    BadRequest { status: StatusCode::BAD_REQUEST, why }
}

impl Chunked {
    /// For a body of at most so many bytes.
    pub fn new(body_bytes_max: usize) -> Chunked {
        Chunked { body: BytesMut::new(), body_bytes_max, trailer_bytes: 0, state: State::Size }
    }

    /// Takes what there is off the front of `input`; the body, when it is whole.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, BadRequest> {
        loop {
            match self.state {
                State::Data(left) => {
                    let n = left.min(input.len());
                    self.body.extend_from_slice(&input[..n]);
                    input.advance(n);
                    if n < left {
                        self.state = State::Data(left - n);
                        return Ok(None);
                    }
                    self.state = State::Boundary;
                }
                State::Boundary => {
                    if input.len() < 2 {
                        return Ok(None);
                    }
                    if !input.starts_with(b"\r\n") {
                        return Err(bad("a chunk of the body is longer than it says"));
                    }
                    input.advance(2);
                    self.state = State::Size;
                }
                State::Size => {
                    let Some(line) = line(input, LINE_BYTES_MAX)? else { return Ok(None) };
                    let size = size(&line)?;
                    if size > self.body_bytes_max - self.body.len() {
                        let why = "the body is larger than allowed here";
                        return Err(BadRequest { status: StatusCode::PAYLOAD_TOO_LARGE, why });
                    }
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Trailers => {
                    let left = limits::HEADER_BYTES_MAX as usize - self.trailer_bytes;
                    let Some(line) = line(input, left)? else { return Ok(None) };
                    if line.is_empty() {
                        return Ok(Some(std::mem::take(&mut self.body).freeze()));
                    }
                    self.trailer_bytes += line.len() + 2;
                }
            }
        }
    }
}

/// A line without its end; none while it is incomplete.
fn line(input: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, BadRequest> {
    let Some(at) = input.iter().take(max).position(|byte| *byte == b'\n') else {
        return if input.len() >= max {
            Err(bad("a line between the chunks of the body is too long"))
        } else {
            Ok(None)
        };
    };
    let mut line = input.split_to(at + 1);
    if !line.ends_with(b"\r\n") || line[..at - 1].contains(&b'\r') {
        return Err(bad("a line between the chunks of the body does not end in CR LF"));
    }
    line.truncate(at - 1);
    Ok(Some(line))
}

fn size(line: &[u8]) -> Result<usize, BadRequest> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii_end();
    let plain = (1..=SIZE_DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let parsed = std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
    parsed.filter(|_| plain).ok_or(bad("the size of a chunk of the body is no hexadecimal number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 20;

    /// The body and what is left, with the bytes coming in pieces of this length.
    fn read(text: &[u8], piece: usize) -> Result<Option<(Bytes, Vec<u8>)>, u16> {
        let (mut chunked, mut input) = (Chunked::new(MAX), BytesMut::new());
        let mut pieces = text.chunks(piece);
        loop {
            match chunked.take(&mut input) {
                Ok(Some(body)) => {
                    pieces.for_each(|rest| input.extend_from_slice(rest));
                    return Ok(Some((body, input.to_vec())));
                }
                Ok(None) => match pieces.next() {
                    Some(more) => input.extend_from_slice(more),
                    None => return Ok(None),
                },
                Err(refused) => return Err(refused.status.as_u16()),
            }
        }
    }

    /// The same, however it is cut.
    fn check(text: &str) -> Result<Option<(Bytes, Vec<u8>)>, u16> {
        let whole = read(text.as_bytes(), usize::MAX);
        for piece in 1..=text.len() {
            assert_eq!(read(text.as_bytes(), piece), whole, "{text:?} in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn chunks_become_one_body_and_what_follows_stays() {
        for (text, body) in [
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("3\r\nhel\r\n2;name=value\r\nlo\r\n0\r\n\r\n", "hello"),
            ("0\r\n\r\n", ""),
            ("A \r\n0123456789\r\na\r\n0123456789\r\n000\r\nTrailer: x\r\n\r\n", "01234567890123456789"),
        ] {
            let sent = format!("{text}GET /");
            assert_eq!(check(&sent), Ok(Some((Bytes::from(body), b"GET /".to_vec()))), "{text:?}");
            for cut in 0..text.len() {
                assert_eq!(read(&text.as_bytes()[..cut], usize::MAX), Ok(None), "{cut} of {text:?}");
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let long_line = format!("1;{}\r\n", "x".repeat(LINE_BYTES_MAX));
        let trailers = format!("0\r\n{}", "X: y\r\n".repeat(limits::HEADER_BYTES_MAX as usize));
        for (text, status) in [
            ("5\nhello\r\n0\r\n\r\n", 400),
            ("5\r\nhello\n0\r\n\r\n", 400),
            ("5\r\nhello0\r\n\r\n", 400),
            ("4\r\nhello\r\n0\r\n\r\n", 400),
            ("\r\nhello", 400),
            ("0x5\r\nhello\r\n", 400),
            ("+5\r\nhello\r\n", 400),
            ("-1\r\n", 400),
            ("5 5\r\nhello\r\n", 400),
            (" 5\r\nhello\r\n", 400),
            ("5\r\r\nhello\r\n", 400),
            ("000000005\r\nhello\r\n", 400),
            ("ffffffffffffffff\r\n", 400),
            ("15\r\n", 413),
            ("ffffffff\r\n", 413),
            ("14\r\n01234567890123456789\r\n1\r\n", 413),
            ("0\r\nX: y\n\r\n", 400),
            (&long_line, 400),
        ] {
            assert_eq!(check(text), Err(status), "{text:?}");
        }
        assert_eq!(read(trailers.as_bytes(), usize::MAX), Err(400));
    }
}
