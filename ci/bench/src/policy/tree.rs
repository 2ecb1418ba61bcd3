//! A policy as a large site has it: nested directories, roles, files of variables, environments, templates. The same numbers give
//! the same bytes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Top directories below `configcrates/`.
const AREAS: usize = 20;
/// Directories below `envoys/`, and in each of them.
const REGIONS: usize = 10;
/// Mappings of one file.
const PER_FILE: usize = 50;
/// Crates that a mapping names itself; roles and directories add to them.
const OWN_CRATES: usize = 3;
const ROLES: usize = 100;
const VARS_FILES: usize = 20;
const TEMPLATES: usize = 100;
const ENVIRONMENTS: [&str; 4] = ["production", "staging", "testing", "laboratory"];

/// How large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Configcrates, of ten resources each.
    pub crates: usize,
    /// Envoy mappings.
    pub mappings: usize,
}

impl Size {
    /// All files, as path below `stacks/` and text.
    pub fn files(self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = (0..self.crates).map(|n| (self.crate_path(n), crate_text(n))).collect();
        all.extend((0..ROLES).map(|n| (format!("roles/role-{n:03}.vgo"), self.role(n))));
        all.extend((0..VARS_FILES).map(|n| (format!("vars/shared/set-{n:02}.vgo"), vars_file(n))));
        all.extend((0..TEMPLATES).map(|n| (format!("templates/etc/service-{n:03}.conf"), template(n))));
        all.push(("files/motd".into(), "kept by Vigo\n".into()));
        all.push(("environments.vgo".into(), environments()));
        all.push(("envoys/common.vgo".into(), "configcrates: [crate-0000]\nvars: {site: none, zone: none}\n".into()));
        for region in 0..REGIONS {
            let text = format!("vars: {{zone: region-{region}, dns: [10.{region}.0.53, 10.{region}.1.53]}}\n");
            all.push((format!("envoys/region-{region}/common.vgo"), text));
        }
        let n_files = self.mappings.div_ceil(PER_FILE);
        all.extend((0..n_files).map(|file| (self.mapping_path(file * PER_FILE), self.mapping_file(file))));
        all
    }

    /// Writes all of them below a directory. How many bytes they have.
    pub fn write(self, stacks: &Path) -> Result<u64, String> {
        let mut n_bytes = 0;
        for (path, text) in self.files() {
            n_bytes += text.len() as u64;
            put(&stacks.join(path), &text)?;
        }
        Ok(n_bytes)
    }

    /// The file of a configcrate.
    pub fn crate_path(self, n: usize) -> String {
        format!("configcrates/area-{:02}/group-{}/crate-{n:04}.vgo", n % AREAS, n / AREAS % 5)
    }

    /// The file of a mapping.
    pub fn mapping_path(self, mapping: usize) -> String {
        let file = mapping / PER_FILE;
        format!("envoys/region-{}/site-{}/hosts-{file:03}.vgo", file % REGIONS, file / REGIONS % REGIONS)
    }

    /// A host that a mapping matches, and no other mapping does.
    pub fn host(self, mapping: usize) -> String {
        format!("node-00{mapping:04}.fleet.example")
    }

    fn some_crate(self, n: usize) -> String {
        // The first is everybody's.
        format!("crate-{:04}", 1 + n % (self.crates - 1))
    }

    fn role(self, n: usize) -> String {
        let crates = [self.some_crate(n * 10), self.some_crate(n * 10 + 1)].join(", ");
        format!("name: role-{n:03}\nconfigcrates: [{crates}]\nvars: {{workers: {}, role: role-{n:03}}}\n", n % 16 + 1)
    }

    fn mapping_file(self, file: usize) -> String {
        let mut text = String::from("# Hosts of one site.\nenvoys:\n");
        for n in file * PER_FILE..self.mappings.min((file + 1) * PER_FILE) {
            let crates: Vec<String> = (0..OWN_CRATES).map(|k| self.some_crate(n * 7 + k * 131 + 50)).collect();
            let environment = ENVIRONMENTS[n % ENVIRONMENTS.len()];
            let _ = write!(
                text,
                "  - match: \"node-*{n:04}.fleet.example\"\n    environment: {environment}\n    roles: [role-{:03}]\n    \
                 configcrates: [{}]\n    vars: {{site: site-{n}, port: {}}}\n",
                n % ROLES,
                crates.join(", "),
                n % 60_000
            );
        }
        text
    }
}

