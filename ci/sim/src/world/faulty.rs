//! Faults happen.

use super::*;

impl World {
    pub(crate) fn fault(&mut self, fault: Fault) {
        let Fault { kind, host, begins } = fault;
        if self.healing && begins {
            return;
        }
        if begins {
            self.trace(|| format!("fault {kind:?} host {host}"));
        }
        let mut happened = begins;
        match kind {
            Kind::Drop => {
                let conns: Vec<ConnId> = self.net.conns.keys().copied().collect();
                happened = !conns.is_empty();
                if happened {
                    let at = self.rng.below(conns.len() as u64) as usize;
                    self.break_conn(conns[at]);
                }
            }
            Kind::Delay => self.hosts[host].slow = begins,
            Kind::Partition => {
                self.hosts[host].partitioned = begins;
                if begins {
                    self.net.of_host(host).into_iter().for_each(|conn| self.break_conn(conn));
                }
            }
            Kind::AgentCrash => self.hosts[host].crash_in = Some(self.rng.below(15)),
            Kind::Renewal => {
                happened = self.hosts[host].agent.is_some();
                let config = Box::new(self.hosts[host].config());
                self.agent_event(host, AgentEvent::Signal(Signal::Renew(config)));
            }
            Kind::Reboot => {
                happened = self.hosts[host].agent.is_some();
                if happened {
                    self.kill_agent(host, true);
                }
            }
            Kind::ServerCrash => self.site.crash_in = Some(self.rng.below(40)),
            Kind::LostAcknowledgement => {
                happened = false;
                if self.rng.below(4) == 0 { self.site.lose_ack = true } else { self.hosts[host].lose_ack = true }
            }
            Kind::AgentDiskFull => self.hosts[host].disk_full = begins,
            Kind::ServerDiskFull => self.site.disk_full = begins,
            Kind::ClockJump => {
                let years = self.rng.below(140) as i64 - 70;
                self.hosts[host].wall_offset = years * 31_557_600_000;
            }
            Kind::Restore | Kind::SilentRestore => happened = self.restore(kind),
            Kind::SlotDamage => happened = self.damage_slot(host),
            Kind::Publish => {
                self.versions += 1;
                let version = self.versions;
                self.publish(version);
            }
            Kind::Unpublished => {
                if begins {
                    self.site.live = None;
                    self.crash_server(true);
                } else if !self.healing {
                    let version = self.versions;
                    self.publish(version);
                }
            }
            Kind::TinyQueue | Kind::LateEnroll | Kind::Overload => {}
        }
        if happened {
            self.outcome.happened.insert(kind);
        }
    }

    /// First the copy is taken; ten minutes later it replaces the database.
    pub(crate) fn restore(&mut self, kind: Kind) -> bool {
        let Some(older) = self.site.older.take() else {
            self.site.older = Some(self.site.store.clone());
            let later = self.now + 60_000 + self.rng.below(600_000);
            self.agenda.at(later, What::Fault(Fault { kind, host: 0, begins: true }));
            return false;
        };
        self.crash_server(true);
        self.site.store = older;
        self.site.was_restored = true;
        if kind == Kind::Restore {
            self.site.restored = Some("the operator restored a backup".into());
        }
        true
    }

    /// The process dies, and a byte of what it had cached changes.
    pub(crate) fn damage_slot(&mut self, index: usize) -> bool {
        if self.hosts[index].agent.is_none() {
            return false;
        }
        self.kill_agent(index, false);
        let Ok(loaded) = self.hosts[index].cache.load() else { return false };
        let Some((mut assignment, mut bundle)) = loaded.current else { return false };
        let target = if self.rng.below(2) == 0 { &mut assignment } else { &mut bundle };
        let mut bytes = target.payload.to_vec();
        if bytes.is_empty() {
            return false;
        }
        let at = self.rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.rng.below(8);
        target.payload = bytes.into();
        if self.config.bug == Some(Bug::AcceptUnverified) {
            let key = self.site.policy_key();
            bundle.signature = key.sign(Context::Bundle, &bundle.payload).to_vec();
            self.rename_bundle(&mut assignment, &bundle);
        }
        // A damaged current value beside the intact previous one: a put shifts, so the previous one goes first.
        if let Some((older, its_bundle)) = loaded.previous {
            let put = StoreOp::PutSlot { assignment: older, bundle: Some(its_bundle) };
            let _ = self.hosts[index].cache.commit(&[put]);
        }
        let put = StoreOp::PutSlot { assignment, bundle: Some(bundle) };
        let _ = self.hosts[index].cache.commit(&[put]);
        true
    }
}
