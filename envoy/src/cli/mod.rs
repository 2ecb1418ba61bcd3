//! The verbs of `vigo-envoy`: command line in, one of `boot`'s entries or the control socket out, text or JSON on stdout.

mod apply;
mod ask;
mod doc;
mod enroll;
mod run;

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, CommonOption, Exit, Failure, JSON, Program, VERBOSE};
use common::sys::redaction;

use crate::boot::{self, Overrides, Setup};
use crate::config::{EnvoyConfig, TEST_CLOCK_VARIABLE};

/// The binary.
pub const PROGRAM: Program =
    Program { name: "vigo-envoy", options: &[&CONFIG, &STATE_DIR, &IDENTITY_DIR, &SYSROOT, &JSON, &VERBOSE] };

const CONFIG: CommonOption =
    CommonOption { names: &["--config"], value: Some("FILE"), help: "settings (default /etc/vigo/envoy.yaml)" };
const STATE_DIR: CommonOption =
    CommonOption { names: &["--state-dir"], value: Some("DIR"), help: "state (default /var/lib/vigo/state)" };
const IDENTITY_DIR: CommonOption =
    CommonOption { names: &["--identity-dir"], value: Some("DIR"), help: "identity (default /var/lib/vigo/identity)" };
const SYSROOT: CommonOption =
    CommonOption { names: &["--sysroot"], value: Some("DIR"), help: "a sandbox: paths of resources are below it" };

/// The Vigo agent: keeps this host in the state that its policy says, with and without its server.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(example = "{command_name} enroll --server vigo.example.com --token @/run/token --trust-hash HASH")]
pub struct Top {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Daemon(Daemon),
    Run(run::Run),
    Apply(apply::Apply),
    Enroll(enroll::Enroll),
    Status(ask::Status),
    Queue(ask::Queue),
    Traits(ask::Traits),
    Verify(ask::Verify),
    Doc(doc::Doc),
}

/// The service: converges and checks in for ever.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "daemon", example = "{command_name} --config /etc/vigo/envoy.yaml")]
struct Daemon {}

/// Does what the command line says.
pub fn work(top: Top, common: &Common) -> Result<Exit, Failure> {
    // Needs no settings: it must work on a host where the agent does not.
    if let Verb::Doc(verb) = &top.verb {
        return doc::run(verb, common);
    }
    let setup = setup(common)?;
    redaction::guard_panics();
    match top.verb {
        Verb::Daemon(_) => boot::daemon(&setup),
        Verb::Run(verb) => run::run(&verb, &setup, common),
        Verb::Apply(verb) => apply::run(&verb, &setup, common),
        Verb::Enroll(verb) => enroll::run(&verb, &setup, common),
        Verb::Status(_) => ask::status(&setup, common),
        Verb::Queue(_) => ask::queue(&setup, common),
        Verb::Traits(verb) => ask::traits(&verb, &setup),
        Verb::Verify(_) => ask::verify(&setup, common),
        Verb::Doc(verb) => doc::run(&verb, common),
    }
}

fn setup(common: &Common) -> Result<Setup, Failure> {
    let config_path: Option<PathBuf> = common.path(&CONFIG);
    let mut config = EnvoyConfig::load(config_path.as_deref())?;
    let overrides = Overrides {
        state_dir: common.path(&STATE_DIR),
        identity_dir: common.path(&IDENTITY_DIR),
        sysroot: common.path(&SYSROOT),
    };
    overrides.apply(&mut config);
    let clock = config.clock(std::env::var(TEST_CLOCK_VARIABLE).ok().as_deref())?;
    Ok(Setup { config, config_path, overrides, clock })
}
