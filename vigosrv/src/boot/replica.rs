//! Replication in the life of a server: prepared before the database is opened, because it decides who copies the WAL back; started
//! after the writer, stopped after it.

use common::cli::Failure;
use common::sys::Clock;
use common::sys::logger::Logger;
use common::time::Wall;

use crate::config::ServerConfig;
use crate::litestream::state::{Stage, Watch};
use crate::litestream::{Identity, Program, Site, Start, Supervisor, check_writable};
use crate::store::{Checkpoints, Gauges, Held};

/// What is to be done; nothing where `backup.url` is not set.
pub(super) struct Replica(Option<Wanted>);

struct Wanted {
    site: Site,
    program: Option<Program>,
    watch: Watch,
}

/// While the server runs.
pub(super) struct Replicating(Option<(Supervisor, Held)>);

impl Replica {
    /// Looks for what is needed. A directory that cannot be written is an error; a program that is not there is a note.
    pub fn prepare(config: &ServerConfig, now: Wall) -> Result<Replica, Failure> {
        let site = Site::of(config.root.clone(), config.database.clone(), config.replica.clone());
        let Some(site) = site else { return Ok(Replica(None)) };
        check_writable(&site.replica)?;
        let (program, watch) = (Program::find(&site.replica), Watch::new(&site.replica.url, now));
        let wanted = Wanted { site, program, watch };
        if let Some(trouble) = wanted.missing() {
            wanted.watch.change(|state| {
                state.stage = Stage::Missing;
                state.trouble = trouble;
            });
        }
        Ok(Replica(Some(wanted)))
    }

    /// Who copies the WAL back.
    pub fn checkpoints(&self) -> Checkpoints {
        match &self.0 {
            Some(Wanted { program: Some(_), .. }) => Checkpoints::Elsewhere,
            _ => Checkpoints::Own,
        }
    }

    /// What is wrong, for the log; `status` has it with the rest of the replica.
    pub fn note(&self) -> Option<String> {
        self.0.as_ref().and_then(Wanted::missing)
    }

    /// Where its state is shown.
    pub fn watch(&self) -> Option<Watch> {
        self.0.as_ref().map(|wanted| wanted.watch.clone())
    }

    /// Starts the thread.
    pub fn start(
        self,
        identity: Identity,
        take_over: bool,
        gauges: Gauges,
        clock: &Clock,
        logger: Logger,
    ) -> Result<Replicating, Failure> {
        let Some(Wanted { site, program: Some(program), watch }) = self.0 else { return Ok(Replicating(None)) };
        let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
        let held = Held::open(&site.database).map_err(|error| failed(&error))?;
        let start = Start { site, identity, program, take_over, gauges, watch, clock: clock.clone(), logger };
        let supervisor = Supervisor::start(start).map_err(|error| failed(&error))?;
        Ok(Replicating(Some((supervisor, held))))
    }
}

impl Wanted {
    fn missing(&self) -> Option<String> {
        let text = "`backup.url` is set and `litestream` is not in PATH: nothing is replicated; install it from \
                    https://litestream.io and restart";
        self.program.is_none().then(|| text.to_string())
    }
}

impl Replicating {
    /// After the last write: waits until the replica has it, with the database held open meanwhile.
    pub fn stop(self) {
        if let Some((supervisor, held)) = self.0 {
            supervisor.stop();
            drop(held);
        }
    }
}
