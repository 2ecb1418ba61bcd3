//! The contract of `firewall`. nftables is the real one, in a network namespace of the test's own (as root, where nft is); ufw is
//! played, because it would change the files of this machine.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::bundle::Value;
use common::ids::Uuid;
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, is_root, text};
use crate::exec::{Confirmations, Undo};

/// A network namespace, alive as long as a process in it.
struct Network(Child);

impl Network {
    fn new() -> Network {
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c", "echo ready; exec sleep 300"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Network(child)
    }

    fn nft(&self, args: &str) -> String {
        let line = format!("exec nsenter --net=/proc/{}/ns/net nft {args}", self.0.id());
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A sandbox whose kernel has a network of its own.
fn real() -> Option<(Sandbox, Network)> {
    let there = Command::new("nft").arg("--version").output().is_ok();
    if !is_root() || !there {
        eprintln!("not tested: needs root and nft");
        return None;
    }
    let network = Network::new();
    let mut sandbox = Sandbox::new();
    sandbox.live = true;
    let usual = std::env::var("PATH").unwrap();
    let enter = format!("PATH={usual}; exec nsenter --net=/proc/{}/ns/net nft \"$@\"", network.0.id());
    sandbox.fake_tool("nft", &enter);
    // Or the namespace for the question would be left again by the program above.
    sandbox.fake_tool("unshare", &format!("PATH={usual}; exec unshare \"$@\""));
    Some((sandbox, network))
}

pub fn rules(rules: &[&str], more: &[(&'static str, Value)]) -> Params {
    let rules = Value::List(rules.iter().map(|rule| text(rule)).collect());
    [("rules", rules)].into_iter().chain(more.iter().cloned()).collect()
}

#[test]
fn a_table_is_loaded_once_and_removed_again() {
    let Some((sandbox, network)) = real() else { return };
    let asked = rules(
        &["allow icmp", "allow 22/tcp from 10.0.0.0/8 on eth0", "reject 80,8000-8010/udp", "deny any from ::1"],
        &[],
    );
    let report = sandbox.look("firewall", &asked);
    assert_eq!((report.outcome, report.message.as_str()), (Changed, "would create: table inet vigo"));
    assert_eq!(network.nft("list ruleset"), "", "a dry run loads nothing");
    let report = sandbox.expect("firewall", &asked, Changed);
    assert!(report.diff.contains("+\t\tiifname \"eth0\" ip saddr 10.0.0.0/8 tcp dport 22 accept"), "{}", report.diff);
    let loaded = network.nft("-s list ruleset");
    assert!(loaded.contains("policy drop") && loaded.contains("udp dport { 80, 8000-8010 } reject"), "{loaded}");
    sandbox.expect("firewall", &asked, Fine);
    assert_eq!(network.nft("-s list ruleset"), loaded);
    sandbox.expect("firewall", &vec![("state", text("absent"))], Changed);
    assert_eq!(network.nft("list ruleset"), "");
    sandbox.expect("firewall", &vec![("state", text("absent"))], Fine);
}

#[test]
fn what_others_changed_is_found_and_put_right_and_their_tables_stay() {
    let Some((sandbox, network)) = real() else { return };
    network.nft("add table inet theirs");
    let asked = rules(&["allow 22/tcp"], &[("policy", text("accept"))]);
    sandbox.expect("firewall", &asked, Changed);
    let right = network.nft("-s list table inet vigo");
    for harm in [
        "add rule inet vigo input tcp dport 23 accept",
        "insert rule inet vigo input drop",
        "flush chain inet vigo input",
        "add chain inet vigo other",
        "chain inet vigo input '{ policy drop; }'",
        "delete table inet vigo",
    ] {
        network.nft(harm);
        let report = sandbox.expect("firewall", &asked, Changed);
        assert!(report.diff.contains("\n+") || report.diff.contains("\n-"), "{harm}: {}", report.diff);
        assert_eq!(network.nft("-s list table inet vigo"), right, "{harm}");
        sandbox.expect("firewall", &asked, Fine);
    }
    assert!(network.nft("list tables").contains("inet theirs"));
}

#[test]
fn the_order_of_rules_counters_and_more_chains_matter_as_they_should() {
    let Some((sandbox, network)) = real() else { return };
    let chains = "chain forward {\ntype filter hook forward priority 0; policy drop;\ncounter\n}";
    let asked = rules(&["allow 22/tcp", "deny 22/tcp"], &[("chains", text(chains)), ("table", text("mine"))]);
    sandbox.expect("firewall", &asked, Changed);
    sandbox.expect("firewall", &asked, Fine);
    assert!(network.nft("list table inet mine").contains("hook forward"));
    let turned = rules(&["deny 22/tcp", "allow 22/tcp"], &[("chains", text(chains)), ("table", text("mine"))]);
    sandbox.expect("firewall", &turned, Changed);
}

#[test]
fn rules_that_nftables_refuses_leave_the_old_ones() {
    let Some((sandbox, network)) = real() else { return };
    sandbox.expect("firewall", &rules(&["allow 22/tcp"], &[]), Changed);
    let before = network.nft("-s list ruleset");
    for chains in ["chain x { nonsense }", "}", "chain input { type filter hook input priority 0; policy maybe; }"] {
        let report = sandbox.expect("firewall", &rules(&["allow 22/tcp"], &[("chains", text(chains))]), Failed);
        assert!(report.message.contains("rror"), "{chains}: {}", report.message);
        assert_eq!(network.nft("-s list ruleset"), before, "{chains}");
    }
}

/// A server that answers before a change and not after it.
#[derive(Default)]
struct CutOff(AtomicBool);

impl Confirmations for CutOff {
    fn confirm(&self, _run_id: Uuid, _within_ms: u64) -> bool {
        !self.0.fetch_xor(true, Ordering::SeqCst)
    }
}

#[test]
fn rules_that_cut_the_host_off_are_rolled_back() {
    let Some((mut sandbox, network)) = real() else { return };
    let usual = std::env::var("PATH").unwrap();
    sandbox.search_path = sandbox.search_path.map(|tools| format!("{tools}:{usual}"));
    sandbox.undo =
        Some(Undo { dir: sandbox.at("/state/undo"), confirmations: Arc::new(CutOff::default()), own_config: None });
    let cut = |confirm: &str| rules(&["deny any"], &[("confirm", text(confirm))]);
    let report = sandbox.expect("firewall", &cut("20s"), Failed);
    assert!(report.message.starts_with("rolled back"), "{}", report.message);
    assert_eq!(network.nft("list ruleset").replace("table inet vigo {\n}\n", ""), "", "there was none");
    sandbox.expect("firewall", &rules(&["allow 22/tcp"], &[]), Changed);
    let before = network.nft("-s list ruleset");
    let report = sandbox.expect("firewall", &cut("21s"), Failed);
    assert!(report.message.starts_with("rolled back"), "{}", report.message);
    assert_eq!(network.nft("-s list ruleset"), before);
}

#[test]
fn rules_that_are_none_are_named_and_nothing_is_called() {
    let mut sandbox = Sandbox::new();
    sandbox.fake_tool("nft", "");
    sandbox.live = true;
    for rule in
        ["", "allow", "allow 22", "permit 22/tcp", "allow any; flush ruleset", "allow any on \"x\"", "allow 70000/tcp"]
    {
        let report = sandbox.expect("firewall", &rules(&[rule], &[]), Failed);
        assert!(report.message.contains("`rules` must be"), "{rule}: {}", report.message);
    }
    for (params, expected) in [
        (rules(&["allow 22/tcp"], &[("policy", text("deny"))]), "`policy` must be"),
        (rules(&["allow 22/tcp"], &[("table", text("x { }"))]), "`table` must be"),
        (rules(&["allow 22/tcp"], &[("rule", text("x"))]), "did you mean `rules`?"),
        (rules(&["allow 22/tcp"], &[("backend", text("ufw"))]), "`ufw` is not installed"),
    ] {
        let report = sandbox.expect("firewall", &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
    sandbox.live = false;
    let report = sandbox.expect("firewall", &rules(&["allow 22/tcp"], &[]), Failed);
    assert!(report.message.contains("in a sysroot there is none"), "{}", report.message);
    assert_eq!(sandbox.calls(), "");
}

#[test]
fn rules_of_ufw_that_cut_the_host_off_are_rolled_back() {
    let mut sandbox = Sandbox::new();
    sandbox.live = true;
    sandbox.fake_tool("ufw", UFW);
    // What a script is made of, and not the firewall of this machine.
    sandbox.search_path = sandbox.search_path.map(|tools| format!("{tools}:/usr/bin:/bin"));
    let confirmations = Arc::new(CutOff::default());
    sandbox.undo = Some(Undo { dir: sandbox.at("/state/undo"), confirmations, own_config: None });
    sandbox.write("/rules", "allow 9/tcp\n");
    sandbox.write("/etc/default/ufw", "DEFAULT_INPUT_POLICY=\"ACCEPT\"\n");
    let ufw = ("backend", text("ufw"));
    let confirmed = |all: &[&str], confirm: &str| rules(all, &[("confirm", text(confirm)), ufw.clone()]);
    // It was not in force at all, and is not afterwards.
    let report = sandbox.expect("firewall", &confirmed(&["deny 22/tcp"], "20s"), Failed);
    assert!(report.message.starts_with("rolled back"), "{}", report.message);
    assert_eq!((sandbox.read("/rules").as_str(), sandbox.at("/on").exists()), ("allow 9/tcp\n", false));
    assert_eq!(sandbox.read("/policy"), "allow\n");
    let open = [("policy", text("accept")), ufw.clone()];
    sandbox.expect("firewall", &rules(&["allow 22/tcp", "allow 80/tcp"], &open), Changed);
    let before = sandbox.read("/rules");
    for all in [&["deny 22/tcp"][..], &["allow 22/tcp"], &["deny 1/tcp", "allow 22/tcp", "allow 80/tcp"]] {
        let report = sandbox.expect("firewall", &confirmed(all, "21s"), Failed);
        assert!(report.message.starts_with("rolled back"), "{}", report.message);
        assert_eq!((sandbox.read("/rules"), sandbox.read("/policy").as_str()), (before.clone(), "allow\n"), "{all:?}");
        assert!(sandbox.at("/on").exists());
    }
}

/// Keeps its rules in a file, as it prints them.
const UFW: &str = r#"
case "$*" in
    'show added') echo 'Added user rules (see `ufw status` for running firewall):'; while IFS= read -r l; do echo "ufw $l"; done < $R/rules;;
    'status verbose') if [ -e $R/on ]; then echo 'Status: active'; read -r p < $R/policy; echo "Default: $p (incoming), allow (outgoing)"; else echo 'Status: inactive'; fi;;
    'default '*) echo $2 > $R/policy;;
    '--force enable') : > $R/on;;
    disable) rm $R/on;;
    '--force delete '*) shift 2; : > $R/new; while IFS= read -r l; do [ "$l" = "$* comment 'vigo'" ] || echo "$l" >> $R/new; done < $R/rules
        : > $R/rules; while IFS= read -r l; do echo "$l" >> $R/rules; done < $R/new;;
    *' comment vigo') line="$*"; echo "${line% comment vigo} comment 'vigo'" >> $R/rules;;
    *) exit 1;;
