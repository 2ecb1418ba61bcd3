//! `vigosrv serve`: the start order, the threads, the housekeeping of the main thread, the stop.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use common::cli::{Exit, Failure, VERSION};
use common::limits;
use common::log::Level;
use common::net::{H2Limits, Tickets, TlsClock, server_config};
use common::rng::SystemRng;
use common::settings::HostPort;
use common::sys::logger::Logger;
use common::sys::notify::Notifier;
use common::sys::{Clock, Signals, file, process};
use common::time::{Mono, Now, Wall};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::backend::{Behind, Live, Reach, Waiting};
use super::jobs::Jobs;
use super::replica::Replica;
use super::states;
use crate::api::{Context, Trust};
use crate::app::{Event, Server, ServerInit, Settings};
use crate::backup::{self, Restored};
use crate::config::{Running, ServerConfig, lock_root};
use crate::keys::{Keys, Surroundings, TicketKeys, renew_leaf, ticket_keys_path};
use crate::litestream::Identity;
use crate::net::{
    AdminSocket, ApiLoop, ApiMail, ApiOptions, Fatal, Listener, Mail, Mailbox, NetOptions, PeerRule, Reactor,
};
use crate::publish;
use crate::store::{OpenOptions, RetainRule, SqliteStore, Store, Writer, check_whole};

/// Descriptors wanted for a large fleet; the hard limit decides.
const OPEN_FILES_WANTED: u64 = 1 << 20;
/// Descriptors kept for files, the database and the API.
const OPEN_FILES_RESERVED: u64 = 256;
/// Between looks at retention, tickets and the leaf, milliseconds.
const HOUSEKEEPING_MS: u64 = 60_000;
/// How long a drain may take, milliseconds.
const DRAIN_MS: u64 = 8_000;
/// Rows that one step of retention may remove.
const RETAIN_STEP: u32 = 5_000;

