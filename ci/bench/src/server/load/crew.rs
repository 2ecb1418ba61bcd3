//! The parent's side: the worker processes of one target, told what to do and asked what became of it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Job, Tally};

/// Worker processes with envoys for one server.
pub struct Crew {
    workers: Vec<Worker>,
    each: usize,
}

struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Crew {
    /// Starts so many processes of this program, which share the first `envoys` of the fleet evenly.
    pub fn start(port: u16, processes: usize, envoys: usize) -> Result<Crew, String> {
        let each = envoys.div_ceil(processes);
        let workers = (0..processes).map(|n| Worker::start(port, n * each, each)).collect::<Result<_, _>>()?;
        Ok(Crew { workers, each })
    }

    /// Everybody does this, `n` envoys in all. What was done is added up; the time is that of the slowest.
    pub fn run(&mut self, job: Job, n: usize) -> Result<Tally, String> {
        let n = n.div_ceil(self.workers.len()).min(self.each);
        let mut total = Tally::default();
        for tally in self.ask(&job.to_line(n))? {
            total.done += tally.done;
            total.resumed += tally.resumed;
            total.put_off += tally.put_off;
            total.ms = total.ms.max(tally.ms);
            total.answer_bytes = total.answer_bytes.max(tally.answer_bytes);
            total.wrong += tally.wrong;
            if total.why.is_empty() {
                total.why = tally.why;
            }
        }
        if total.wrong > 0 {
            return Err(format!("{job:?}: {} of {} went wrong: {}", total.wrong, total.done + total.wrong, total.why));
        }
        Ok(total)
    }

    /// Everybody hangs up.
    pub fn close(&mut self) -> Result<(), String> {
        self.ask("close").map(drop)
    }

    fn ask(&mut self, line: &str) -> Result<Vec<Tally>, String> {
        self.workers.iter_mut().try_for_each(|worker| worker.tell(line))?;
        self.workers.iter_mut().map(Worker::hear).collect()
    }
}

impl Worker {
    fn start(port: u16, first: usize, count: usize) -> Result<Worker, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .arg("work")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("a worker of the load generator: {error}"))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a worker of the load generator has no pipes".into());
        };
        let mut worker = Worker { child, orders: Some(orders), answers: BufReader::new(answers) };
        worker.tell(&format!("{port} {first} {count}"))?;
        Ok(worker)
    }

    fn tell(&mut self, line: &str) -> Result<(), String> {
        let orders = self.orders.as_mut().ok_or("a worker of the load generator has ended")?;
        writeln!(orders, "{line}").map_err(|error| format!("a worker of the load generator: {error}"))
    }

    fn hear(&mut self) -> Result<Tally, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(n) if n > 0 => Tally::from_line(line.trim_end_matches('\n')),
            _ => Err("a worker of the load generator has ended; its message is above".into()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its input is the end of a worker.
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}
