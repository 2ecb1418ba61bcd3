//! One TLS connection over one non-blocking socket, shared between our loop and h2, which hides its I/O object.
//!
//! Readiness is remembered here, because mio's edges are not repeated: `readable` is true until the socket said
//! `WouldBlock`. A turn reads at most [`TURN_BYTES_MAX`], so that one fast sender cannot starve the others; a connection
//! that stopped for that reason wants another turn without another edge.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::NetError;
use crate::crypto::EXPORTER_LABEL;

/// Bytes that one connection may read from its socket in one turn of the loop.
pub const TURN_BYTES_MAX: usize = 128 << 10;

/// What is left to do after a connection was driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// Nothing until the socket is ready, a deadline passes or the caller adds something.
    Idle,
    /// More bytes may wait in the socket, or bytes wait to be written although no edge will come, so that what the events
    /// lead to goes out with them: drive it again once the events are dealt with, after the others.
    WantsTurn,
}

/// Socket, TLS state and remembered readiness.
pub(super) struct TlsIo {
    socket: TcpStream,
    tls: rustls::Connection,
    readable: bool,
    writable: bool,
    /// The peer has closed its side, or the socket has an error: a short read does not mean that the socket is drained.
    closing: bool,
    /// Bytes that may still be read in this turn.
    budget: usize,
    /// Stopped reading because of the budget.
    starved: bool,
    /// Bytes read from the socket since the start, as a sign of life.
    received: u64,
    /// First byte of the connection, to recognise plain HTTP.
    first_byte: Option<u8>,
    /// The peer does not speak TLS: no alert would help it.
    mute: bool,
    /// What h2 flushes stays here until the end of the turn: the more goes out in one write, the fewer packets both sides
    /// pay for. rustls bounds what waits.
    holding: bool,
}

/// The handle that h2 gets.
#[derive(Clone)]
pub(super) struct SharedIo(pub(super) Rc<RefCell<TlsIo>>);

/// A TLS connection for a protocol other than HTTP/2, after the handshake.
pub struct TlsStream(SharedIo);

impl TlsStream {
    pub(super) fn new(io: SharedIo) -> TlsStream {
        TlsStream(io)
    }

    /// The socket changed.
    pub fn on_event(&mut self, event: &Event) {
        self.0.0.borrow_mut().on_event(event);
    }

    /// A new byte budget; see [`TURN_BYTES_MAX`].
    pub fn begin_turn(&mut self) {
        self.0.0.borrow_mut().begin_turn();
    }

    /// Whether another turn is needed without another edge.
    pub fn driven(&self) -> Driven {
        self.0.0.borrow().driven()
    }

    /// Decrypted bytes; 0 at the end, none when there are none now.
    pub fn read(&mut self, out: &mut [u8]) -> Result<Option<usize>, NetError> {
        Ok(self.0.0.borrow_mut().read_plain(out)?)
    }

    /// Takes bytes in; none when no more fit now.
    pub fn write(&mut self, data: &[u8]) -> Result<Option<usize>, NetError> {
        Ok(self.0.0.borrow_mut().write_plain(data)?)
    }

    /// Writes to the socket what waits. True: nothing waits any more.
    pub fn flush(&mut self) -> Result<bool, NetError> {
        Ok(self.0.0.borrow_mut().flush()?)
    }

    /// Says goodbye as far as the socket takes it; the peer may still be read.
    pub fn finish(&mut self) {
        self.0.0.borrow_mut().close();
    }

    /// Says goodbye as far as the socket takes it, and takes the socket out of the poll.
    pub fn close(&mut self, registry: &Registry) {
        let mut io = self.0.0.borrow_mut();
        io.close();
        io.deregister(registry);
    }
}

