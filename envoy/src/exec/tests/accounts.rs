use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use common::bundle::Value;
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, is_root, mode, text};

pub const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4g";

/// A root with the accounts of a small host. Tools of shadow-utils need root to enter it.
pub fn accounts() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nada:x:4001:4001:Ada:/home/ada:/bin/sh\n");
    sandbox.write("/etc/group", "root:x:0:\nwheel:x:10:root\nada:x:4001:\nextra:x:4100:ada\n");
    sandbox.write("/etc/shadow", "root:*:19000:0:99999:7:::\nada:$6$old$hash:19000:0:99999:7:::\n");
    fs::create_dir_all(sandbox.at("/home/ada")).unwrap();
    sandbox
}

/// The same, live, with the tools of BusyBox played by scripts.
pub fn busybox() -> Sandbox {
    let mut sandbox = accounts();
    sandbox.live = true;
    sandbox.fake_tool("addgroup", "echo \"$3:x:$2:\" >> $R/etc/group");
    sandbox.fake_tool("delgroup", "/bin/sed -i \"/^$1:/d\" $R/etc/group");
    sandbox.fake_tool(
        "adduser",
        "for last; do :; done; echo \"$last:x:5000:5000::/home/$last:/bin/ash\" >> $R/etc/passwd\n\
         echo \"$last:!:1::::::\" >> $R/etc/shadow",
    );
    sandbox.fake_tool("deluser", "for last; do :; done; /bin/sed -i \"/^$last:/d\" $R/etc/passwd");
    sandbox
}

fn has_shadow_utils() -> bool {
    is_root() && ["/usr/sbin/useradd", "/usr/sbin/groupadd"].iter().all(|tool| std::path::Path::new(tool).exists())
}

