//! Valid inputs of the binary formats, from which mutations start. `UPDATE_CORPUS=1 cargo test -p vigo-fuzz-smoke --test seeds` writes them.

use std::collections::BTreeMap;

use common::bundle::{Assignment, BlobRef, Bundle, Receipt, Resource, Value, Version};
use common::chain::{Lane, link};
use common::crypto::SigningKey;
use common::ids::{Hash32, ServerId, Uuid};
use common::proto::{Message, wire};
use vigo_fuzz_smoke::{TARGETS, corpus_root, run};

fn key() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

fn bundle() -> Bundle {
    let values = vec![Value::Null, Value::Bool(true), Value::Int(-3), Value::Float(0.5), Value::Str("{{ x }}".into())];
    let map = BTreeMap::from([("list".to_string(), Value::List(values))]);
    let resource = |name: &str, kind: &str| Resource {
        name: name.into(),
        kind: kind.into(),
        params: BTreeMap::from([("path".to_string(), Value::Str("/etc/motd".into()))]),
        when: "os.family == 'debian'".into(),
        timeout_ms: 300_000,
        source: "configcrates/base/motd.vgo:3:5".into(),
        ..Resource::default()
    };
    Bundle {
        mapping: "envoys/web.vgo:2".into(),
        environment: "production".into(),
        vars: BTreeMap::from([("nested".to_string(), Value::Map(map))]),
        resources: vec![
            Resource { notify: vec![1], ..resource("base.motd", "file") },
            Resource {
                depends_on: vec![0],
                after: vec![0],
                foreach: Some(Value::List(vec![Value::Int(1)])),
                ..resource("base.reload", "exec")
            },
        ],
        blobs: vec![BlobRef { sha256: Hash32([1; 32]), size: 9, path: "files/motd".into() }],
        secrets: vec!["db/password".into()],
    }
}

fn assignment() -> Assignment {
    Assignment {
        server: ServerId(Hash32([2; 32])),
        version: Version { epoch: 1, serial: 7 },
        uuid: Uuid::from_bytes([3; 16]),
        bundle: Hash32([4; 32]),
        secrets: Vec::new(),
        interval_ms: 300_000,
        issued_at_ms: 1_795_254_957_120,
        max_age_ms: 0,
        hostname: "web-1.example.com".into(),
    }
}

fn receipt() -> Receipt {
    Receipt {
        uuid: Uuid::from_bytes([3; 16]),
        public_key: key().public(),
        sealing_key: [5; 32],
        hostname: "web-1.example.com".into(),
        server: ServerId(Hash32([2; 32])),
        serial: 7,
    }
}

