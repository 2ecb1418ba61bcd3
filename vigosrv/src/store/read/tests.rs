use common::proto::RecordBody;

use super::*;
use crate::store::contract::{Agent, SERVER, enrolled, invite, one, report, stored, token, uuid};
use crate::store::{AuditRow, EventRow, OpenOptions, ResultsWrite, SqliteStore, Write};

struct Rig {
    dir: tempfile::TempDir,
    store: SqliteStore,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions { ballast_bytes: 0, ..OpenOptions::new(dir.path().join("vigo.db"), SERVER) };
    Rig { store: SqliteStore::open(&options).unwrap().store, dir }
}

impl Rig {
    fn reader(&self) -> Reader {
        Reader::open(&self.dir.path().join("vigo.db")).unwrap()
    }
}

fn limit(limit: usize) -> RunQuery {
    RunQuery { limit, ..RunQuery::default() }
}

#[test]
fn runs_come_newest_first_in_pages() {
    let mut rig = rig();
    let (a, b) = (enrolled(&mut rig.store, 1), enrolled(&mut rig.store, 2));
    let (mut urgent, mut routine) = (Agent::new(Lane::Urgent), Agent::new(Lane::Routine));
    for n in 0..5 {
        stored(&mut rig.store, a, vec![urgent.run(2, n), routine.stretch(3, n)]);
        stored(&mut rig.store, b, vec![Agent::new(Lane::Urgent).run(1, n)]);
    }
    let mut reader = rig.reader();
    let all = reader.runs(&limit(100)).unwrap();
    assert_eq!(all.len(), 11);
    assert!(all.is_sorted_by(|x, y| x.id > y.id));
    let of_a = RunQuery { envoy: Some(a), ..limit(4) };
    let page = reader.runs(&of_a).unwrap();
    let next = reader.runs(&RunQuery { before: Some(page[3].id), ..of_a }).unwrap();
    let ids: Vec<u64> = page.iter().chain(&next).map(|run| run.id).collect();
    let expected: Vec<u64> = all.iter().filter(|run| run.envoy == a).map(|run| run.id).take(8).collect();
    assert_eq!(ids, expected);
    assert_eq!(page[0].hostname, "host-1");
    assert_eq!((page[0].kind, page[0].count(), page[0].status()), (RecordKind::Stretch, 3, Some(Status::Converged)));
    assert_eq!(reader.runs(&RunQuery { envoy: Some(uuid(9)), ..limit(5) }).unwrap(), []);
}

#[test]
fn a_run_comes_back_with_what_the_agent_said() {
    let mut rig = rig();
    let a = enrolled(&mut rig.store, 1);
    let record = Agent::new(Lane::Urgent).run(20, 5);
    let RecordBody::Run(sent) = record.decoded.clone() else { unreachable!() };
    stored(&mut rig.store, a, vec![record]);
    let mut reader = rig.reader();
    let id = reader.runs(&limit(1)).unwrap()[0].id;
    let run = reader.run(id).unwrap().unwrap();
    assert_eq!(run.body, RecordBody::Run(sent.clone()));
    assert_eq!(run.counts().map(|counts| counts.changed), Some(20));
    assert_eq!(reader.outcomes(&[id, 999]).unwrap(), [(id, sent.outcomes.clone())]);
    let found = RunQuery { run_id: Some(Uuid::try_from_slice(&sent.run_id).unwrap()), ..limit(5) };
    assert_eq!(reader.runs(&found).unwrap().len(), 1);
    assert_eq!(reader.run(id + 1).unwrap(), None);
    // And plain SQL can read it.
    let count = "SELECT count(*) FROM resource_outcomes WHERE outcome = 'changed' AND resource LIKE 'crate.resource-%'";
    assert_eq!(rig.store.probe(count, [], |row| row.get::<_, i64>(0)), [20]);
    let line = "SELECT hostname || ' ' || lane || ' ' || kind || ' ' || status || ' ' || source FROM run_list";
    assert_eq!(rig.store.probe(line, [], |row| row.get::<_, String>(0)), ["host-1 urgent run converged live"]);
}

#[test]
fn both_ends_of_a_stretch_are_found_by_run_id() {
    let mut rig = rig();
    let a = enrolled(&mut rig.store, 1);
    stored(&mut rig.store, a, vec![Agent::new(Lane::Routine).stretch(9, 5)]);
    for id in [1, 2] {
        let query = RunQuery { run_id: Some(Uuid::from_bytes([id; 16])), envoy: Some(a), ..limit(5) };
        assert_eq!(rig.reader().runs(&query).unwrap().len(), 1);
    }
}

