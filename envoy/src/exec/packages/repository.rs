//! `repository`: the manager of the host gets packages from a place, with the key that signs them, or does not. Everything is
//! in files: what follows from them is fetched when a package is to be installed.

use super::{fetch, session};
use crate::exec::contract::{Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::files::blockinfile::Block;
use crate::exec::files::edit::Edited;
use crate::exec::files::file;
use crate::exec::files::ini::Setting;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::system::parts::{Folder, Parts};
use crate::exec::tool::Tool;
use crate::plan::{Task, Verdict};
use common::time::Mono;

/// Settles one `repository`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Repository::read(host, task), host, task)
}

struct Repository<'t> {
    parts: Parts<'t>,
    /// A key that rpm has to be told of: zypper does not take it from the repository without a question.
    import: Option<String>,
    deadline: Mono,
}

/// What the files say.
struct Entry {
    id: String,
    present: bool,
    enabled: bool,
    verify: bool,
    url: String,
    suites: Vec<String>,
    components: Vec<String>,
    architectures: Vec<String>,
    list: bool,
    key: Option<String>,
}

impl<'t> Repository<'t> {
    fn read(host: &mut Host, task: &'t Task<'t>) -> Result<Repository<'t>, Fault> {
        let reader = Reader::of(task)?;
        let manager = session::manager(host, reader.text("manager").as_deref())?;
        let mut entry = Entry {
            id: reader.path("repository").into_owned(),
            present: reader.is("state", "present", "present"),
            enabled: reader.given_truth("enabled").unwrap_or(true),
            verify: reader.given_truth("verify").unwrap_or(true),
            url: reader.path("url").into_owned(),
            suites: reader.texts("suites"),
            components: reader.texts("components"),
            architectures: reader.texts("architectures"),
            list: reader.is("format", "list", "deb822"),
            key: key(host, task, &reader)?,
        };
        let for_apt = !entry.suites.is_empty() || !entry.components.is_empty() || !entry.architectures.is_empty();
        if for_apt && manager.name() != "apt" {
            let message = "`suites`, `components` and `architectures` go with apt only; put them into the `url`";
            return Err(Fault::Parameter(message.to_string()));
        }
        let parts = match manager.name() {
            "apt" => {
                entry.complete(host)?;
                entry.apt(task)
            }
            "zypper" => entry.rpm(task, "/etc/zypp/repos.d", "autorefresh=1\ntype=rpm-md\n"),
            "apk" => entry.apk(task),
            "pacman" => entry.pacman()?,
            "opkg" => entry.opkg()?,
            _ => entry.rpm(task, "/etc/yum.repos.d", ""),
        };
        let import = entry.key.filter(|_| manager.name() == "zypper" && entry.present);
        Ok(Repository { parts, import, deadline: task.deadline })
    }
}

/// The key, as text.
fn key(host: &Host, task: &Task<'_>, reader: &Reader<'_>) -> Result<Option<String>, Fault> {
    let Some(source) = reader.text("source") else {
        return Ok(reader.text("key").map(|text| text.trim().to_string() + "\n"));
    };
    let missing = || Fault::Parameter(format!("the bundle does not carry `{source}`: publish again"));
    let bytes = host.read_blob(task.blob.ok_or_else(missing)?)?;
    let binary = |_| Fault::Failed(format!("{source} is no text: export the key with `gpg --armor`"));
    String::from_utf8(bytes).map(Some).map_err(binary)
}

impl Entry {
    /// Suites and components that Debian's own repositories have.
    fn complete(&mut self, host: &Host) -> Result<(), Fault> {
        if self.suites.is_empty() {
            let codename = host.trait_text("os", "codename").filter(|_| self.present);
            let unknown = || Fault::Parameter("`suites` is needed: the codename of this host is not known".to_string());
            self.suites = vec![if self.present { codename.ok_or_else(unknown)? } else { String::new() }];
        }
        let flat = self.suites.iter().any(|suite| suite.ends_with('/'));
        if flat && !self.components.is_empty() {
            let message = "a suite that ends with `/` is a directory of packages and has no `components`";
            return Err(Fault::Parameter(message.to_string()));
        }
        if !flat && self.components.is_empty() {
            self.components = vec!["main".to_string()];
        }
        Ok(())
    }

    fn header(&self) -> String {
        format!("# {}: written by Vigo, changes are undone\n", self.id)
    }

    /// A file of its own, or none.
    fn file<'t>(&self, path: &str, text: Option<String>, task: &'t Task<'t>) -> file::Wanted<'t> {
        file::Wanted::owned(path.to_string(), text.filter(|_| self.present), task)
    }

    fn apt<'t>(&self, task: &'t Task<'t>) -> Parts<'t> {
        // The name says how it is written: apt takes a key in text by its suffix.
        let keyring = format!("/etc/apt/keyrings/{}.asc", self.id);
        let signed = self.key.as_ref().map(|_| keyring.as_str());
        let folder = "/etc/apt/sources.list.d";
        let (list, sources) = (format!("{folder}/{}.list", self.id), format!("{folder}/{}.sources", self.id));
        let text = if self.list { self.line(signed) } else { self.deb822(signed) };
        // Never both: apt would warn that it has everything twice.
        let (text_list, text_sources) = if self.list { (Some(text), None) } else { (None, Some(text)) };
        let keeps = self.present && self.key.is_some();
        Parts::default()
            .with_if(keeps, "/etc/apt/keyrings", Folder("/etc/apt/keyrings".to_string()))
            .with(keyring.clone(), self.file(&keyring, self.key.clone(), task))
            .with(list.clone(), self.file(&list, text_list, task))
            .with(sources.clone(), self.file(&sources, text_sources, task))
    }