fn run_result() -> wire::RunResult {
    wire::RunResult {
        run_id: vec![9; 16],
        started_wall_ms: 1_795_254_957_120,
        boot_id: "6f1c2a34-0b5d-4e6f-8a9b-0c1d2e3f4a5b".into(),
        counts: Some(wire::RunCounts { ok: 3, changed: 1, ..Default::default() }),
        outcomes: vec![wire::ResourceOutcome {
            resource: "base.motd".into(),
            outcome: 2,
            message: "content differed".into(),
            diff: "-a\n+b\n".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn records() -> Vec<(&'static str, wire::Record)> {
    use wire::record::Body;
    let record = |first, last, links: [Hash32; 2], body| wire::Record {
        lane: wire::Lane::Urgent as i32,
        first_sequence: first,
        last_sequence: last,
        previous_link: vec![0; 32],
        first_link: links[0].0.to_vec(),
        last_link: links[1].0.to_vec(),
        body: Some(body),
    };
    let of = |body: &[u8]| [link(&Hash32::ZERO, Lane::Urgent, 1, body); 2];
    let run = run_result().encode_to_vec();
    let incident =
        wire::Incident { kind: "moved-aside".into(), detail: "state.corrupt-1".into(), ..Default::default() };
    let incident = incident.encode_to_vec();
    let stretch =
        wire::Stretch { count: 12, first_run_id: vec![1; 16], last_run_id: vec![2; 16], ..Default::default() };
    let gap = wire::Gap { reason: wire::gap::Reason::QueueFull as i32, count: 5, ..Default::default() };
    vec![
        ("run", record(1, 1, of(&run), Body::Run(run))),
        ("incident", record(1, 1, of(&incident), Body::Incident(incident))),
        ("stretch", record(1, 12, [Hash32([1; 32]), Hash32([2; 32])], Body::Stretch(stretch.encode_to_vec()))),
        ("gap", record(1, 5, [Hash32([1; 32]), Hash32([2; 32])], Body::Gap(gap.encode_to_vec()))),
    ]
}

/// Messages behind the byte by which `fuzz_message` chooses.
fn messages() -> Vec<(&'static str, u8, Vec<u8>)> {
    let signed = assignment().sign(&key());
    let hello = wire::HelloRequest {
        protocol_versions: vec![1],
        agent_version: "0.1.0".into(),
        capabilities: vec!["x".into()],
    };
    let enroll = wire::EnrollRequest {
        token: "vigo-token".into(),
        hostname: "web-1".into(),
        public_key: vec![1; 32],
        sealing_key: vec![2; 32],
        sealing_signature: vec![3; 64],
        proof: vec![4; 64],
        machine_id: "m".into(),
        ..Default::default()
    };
    let authenticate = wire::AuthenticateRequest {
        uuid: vec![3; 16],
        signature: vec![4; 64],
        epoch: 1,
        serial: 7,
        revocation: Some(wire::RevocationEcho { counter: 1, digest: 2 }),
        receipt: Some(receipt().sign(&key())),
        hold: true,
        ..Default::default()
    };
    let check_in = wire::CheckInRequest { epoch: 1, serial: 7, bundle_hash: vec![4; 32], ..Default::default() };
    let answer = wire::CheckInReply {
        result: wire::check_in_reply::Result::Send as i32,
        epoch: 1,
        assignment: Some(signed.clone()),
        bundle: Some(bundle().sign(&key())),
        ..Default::default()
    };
    let report = wire::ReportRequest {
        records: records().into_iter().map(|(_, record)| record).collect(),
        traits: vec![wire::TraitUpdate { path: "os".into(), json: "{\"name\":\"debian\"}".into(), volatile: false }],
        trait_hash: 5,
        removed_traits: vec!["old".into()],
        trait_base: 0,
    };
    let watch =
        wire::WatchEvent { kind: wire::watch_event::Kind::Redirect as i32, delay_ms: 5, statement: Some(signed) };
    vec![
        ("hello", 0, hello.encode_to_vec()),
        ("enroll", 4, enroll.encode_to_vec()),
        ("authenticate", 6, authenticate.encode_to_vec()),
        ("check-in", 8, check_in.encode_to_vec()),
        ("check-in-reply", 9, answer.encode_to_vec()),
        ("report", 10, report.encode_to_vec()),
        ("run-result", 12, run_result().encode_to_vec()),
        ("watch-event", 17, watch.encode_to_vec()),
    ]
}

/// All seeds: (target, name, bytes).
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut out = vec![
        ("assignment", "assignment".to_string(), assignment().sign(&key()).payload.to_vec()),
        ("assignment", "receipt".to_string(), receipt().sign(&key()).payload.to_vec()),
        ("assignment", "empty".to_string(), Vec::new()),
        ("bundle", "small".to_string(), bundle().encode()),
        ("bundle", "no-resources".to_string(), Bundle::default().encode()),
        ("bundle", "deep-value".to_string(), {
            let deep = (0..30).fold(Value::Null, |value, _| Value::List(vec![value]));
            Bundle { vars: BTreeMap::from([("d".to_string(), deep)]), ..bundle() }.encode()
        }),
    ];
    for (name, record) in records() {
        out.push(("record", name.to_string(), record.encode_to_vec()));
        let stored = envoy::cache::QueueRecord { record, sealed: true, acked_at_ms: 0 };
        let bytes = envoy::cache::codec::encode_record(Uuid::from_bytes([3; 16]), 1, &stored);
        out.push(("queue_record", name.to_string(), bytes));
    }
    let framed = |message: &[u8]| [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
    // The first byte says in what pieces the rest arrives.
    out.push(("frames", "one".to_string(), [vec![3], framed(b"hello")].concat()));
    out.push(("frames", "two".to_string(), [vec![1], framed(b"hello"), framed(b"")].concat()));
    out.push(("frames", "cut".to_string(), [vec![200], framed(&[7; 300])[..200].to_vec()].concat()));
    out.push(("frames", "compressed".to_string(), vec![9, 1, 0, 0, 0, 1, 7]));
    out.push(("frames", "too-long".to_string(), vec![9, 0, 0x7f, 0xff, 0xff, 0xff, 7]));
    for (name, kind, bytes) in messages() {
        out.push(("message", name.to_string(), [vec![kind], bytes].concat()));
    }
    out
}

#[test]
fn seeds_are_in_the_corpus_and_accepted() {
    for (target, name, bytes) in seeds() {
        let path = corpus_root().join(target).join(format!("seed-{name}"));
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            std::fs::create_dir_all(corpus_root().join(target)).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let stale = std::fs::read(&path).ok().as_ref() != Some(&bytes);
        assert!(!stale, "{} is stale: run UPDATE_CORPUS=1 cargo test -p vigo-fuzz-smoke --test seeds", path.display());
        let target = TARGETS.iter().find(|known| known.name == target).unwrap();
        assert_eq!(run(target, &bytes), Ok(()), "{name}");
    }
}

#[test]
fn seeds_are_valid() {
    // A corpus of garbage would exercise the first check of each decoder only.
    assert_eq!(Bundle::decode(&bundle().encode()), Ok(bundle()));
    for (name, record) in records() {
        assert!(common::proto::record_meta(&record).is_ok(), "{name}");
    }
    assert!(Assignment::open(&key().public(), &assignment().sign(&key())).is_ok());
    let everything = std::fs::read(corpus_root().join("vgo/everything.vgo")).unwrap();
    let compiled = common::policy::compile_file("web.vgo", &everything, &mut |_| Ok(b"x\n".to_vec()));
    assert_eq!(compiled.map(|bundle| bundle.resources.len()), Ok(6));
    assert!(Receipt::open(&key().public(), &receipt().sign(&key())).is_ok());
}