#[test]
fn an_intact_chain_verifies_and_an_edited_row_shows() {
    let mut rig = rig();
    let a = enrolled(&mut rig.store, 1);
    let mut agent = Agent::new(Lane::Urgent);
    let mut foreign = agent.run(3, 4);
    let records = vec![foreign.clone(), agent.run(2, 5), agent.stretch(7, 6), agent.incident(), agent.run(0, 8)];
    // A body with a field that this version does not know is kept as it came.
    foreign.body.extend_from_slice(&[0xf8, 0x07, 1]);
    foreign.meta.last_link = common::chain::link(&Hash32::ZERO, Lane::Urgent, 1, &foreign.body);
    let mut with_foreign = records.clone();
    foreign.meta.first_link = foreign.meta.last_link;
    with_foreign[0] = foreign;
    stored(&mut rig.store, a, records);
    let b = enrolled(&mut rig.store, 2);
    assert_eq!(stored(&mut rig.store, b, with_foreign).chain_breaks, 1);

    let mut reader = rig.reader();
    let report = reader.verify(&a, Lane::Urgent, 0, 100).unwrap();
    let whole = ChainReport { span: (1, 11), present: 11, lost: 0, compared: 4, faults: Vec::new() };
    assert_eq!(report, whole);
    let broken = reader.verify(&b, Lane::Urgent, 0, 100).unwrap();
    assert_eq!(broken.faults, ["urgent lane: the agent's chain was broken before 2"]);

    rig.store.probe("UPDATE outcomes SET list = replace(list, 'resource-1', 'resource-9') RETURNING 1", [], |_| Ok(()));
    rig.store.probe("DELETE FROM runs WHERE kind = 4 RETURNING 1", [], |_| Ok(()));
    let faults = rig.reader().verify(&a, Lane::Urgent, 0, 100).unwrap().faults;
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert!(faults[0].contains("at 1 is not what the agent sent"), "{faults:?}");
    assert!(faults[2].contains("between 9 and 11"), "{faults:?}");
}

#[test]
fn logs_come_newest_first() {
    let mut rig = rig();
    let a = enrolled(&mut rig.store, 1);
    for n in 0..3 {
        let kind = format!("kind-{n}");
        one(
            &mut rig.store,
            Write::Event(EventRow { at: Wall(n), kind, uuid: (n > 0).then_some(a), detail: "x".into() }),
        );
        let [actor, action, subject, detail] = [(); 4].map(|()| n.to_string());
        one(&mut rig.store, Write::Audit(AuditRow { at: Wall(n), actor, action, subject, detail }));
    }
    one(&mut rig.store, invite(7, Some("later"), true));
    let mut reader = rig.reader();
    let kinds = |items: Vec<EventItem>| items.into_iter().map(|item| item.event.kind).collect::<Vec<_>>();
    assert_eq!(kinds(reader.events(None, None, 2).unwrap()), ["kind-2", "kind-1"]);
    assert_eq!(kinds(reader.events(Some(&a), Some(3), 9).unwrap()), ["kind-1"]);
    assert_eq!(kinds(reader.events_after(1, 9).unwrap()), ["kind-1", "kind-2"]);
    assert_eq!(reader.audit(None, 1).unwrap()[0].entry.actor, "2");
    let tokens = reader.tokens(9).unwrap();
    let used: Vec<_> = tokens.iter().map(|item| (item.invite.token, item.used_by)).collect();
    assert!(used.contains(&(token(7), None)) && used.contains(&(token(1), Some(a))), "{used:?}");
    assert_eq!(reader.publishes(5).unwrap(), []);
    assert_eq!(reader.totals().unwrap().events, 3);
}

#[test]
fn equal_stable_traits_are_stored_once() {
    let mut rig = rig();
    let envoys = [enrolled(&mut rig.store, 1), enrolled(&mut rig.store, 2)];
    let give = |store: &mut SqliteStore, uuid, json: &str| {
        let Write::Results(results) = report(uuid, Vec::new()) else { unreachable!() };
        let traits = vec![("os".into(), json.into(), false)];
        one(store, Write::Results(Box::new(ResultsWrite { traits, ..*results })));
    };
    envoys.iter().for_each(|uuid| give(&mut rig.store, *uuid, "{\"id\":1}"));
    let values = "SELECT count(*), sum(refs) FROM trait_values";
    let values =
        |store: &SqliteStore| store.probe(values, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    assert_eq!(values(&rig.store), [(1, 2)]);
    envoys.iter().for_each(|uuid| give(&mut rig.store, *uuid, "{\"id\":2}"));
    envoys.iter().for_each(|uuid| give(&mut rig.store, *uuid, "{\"id\":2}"));
    assert_eq!(values(&rig.store), [(1, 2)]);
    assert_eq!(rig.reader().traits(&envoys[0]).unwrap()[0].json, "{\"id\":2}");
}

#[test]
fn a_question_that_would_take_too_long_is_cut() {
    let rig = rig();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let cut = rig.reader().ask(|conn| conn.query_row(endless, [], |row| row.get::<_, i64>(0)));
    assert!(matches!(&cut, Err(StoreError::Io(text)) if text.contains("too wide")), "{cut:?}");
}

#[test]
fn bodies_survive_the_way_through_columns() {
    let mut rig = rig();
    let a = enrolled(&mut rig.store, 1);
    let mut agent = Agent::new(Lane::Urgent);
    let sent =
        vec![agent.run(0, -5), agent.stretch(3, 4), agent.gap(2, wire::gap::Reason::LostInRestore), agent.incident()];
    stored(&mut rig.store, a, sent.clone());
    let mut items = rig.reader().runs(&limit(9)).unwrap();
    items.reverse();
    for (item, record) in items.iter().zip(&sent) {
        assert_eq!(item.body, record.decoded);
        assert_eq!((item.kind, item.link), (record.kind, record.meta.last_link));
    }
    assert_eq!(items.len(), sent.len());
}
