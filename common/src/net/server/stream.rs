//! One call on a connection of the server: from the first byte of its request to the last of its answer.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};

use super::{H2Limits, ServerEvent};
use crate::net::{Status, grpc};
use crate::proto::Code;
use crate::time::Mono;

pub(super) const SLOW_REQUEST: &str = "the request did not arrive in time";
pub(super) const SLOW_ANSWER: &str = "the server was too busy to answer; try again later";
const TOO_LARGE: &str = "the request is larger than allowed here";

pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) deadline: Mono,
    pub(super) phase: Phase,
}

pub(super) enum Phase {
    Receiving { head: Box<Parts>, recv: RecvStream, body: Body, bytes_max: usize, respond: SendResponse<Bytes> },
    Waiting { respond: SendResponse<Bytes> },
    Sending { send: SendStream<Bytes>, queue: VecDeque<Bytes>, end: Option<Option<HeaderMap>>, told: bool },
    Done,
}

pub(super) enum Body {
    Whole(Bytes),
    Pieces(BytesMut),
}

impl Stream {
    /// An answer that waits for its maker, not for the peer, has no deadline.
    pub(super) fn is_timed(&self) -> bool {
        match &self.phase {
            Phase::Sending { queue, end, .. } => !queue.is_empty() || end.is_some(),
            _ => true,
        }
    }

    pub(super) fn is_open_ended(&self) -> bool {
        matches!(self.phase, Phase::Sending { end: None, .. })
    }

    pub(super) fn receive(
        &mut self,
        cx: &mut Context<'_>,
        now: Mono,
        limits: &H2Limits,
        out: &mut Vec<ServerEvent>,
        resets: &mut u32,
    ) -> bool {
        let Phase::Receiving { recv, body, bytes_max, .. } = &mut self.phase else { return false };
        let mut released = false;
        let complete = loop {
            if recv.is_end_stream() {
                break true;
            }
            match recv.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    let _ = recv.flow_control().release_capacity(data.len());
                    released = true;
                    if body.len() + data.len() > *bytes_max {
                        break false;
                    }
                    body.push(data);
                }
                Poll::Ready(Some(Err(_))) => {
                    *resets += 1;
                    self.phase = Phase::Done;
                    return true;
                }
                Poll::Ready(None) => break true,
                // Only a body that goes on needs the window that was just given back.
                Poll::Pending => return released,
            }
        };
        if let Phase::Receiving { head, body, respond, .. } = std::mem::replace(&mut self.phase, Phase::Done) {
            if complete {
                self.phase = Phase::Waiting { respond };
                self.deadline = now + limits.answer_ms;
                out.push(ServerEvent::Request { stream: self.id, head, body: body.into_bytes() });
                return false;
            }
            refuse(respond, limits, Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE);
        }
        true
    }

    pub(super) fn watch(&mut self, cx: &mut Context<'_>, out: &mut Vec<ServerEvent>, resets: &mut u32) -> bool {
        let Phase::Waiting { respond } = &mut self.phase else { return false };
        if respond.poll_reset(cx).is_pending() {
            return false;
        }
        self.phase = Phase::Done;
        *resets += 1;
        out.push(ServerEvent::Cancelled { stream: self.id });
        true
    }

    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        now: Mono,
        limits: &H2Limits,
        out: &mut Vec<ServerEvent>,
        resets: &mut u32,
    ) -> bool {
        let Phase::Sending { send, queue, end, told } = &mut self.phase else { return false };
        let mut moved = false;
        let alive = loop {
            if send.poll_reset(cx).is_ready() {
                break false;
            }
            let Some(front) = queue.front_mut() else { break true };
            send.reserve_capacity(front.len());
            let room = match send.capacity() {
                0 => match send.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(n))) => n,
                    Poll::Ready(_) => break false,
                    Poll::Pending => return moved,
                },
                n => n,
            };
            let piece = front.split_to(room.min(front.len()));
            if front.is_empty() {
                queue.pop_front();
            }
            if piece.is_empty() {
                continue;
            }
            let last = queue.is_empty() && matches!(end, Some(None));
            if send.send_data(piece, last).is_err() {
                break false;
            }
            moved = true;
            self.deadline = now + limits.stall_ms;
            if last {
                self.phase = Phase::Done;
                return true;
            }
        };
        if !alive {
            self.phase = Phase::Done;
            *resets += 1;
            out.push(ServerEvent::Cancelled { stream: self.id });
            return true;
        }
        match end.take() {
            Some(Some(trailers)) => drop(send.send_trailers(trailers)),
            Some(None) => drop(send.send_data(Bytes::new(), true)),
            None => {
                if !std::mem::replace(told, true) {
                    out.push(ServerEvent::StreamReady { stream: self.id });
                }
                return moved;
            }
        }
        self.phase = Phase::Done;
        true
    }
}

impl Body {
    pub(super) fn len(&self) -> usize {
        match self {
            Body::Whole(data) => data.len(),
            Body::Pieces(data) => data.len(),
        }
    }

    pub(super) fn push(&mut self, data: Bytes) {
        match self {
            Body::Whole(first) if first.is_empty() => *first = data,
            Body::Whole(first) => {
                let mut pieces = BytesMut::with_capacity(2 * (first.len() + data.len()));
                pieces.extend_from_slice(first);
                pieces.extend_from_slice(&data);
                *self = Body::Pieces(pieces);
            }
            Body::Pieces(pieces) => pieces.extend_from_slice(&data),
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Body::Whole(data) => data,
            Body::Pieces(data) => data.freeze(),
        }
    }
}

/// Answers with an error that the connection itself decides on.
pub(super) fn refuse(mut respond: SendResponse<Bytes>, limits: &H2Limits, code: Code, http: StatusCode, why: &str) {
    let mut head;
    if limits.grpc {
        head = grpc::head();
        head.headers_mut().extend(grpc::trailers(&Status::new(code, why)));
    } else {
        head = Response::new(());
        *head.status_mut() = http;
    }
    let _ = respond.send_response(head, true);
}
