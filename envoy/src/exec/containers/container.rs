//! `container`: a container of podman or docker exists as described, and runs or does not. What it was made of is kept as a hash in
//! a label: when the policy asks for something else, or the image was pulled anew, it is replaced. The new one is made
//! before the old one stops, and the old one comes back if the new one does not start.
//!
//! Values of variables reach the engine by its standard input: its arguments can be seen by every user of the host, and in its
//! own environment a `PATH` or a `DOCKER_HOST` that is meant for the container would lead the engine astray.

use common::bundle::Value;
use common::crypto::sha256;
use common::policy::params::text_of;

use crate::exec::contract::{Action, Drift, Statement, only_live, settle_read};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::tool::Tool;
use crate::plan::{Task, Verdict};
use crate::sys::child::{Ended, Finished};

/// Engines, the preferred one first.
const ENGINES: [&str; 2] = ["podman", "docker"];
/// Label with the hash of what the container was made of.
const LABEL: &str = "vigo.description";
/// What engines say where there is no such container or image.
const UNKNOWN: [&str; 4] = ["no such container", "no such image", "no such object", "image not known"];
/// What they say when not the policy is to blame.
const BLOCKED: [&str; 7] = [
    "cannot connect to the docker daemon",
    "is the docker daemon running",
    "i/o timeout",
    "connection refused",
    "no such host",
    "toomanyrequests",
    "tls handshake timeout",
];
/// Names of containers while they are replaced.
const NEW: &str = "vigo-new";
const OLD: &str = "vigo-old";

/// Settles one `container`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    if let Some(skipped) = only_live(host, "containers") {
        return skipped;
    }
    settle_read(Wanted::read(host, task), host, task)
}

struct Wanted<'t> {
    name: String,
    image: String,
    /// `None`: it should not exist.
    running: Option<bool>,
    /// Arguments of `create` after its name and label, without the image.
    options: Vec<String>,
    command: Vec<String>,
    /// Lines of names and values, for the standard input of `create`.
    variables: String,
    /// Of all of these.
    hash: String,
    always_pull: bool,
    pull: String,
    /// A notification is still to be answered.
    notified: bool,
    tool: Option<Tool>,
    task: &'t Task<'t>,
}

/// A container as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    running: bool,
    image: String,
    hash: String,
}