esac
"#;

#[test]
fn ufw_gets_our_rules_and_keeps_those_of_others() {
    let mut sandbox = Sandbox::new();
    sandbox.live = true;
    sandbox.fake_tool("ufw", UFW);
    sandbox.write("/rules", "allow 9/tcp\n");
    let asked = rules(&["allow icmp", "allow 22/tcp", "deny 25,100-110/tcp from 10.0.0.0/8 on eth0"], &[]);
    let before = sandbox.read("/rules");
    assert_eq!(sandbox.look("firewall", &asked).outcome, Changed);
    assert_eq!(sandbox.read("/rules"), before, "a dry run changes nothing");
    let report = sandbox.expect("firewall", &asked, Changed);
    assert!(report.diff.contains("+allow 22/tcp\n") && report.diff.contains("+enable"), "{}", report.diff);
    let ours = "allow 22/tcp comment 'vigo'\ndeny in on eth0 from 10.0.0.0/8 to any port 25,100:110 proto tcp comment 'vigo'\n";
    assert_eq!(sandbox.read("/rules"), format!("allow 9/tcp\n{ours}"));
    sandbox.expect("firewall", &asked, Fine);
    sandbox.write("/policy", "allow\n");
    let report = sandbox.expect("firewall", &asked, Changed);
    assert_eq!(report.message, "changed: default deny");
    sandbox.expect("firewall", &rules(&["allow 80/tcp", "allow 22/tcp"], &[]), Changed);
    assert_eq!(sandbox.read("/rules"), "allow 9/tcp\nallow 80/tcp comment 'vigo'\nallow 22/tcp comment 'vigo'\n");
    sandbox.expect("firewall", &vec![("state", text("absent"))], Changed);
    sandbox.expect("firewall", &vec![("state", text("absent"))], Fine);
    assert_eq!(sandbox.read("/rules"), "allow 9/tcp\n");
    let report = sandbox.expect("firewall", &rules(&["allow 1/tcp"], &[("chains", text("x"))]), Failed);
    assert!(report.message.contains("nftables only"), "{}", report.message);
}
