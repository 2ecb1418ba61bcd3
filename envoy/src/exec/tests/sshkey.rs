use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, text};
use super::suite::{Subject, check_all_but_default};

const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4g";

#[test]
fn sshkey_keeps_the_contract() {
    check_all_but_default(&Subject {
        kind: "sshkey",
        params: vec![("host", text("git.example")), ("key", text(&format!("{A} comment")))],
        holds: |x| {
            fs::read_to_string(x)
                .unwrap()
                .lines()
                .filter(|line| line.contains("git.example"))
                .eq([format!("git.example {A}")])
        },
        wrong: vec![
            ("empty", |x| fs::write(x, "").unwrap()),
            ("other key", |x| fs::write(x, format!("git.example {B}\n")).unwrap()),
            ("one of several", |x| fs::write(x, format!("git.example,x {B}")).unwrap()),
            ("two keys", |x| fs::write(x, format!("git.example {A}\ngit.example {B}\n")).unwrap()),
        ],
        refused: vec![
            ("directory", |x| fs::create_dir(x).unwrap(), "a directory"),
            ("link", |x| symlink("/etc/passwd", x).unwrap(), "a symbolic link"),
            ("huge and sparse", |x| fs::File::create(x).unwrap().set_len(1 << 40).unwrap(), "are not managed"),
        ],
        absent: vec![("host", text("git.example"))],
    });
}

#[test]
fn the_file_of_all_users_is_meant_where_none_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write("/etc/ssh/ssh_known_hosts", &format!("# by hand\n@cert-authority * {B}\n"));
    let hosts = Value::List(vec![text("git.example"), text("[git.example]:2222"), text("2001:db8::1")]);
    let asked: Params = vec![("host", hosts), ("key", text(A))];
    sandbox.expect("sshkey", &asked, Changed);
    sandbox.expect("sshkey", &asked, Fine);
    let expected = format!("# by hand\n@cert-authority * {B}\ngit.example,[git.example]:2222,2001:db8::1 {A}\n");
    assert_eq!(sandbox.read("/etc/ssh/ssh_known_hosts"), expected);
}

#[test]
fn bad_hosts_and_keys_are_named() {
    let sandbox = Sandbox::new();
    for (params, expected) in [
        (vec![("host", text("h"))], "needs the parameter `key`"),
        (vec![("key", text(A))], "needs the parameter `host`"),
        (vec![("host", text("h")), ("key", text("ssh-ed25519 AAAA"))], "a public key of OpenSSH"),
        (vec![("host", text("h")), ("key", text(&A.replace("ssh-ed25519", "ssh-rsa")))], "a public key of OpenSSH"),
        (vec![("host", text("h")), ("key", text(&format!("{A}\nevil {B}")))], "a public key of OpenSSH"),
        (vec![("host", text("h,i")), ("key", text(A))], "[HOST]:PORT"),
        (vec![("host", text("*\n@revoked")), ("key", text(A))], "[HOST]:PORT"),
    ] {
        let report = sandbox.expect("sshkey", &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
}
