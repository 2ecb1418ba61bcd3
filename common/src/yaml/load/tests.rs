//! What the loader accepts, and how it complains.

use super::*;

fn doc(text: &str) -> Doc {
    Doc::load("t.vgo", text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    Doc::load("t.vgo", text.as_bytes()).expect_err(text).summary()
}

#[test]
fn values_know_their_places() {
    let doc = doc("a: 1\nb:\n  - x\n  - {c: \"d e\"}\n");
    let map = doc.root().as_map().unwrap();
    assert_eq!((map.entries[1].at, map.entries[0].value.at), (Pos { line: 2, column: 1 }, Pos { line: 1, column: 4 }));
    let items = map.get("b").unwrap().as_list().unwrap();
    assert_eq!(items[0].at, Pos { line: 3, column: 5 });
    let inner = items[1].as_map().unwrap();
    assert_eq!(inner.entries[0].at, Pos { line: 4, column: 6 });
    assert_eq!(inner.get("c").unwrap().as_str(), Some("d e"));
}

#[test]
fn places_inside_texts_are_found() {
    let doc = doc("a: plain {{ x\nb: 'quoted {{ x'\nc: |\n  one\n    two {{ x\nd: \"esc\\n{{ x\"\n");
    let map = doc.root().as_map().unwrap();
    let place = |key: &str, line, column| doc.pos_in(map.get(key).unwrap(), line, column);
    assert_eq!(place("a", 1, 7), Pos { line: 1, column: 10 });
    assert_eq!(place("b", 1, 8), Pos { line: 2, column: 12 });
    assert_eq!(place("c", 2, 7), Pos { line: 5, column: 9 });
    assert_eq!(place("d", 2, 1), map.get("d").unwrap().at);
}

#[test]
fn refusals_name_the_place_and_the_cure() {
    for (text, expected) in [
        ("a: 1\na: 2\n", "t.vgo:2:1: the key `a` is written twice, first in line 1; remove one of them"),
        (
            "a: {{ x }}\n",
            "t.vgo:1:4: YAML reads `{{` without quotes as a mapping; put the whole value in quotes: \"{{ ... }}\"",
        ),
        (
            "- {{ x }}\n",
            "t.vgo:1:3: YAML reads `{{` without quotes as a mapping; put the whole value in quotes: \"{{ ... }}\"",
        ),
        (
            "a: !secret x\n",
            "t.vgo:1:4: YAML tags (`!name`) are not supported; remove the tag; quote a value to make it text",
        ),
        (
            "a: 1\n---\nb: 1\n",
            "t.vgo:2:1: a second document begins here; expected one document a file; move it to a file of its own",
        ),
        (
            "a: &x {b: 1}\nc:\n  <<: *x\n",
            "t.vgo:3:3: merge keys (`<<`) are not part of YAML 1.2; write the keys out, or use `vars` and `defaults`",
        ),
        ("a: .inf\n", "t.vgo:1:4: `.inf` is out of range; expected a finite number; quote it to make it text"),
        (
            "a: \u{1b}\n",
            "t.vgo:1:4: the control character U+001B; expected printable text; write it as an escape in double quotes, such as \"\\x1b\"",
        ),
        ("a: &x [*x]\n", "t.vgo:1:8: an alias stands inside the value that it names; write the value out"),
        ("? [a]\n: 1\n", "t.vgo:1:3: a list or mapping stands where a key should be; expected a name before `:`"),
        (": 1\n", "t.vgo:1:1: a mapping entry has no key; expected a name before `:`"),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
    for (text, place) in [
        ("a: [1, 2\n", "t.vgo:2:1: "),
        ("a:\n\t- 1\n", "t.vgo:2:2: "),
        ("a: 'x\n", "t.vgo:"),
        ("a: b: c\n", "t.vgo:1:5: "),
    ] {
        let message = refusal(text);
        assert!(message.starts_with(place) && message.contains("not YAML"), "{message}");
    }
    let bytes = Doc::load("t.vgo", b"a: 1\nb: \xff\n").unwrap_err().summary();
    assert_eq!(bytes, "t.vgo:2:4: the byte 0xff is not UTF-8; save the file as UTF-8");
}

#[test]
fn bombs_are_refused_quickly() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
    for n in 1..12 {
        let uses = vec![format!("*a{}", n - 1); 10].join(", ");
        laughs += &format!("a{n}: &a{n} [{uses}]\n");
    }
    assert!(refusal(&laughs).contains("too many values"));
    let mut deep = "a0: &a0 [x]\n".to_string();
    for n in 1..60 {
        deep += &format!("a{n}: &a{n} [*a{}]\n", n - 1);
    }
    assert!(refusal(&deep).contains("too deeply nested through this alias"));
    for open in ["[", "{a: ", "- ", "? "] {
        let message = refusal(&open.repeat(200_000));
        assert!(
            message.contains("too deeply nested") || message.contains("where a key") || message.contains("not YAML"),
            "{message}"
        );
    }
    assert!(refusal(&"x".repeat(limits::YAML_BYTES_MAX + 1)).contains("split it"));
}

#[test]
fn empty_files_and_byte_order_marks_are_fine() {
    for text in ["", "\n", "# only a comment\n", "---\n", "\u{feff}"] {
        assert!(doc(text).root().is_null(), "{text:?}");
    }
    assert_eq!(doc("\u{feff}a: 1\n").root().as_map().unwrap().entries[0].at, Pos { line: 1, column: 1 });
}

#[test]
fn loaders_get_errors_they_can_show() {
    let doc = doc("port: \"80\"\nflag: yes\nnmae: x\nwait: 5\n");
    let map = doc.root().as_map().unwrap();
    let node = |key: &str| map.get(key).unwrap();
    assert_eq!(
        doc.expect_int(node("port"), "port", 1, 65_535).unwrap_err().summary(),
        "t.vgo:1:7: `port` is the text `80`; expected a whole number from 1 to 65535"
    );
    assert_eq!(
        doc.expect_bool(node("flag"), "flag").unwrap_err().summary(),
        "t.vgo:2:7: `flag` is the text `yes`; expected true or false; write `true`: YAML 1.2 has no yes and on"
    );
    assert_eq!(
        doc.expect_duration_ms(node("wait"), "wait", 0, 10).unwrap_err().summary(),
        "t.vgo:4:7: `wait` is the number 5; expected a duration such as 30s, 5m, 12h or 90d"
    );
    let unknown = doc.unknown_keys(map, &["port", "flag", "name", "wait"], "the test");
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0].summary(), "t.vgo:3:1: unknown key `nmae` in the test; did you mean `name`?");
}
