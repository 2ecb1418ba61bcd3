//! One simulated envoy: the real protocol over the real client stack, without an agent behind it.
//!
//! It says `Hello`, proves itself over the TLS exporter, checks in, takes the assignment that it is given (signatures are not
//! checked: the server is measured, not the agent), and holds `Watch` if asked to. Against the floor server it only connects.

use bytes::Bytes;
use common::chain::{self, Lane};
use common::crypto::{Context, Side, SigningKey, auth_transcript, hello_hash};
use common::ids::{Hash32, ServerId, Uuid};
use common::limits::CALL_TIMEOUT_MS;
use common::net::{CallError, Client, ClientEvent};
use common::outcome::Outcome;
use common::proto::{Message, method, wire};
use common::time::Mono;

/// Answered by every server, by none with anything else than a refusal.
const NO_METHOD: &str = "/vigo.v1.Agent/Nothing";
/// Resources that a run changed, in every result that is sent.
pub const CHANGED_PER_RUN: u32 = 20;

/// Where it stands on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshake,
    Hello,
    Authenticate,
    FirstCheckIn,
    Ready,
}

/// What an event meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to count.
    Quiet,
    /// The connection is ready for calls; if it was resumed.
    Ready {
        /// The TLS handshake resumed an earlier session.
        resumed: bool,
    },
    /// A check-in was answered: "no change", by so many bytes of HTTP/2 data.
    NoChange(u64),
    /// A report was acknowledged to its end.
    Acknowledged,
    /// A report was put off for so many milliseconds: [`Envoy::report_again`] then.
    Later(u64),
    /// What was expected did not happen.
    Wrong(String),
}

/// How far to go on a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// TLS and HTTP/2 only, for the floor.
    Connect,
    /// And one call that the server refuses: its answer comes after the session ticket.
    OneCall,
    /// Authenticated and checked in.
    CheckIn,
    /// The same, and `Watch` is held.
    Held,
}

/// A simulated envoy.
pub struct Envoy {
    n: u32,
    uuid: Uuid,
    key: SigningKey,
    /// Its connection, while it has one.
    pub client: Option<Client>,
    stage: Stage,
    depth: Depth,
    resumed: bool,
    exporter: [u8; 32],
    hello_request: Vec<u8>,
    watch: Option<u64>,
    /// Of the assignment: what makes a check-in a "no change".
    epoch: u64,
    serial: u64,
    bundle: Vec<u8>,
    /// Highest sequence that it has made,
    sequence: u64,
    /// and its link.
    link: Hash32,
    /// The report whose answer is waited for.
    report: Option<Vec<u8>>,
}

impl Envoy {
    /// The `n`th of the generated fleet.
    pub fn new(n: u32) -> Envoy {
        let (uuid, key) = vigosrv::store::identity(n);
        Envoy {
            n,
            uuid,
            key,
            client: None,
            stage: Stage::Handshake,
            depth: Depth::Connect,
            resumed: false,
            exporter: [0; 32],
            hello_request: Vec::new(),
            watch: None,
            epoch: 0,
            serial: 0,
            bundle: Vec::new(),
            sequence: 0,
            link: Hash32::ZERO,
            report: None,
        }
    }

    /// Takes a new connection.
    pub fn begin(&mut self, client: Client, depth: Depth) {
        (self.client, self.depth, self.stage, self.watch) = (Some(client), depth, Stage::Handshake, None);
    }

    /// Sends a check-in with what it has.
    pub fn check_in(&mut self, now: Mono) -> Result<(), CallError> {
        let body = self.check_in_request().encode_to_vec();
        self.call(method::CHECK_IN, &body, now)
    }

    /// Makes so many new results and sends them in one report.
    pub fn report(&mut self, results: u64, now: Mono) -> Result<(), CallError> {
        let records = (0..results).map(|_| self.result()).collect();
        let body = wire::ReportRequest { records, ..wire::ReportRequest::default() }.encode_to_vec();
        self.report = Some(body);
        self.report_again(now)
    }

    /// Sends the report that was put off.
    pub fn report_again(&mut self, now: Mono) -> Result<(), CallError> {
        let body = self.report.take().unwrap_or_default();
        let sent = self.call(method::REPORT, &body, now);
        self.report = Some(body);
        sent
    }