/// Runs a server until TERM. `ready` is told once both listeners answer.
/// `take_over`: the replica of the database is this server's from now on, whoever's it was.
pub fn serve(config: &ServerConfig, take_over: bool, ready: impl FnOnce(&Running)) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let logger = Logger::new(config.log_level, config.log_json);
    let now = clock.now();
    let say = |level, line: &str| logger.line(clock.now().wall, level, line);
    process::harden().map_err(|error| cannot("core dumps cannot be switched off", &error))?;
    let files = process::raise_open_files(OPEN_FILES_WANTED).unwrap_or(1_024);
    let mut signals = Signals::install().map_err(|error| cannot("signals", &error))?;
    let notifier = Notifier::from_env().map_err(|error| cannot("NOTIFY_SOCKET", &error))?;
    let mut lock = lock_root(&config.root, "vigosrv serve")?;

    let around = Surroundings::of_host(config, now.wall);
    let keys = Keys::prepare(config, &around, &mut SystemRng::default())?;
    keys.made.iter().for_each(|made| say(Level::Info, &format!("made {made}")));
    let trust = Trust {
        server_id: keys.server_id,
        ca_pem: keys.ca_pem.clone(),
        ca_hash: keys.ca_hash,
        policy_key: keys.policy.public(),
        identity_key: keys.identity.public(),
    };
    let mut notes = keys.notes.clone();
    let (identity, _, ticket_keys) = keys.into_parts();

    let replica = Replica::prepare(config, now.wall)?;
    let checkpoints = replica.checkpoints();
    let opened =
        SqliteStore::open(&OpenOptions { checkpoints, ..OpenOptions::new(&config.database, identity.server_id) })
            .map_err(|error| states::refused(&error, config))?;
    let mut store = opened.store;
    let gauges = store.gauges();
    let snapshot = store.load().map_err(|error| Failure::failed(error.to_string()))?;
    if opened.unclean {
        let note = "the last shutdown was not clean: what the server starts from is whole, the history is being checked; `vigocli doctor` says what comes of it";
        notes.push(note.to_string());
    }
    let marked = backup::at_start(&config.database, snapshot.state.version.epoch, config.interval_ms, now.wall);
    let marked = marked.map_err(|error| Failure::failed(error.to_string()))?;
    let outbid_ms = if let Some(Restored::Outbid(left)) = marked { left } else { 0 };
    if config.isolated {
        notes.push("this root is isolated: loopback only, and nothing is replicated".to_string());
    }
    let restored = match marked {
        Some(Restored::Raise(reason)) => Some(reason),
        _ => opened.restored.then(|| "this database is older than its continuity file: it was restored".to_string()),
    };
    notes.extend(restored.clone());
    notes.iter().cloned().chain(replica.note()).for_each(|note| say(Level::Warn, &note));
    let compiled = match publish::load_live(&config.root) {
        Ok(compiled) => compiled.map(Arc::new),
        Err(error) => {
            // A damaged tree must not disarm the fleet: envoys keep what they have until somebody publishes.
            let note = format!("what was published cannot be served: {error}; envoys keep what they have");
            say(Level::Error, &note);
            notes.push(note);
            None
        }
    };

    let (vault, changed_secrets) = states::open_secrets(config, &mut notes, &say);

    let grpc = listen(&config.grpc_listen)?;
    let api = listen(&config.api_listen)?;
    let (grpc_address, api_address) = (bound(&grpc)?, bound(&api)?);
    let owner = common::sys::Owner::of(&config.root).map_err(|error| Failure::failed(error.to_string()))?;
    let admin = AdminSocket::bind(&config.run_dir().join("admin.sock"), owner.uid).map_err(fatal)?;

    let servers = vec![reachable(&around.hostname, config, grpc_address)];
    let tls = Tls { tickets: Arc::new(Tickets::new(&pairs(&ticket_keys))), clock: Arc::new(TlsClock::default()) };
    tls.clock.set(now.wall);
    let settings = settings(config, servers.clone());
    let restore_until = match (&restored, outbid_ms) {
        (Some(_), _) => now.mono + config.interval_ms + limits::BACKOFF_MAX_MS,
        (None, 0) => Mono(0),
        (None, left) => now.mono + left,
    };
    let mut effects = Vec::new();
    let core = Server::new(
        ServerInit {
            identity,
            settings,
            snapshot,
            compiled: compiled.clone(),
            restored,
            outbid_ms,
            rng: Box::new(SystemRng::default()),
            vault: Arc::new(vault),
            changed_secrets: changed_secrets.clone(),
            now,
        },
        &mut effects,
    );
    let fleet = core.fleet();
    let live: Live = Arc::new(Mutex::new(compiled));

    let mailbox: Arc<OnceLock<Mailbox<Mail>>> = Arc::default();
    let later = mailbox.clone();
    let writer = Writer::spawn(store, move |done| {
        for (ticket, result) in done {
            if let Some(mailbox) = later.get() {
                let _ = mailbox.send(Mail::Event(Event::Written { ticket, result }));
            }
        }
    })
    .map_err(|error| cannot("the writer's thread", &error))?;
    let replication = replica.watch();
    let whose = Identity { server_id: trust.server_id, host: common::sys::net::hostname() };
    let replica = replica.start(whose, take_over, gauges, &clock, logger)?;
    let jobs = Jobs::start(config.database.clone()).map_err(|error| cannot("the job pool", &error))?;
    let damage: Arc<OnceLock<String>> = Arc::default();
    if opened.unclean {
        // The whole file may be gigabytes: no check-in waits for it.
        let (database, level, json) = (config.database.clone(), config.log_level, config.log_json);
        let damage = damage.clone();
        jobs.run(move || {
            if let Err(error) = check_whole(&database) {
                Logger::new(level, json).line(Clock::system().now().wall, Level::Error, &error.to_string());
                // Set once, here: `/health`, `status` and `doctor` say it until the next start.
                let _ = damage.set(error.to_string());
            }
        });
    }
    let waiting = Waiting::default();

    let options = NetOptions {
        tls: tls.config(config, &trust.ca_pem, &[b"h2"])?,
        tls_clock: tls.clock.clone(),
        limits: Arc::new(connection_limits(config)),
        rule: PeerRule {
            strangers_max: config.limits.unauthenticated_per_address,
            per_second: config.limits.rate_per_address,
        },
        connections_max: config.limits.connections.min(files.saturating_sub(OPEN_FILES_RESERVED) as usize),
        drain_ms: DRAIN_MS,
        clock: clock.clone(),
    };
    let behind = {
        let (writer, jobs, waiting, live) = (writer.submitter(), jobs.clone(), waiting.clone(), live.clone());
        let (root, clock) = (config.root.clone(), clock.clone());
        move |mailbox| Behind { writer, jobs, waiting, mailbox, root, live, logger, clock }
    };
    let (agents_thread, agents) = start_agents(grpc, core, options, behind, effects)?;
    // Set once, here: nothing was written before.
    let _ = mailbox.set(agents.clone());

    let context = Arc::new(Context {
        backend: Arc::new(Reach { mailbox, waiting, jobs, clock: clock.clone(), next: AtomicU64::new(1) }),
        fleet,
        live,
        root: config.root.clone(),
        secrets: config.secrets(),
        secrets_turn: std::sync::Mutex::default(),
        database: config.database.clone(),
        snapshots: config.snapshots.clone(),
        interval_ms: config.interval_ms,
        restore_until,
        servers,
        api_address: reachable(&around.hostname, config, api_address),
        trust: trust.clone(),
        replication,
        started: now,
        notes,
        damage,
        backup_times: states::backup_times(config),
    });
    let api_options = ApiOptions {
        tls: tls.config(config, &trust.ca_pem, &[b"h2", b"http/1.1"])?,
        tls_clock: tls.clock.clone(),
        rule: PeerRule {
            strangers_max: limits::UNAUTHENTICATED_PER_ADDRESS_MAX,
            per_second: config.limits.rate_per_address,
        },
        connections_max: config.limits.api_connections,
        handshake_ms: config.limits.handshake_timeout_ms,
        clock: clock.clone(),
    };
    let (api_thread, operators) = start_api(api, admin, context, api_options)?;

    let running = Running::now(grpc_address.to_string(), api_address.to_string());
    lock.note("vigosrv serve").map_err(|error| Failure::failed(error.to_string()))?;
    running.write(&config.root).map_err(|error| Failure::failed(error.to_string()))?;
    say(Level::Info, &format!("ready: agents on {grpc_address}, operators on {api_address}"));
    notifier.ready("serving");
    ready(&running);

    let mut house =
        House { config, ticket_keys, tls, ca_pem: trust.ca_pem, agents, operators, writer: &writer, at: now.mono };
    let code = house.keep(&mut signals, &notifier, &clock, &logger, &[&agents_thread.0, &api_thread.0]);
    notifier.stopping();
    say(Level::Info, "stopping");
    Running::remove(&config.root);
    let _ = house.operators.send(ApiMail::Stop);
    let _ = house.agents.send(Mail::Event(Event::Drain));
    let ended = agents_thread.join().and(api_thread.join());
    let closed = writer.stop();
    // After the last write, so that the replica has it.
    replica.stop();
    closed.map_err(|error| Failure::failed(error.to_string()))?;
    // Everything that the core wrote at its start is durable now.
    let _ = config.secrets().settle(&changed_secrets);
    ended?;
    Ok(code)
}