/// One configcrate: variables, two templates of its own, a file of the tree, dependencies, notifications, a loop, a condition.
fn crate_text(n: usize) -> String {
    let mut text = format!(
        "# What service {n} needs.\nname: crate-{n:04}\nvars: {{port: {n}, workers: 2, people: [ann, bob], names: [a, b, c]}}\n\
         vars_files: [shared/set-{:02}]\ndefaults: {{mode: \"0644\", owner: root}}\nresources:\n",
        n % VARS_FILES
    );
    let mut add = |one: &str| text.push_str(one);
    add(&format!("  - name: pkg\n    type: package\n    package: service-{n}\n    state: present\n"));
    add(&format!("  - name: dir\n    type: directory\n    target_path: /etc/service-{n}\n    mode: \"0755\"\n"));
    add(&format!(
        "  - name: main\n    type: file\n    target_path: /etc/service-{n}/main.conf\n    content: |\n      # kept by Vigo\n      \
         listen {{{{ vars.port }}}}\n      site {{{{ vars.site }}}} on {{{{ traits.network.hostname }}}}\n      \
         workers {{{{ vars.workers }}}}\n    depends_on: [pkg, dir]\n    notify: [svc]\n"
    ));
    for k in 0..3 {
        add(&format!(
            "  - name: part-{k}\n    type: file\n    target_path: /etc/service-{n}/part-{k}.conf\n    content: \"part {k} of service {n}\\n\"\n    \
             when: \"traits.os.arch == 'x86_64' or vars.names | length > {k}\"\n    depends_on: [dir]\n    notify: [svc]\n"
        ));
    }
    let template = n % TEMPLATES;
    add(&format!(
        "  - name: rendered\n    type: file\n    target_path: /etc/service-{n}/rendered.conf\n    source: templates/etc/service-{template:03}.conf\n    \
         depends_on: [dir]\n"
    ));
    add(&format!("  - name: motd\n    type: file\n    target_path: /etc/service-{n}/motd\n    source: files/motd\n"));
    add(
        "  - name: \"user-{{ item }}\"\n    type: user\n    foreach: \"{{ vars.people }}\"\n    username: \"{{ item }}\"\n    state: present\n",
    );
    add(&format!(
        "  - name: svc\n    type: service\n    service: service-{n}\n    state: running\n    enabled: true\n"
    ));
    text
}

fn vars_file(n: usize) -> String {
    let vars: String = (0..10).map(|k| format!("  shared_{n}_{k}: value-{k}\n")).collect();
    format!("vars:\n  metrics_port: {}\n{vars}", 9_100 + n)
}

fn template(n: usize) -> String {
    let lines: String = (0..10).map(|k| format!("option-{k} = {n}\n")).collect();
    format!(
        "# template {n}\nmetrics = {{{{ vars.metrics_port }}}}\nzone = {{{{ vars.zone }}}}\n\
         {{% for name in vars.names %}}name = {{{{ name }}}}\n{{% endfor %}}{lines}"
    )
}

fn environments() -> String {
    let one =
        |(n, name): (usize, &&str)| format!("  {name}:\n    vars: {{log_level: level-{n}, environment: {name}}}\n");
    format!("environments:\n{}", ENVIRONMENTS.iter().enumerate().map(one).collect::<String>())
}

/// Writes a file and the directories that lead to it.
pub fn put(path: &Path, text: &str) -> Result<(), String> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, text)).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_compiles_and_each_host_has_the_mapping_that_is_meant() {
        let size = Size { crates: 60, mappings: 120 };
        let compiled = vigosrv::policy::compile(&size.files().into_iter().collect());
        let compiled = compiled.unwrap_or_else(|errors| panic!("{}", common::yaml::render(&errors)));
        assert_eq!(compiled.mappings().len(), 120);
        for n in [0, 49, 50, 119] {
            let id = compiled.mapping_for(&size.host(n)).unwrap();
            let place = &compiled.mappings()[id.0 as usize].place;
            assert!(place.starts_with(&size.mapping_path(n)), "{n}: {place}");
        }
        assert_eq!(size.files(), size.files());
    }
}
