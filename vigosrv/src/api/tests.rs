//! The handlers with a backend that answers at once.

use std::sync::Mutex;

use bytes::Bytes;
use common::crypto::SigningKey;
use common::time::{Mono, Wall};
use serde_json::Value;

use super::*;
use crate::app::Stats;

/// Numbers, and what the core says to publishes.
#[derive(Default)]
struct Ready(Stats, Mutex<Vec<Result<AdminReply, AdminError>>>);

impl Backend for Ready {
    fn core(&self, request: AdminRequest, then: Box<dyn FnOnce(Result<AdminReply, AdminError>) + Send>) {
        match request {
            AdminRequest::Stats => then(Ok(AdminReply::Stats(Box::new(self.0)))),
            AdminRequest::Published { summary, .. } => {
                assert_eq!(summary, "configcrates: 1 added (a); mappings: 1 added (*)");
                then(self.1.lock().unwrap().remove(0));
            }
            other => panic!("{other:?}"),
        }
    }
    fn job(&self, job: Box<dyn FnOnce() + Send>) -> bool {
        job();
        true
    }
    fn read(&self, _: Box<dyn FnOnce(&mut Reader) + Send>) -> bool {
        false
    }
    fn now(&self) -> Now {
        Now { mono: Mono(1_000), wall: Wall(1_700_000_000_000) }
    }
    fn random(&self) -> [u8; 32] {
        [4; 32]
    }
}

fn context(stats: Stats) -> Arc<Context> {
    with(Ready(stats, Mutex::default()), "/does/not/exist".into())
}

fn with(backend: Ready, root: PathBuf) -> Arc<Context> {
    let key = SigningKey::from_seed([1; 32]).public();
    let started = backend.now();
    Arc::new(Context {
        backend: Arc::new(backend),
        fleet: Arc::default(),
        live: Arc::default(),
        secrets: crate::secrets::Place::of_root(&root),
        secrets_turn: std::sync::Mutex::default(),
        root,
        interval_ms: 1_000,
        database: PathBuf::new(),
        snapshots: PathBuf::new(),
        restore_until: Mono(0),
        servers: Vec::new(),
        api_address: String::new(),
        trust: Trust {
            server_id: common::crypto::server_id(&key),
            ca_pem: String::new(),
            ca_hash: common::ids::Hash32::ZERO,
            policy_key: key,
            identity_key: key,
        },
        replication: None,
        started,
        notes: Vec::new(),
        damage: Arc::default(),
        backup_times: Arc::new(|| (Some(1_800_000_000), None)),
    })
}

fn ask(context: &Arc<Context>, method: &str, path: &str, origin: Origin) -> Response {
    let request = Request {
        method: method.into(),
        path: path.into(),
        query: String::new(),
        host: "x".into(),
        body: Bytes::new(),
        origin,
    };
    let answer = Arc::new(Mutex::new(None));
    let slot = answer.clone();
    context.handle(request, Box::new(move |response| *slot.lock().unwrap() = Some(response)));
    answer.lock().unwrap().take().expect("an answer")
}

fn text(response: &Response) -> String {
    match &response.body {
        Body::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        Body::File(path) => panic!("{}", path.display()),
    }
}

fn document(response: &Response) -> Value {
    serde_json::from_str(&text(response)).unwrap()
}

#[test]
fn damage_of_the_database_shows_in_health_status_and_metrics() {
    let context = context(Stats { disk_full: true, ..Stats::default() });
    let health = |context| document(&ask(context, "GET", "/health", Origin::Https));
    assert_eq!(health(&context)["database"], "full");
    assert!(document(&ask(&context, "GET", "/api/v1/status", Origin::Admin { uid: 0 }))["database_damage"].is_null());
    assert!(text(&ask(&context, "GET", "/metrics", Origin::Https)).contains("vigo_database_damaged 0\n"));
    context.damage.set("page 7 is no page".into()).unwrap();
    assert_eq!((&health(&context)["database"], &health(&context)["status"]), (&"damaged".into(), &"degraded".into()));
    let status = document(&ask(&context, "GET", "/api/v1/status", Origin::Admin { uid: 0 }));
    assert_eq!((&status["database_damage"], &status["status"]), (&"page 7 is no page".into(), &"degraded".into()));
    assert!(text(&ask(&context, "GET", "/metrics", Origin::Https)).contains("vigo_database_damaged 1\n"));
    let open = text(&ask(&context, "GET", "/health", Origin::Https));
    assert!(!open.contains("page 7"), "nothing but the word without authentication: {open}");
}

#[test]
fn head_is_routed_as_get_and_opens_no_door() {
    let context = context(Stats::default());
    assert_eq!(ask(&context, "HEAD", "/health", Origin::Https).status, 200);
    assert_eq!(ask(&context, "HEAD", "/api/v1/status", Origin::Https).status, 401);
    assert_eq!(ask(&context, "HEAD", "/api/v1/status", Origin::Admin { uid: 0 }).status, 200);
    assert_eq!(ask(&context, "HEAD", "/api/v1/config/publish", Origin::Admin { uid: 0 }).status, 404);
    assert_eq!(ask(&context, "DELETE", "/health", Origin::Https).status, 401);
}

#[test]
fn a_publish_that_the_core_could_not_store_is_done_by_the_next_one_though_nothing_changed_since() {
    use crate::store::StoreError;
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join("stacks").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("configcrates/a.vgo", "name: a\nresources:\n  - {name: x, type: file, target_path: /x, content: x}\n");
    write("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [a]}\n");
    let published = AdminReply::Published { serial: 1, envoys: 0 };
    let answers = vec![Err(AdminError::Store(StoreError::Full)), Err(AdminError::ReadOnly), Ok(published)];
    let context = with(Ready(Stats::default(), Mutex::new(answers)), dir.path().to_path_buf());
    let publish = || {
        let response = ask(&context, "POST", "/api/v1/config/publish", Origin::Admin { uid: 0 });
        (response.status, document(&response))
    };
    for refused in [503, 409] {
        assert_eq!(publish().0, refused);
        assert!(context.live.lock().unwrap().is_none(), "nothing is served that was not stored");
    }
    let (status, answer) = publish();
    assert_eq!((status, &answer["changed"], &answer["serial"]), (200, &Value::Bool(true), &1.into()), "{answer}");
    let (status, answer) = publish();
    assert_eq!((status, &answer["changed"]), (200, &Value::Bool(false)), "and now it is a no-op: {answer}");
}