fn cannot(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("{what}: {error}"))
}

fn fatal(error: Fatal) -> Failure {
    let exit = if matches!(error, Fatal::Listen { .. }) { Exit::BadConfig } else { Exit::Failed };
    Failure::new(exit, error.to_string())
}

/// Binds a listener. An empty host is every address, IPv6 where there is any.
fn listen(at: &HostPort) -> Result<Listener, Failure> {
    let bad = |error: std::io::Error| Failure::new(Exit::BadConfig, format!("{}:{}: {error}", at.host, at.port));
    if at.host.is_empty() {
        let any = |ip: std::net::IpAddr| SocketAddr::new(ip, at.port);
        return Listener::bind(any(std::net::Ipv6Addr::UNSPECIFIED.into()))
            .or_else(|_| Listener::bind(any(std::net::Ipv4Addr::UNSPECIFIED.into())))
            .map_err(fatal);
    }
    let mut addresses = (at.host.as_str(), at.port).to_socket_addrs().map_err(bad)?;
    let address = addresses.next().ok_or_else(|| bad(std::io::ErrorKind::AddrNotAvailable.into()))?;
    Listener::bind(address).map_err(fatal)
}

fn bound(listener: &Listener) -> Result<SocketAddr, Failure> {
    listener.address().ok_or_else(|| Failure::failed("a listener has no address"))
}

