//! What a report is told when the database cannot take it now.

use super::*;
use crate::store::StoreError;

#[test]
fn results_that_the_database_has_no_room_or_no_time_for_are_put_off_and_not_refused() {
    for (error, retry_after_ms) in [(StoreError::Behind, 2_000), (StoreError::Full, 60_000)] {
        let mut bench = Bench::new(&[]);
        let call = CallId { conn: bench.connect(10), stream: 99 };
        let body = wire::ReportRequest::default().encode_to_vec().into();
        let mut out = Vec::new();
        bench.server.handle(bench.now, Event::Request { call, method: Method::Report, body }, &mut out);
        let [Effect::Write { ticket, .. }] = out[..] else { panic!("{out:?}") };
        out.clear();
        bench.server.handle(bench.now, Event::Written { ticket, result: Err(error) }, &mut out);
        let answers = out.iter().filter_map(|effect| match effect {
            Effect::Reply { call: to, body } if *to == call => wire::ReportReply::decode(&body[..]).ok(),
            _ => None,
        });
        let waits: Vec<u32> = answers.map(|answer| answer.retry_after_ms).collect();
        assert_eq!(waits, [retry_after_ms], "{out:?}");
    }
}