    /// Goes on with an event of its connection.
    pub fn on_event(&mut self, event: ClientEvent, now: Mono) -> Step {
        match event {
            ClientEvent::Connected(identity) => {
                (self.exporter, self.resumed) = (identity.exporter, identity.resumed);
                if self.depth == Depth::Connect {
                    // The floor judges nothing: its requests only have the length of real ones.
                    (self.epoch, self.serial, self.bundle) = (1, 2, vec![3; 32]);
                    return self.ready();
                }
                self.stage = Stage::Hello;
                if self.depth == Depth::OneCall {
                    return self.sent(NO_METHOD, &[], now);
                }
                self.hello_request = envoy::agent::hello_request("bench");
                let request = self.hello_request.clone();
                self.sent(method::HELLO, &request, now)
            }
            ClientEvent::Reply { result: Ok(_) | Err(CallError::Status(_)), .. } if self.depth == Depth::OneCall => {
                self.ready()
            }
            ClientEvent::Reply { result: Ok(body), .. } => self.on_reply(&body, now).unwrap_or_else(Step::Wrong),
            // The floor answers bytes that need not be a message: that they came is what counts.
            ClientEvent::Reply { result: Err(CallError::Status(_)), .. } if self.depth == Depth::Connect => {
                Step::NoChange(0)
            }
            ClientEvent::Reply { result: Err(error), .. } => Step::Wrong(error.to_string()),
            ClientEvent::Ended { call, result } if self.watch == Some(call) => {
                Step::Wrong(format!("Watch: {result:?}"))
            }
            ClientEvent::Item { .. } | ClientEvent::Ended { .. } => Step::Quiet,
        }
    }

    fn on_reply(&mut self, body: &Bytes, now: Mono) -> Result<Step, String> {
        if self.depth == Depth::Connect {
            return Ok(Step::NoChange(answer_bytes(body)));
        }
        match self.stage {
            Stage::Handshake => Err("an answer before a question".into()),
            Stage::Hello => {
                self.stage = Stage::Authenticate;
                let request = self.authenticate_request(body)?;
                Ok(self.sent(method::AUTHENTICATE, &request, now))
            }
            Stage::Authenticate => {
                let reply: wire::AuthenticateReply = decoded(body)?;
                if reply.result != wire::authenticate_reply::Result::Ok as i32 {
                    return Err(format!("Authenticate: {:?}", reply.result()));
                }
                self.sequence = reply.watermark_urgent;
                self.link = Hash32::try_from_slice(&reply.link_urgent).unwrap_or(Hash32::ZERO);
                self.stage = Stage::FirstCheckIn;
                let request = self.check_in_request().encode_to_vec();
                Ok(self.sent(method::CHECK_IN, &request, now))
            }
            Stage::FirstCheckIn => {
                let reply: wire::CheckInReply = decoded(body)?;
                if reply.result == wire::check_in_reply::Result::Send as i32 {
                    self.take(&reply)?;
                    // Again, now with what it has: only "no change" makes it ready.
                    let request = self.check_in_request().encode_to_vec();
                    return Ok(self.sent(method::CHECK_IN, &request, now));
                }
                no_change(&reply)?;
                if self.depth == Depth::Held
                    && let Some(client) = &mut self.client
                {
                    let watch = wire::WatchRequest::default().encode_to_vec();
                    self.watch = Some(client.stream(method::WATCH, &watch, None).map_err(|error| error.to_string())?);
                }
                Ok(self.ready())
            }
            Stage::Ready => self.on_answer(body),
        }
    }

    fn on_answer(&mut self, body: &Bytes) -> Result<Step, String> {
        if self.report.is_some() {
            let reply: wire::ReportReply = decoded(body)?;
            if reply.retry_after_ms > 0 {
                return Ok(Step::Later(reply.retry_after_ms.into()));
            }
            self.report = None;
            return match reply.watermark_urgent {
                acknowledged if acknowledged == self.sequence => Ok(Step::Acknowledged),
                acknowledged => Err(format!("acknowledged up to {acknowledged}, sent up to {}", self.sequence)),
            };
        }
        no_change(&decoded(body)?)?;
        Ok(Step::NoChange(answer_bytes(body)))
    }

    fn ready(&mut self) -> Step {
        self.stage = Stage::Ready;
        Step::Ready { resumed: self.resumed }
    }

    fn sent(&mut self, path: &'static str, body: &[u8], now: Mono) -> Step {
        self.call(path, body, now).map_or_else(|error| Step::Wrong(error.to_string()), |()| Step::Quiet)
    }

    fn call(&mut self, path: &'static str, body: &[u8], now: Mono) -> Result<(), CallError> {
        let client = self.client.as_mut().ok_or_else(|| CallError::Lost("not connected".into()))?;
        client.call(path, body, now + CALL_TIMEOUT_MS).map(drop)
    }