impl TlsIo {
    pub(super) fn new(socket: TcpStream, tls: rustls::Connection) -> TlsIo {
        TlsIo {
            socket,
            tls,
            // The first edge of a socket that was ready before it was registered comes at once; until then assume nothing.
            readable: false,
            writable: false,
            closing: false,
            budget: 0,
            starved: false,
            received: 0,
            first_byte: None,
            mute: false,
            holding: false,
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        // Fails only for a socket that is not registered, which is what we want.
        let _ = registry.deregister(&mut self.socket);
    }

    pub(super) fn on_event(&mut self, event: &Event) {
        self.readable |= event.is_readable();
        self.writable |= event.is_writable();
        self.closing |= event.is_read_closed() || event.is_error();
        // An error must be read to be seen.
        self.readable |= self.closing;
    }

    /// Starts a turn: a new budget.
    pub(super) fn begin_turn(&mut self) {
        self.budget = TURN_BYTES_MAX;
        self.starved = false;
    }

    /// From now on what is flushed waits for [`TlsIo::let_go`].
    pub(super) fn hold(&mut self) {
        self.holding = true;
    }

    /// Writes what waits, unless an answer to `events` will follow in this turn: then both go out together.
    pub(super) fn let_go(&mut self, events: bool) -> io::Result<()> {
        self.holding = false;
        if !events && !self.mute {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn driven(&self) -> Driven {
        if self.starved || (self.writable && self.tls.wants_write()) { Driven::WantsTurn } else { Driven::Idle }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes wait for the socket.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.socket.take_error().ok().flatten()
    }

    /// Goes on with the handshake. True: it is done. An alert that explains a failure is on its way when this returns.
    pub(super) fn handshake(&mut self) -> Result<bool, NetError> {
        loop {
            if !self.tls.is_handshaking() {
                // The last flight (finished, or the session ticket) goes out with what follows.
                return Ok(true);
            }
            self.flush()?;
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    let plain = self.tls.is_handshaking() && self.first_byte.is_some_and(|b| b.is_ascii_uppercase());
                    if plain && self.refuse_plain_http().is_ok() {
                        self.mute = true;
                        return Err(NetError::PlainHttp);
                    }
                    let _ = self.flush();
                    return Err(error.into());
                }
            }
        }
    }

    /// RFC 9266 channel binding. Only after the handshake.
    pub(super) fn exporter(&self) -> Result<[u8; 32], NetError> {
        Ok(self.tls.export_keying_material([0; 32], EXPORTER_LABEL, None)?)
    }

    pub(super) fn tls(&self) -> &rustls::Connection {
        &self.tls
    }

    /// Says goodbye as far as the socket takes it, without waiting.
    pub(super) fn close(&mut self) {
        if !self.mute {
            self.tls.send_close_notify();
            self.writable = true;
            let _ = self.flush();
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Plaintext that has been decrypted and not been read.
    pub(super) fn read_plain(&mut self, out: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.tls.reader().read(out) {
                Ok(n) => return Ok(Some(n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer that vanished without close_notify: what it meant to send is judged by the framing above.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some(0)),
                Err(error) => return Err(error),
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Takes plaintext in; none while the buffer is full and the socket does not take more.
    pub(super) fn write_plain(&mut self, data: &[u8]) -> io::Result<Option<usize>> {
        self.write_with(|writer| writer.write(data), data.is_empty())
    }

    fn write_with(
        &mut self,
        mut write: impl FnMut(&mut rustls::Writer<'_>) -> io::Result<usize>,
        nothing: bool,
    ) -> io::Result<Option<usize>> {
        loop {
            let n = write(&mut self.tls.writer())?;
            if n > 0 || nothing {
                return Ok(Some(n));
            }
            if !self.flush()? {
                return Ok(None);
            }
        }
    }

    /// Writes to the socket what waits. True: nothing waits any more.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            if !self.writable {
                return Ok(false);
            }
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads once from the socket and decrypts. False: nothing to read now, or the budget is spent.
    fn fill(&mut self) -> io::Result<bool> {
        if !self.readable {
            return Ok(false);
        }
        if self.budget == 0 {
            self.starved = true;
            return Ok(false);
        }
        let mut noting = Noting { socket: &mut self.socket, short: false, first: None };
        let n = match self.tls.read_tls(&mut noting) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        let (short, first) = (noting.short, noting.first);
        self.first_byte = self.first_byte.or(first);
        // epoll(7), question 9: for a stream socket a short read shows that it is drained, and new bytes will bring a new
        // edge. Not so when the end has been announced already: no other edge comes, and the next read returns 0.
        if short && n > 0 && !self.closing {
            self.readable = false;
        }
        self.budget = self.budget.saturating_sub(n.max(1));
        self.received += n as u64;
        self.tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if n == 0 && self.tls.is_handshaking() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(true)
    }

    fn refuse_plain_http(&mut self) -> io::Result<()> {
        self.socket.write_all(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 48\r\nConnection: close\r\n\r\n\
              this port speaks TLS 1.3 only; use https or gRPC",
        )
    }
}

/// Notes whether a read filled the buffer that it was given.
struct Noting<'a> {
    socket: &'a mut TcpStream,
    short: bool,
    first: Option<u8>,
}

impl Read for Noting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.socket.read(buffer)?;
        self.short = n < buffer.len();
        self.first = buffer[..n].first().copied();
        Ok(n)
    }
}

impl AsyncRead for SharedIo {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = &mut *self.0.borrow_mut();
        loop {
            let mut reader = io.tls.reader();
            match reader.fill_buf() {
                Ok(data) => {
                    let n = data.len().min(out.remaining());
                    out.put_slice(&data[..n]);
                    reader.consume(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            match io.fill() {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(error) => {
                    let _ = io.flush();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl AsyncWrite for SharedIo {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready(self.0.borrow_mut().write_plain(data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let nothing = slices.iter().all(|slice| slice.is_empty());
        ready(self.0.borrow_mut().write_with(|writer| writer.write_vectored(slices), nothing))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = &mut *self.0.borrow_mut();
        if io.holding {
            return Poll::Ready(Ok(()));
        }
        match io.flush() {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = &mut *self.0.borrow_mut();
        io.tls.send_close_notify();
        match io.flush() {
            Ok(true) => {
                let _ = io.socket.shutdown(Shutdown::Write);
                Poll::Ready(Ok(()))
            }
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

fn ready(result: io::Result<Option<usize>>) -> Poll<io::Result<usize>> {
    match result {
        Ok(Some(n)) => Poll::Ready(Ok(n)),
        Ok(None) => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}
