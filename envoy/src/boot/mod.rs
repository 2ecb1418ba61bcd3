//! How an agent starts: configuration, identity, state, threads, core, loop, in that order. On top of everything, imported by
//! the binary alone.

mod enroll;
mod reactor;
mod runner;
mod verifier;

pub use enroll::{Enroll, Trusting, enroll};
pub use runner::BlobDir;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use common::bundle::SealedSecret;
use common::cli::{Exit, Failure, VERSION, build_ms};
use common::ids::Uuid;
use common::net::{TlsClock, client_config};
use common::sys::logger::Logger;
use common::sys::notify::Notifier;
use common::sys::{Clock, file, process};
use zeroize::Zeroizing;

use crate::agent::{Agent, AgentInit, ControlReply, ControlRequest, Effect, Mode};
use crate::cache::{self, Answer, Blobs, Cache, Options, Owner, Store};
use crate::config::EnvoyConfig;
use crate::control::SOCKET;
use crate::exec::Unseal;
use crate::identity::{Enrollment, IdentityDir, SealingKey};
use crate::sys::program::Program;
use crate::traits::{Gatherer, Root};
use reactor::{Inbox, Parts, Ports, Reactor, RenewSealingKey, SavePins, translate};
use runner::{Reload, Runner, Surroundings};
use verifier::Verify;

/// Servers whose TLS sessions are remembered.
const TLS_SESSIONS: usize = 8;
/// Bytes of `/etc/machine-id` and the boot id.
const ID_BYTES_MAX: u64 = 256;

/// Where and how this agent works: the configuration with the command line laid over it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Settings.
    pub config: EnvoyConfig,
    /// `--config`, to read it again.
    pub config_path: Option<PathBuf>,
    /// Options that win over the file, applied again after a reload.
    pub overrides: Overrides,
    /// Clocks.
    pub clock: Clock,
}

/// Paths given on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--identity-dir`.
    pub identity_dir: Option<PathBuf>,
    /// `--sysroot`.
    pub sysroot: Option<PathBuf>,
}

impl Overrides {
    /// Lays them over a configuration.
    pub fn apply(&self, config: &mut EnvoyConfig) {
        let fields = [
            (&self.state_dir, &mut config.state_dir),
            (&self.identity_dir, &mut config.identity_dir),
            (&self.sysroot, &mut config.sysroot),
        ];
        for (given, field) in fields {
            if let Some(path) = given {
                field.clone_from(path);
            }
        }
    }
}

impl Setup {
    /// The directory below which resources act, when it is not the host's own root.
    pub fn sysroot(&self) -> Option<PathBuf> {
        Some(self.config.sysroot.clone()).filter(|path| path != Path::new("/"))
    }

    /// What gathers the traits of this host. A sandbox is no host: its facts are those of the host that it is on.
    pub fn gatherer(&self) -> Gatherer {
        Gatherer::new(Root::host()).with_programs(&self.config.traits_dir, &self.clock)
    }

    fn logger(&self) -> Logger {
        Logger::new(self.config.log_level, self.config.log_json)
    }
}

/// `vigo-envoy daemon`: converges and checks in until TERM.
pub fn daemon(setup: &Setup) -> Result<Exit, Failure> {
    let restart = Arc::new(AtomicBool::new(false));
    let program = Program::of_this_process();
    let (reactor, agent, effects) = start(setup, Mode::Daemon, restart.clone(), program.clone())?;
    let code = reactor.serve(agent, effects);
    if restart.load(Ordering::SeqCst) {
        // Its store was rebuilt under it: what this process believes of the store is void.
        let why = program.execute();
        return Err(Failure::failed(format!("the state store was rebuilt, and the agent cannot start anew: {why}")));
    }
    Ok(if code == 0 { Exit::Done } else { Exit::Other(code) })
}

/// `vigo-envoy run --once` where no daemon runs: one request to a core of this process.
pub fn once(setup: &Setup, request: ControlRequest) -> Result<ControlReply, Failure> {
    let restart = Arc::new(AtomicBool::new(false));
    let (reactor, agent, effects) = start(setup, Mode::OneShot, restart, Program::of_this_process())?;
    let (reply, _) = reactor.ask_once(agent, effects, request);
    reply.ok_or_else(|| Failure::failed("the run was stopped before it ended"))
}