/// What others dial: the host's name, or the one address that is listened on.
fn reachable(hostname: &str, config: &ServerConfig, bound: SocketAddr) -> String {
    if bound.ip().is_unspecified() || !config.hostname.is_empty() {
        return format!("{hostname}:{}", bound.port());
    }
    bound.to_string()
}

fn settings(config: &ServerConfig, servers: Vec<String>) -> Settings {
    Settings {
        interval_ms: config.interval_ms,
        bundle_max_age_ms: config.bundle_max_age_ms,
        hold: config.hold,
        held_connections_max: config.limits.held_connections,
        checkins_per_second: config.limits.checkins_per_second,
        pending_writes_max: config.limits.pending_writes,
        trusted: config.trusted.clone(),
        servers,
        version: VERSION.into(),
    }
}

fn connection_limits(config: &ServerConfig) -> H2Limits {
    H2Limits {
        handshake_ms: config.limits.handshake_timeout_ms,
        untrusted_ms: config.limits.authenticate_timeout_ms,
        idle_ms: config.limits.idle_timeout_ms,
        header_bytes_max: u32::try_from(config.limits.header_bytes).unwrap_or(limits::HEADER_BYTES_MAX),
        body_bytes_max: config.limits.body_bytes,
        streams_max: config.limits.streams,
        ..H2Limits::default()
    }
}

fn pairs(keys: &TicketKeys) -> Vec<([u8; 16], [u8; 32])> {
    keys.0.iter().map(|key| (key.name, *key.secret)).collect()
}

/// What every TLS configuration of this process shares.
struct Tls {
    tickets: Arc<Tickets>,
    clock: Arc<TlsClock>,
}

impl Tls {
    /// From the files as they are now; the CA travels at the end of the chain, so that new agents can pin it.
    fn config(
        &self,
        config: &ServerConfig,
        ca_pem: &str,
        protocols: &[&[u8]],
    ) -> Result<Arc<rustls::ServerConfig>, Failure> {
        let read = |path: &Path| {
            let bytes = file::read_bounded(path, limits::YAML_BYTES_MAX as u64)
                .map_err(|error| Failure::new(Exit::BadConfig, error.to_string()))?;
            String::from_utf8(bytes)
                .map_err(|_| Failure::new(Exit::BadConfig, format!("{} is not PEM", path.display())))
        };
        let chain = read(&config.tls.cert)? + "\n" + ca_pem;
        server_config(&chain, &read(&config.tls.key)?, protocols, self.tickets.clone(), self.clock.clone())
            .map_err(|error| Failure::new(Exit::BadConfig, error.to_string()))
    }
}

/// A loop's thread.
struct Loop(JoinHandle<Result<(), Fatal>>);

impl Loop {
    fn join(self) -> Result<(), Failure> {
        match self.0.join() {
            Ok(result) => result.map_err(fatal),
            Err(_) => Err(Failure::failed("a loop has panicked; its message is above")),
        }
    }
}

/// Starts the loop of port 1530. It is made in its own thread, because its connections may never leave it.
fn start_agents(
    listener: Listener,
    core: Server,
    options: NetOptions,
    behind: impl FnOnce(Mailbox<Mail>) -> Behind + Send + 'static,
    effects: Vec<crate::app::Effect>,
) -> Result<(Loop, Mailbox<Mail>), Failure> {
    let (sender, receiver) = sync_channel(1);
    let thread = std::thread::Builder::new().name("agents".into()).spawn(move || {
        let (mut reactor, mailbox) = Reactor::new(listener, core, options, behind)?;
        let _ = sender.send(mailbox);
        reactor.obey_first(effects);
        reactor.run().map(drop)
    });
    let thread = thread.map_err(|error| cannot("the agents' thread", &error))?;
    match receiver.recv() {
        Ok(mailbox) => Ok((Loop(thread), mailbox)),
        Err(_) => Err(Loop(thread).join().err().unwrap_or_else(|| Failure::failed("the agents' loop did not start"))),
    }
}