    /// Believes any server: what is measured is the other side.
    fn authenticate_request(&self, reply: &Bytes) -> Result<Vec<u8>, String> {
        let reply: wire::HelloReply = decoded(reply)?;
        let body = wire::HelloBody::decode(&reply.body[..]).map_err(|error| error.to_string())?;
        let server = ServerId(Hash32::try_from_slice(&body.server_id).map_err(|error| error.to_string())?);
        let hello = hello_hash(&self.hello_request, &reply.body);
        let transcript = auth_transcript(Side::Envoy(self.uuid), &server, &hello, &self.exporter);
        let request = wire::AuthenticateRequest {
            uuid: self.uuid.as_bytes().to_vec(),
            signature: self.key.sign(Context::Auth, &transcript).to_vec(),
            boot_id: self.uuid.to_string(),
            machine_id: common::ids::hex(self.uuid.as_bytes()),
            agent_version: "bench".into(),
            epoch: body.epoch,
            serial: self.serial,
            assignment_epoch: self.epoch,
            hold: self.depth == Depth::Held,
            ..wire::AuthenticateRequest::default()
        };
        Ok(request.encode_to_vec())
    }

    fn check_in_request(&self) -> wire::CheckInRequest {
        wire::CheckInRequest {
            epoch: self.epoch,
            serial: self.serial,
            bundle_hash: self.bundle.clone(),
            trait_hash: u64::from(self.n),
            revocation: Some(wire::RevocationEcho { counter: 0, digest: 1 }),
            runs: 17,
            last_run: Some(wire::RunCounts { ok: 200, ..wire::RunCounts::default() }),
            assignment_hash: 1,
            status: 10,
            ..wire::CheckInRequest::default()
        }
    }

    fn take(&mut self, reply: &wire::CheckInReply) -> Result<(), String> {
        let signed = reply.assignment.as_ref().ok_or("an answer to be taken, without an assignment")?;
        let assignment = wire::Assignment::decode(&signed.payload[..]).map_err(|error| error.to_string())?;
        (self.epoch, self.serial, self.bundle) = (assignment.epoch, assignment.serial, assignment.bundle_hash);
        Ok(())
    }

    /// A run that changed [`CHANGED_PER_RUN`] resources.
    fn result(&mut self) -> wire::Record {
        let outcome = |i: u32| wire::ResourceOutcome {
            resource: format!("web.resource-{i}"),
            outcome: Outcome::Changed as u32,
            duration_ms: 12,
            r#type: "file".into(),
            ..wire::ResourceOutcome::default()
        };
        let sequence = self.sequence + 1;
        let run = wire::RunResult {
            run_id: chain::link(&self.link, Lane::Urgent, sequence, b"id").0[..16].to_vec(),
            started_wall_ms: 1_790_000_000_000 + sequence as i64,
            duration_ms: 400,
            boot_id: self.uuid.to_string(),
            bundle_hash: self.bundle.clone(),
            serial: self.serial,
            epoch: self.epoch,
            source: wire::run_result::Source::Live as i32,
            counts: Some(wire::RunCounts { ok: 180, changed: CHANGED_PER_RUN, ..wire::RunCounts::default() }),
            outcomes: (0..CHANGED_PER_RUN).map(outcome).collect(),
            status: 9,
            ..wire::RunResult::default()
        };
        let body = run.encode_to_vec();
        let previous = self.link;
        (self.sequence, self.link) = (sequence, chain::link(&previous, Lane::Urgent, sequence, &body));
        let link = self.link.0.to_vec();
        wire::Record {
            lane: wire::Lane::Urgent as i32,
            first_sequence: sequence,
            last_sequence: sequence,
            previous_link: previous.0.to_vec(),
            first_link: link.clone(),
            last_link: link,
            body: Some(wire::record::Body::Run(body)),
        }
    }
}

/// With the prefix of gRPC.
fn answer_bytes(message: &Bytes) -> u64 {
    message.len() as u64 + 5
}

fn decoded<M: Message + Default>(body: &Bytes) -> Result<M, String> {
    M::decode(&body[..]).map_err(|error| error.to_string())
}

fn no_change(reply: &wire::CheckInReply) -> Result<(), String> {
    match reply.result() {
        wire::check_in_reply::Result::NoChange => Ok(()),
        other => Err(format!("a check-in was answered {other:?} (retry after {} ms)", reply.retry_after_ms)),
    }
}