fn start(
    setup: &Setup,
    mode: Mode,
    restart: Arc<AtomicBool>,
    program: Program,
) -> Result<(Reactor, Agent, Vec<Effect>), Failure> {
    let config = &setup.config;
    let cannot = |what: &str, error: &dyn std::fmt::Display| Failure::failed(format!("{what}: {error}"));
    process::harden().map_err(|error| cannot("core dumps cannot be switched off", &error))?;
    let identity = IdentityDir::open(&config.identity_dir)?;
    let Some(enrollment) = identity.enrollment()? else {
        return Err(Failure::new(Exit::BadConfig, format!("{} holds no enrollment", config.identity_dir.display()))
            .hint("run `vigo-envoy enroll --server HOST`; `vigocli envoys invite` on the server prints the line"));
    };
    let keys = identity.keys(&mut common::rng::SystemRng::default())?;
    let now = setup.clock.now();
    let store = open_store(setup, &enrollment, mode)?;
    let mut store = store;
    let loaded = store.load().map_err(|error| cannot("the state store", &error))?;
    let blob_dir = config.state_dir.join("blobs");
    let ports = Ports::open().map_err(|error| cannot("the event loop", &error))?;
    let owner = start_owner(setup, store, &blob_dir, ports.inbox(), restart.clone())
        .map_err(|error| cannot("the store's thread", &error))?;
    let sealing = keys.sealing.public;
    let unsealer = Arc::new(Unsealer(Mutex::new((keys.sealing, keys.former_sealing))));
    let runner = start_runner(setup, enrollment.uuid, unsealer.clone(), &blob_dir, ports.inbox())
        .map_err(|error| cannot("the runner's thread", &error))?;
    let tls_clock = Arc::new(TlsClock::default());
    tls_clock.set(now.wall);
    let tls = client_config(&[b"h2"], TLS_SESSIONS, tls_clock).map_err(|error| cannot("TLS", &error))?;
    let mut out = Vec::new();
    let init = AgentInit {
        mode,
        config: config.core(),
        uuid: enrollment.uuid,
        key: keys.identity,
        sealing,
        pins: enrollment.pins,
        loaded,
        boot_id: read_id("/proc/sys/kernel/random/boot_id"),
        machine_id: read_id("/etc/machine-id"),
        version: VERSION.into(),
        build_ms: build_ms(),
    };
    let agent = Agent::new(init, now, &mut out);
    let parts = Parts {
        owner,
        runner,
        tls,
        save_pins: save_pins(identity.clone(), enrollment.uuid),
        renew_sealing_key: renew_sealing_key(identity, unsealer),
        reload: reload(setup.clone()),
        verify: verify(config.state_dir.clone(), enrollment.uuid),
        control: (mode == Mode::Daemon).then(|| config.state_dir.join(SOCKET)),
        clock: setup.clock.clone(),
        logger: setup.logger(),
        notifier: Notifier::from_env().map_err(|error| cannot("NOTIFY_SOCKET", &error))?,
        program,
        restart,
    };
    let reactor = Reactor::new(ports, parts).map_err(|error| cannot("the control socket", &error))?;
    Ok((reactor, agent, out))
}

fn open_store(setup: &Setup, enrollment: &Enrollment, mode: Mode) -> Result<Store, Failure> {
    let who = if mode == Mode::Daemon { "vigo-envoy daemon" } else { "vigo-envoy run --once" };
    let options = Options {
        bytes_max: setup.config.state_bytes_max,
        who,
        former: enrollment.pins.former_uuid,
        ..Options::new(&setup.config.state_dir, enrollment.uuid, setup.clock.now().wall)
    };
    Store::open(&options).map_err(|error| Failure::new(Exit::TryAgain, error.to_string()))
}

fn start_owner(
    setup: &Setup,
    store: Store,
    blob_dir: &Path,
    inbox: Inbox,
    restart: Arc<AtomicBool>,
) -> std::io::Result<Owner> {
    let blobs = Blobs::new(blob_dir, setup.config.blob_bytes_max);
    Owner::start(store, blobs, setup.clock.clone(), move |answer| match answer {
        Answer::Reopened(_) => {
            restart.store(true, Ordering::SeqCst);
            inbox.wake();
        }
        Answer::Room => inbox.wake(),
        answer => {
            if let Some(event) = translate(answer) {
                inbox.put(event);
            }
        }
    })
}

/// Opens what is sealed to this envoy: with its key, or the one before it.
struct Unsealer(Mutex<(SealingKey, Option<SealingKey>)>);

impl Unseal for Unsealer {
    fn unseal(&self, secret: &SealedSecret) -> Option<Zeroizing<Vec<u8>>> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let former = || secret.unseal(keys.1.as_ref()?.secret()).ok();
        secret.unseal(keys.0.secret()).ok().or_else(former)
    }
}

fn renew_sealing_key(identity: IdentityDir, unsealer: Arc<Unsealer>) -> RenewSealingKey {
    Box::new(move || {
        let made = identity.renew_sealing_key(&mut common::rng::SystemRng::default());
        let made = SealingKey::from_secret(made.map_err(|error| error.to_string())?);
        let public = made.public;
        let mut keys = unsealer.0.lock().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut keys.0, made);
        keys.1 = Some(former);
        Ok(public)
    })
}

fn start_runner(
    setup: &Setup,
    uuid: Uuid,
    unsealer: Arc<Unsealer>,
    blob_dir: &Path,
    inbox: Inbox,
) -> std::io::Result<Runner> {
    let config = &setup.config;
    let mut protected = vec![config.state_dir.clone(), config.identity_dir.clone()];
    protected.extend(setup.config_path.clone());
    protected.extend(std::env::current_exe().ok());
    let around = Surroundings {
        uuid,
        sysroot: setup.sysroot(),
        unseal: unsealer,
        blobs: Arc::new(BlobDir::new(blob_dir, config.blob_bytes_max)),
        undo_dir: config.state_dir.join("undo"),
        own_config: setup.config_path.clone(),
        reload: reload(setup.clone()),
        allow_self: config.allow_self,
        protected,
        clock: setup.clock.clone(),
        gatherer: setup.gatherer(),
        logger: setup.logger(),
    };
    Runner::start(around, Arc::new(move |event| inbox.put(event)))
}

fn save_pins(identity: IdentityDir, uuid: Uuid) -> SavePins {
    Box::new(move |pins| {
        let enrollment = Enrollment { uuid, pins: pins.clone() };
        identity.save(&enrollment).map_err(|error| error.to_string())
    })
}

fn reload(setup: Setup) -> Reload {
    Arc::new(move || {
        let mut config = EnvoyConfig::load(setup.config_path.as_deref()).map_err(|error| error.to_string())?;
        setup.overrides.apply(&mut config);
        Ok(config.core())
    })
}

fn verify(state_dir: PathBuf, uuid: Uuid) -> Verify {
    Arc::new(move || serde_json::to_value(cache::verify(&state_dir, uuid)).unwrap_or_default())
}

/// A line of a file of the kernel or the host; empty where there is none.
fn read_id(path: &str) -> String {
    let bytes = file::read_bounded(Path::new(path), ID_BYTES_MAX).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_string()
}