    fn deb822(&self, signed: Option<&str>) -> String {
        let mut text = self.header();
        let mut field = |name: &str, values: &str| text.push_str(&format!("{name}: {values}\n"));
        field("Types", "deb");
        field("URIs", &self.url);
        field("Suites", &self.suites.join(" "));
        for (name, values) in [("Components", &self.components), ("Architectures", &self.architectures)] {
            if !values.is_empty() {
                field(name, &values.join(" "));
            }
        }
        if let Some(path) = signed {
            field("Signed-By", path);
        }
        if !self.verify {
            field("Trusted", "yes");
        }
        if !self.enabled {
            field("Enabled", "no");
        }
        text
    }

    fn line(&self, signed: Option<&str>) -> String {
        let mut options = Vec::new();
        if !self.architectures.is_empty() {
            options.push(format!("arch={}", self.architectures.join(",")));
        }
        options.extend(signed.map(|path| format!("signed-by={path}")));
        if !self.verify {
            options.push("trusted=yes".to_string());
        }
        let options = if options.is_empty() { String::new() } else { format!("[{}] ", options.join(" ")) };
        let mark = if self.enabled { "" } else { "# " };
        let line = |suite: &String| {
            format!("{mark}deb {options}{} {suite} {}", self.url, self.components.join(" ")).trim_end().to_string()
                + "\n"
        };
        self.header() + &self.suites.iter().map(line).collect::<String>()
    }

    fn rpm_key(&self) -> String {
        format!("/etc/pki/rpm-gpg/RPM-GPG-KEY-{}", self.id)
    }

    fn rpm<'t>(&self, task: &'t Task<'t>, folder: &str, more: &str) -> Parts<'t> {
        let (path, key) = (format!("{folder}/{}.repo", self.id), self.rpm_key());
        let (id, url, bit) = (&self.id, &self.url, |truth: bool| u8::from(truth));
        let signed = self.key.as_ref().map_or_else(String::new, |_| format!("gpgkey=file://{key}\n"));
        let text = format!(
            "{}[{id}]\nname={id}\nbaseurl={url}\nenabled={}\ngpgcheck={}\n{signed}{more}",
            self.header(),
            bit(self.enabled),
            bit(self.verify)
        );
        let keeps = self.present && self.key.is_some();
        Parts::default()
            .with_if(keeps, "/etc/pki", Folder("/etc/pki".to_string()))
            .with_if(keeps, "/etc/pki/rpm-gpg", Folder("/etc/pki/rpm-gpg".to_string()))
            .with(key.clone(), self.file(&key, self.key.clone(), task))
            .with(path.clone(), self.file(&path, Some(text), task))
    }

    /// Marked lines in a file that others write too.
    fn block<'t>(&self, path: &'static str, line: String) -> Edited<'t, Block> {
        let lines = (self.present && self.enabled).then(|| vec![line]);
        Edited::new(path.into(), Block::new(&format!("# {{mark}} vigo {}", self.id), lines))
    }

    fn apk<'t>(&self, task: &'t Task<'t>) -> Parts<'t> {
        let key = format!("/etc/apk/keys/{}.rsa.pub", self.id);
        Parts::default()
            .with(key.clone(), self.file(&key, self.key.clone(), task))
            .with("/etc/apk/repositories", self.block("/etc/apk/repositories", self.url.clone()))
    }

    fn opkg<'t>(&self) -> Result<Parts<'t>, Fault> {
        self.refuse_key("opkg finds keys by their fingerprint: put it below /etc/opkg/keys with a `file`")?;
        let line = format!("src/gz {} {}", self.id, self.url);
        Ok(Parts::default().with("/etc/opkg/customfeeds.conf", self.block("/etc/opkg/customfeeds.conf", line)))
    }

    fn pacman<'t>(&self) -> Result<Parts<'t>, Fault> {
        self.refuse_key("pacman keeps keys in a ring of its own: add it by `pacman-key` with an `exec`")?;
        const FILE: &str = "/etc/pacman.conf";
        let level = if self.verify { "Required DatabaseOptional" } else { "Never" };
        let setting = |key: Option<&str>, value: &str| Setting {
            present: key.is_some(),
            section: Some(self.id.clone()),
            key: key.map(str::to_string),
            value: key.map(|_| value.to_string()),
            spaces: None,
        };
        let edited = |setting| Edited::new(FILE.into(), setting);
        if !self.present || !self.enabled {
            return Ok(Parts::default().with(FILE, edited(setting(None, ""))));
        }
        Ok(Parts::default()
            .with(FILE, edited(setting(Some("SigLevel"), level)))
            .with(FILE, edited(setting(Some("Server"), &self.url))))
    }

    fn refuse_key(&self, instead: &str) -> Result<(), Fault> {
        match self.key {
            Some(_) => Err(Fault::Parameter(format!("`key` and `source` do not work here: {instead}"))),
            None => Ok(()),
        }
    }
}

impl Repository<'_> {
    fn tell_rpm(&self, host: &mut Host) -> Result<(), Fault> {
        let Some(key) = &self.import else { return Ok(()) };
        let work = fetch::make(host, "key.asc")?;
        let file = work.file.display().to_string();
        std::fs::write(&work.file, key).map_err(Fault::io("write", &file))?;
        let root = session::root_of(host).map(|root| format!("--root={root}"));
        let args: Vec<&str> = root.iter().map(String::as_str).chain(["--import", &file]).collect();
        Tool::need(host, "rpm")?.run(host, &args, self.deadline).map(|_| ())
    }
}

impl Statement for Repository<'_> {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        self.parts.probe(host, diff)
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        // First: once the files are as they should be, nobody would know that rpm was never told.
        self.tell_rpm(host)?;
        let done = self.parts.converge(host);
        host.packages.outdate();
        done
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        self.parts.spare_self(host)
    }
}
