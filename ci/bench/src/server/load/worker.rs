//! The worker's side: reads jobs, does them, says what became of them.

use std::io::{BufRead, Write};

use super::{Depth, Engine, Job, Tally};

/// Reads lines `PORT FIRST COUNT` (once), then `JOB ARGUMENTS N`, and answers each job with a [`Tally`] in one line. Ends
/// with its input.
pub fn work(input: impl BufRead, mut output: impl Write) -> Result<(), String> {
    let mut lines = input.lines().map_while(Result::ok);
    let begin = lines.next().unwrap_or_default();
    let [port, first, count] = numbers(begin.split(' '))?;
    let port = u16::try_from(port).map_err(|error| error.to_string())?;
    let envoys = first as u32..(first + count) as u32;
    let mut engine = Engine::new(port, envoys).map_err(|error| error.to_string())?;
    for line in lines {
        let tally = match line.as_str() {
            "close" => {
                engine.close();
                Tally::default()
            }
            line => {
                let (job, n) = parse(line)?;
                engine.run(job, n).map_err(|error| error.to_string())?
            }
        };
        writeln!(output, "{}", tally.to_line()).and_then(|()| output.flush()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

impl Job {
    /// As a line for a worker's first `n` envoys.
    pub(super) fn to_line(self, n: usize) -> String {
        match self {
            Job::Connect(depth) => format!("connect {} {n}", depth as u64),
            Job::Busy(ms) => format!("busy {ms} {n}"),
            Job::Rounds(each) => format!("rounds {each} {n}"),
            Job::Again { depth, fresh, ms } => format!("again {} {} {ms} {n}", depth as u64, u64::from(fresh)),
            Job::Drain { each, batch } => format!("drain {each} {batch} {n}"),
        }
    }
}

impl Tally {
    fn to_line(&self) -> String {
        let Tally { done, resumed, ms, put_off, answer_bytes, wrong, why } = self;
        format!("{done} {resumed} {ms} {put_off} {answer_bytes} {wrong} {}", why.replace('\n', " "))
    }

    pub(super) fn from_line(line: &str) -> Result<Tally, String> {
        let mut parts = line.splitn(7, ' ');
        let [done, resumed, ms, put_off, answer_bytes, wrong] = numbers(parts.by_ref().take(6))?;
        let why = parts.next().unwrap_or_default().trim_end().to_string();
        Ok(Tally { done, resumed, ms, put_off, answer_bytes, wrong, why })
    }
}

fn parse(line: &str) -> Result<(Job, usize), String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.split(' ');
    Ok(match word {
        "connect" => numbers(rest).and_then(|[at, n]| Ok((Job::Connect(depth(at)?), n as usize)))?,
        "busy" => numbers(rest).map(|[ms, n]| (Job::Busy(ms), n as usize))?,
        "rounds" => numbers(rest).map(|[each, n]| (Job::Rounds(each), n as usize))?,
        "again" => numbers(rest)
            .and_then(|[at, fresh, ms, n]| Ok((Job::Again { depth: depth(at)?, fresh: fresh != 0, ms }, n as usize)))?,
        "drain" => numbers(rest).map(|[each, batch, n]| (Job::Drain { each, batch }, n as usize))?,
        _ => return Err(format!("no such job: {line:?}")),
    })
}

fn depth(n: u64) -> Result<Depth, String> {
    let all = [Depth::Connect, Depth::OneCall, Depth::CheckIn, Depth::Held];
    all.into_iter().find(|depth| *depth as u64 == n).ok_or_else(|| format!("no such depth: {n}"))
}

fn numbers<'a, const N: usize>(parts: impl Iterator<Item = &'a str>) -> Result<[u64; N], String> {
    let found: Result<Vec<u64>, _> = parts.map(str::parse).collect();
    found.ok().and_then(|found| found.try_into().ok()).ok_or_else(|| format!("expected {N} numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_survives_its_line() {
        let again = Job::Again { depth: Depth::CheckIn, fresh: true, ms: 5 };
        for job in [Job::Connect(Depth::Held), Job::Busy(9), Job::Rounds(50), again, Job::Drain { each: 40, batch: 20 }]
        {
            assert_eq!(parse(&job.to_line(7)), Ok((job, 7)));
        }
        assert!(parse("connect 9 1").is_err() && parse("dance 1").is_err() && parse("busy x 1").is_err());
    }

    #[test]
    fn a_tally_survives_its_line() {
        let tally =
            Tally { done: 1, resumed: 2, ms: 3, put_off: 4, answer_bytes: 5, wrong: 6, why: "two words".into() };
        assert_eq!(Tally::from_line(&tally.to_line()), Ok(tally));
        assert_eq!(Tally::from_line("0 0 0 0 0 0 "), Ok(Tally::default()));
        assert!(Tally::from_line("0 0 0").is_err());
    }
}