impl<'t> Wanted<'t> {
    fn read(host: &Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        let mut options = Vec::new();
        for (name, option) in
            [("restart", "--restart"), ("network", "--network"), ("user", "--user"), ("hostname", "--hostname")]
        {
            if let Some(value) = reader.text(name) {
                options.push(format!("{option}={value}"));
            }
        }
        for (name, option) in [("ports", "--publish"), ("volumes", "--volume")] {
            options.extend(reader.texts(name).into_iter().map(|value| format!("{option}={value}")));
        }
        if let Some(Value::Map(labels)) = reader.value("labels") {
            options.extend(
                labels.iter().map(|(key, value)| format!("--label={key}={}", text_of(value).unwrap_or_default())),
            );
        }
        options.extend(reader.texts("options"));
        let environment = reader.environment("environment");
        if let Some((name, _)) =
            environment.iter().find(|(name, value)| name.starts_with('#') || value.contains(['\n', '\r']))
        {
            return Err(Fault::Parameter(format!("`environment`: {name} must be a name and one line of text")));
        }
        if !environment.is_empty() {
            options.push("--env-file=/dev/stdin".to_string());
        }
        let (image, command) = (reader.text("image").unwrap_or_default().into_owned(), reader.texts("command"));
        let mut described = vec![image.as_bytes()];
        described.extend(options.iter().chain(&command).map(|text| text.as_bytes()));
        described.extend(environment.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
        // Lengths in front, so that no two lists look alike.
        let lengths: Vec<[u8; 8]> = described.iter().map(|text| (text.len() as u64).to_le_bytes()).collect();
        let counts = [options.len() as u64, command.len() as u64].map(u64::to_le_bytes);
        let parts: Vec<&[u8]> = counts
            .iter()
            .map(|count| &count[..])
            .chain(lengths.iter().zip(&described).flat_map(|(n, text)| [&n[..], *text]))
            .collect();
        let engine = reader.text("engine");
        let tool = match engine.as_deref() {
            Some("podman") => Tool::find(host, "podman"),
            Some("docker") => Tool::find(host, "docker"),
            _ => ENGINES.iter().find_map(|name| Tool::find(host, name)),
        };
        let variables = environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let pull = reader.text("pull").unwrap_or("missing".into()).into_owned();
        Ok(Wanted {
            name: reader.path("container").into_owned(),
            variables,
            hash: sha256(&parts).to_string(),
            running: match reader.text("state").as_deref() {
                Some("absent") => None,
                Some("stopped") => Some(false),
                _ => Some(true),
            },
            image,
            options,
            command,
            always_pull: pull == "always",
            pull,
            notified: task.forced,
            tool,
            task,
        })
    }

    fn ask(&self, host: &mut Host, args: &[&str], stdin: &str) -> Result<Finished, Fault> {
        let missing = || {
            Fault::Failed("neither podman nor docker, or not the engine that is asked for, is installed".to_string())
        };
        let tool = self.tool.as_ref().ok_or_else(missing)?;
        tool.ask(host, args, stdin, self.task.deadline)
    }

    fn call(&self, host: &mut Host, args: &[&str]) -> Result<String, Fault> {
        self.feed(host, args, "")
    }

    fn feed(&self, host: &mut Host, args: &[&str], stdin: &str) -> Result<String, Fault> {
        let done = self.ask(host, args, stdin)?;
        if done.ended == Ended::Exited(0) { Ok(done.stdout.text()) } else { Err(self.fault(&done)) }
    }

    fn fault(&self, done: &Finished) -> Fault {
        let fault = self.tool.as_ref().map_or(Fault::Failed(String::new()), |tool| tool.fault(done));
        match fault {
            Fault::Failed(message) if says(&message, &BLOCKED) => Fault::Blocked(message),
            fault => fault,
        }
    }

    /// What `inspect` says, or nothing where there is no such thing.
    fn inspect(&self, host: &mut Host, kind: &str, name: &str, format: &str) -> Result<Option<String>, Fault> {
        let done = self.ask(host, &[kind, "inspect", "--format", format, name], "")?;
        match done.ended {
            Ended::Exited(0) => Ok(Some(done.stdout.text().trim().to_string())),
            Ended::Exited(_) if says(&done.stderr.text(), &UNKNOWN) => Ok(None),
            _ => Err(self.fault(&done)),
        }
    }

    fn found(&self, host: &mut Host, name: &str) -> Result<Option<Found>, Fault> {
        let format = format!("{{{{.State.Running}}}} {{{{.Image}}}} {{{{index .Config.Labels \"{LABEL}\"}}}}");
        let Some(said) = self.inspect(host, "container", name, &format)? else { return Ok(None) };
        let mut words = said.split_ascii_whitespace();
        let mut word = || words.next().unwrap_or_default().to_string();
        let running = word() == "true";
        Ok(Some(Found { running, image: word(), hash: word() }))
    }

    /// What is wrong with what it is made of.
    fn differences(&self, host: &mut Host, found: &Found) -> Result<Vec<String>, Fault> {
        let mut details = Vec::new();
        if found.hash != self.hash {
            let own = found.hash.len() == self.hash.len();
            details.push(if own { "was made of something else" } else { "was made by somebody else" }.to_string());
        } else if let Some(image) = self.inspect(host, "image", &self.image, "{{.Id}}")?
            && bare(&image) != bare(&found.image)
        {
            details.push(format!("{} is another image now", self.image));
        }
        if self.notified && self.always_pull {
            details.push("a new image is looked for, as notified".to_string());
        }
        Ok(details)
    }

    fn create(&self, host: &mut Host, name: &str) -> Result<(), Fault> {
        let (named, label) = (format!("--name={name}"), format!("--label={LABEL}={}", self.hash));
        let pull = format!("--pull={}", self.pull);
        let args: Vec<&str> = ["create", &named, &label, &pull]
            .into_iter()
            .chain(self.options.iter().map(String::as_str))
            // What follows is no option, whatever it begins with.
            .chain(["--", self.image.as_str()])
            .chain(self.command.iter().map(String::as_str))
            .collect();
        self.feed(host, &args, &self.variables).map(|_| ())
    }

    fn remove(&self, host: &mut Host, name: &str) -> Result<(), Fault> {
        match self.call(host, &["rm", "--force", "--volumes=false", name]) {
            Err(Fault::Failed(message)) if says(&message, &UNKNOWN) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// Puts another one in its place, or the old one back.
    fn replace(&self, host: &mut Host, old: &Found) -> Result<(), Fault> {
        let (new, kept) = (format!("{}-{NEW}", self.name), format!("{}-{OLD}", self.name));
        // Rests of an agent that was killed.
        self.remove(host, &new)?;
        self.remove(host, &kept)?;
        // Most of what can go wrong goes wrong here, while the old one still runs.
        self.create(host, &new)?;
        let swapped = self.swap(host, old, &new, &kept);
        if let Err(fault) = swapped {
            // As it was, as far as possible; what went wrong first is the one to tell.
            if self.found(host, &kept)?.is_some() {
                let _ = self.remove(host, &self.name);
                let _ = self.call(host, &["rename", &kept, &self.name]);
            }
            let _ = self.remove(host, &new);
            if old.running {
                let _ = self.call(host, &["start", &self.name]);
            }
            return Err(fault);
        }
        self.remove(host, &kept)
    }

    fn swap(&self, host: &mut Host, old: &Found, new: &str, kept: &str) -> Result<(), Fault> {
        if old.running {
            self.call(host, &["stop", &self.name])?;
        }
        self.call(host, &["rename", &self.name, kept])?;
        self.call(host, &["rename", new, &self.name])?;
        if self.running == Some(true) { self.call(host, &["start", &self.name]).map(|_| ()) } else { Ok(()) }
    }
}

fn says(text: &str, words: &[&str]) -> bool {
    let text = text.to_lowercase();
    words.iter().any(|words| text.contains(words))
}

/// Docker writes `sha256:` in front of the number of an image, podman sometimes does.
fn bare(image: &str) -> &str {
    image.strip_prefix("sha256:").unwrap_or(image)
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        if self.tool.is_none() && !self.task.enforce {
            return Ok(Some(Drift::new(Action::Create, "no engine is installed yet")));
        }
        let found = self.found(host, &self.name)?;
        let (Some(running), Some(found)) = (self.running, &found) else {
            return Ok(match (self.running, found) {
                (None, Some(_)) => Some(Drift::new(Action::Remove, "")),
                (Some(_), None) => Some(Drift::new(Action::Create, format!("from {}", self.image))),
                _ => None,
            });
        };
        let mut details = self.differences(host, found)?;
        match (running, found.running) {
            (true, false) => details.push("was not running".to_string()),
            (false, true) => details.push("was running".to_string()),
            (true, true) if self.notified && details.is_empty() => details.push("restart, as notified".to_string()),
            _ => {}
        }
        Ok(Drift::change(details))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let found = self.found(host, &self.name)?;
        let notified = self.notified;
        let done = match (self.running, &found) {
            (None, _) => self.remove(host, &self.name),
            (Some(running), None) => {
                let rests = [NEW, OLD].map(|rest| format!("{}-{rest}", self.name));
                self.create(host, &self.name)?;
                for rest in &rests {
                    self.remove(host, rest)?;
                }
                if running { self.call(host, &["start", &self.name]).map(|_| ()) } else { Ok(()) }
            }
            (Some(running), Some(found)) => {
                if !self.differences(host, found)?.is_empty() {
                    self.replace(host, found)
                } else {
                    let word = match (running, found.running) {
                        (true, false) => "start",
                        (false, true) => "stop",
                        (true, true) if notified => "restart",
                        _ => return Ok(()),
                    };
                    self.call(host, &[word, &self.name]).map(|_| ())
                }
            }
        };
        self.notified = false;
        done
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        host.spare_agent(&self.name)
    }
}