/// Starts the loop of port 8443 and of the admin socket.
fn start_api(
    listener: Listener,
    admin: AdminSocket,
    context: Arc<Context>,
    options: ApiOptions,
) -> Result<(Loop, Mailbox<ApiMail>), Failure> {
    let (sender, receiver) = sync_channel(1);
    let thread = std::thread::Builder::new().name("operators".into()).spawn(move || {
        let handler = move |request, respond| context.handle(request, respond);
        let (api, mailbox) = ApiLoop::new(listener, Some(admin), handler, options)?;
        let _ = sender.send(mailbox);
        api.run().map(drop)
    });
    let thread = thread.map_err(|error| cannot("the operators' thread", &error))?;
    match receiver.recv() {
        Ok(mailbox) => Ok((Loop(thread), mailbox)),
        Err(_) => {
            Err(Loop(thread).join().err().unwrap_or_else(|| Failure::failed("the operators' loop did not start")))
        }
    }
}

/// What the main thread does while the others serve.
struct House<'a> {
    config: &'a ServerConfig,
    ticket_keys: TicketKeys,
    tls: Tls,
    ca_pem: String,
    agents: Mailbox<Mail>,
    operators: Mailbox<ApiMail>,
    writer: &'a Writer,
    at: Mono,
}

impl House<'_> {
    /// Waits for signals; looks after retention, tickets and the leaf. Ends with TERM, or when a loop has ended.
    fn keep(
        &mut self,
        signals: &mut Signals,
        notifier: &Notifier,
        clock: &Clock,
        logger: &Logger,
        loops: &[&JoinHandle<Result<(), Fatal>>],
    ) -> Exit {
        let pause = notifier.watchdog_interval_ms().unwrap_or(2_000).min(2_000);
        loop {
            let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(pause as i32).unwrap_or(PollTimeout::ZERO);
            // Interrupted by a signal, its flag is up all the same.
            let _ = poll(&mut fds, timeout);
            let received = signals.take();
            if received.terminate {
                return Exit::Done;
            }
            if loops.iter().any(|thread| thread.is_finished()) {
                return Exit::Failed;
            }
            notifier.watchdog();
            let now = clock.now();
            if received.reload || now.mono.since(self.at) >= HOUSEKEEPING_MS {
                self.at = now.mono;
                self.look_after(now, received.reload, logger);
            }
        }
    }

    fn look_after(&mut self, now: Now, reload: bool, logger: &Logger) {
        let cutoff = Wall(now.wall.0.saturating_sub(i64::try_from(self.config.retention_ms).unwrap_or(i64::MAX)));
        self.writer.retain(RetainRule { bytes_max: self.config.retention_bytes, cutoff, step: RETAIN_STEP });
        let path = ticket_keys_path(self.config);
        if self.ticket_keys.rotate(now.wall, &mut SystemRng::default()) {
            self.tls.tickets.replace(&pairs(&self.ticket_keys));
            let owner = common::sys::Owner::of(&self.config.root).ok();
            if let Err(error) = self.ticket_keys.save(&path, owner) {
                logger.line(now.wall, Level::Warn, &format!("{error}: after a restart agents shake hands anew"));
            }
        }
        let renewed = renew_leaf(self.config, &Surroundings::of_host(self.config, now.wall));
        match renewed {
            Ok(None) if !reload => {}
            Ok(_) => self.present_leaf(now, logger),
            Err(error) => logger.line(now.wall, Level::Error, &format!("the certificate was not renewed: {error}")),
        }
    }

    fn present_leaf(&self, now: Now, logger: &Logger) {
        let agents = self.tls.config(self.config, &self.ca_pem, &[b"h2"]);
        let operators = self.tls.config(self.config, &self.ca_pem, &[b"h2", b"http/1.1"]);
        match (agents, operators) {
            (Ok(agents), Ok(operators)) => {
                let _ = self.agents.send(Mail::Tls(agents));
                let _ = self.operators.send(ApiMail::Tls(operators));
                logger.line(now.wall, Level::Info, "new connections get the new certificate");
            }
            (Err(error), _) | (_, Err(error)) => {
                logger.line(now.wall, Level::Error, &format!("the new certificate cannot be used: {error}"));
            }
        }
    }
}