fn group(more: &[(&'static str, Value)]) -> Params {
    [("groupname", text("staff"))].into_iter().chain(more.iter().cloned()).collect()
}

fn user(name: &str, more: &[(&'static str, Value)]) -> Params {
    [("username", text(name))].into_iter().chain(more.iter().cloned()).collect()
}

fn list(names: &[&str]) -> Value {
    Value::List(names.iter().map(|name| text(name)).collect())
}

#[test]
fn groups_come_change_and_go_by_shadow_utils() {
    if !has_shadow_utils() {
        return;
    }
    let sandbox = accounts();
    let asked = group(&[("gid", Value::Int(4200))]);
    let before = sandbox.picture();
    assert_eq!(sandbox.look("group", &asked).message, "would create");
    assert_eq!(sandbox.picture(), before);
    sandbox.expect("group", &asked, Changed);
    assert!(sandbox.read("/etc/group").contains("\nstaff:x:4200:\n"));
    let settled = sandbox.picture();
    sandbox.expect("group", &asked, Fine);
    sandbox.expect("group", &group(&[]), Fine);
    assert_eq!(sandbox.picture(), settled);
    let report = sandbox.expect("group", &group(&[("gid", Value::Int(4300))]), Changed);
    assert_eq!(report.message, "changed: gid 4200 instead of 4300");
    let gone = group(&[("state", text("absent"))]);
    assert_eq!(sandbox.look("group", &gone).message, "would remove");
    sandbox.expect("group", &gone, Changed);
    sandbox.expect("group", &gone, Fine);
    sandbox.expect("group", &group(&[("system", Value::Bool(true))]), Changed);
    let line = sandbox.read("/etc/group").lines().last().unwrap().to_string();
    let gid: u32 = line.split(':').nth(2).unwrap().parse().unwrap();
    assert!(gid < 1000, "{line}");
}

#[test]
fn groups_come_change_and_go_by_busybox() {
    let sandbox = busybox();
    sandbox.expect("group", &group(&[("gid", Value::Int(4200))]), Changed);
    assert_eq!(sandbox.calls(), "addgroup -g 4200 staff\n");
    sandbox.expect("group", &group(&[("gid", Value::Int(4201))]), Changed);
    assert!(sandbox.read("/etc/group").ends_with("staff:x:4201:\n"));
    sandbox.expect("group", &group(&[("state", text("absent"))]), Changed);
    assert_eq!(sandbox.calls(), "delgroup staff\n");
    sandbox.expect("group", &group(&[("state", text("absent"))]), Fine);
    assert_eq!(sandbox.calls(), "");
}

#[test]
fn groups_that_cannot_be_are_refused() {
    let mut sandbox = busybox();
    let before = sandbox.picture();
    for (params, expected) in [
        (group(&[("gid", Value::Int(10))]), "gid 10 belongs to the group `wheel`"),
        (vec![("groupname", text("root")), ("state", text("absent"))], "no host works without it"),
        (vec![("groupname", text("-r"))], "a name of at most 32"),
        (vec![("groupname", text("a:b"))], "a name of at most 32"),
        (vec![("groupname", text("a\nroot2:x:0:"))], "a name of at most 32"),
        (group(&[("gid", Value::Int(-1))]), "a whole number from 0"),
        (vec![], "needs the parameter `groupname`"),
    ] {
        let report = sandbox.expect("group", &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
    assert_eq!(sandbox.picture(), before);
    sandbox.fake_tool("addgroup", "echo addgroup: bad name >&2; exit 1");
    let report = sandbox.expect("group", &group(&[]), Failed);
    assert_eq!(report.message, "`addgroup` exited with 1:\naddgroup: bad name");
    sandbox.fake_tool("groupadd", "echo 'groupadd: cannot lock /etc/group; try again later.' >&2; exit 10");
    sandbox.expect("group", &group(&[]), Blocked);
    sandbox.fake_tool("groupadd", "exit 0");
    assert!(sandbox.expect("group", &group(&[]), Failed).message.contains("still differs"));
}

#[test]
fn users_come_change_and_go_by_shadow_utils() {
    if !has_shadow_utils() {
        return;
    }
    let sandbox = accounts();
    sandbox.write("/etc/skel/.profile", "# skel\n");
    let properties = [
        ("uid", Value::Int(4500)),
        ("groups", list(&["wheel", "extra"])),
        ("shell", text("/bin/bash")),
        ("comment", text("Grace H")),
        ("password", text("$6$salt$hash")),
    ];
    let asked = user("grace", &properties);
    let before = sandbox.picture();
    assert_eq!(sandbox.look("user", &asked).message, "would create");
    assert_eq!(sandbox.picture(), before);
    sandbox.expect("user", &asked, Changed);
    let passwd = sandbox.read("/etc/passwd");
    let line = passwd.lines().find(|line| line.starts_with("grace:")).unwrap();
    let fields: Vec<&str> = line.split(':').collect();
    assert_eq!((fields[2], fields[4], fields[5], fields[6]), ("4500", "Grace H", "/home/grace", "/bin/bash"));
    let groups = sandbox.read("/etc/group");
    assert!(groups.contains("wheel:x:10:root,grace\n") && groups.contains("\ngrace:"), "{groups}");
    assert!(sandbox.read("/etc/shadow").contains("grace:$6$salt$hash:"));
    assert_eq!(sandbox.at("/home/grace").metadata().unwrap().uid(), 4500);
    let settled = sandbox.picture();
    sandbox.expect("user", &asked, Fine);
    assert_eq!(sandbox.picture(), settled);

    let other = user(
        "grace",
        &[
            ("groups", list(&["extra"])),
            ("append", Value::Bool(false)),
            ("shell", text("/bin/sh")),
            ("password", text("$6$new$hash")),
            ("locked", Value::Bool(true)),
        ],
    );
    let report = sandbox.expect("user", &other, Changed);
    assert_eq!(report.message, "changed: shell `/bin/bash` instead of `/bin/sh`, in the group wheel, password");
    sandbox.expect("user", &other, Fine);
    assert!(sandbox.read("/etc/shadow").contains("grace:!$6$new$hash:"));
    sandbox.expect("user", &user("grace", &[("locked", Value::Bool(false))]), Changed);
    assert!(sandbox.read("/etc/shadow").contains("grace:$6$new$hash:"));

    let gone = user("grace", &[("state", text("absent")), ("remove_home", Value::Bool(true))]);
    sandbox.expect("user", &gone, Changed);
    sandbox.expect("user", &gone, Fine);
    assert!(!sandbox.at("/home/grace").exists());
    sandbox.expect("user", &user("daemon", &[("system", Value::Bool(true)), ("shell", text("/bin/false"))]), Changed);
    assert!(!sandbox.at("/home/daemon").exists());
}

#[test]
fn every_property_of_a_user_is_detected_and_put_right_without_usermod() {
    for (more, words) in [
        (vec![("uid", Value::Int(4002))], "uid `4001` instead of `4002`"),
        (vec![("group", text("extra"))], "group `4001` instead of `4100`"),
        (vec![("comment", text("Ada L"))], "comment `Ada` instead of `Ada L`"),
        (vec![("home", text("/srv/ada"))], "home `/home/ada` instead of `/srv/ada`"),
        (vec![("shell", text("/bin/ash"))], "shell `/bin/sh` instead of `/bin/ash`"),
        (vec![("groups", text("wheel"))], "not in the group wheel"),
        (
            vec![("groups", list(&["wheel"])), ("append", Value::Bool(false))],
            "not in the group wheel, in the group extra",
        ),
        (vec![("password", text("$6$n$h"))], "password"),
        (vec![("locked", Value::Bool(true))], "lock"),
    ] {
        let sandbox = busybox();
        let asked = user("ada", &more);
        let before = sandbox.picture();
        assert_eq!(sandbox.look("user", &asked).message, format!("would change: {words}"));
        assert_eq!(sandbox.picture(), before);
        sandbox.expect("user", &asked, Changed);
        let settled = sandbox.picture();
        sandbox.expect("user", &asked, Fine);
        assert_eq!(sandbox.picture(), settled);
    }
}

#[test]
fn users_come_and_go_by_busybox() {
    let sandbox = busybox();
    let asked =
        user("grace", &[("groups", list(&["wheel"])), ("password", text("$6$n$h")), ("system", Value::Bool(true))]);
    sandbox.expect("user", &asked, Changed);
    assert_eq!(sandbox.calls(), "adduser -S -H -D grace\n");
    assert!(sandbox.read("/etc/group").contains("wheel:x:10:root,grace\n"));
    assert!(sandbox.read("/etc/shadow").contains("grace:$6$n$h:"));
    sandbox.expect("user", &asked, Fine);
    sandbox.expect("user", &user("grace", &[("state", text("absent"))]), Changed);
    assert_eq!(sandbox.calls(), "deluser grace\n");
}

#[test]
fn hashes_are_neither_in_messages_nor_in_arguments() {
    let mut sandbox = accounts();
    sandbox.fake_tool("usermod", "exit 0");
    sandbox.fake_tool("chpasswd", "read line; echo \"got $line\" >> $R/tools/stdin; exit 1");
    let report = sandbox.expect("user", &user("ada", &[("password", text("$6$canary$canary"))]), Failed);
    assert!(!report.message.contains("canary") && !report.diff.contains("canary"), "{report:?}");
    assert!(!sandbox.calls().contains("canary"));
    assert_eq!(sandbox.read("/tools/stdin"), "got ada:$6$canary$canary\n");
}

#[test]
fn users_that_cannot_be_are_refused() {
    let sandbox = busybox();
    let before = sandbox.picture();
    for (params, expected) in [
        (user("ada", &[("groups", text("nope"))]), "there is no group `nope`"),
        (user("new", &[("groups", text("nope"))]), "there is no group `nope`"),
        (user("ada", &[("group", text("nope"))]), "there is no group `nope`"),
        (user("root", &[("state", text("absent"))]), "no host works without it"),
        (user("root", &[("uid", Value::Int(5))]), "no host works without it"),
        (user("ada", &[("password", text("hunter2"))]), "never the password itself"),
        (user("ada", &[("password", text("$6$a:0:0"))]), "never the password itself"),
        (user("ada", &[("comment", text("a:b"))]), "must not have a `:`"),
        (user("ada", &[("comment", text("a\nevil:x:0:0::/:/bin/sh"))]), "one line of text"),
        (user("ada", &[("shell", text("/bin/sh\nx"))]), "one line without a `:`"),
        (user("-ada", &[]), "a name of at most 32"),
        (user("ada", &[("shell", text("sh"))]), "starts with /"),
        (vec![], "needs the parameter `username`"),
    ] {
        let report = sandbox.expect("user", &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
    assert_eq!(sandbox.picture(), before);
    sandbox.write("/etc/shadow", "ada:!:1::::::\n");
    let report = sandbox.expect("user", &user("ada", &[("locked", Value::Bool(false))]), Failed);
    assert!(report.message.contains("no password that could be unlocked"), "{}", report.message);
    sandbox.expect("user", &user("ada", &[("locked", Value::Bool(true))]), Fine);
}

#[test]
fn without_a_tool_for_a_sysroot_it_is_said() {
    let mut sandbox = accounts();
    sandbox.fake_tool("adduser", "exit 0");
    let report = sandbox.expect("user", &user("new", &[]), Failed);
    assert!(report.message.contains("only it works on a sysroot"), "{}", report.message);
    assert_eq!(sandbox.calls(), "");
}

#[test]
fn a_home_that_is_asked_for_and_missing_is_made() {
    let sandbox = busybox();
    fs::remove_dir(sandbox.at("/home/ada")).unwrap();
    sandbox.expect("user", &user("ada", &[]), Fine);
    let asked = user("ada", &[("create_home", Value::Bool(true))]);
    assert_eq!(sandbox.expect("user", &asked, Changed).message, "changed: no /home/ada");
    assert_eq!(mode(&sandbox.at("/home/ada")), 0o700);
    sandbox.expect("user", &asked, Fine);
}

#[test]
fn a_user_of_this_run_can_own_its_files() {
    if !has_shadow_utils() {
        return;
    }
    let sandbox = accounts();
    let file = vec![("target_path", text("/d/x")), ("owner", text("grace")), ("group", text("staff"))];
    let report = sandbox.run_all(vec![
        super::sandbox::resource("g", "group", &group(&[])),
        super::sandbox::resource("u", "user", &user("grace", &[("group", text("staff"))])),
        super::sandbox::resource("f", "file", &file),
        super::sandbox::resource("k", "authorized_key", &user("grace", &[("key", text(A))])),
    ]);
    assert_eq!(report.counts().changed, 4, "{:?}", report.resources);
    assert_eq!(mode(&sandbox.at("/home/grace/.ssh")), 0o700);
}

pub fn keys(more: &[(&'static str, Value)]) -> Params {
    user("ada", &[("key", text(&format!("{A} ada@laptop")))]).into_iter().chain(more.iter().cloned()).collect()
}

pub const FILE: &str = "/home/ada/.ssh/authorized_keys";

#[test]
fn keys_come_with_their_directory_and_go() {
    let sandbox = accounts();
    let before = sandbox.picture();
    let report = sandbox.look("authorized_key", &keys(&[]));
    assert_eq!((report.outcome, report.message.as_str()), (Changed, "would create"));
    assert_eq!(sandbox.picture(), before);
    sandbox.expect("authorized_key", &keys(&[]), Changed);
    assert_eq!(sandbox.read(FILE), format!("{A} ada@laptop\n"));
    assert_eq!((mode(&sandbox.at(FILE)), mode(&sandbox.at("/home/ada/.ssh"))), (0o600, 0o700));
    if is_root() {
        assert_eq!(
            (sandbox.at(FILE).metadata().unwrap().uid(), sandbox.at(FILE).metadata().unwrap().gid()),
            (4001, 4001)
        );
        assert_eq!(sandbox.at("/home/ada/.ssh").metadata().unwrap().uid(), 4001);
    }
    let settled = sandbox.picture();
    sandbox.expect("authorized_key", &keys(&[]), Fine);
    assert_eq!(sandbox.picture(), settled);
    super::sandbox::set_mode(&sandbox.at(FILE), 0o666);
    assert_eq!(sandbox.expect("authorized_key", &keys(&[]), Changed).message, "changed: mode 0666 instead of 0600");
    sandbox.expect("authorized_key", &keys(&[("state", text("absent"))]), Changed);
    sandbox.expect("authorized_key", &keys(&[("state", text("absent"))]), Fine);
    assert_eq!(sandbox.read(FILE), "");
}

#[test]
fn options_comments_and_other_keys_are_told_apart() {
    let from = ("options", text("from=\"10.0.0.*, x\",no-pty"));
    for (old, more, new) in [
        (format!("{A} other name\n"), vec![], None),
        (format!("# c\n{B}"), vec![], Some(format!("# c\n{B}\n{A} ada@laptop\n"))),
        (format!("no-pty {A}\n{B}\n"), vec![], Some(format!("{B}\n{A} ada@laptop\n"))),
        (format!("{A}\n{A}\n"), vec![], Some(format!("{A}\n"))),
        (format!("{A}\n"), vec![from.clone()], Some(format!("from=\"10.0.0.*, x\",no-pty {A} ada@laptop\n"))),
        (format!("from=\"10.0.0.*, x\",no-pty {A}\n"), vec![from], None),
        (
            format!("# c\n{B}\nrubbish\n"),
            vec![("exclusive", Value::Bool(true))],
            Some(format!("# c\n{A} ada@laptop\n")),
        ),
        (format!("{B}\ncommand=\"a b\" {A}\n"), vec![("state", text("absent"))], Some(format!("{B}\n"))),
    ] {
        let sandbox = accounts();
        sandbox.write(FILE, &old);
        super::sandbox::set_mode(&sandbox.at(FILE), 0o600);
        if is_root() {
            std::os::unix::fs::chown(sandbox.at(FILE), Some(4001), Some(4001)).unwrap();
        }
        sandbox.expect("authorized_key", &keys(&more), if new.is_some() { Changed } else { Fine });
        assert_eq!(sandbox.read(FILE), new.unwrap_or(old));
        sandbox.expect("authorized_key", &keys(&more), Fine);
    }
}

#[test]
fn what_a_user_puts_in_the_way_is_refused() {
    type Arrange = fn(&Sandbox);
    let cases: [(Arrange, &str); 7] = [
        (|s| symlink("/etc/shadow", s.at(FILE)).unwrap(), "a symbolic link"),
        (|s| fs::hard_link(s.at("/etc/shadow"), s.at(FILE)).unwrap(), "a hard link to a file that has other names"),
        (|s| fs::create_dir(s.at(FILE)).unwrap(), "a directory"),
        (|s| super::sandbox::fifo(&s.at(FILE)), "FIFO"),
        (|s| fs::File::create(s.at(FILE)).unwrap().set_len(1 << 40).unwrap(), "are not managed"),
        (
            |s| {
                fs::remove_dir(s.at("/home/ada/.ssh")).unwrap();
                fs::write(s.at("/home/ada/.ssh"), "").unwrap();
            },
            "is not a directory",
        ),
        (
            |s| {
                fs::remove_dir(s.at("/home/ada/.ssh")).unwrap();
                symlink("../../etc", s.at("/home/ada/.ssh")).unwrap();
                if is_root() {
                    std::os::unix::fs::lchown(s.at("/home/ada/.ssh"), Some(4001), Some(4001)).unwrap();
                } else {
                    fs::remove_file(s.at("/home/ada/.ssh")).unwrap();
                    symlink(".ssh", s.at("/home/ada/.ssh")).unwrap();
                }
            },
            if is_root() { "symbolic link of user 4001" } else { "loop" },
        ),
    ];
    for (arrange, reason) in cases {
        let sandbox = accounts();
        fs::create_dir(sandbox.at("/home/ada/.ssh")).unwrap();
        arrange(&sandbox);
        let before = sandbox.picture();
        let report = sandbox.expect("authorized_key", &keys(&[]), Failed);
        assert!(report.message.contains(reason), "{}", report.message);
        assert_eq!(sandbox.picture(), before, "{reason}");
    }
    if is_root() {
        let sandbox = accounts();
        sandbox.write(FILE, "");
        std::os::unix::fs::chown(sandbox.at(FILE), Some(4999), None).unwrap();
        assert!(sandbox.expect("authorized_key", &keys(&[]), Failed).message.contains("belongs to user 4999"));
    }
}

#[test]
fn bad_keys_users_and_options_are_named() {
    let mut sandbox = accounts();
    for (params, expected) in [
        (user("nobody-here", &[("key", text(A))]), "there is no user `nobody-here`"),
        (user("ada", &[]), "needs the parameter `key`"),
        (user("ada", &[("key", text("ssh-ed25519 AAAA"))]), "a public key of OpenSSH"),
        (user("ada", &[("key", text(&format!("{A}\n{B}")))]), "a public key of OpenSSH"),
        (keys(&[("options", text("from=\"a\" no-pty"))]), "no blank outside of quotes"),
        (keys(&[("options", text("from=\"a"))]), "every quote its partner"),
        (keys(&[("options", text("no-pty\nssh-rsa"))]), "one line of text"),
        (keys(&[("keys", text("x"))]), "did you mean `key`?"),
    ] {
        let report = sandbox.expect("authorized_key", &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
    fs::remove_dir(sandbox.at("/home/ada")).unwrap();
    let report = sandbox.expect("authorized_key", &keys(&[]), Failed);
    assert!(report.message.contains("/home/ada does not exist"), "{}", report.message);
    sandbox.protected = vec![sandbox.at("/home/ada")];
    fs::create_dir_all(sandbox.at("/home/ada/.ssh")).unwrap();
    assert!(sandbox.expect("authorized_key", &keys(&[]), Failed).message.contains("allow_self"));
}

#[test]
fn keys_in_a_place_of_their_own() {
    let sandbox = accounts();
    let asked = keys(&[("target_path", text("/d/ada"))]);
    sandbox.expect("authorized_key", &asked, Changed);
    sandbox.expect("authorized_key", &asked, Fine);
    assert!(!sandbox.at("/home/ada/.ssh").exists());
}
