//! A process that should be told who leads, and is not: a follower without a leader, or a lead that the leader does not find.
//!
//! A follower asks the API server for nothing of itself, so that nothing else would tell why its fleet is not scaled.

use std::sync::Arc;
use std::time::Duration;

use super::faults::Fault;
use super::shared::Shared;
use crate::causes::chain;
use crate::leader::preference::LABEL_LEAD;
use crate::leader::{Leadership, LeaseApi, LeaseFault, Part, Read};

/// Lease durations without a word before it is worth one: a killed leader is followed in little more than one.
const PATIENCE: u32 = 2;

/// Lease durations between two looks at the Lease for what it says by then. Halved, a large fleet without a leader asks twice
/// as often for nothing; doubled, a person reads for two minutes what was right before.
const AGAIN: u32 = 4;

/// Says so for as long as the process lives; whoever hears a leader takes it back.
#[expect(clippy::infinite_loop, reason = "watches until its task is dropped")]
pub(super) async fn watch(
    shared: Arc<Shared>,
    lease: LeaseApi,
    target: String,
    patience: Duration,
) {
    let started = shared.clock.instant();
    let mut next_look = started;
    loop {
        shared.clock.sleep(patience).await;
        let now = shared.clock.instant();
        let heard = shared.leader().heard.unwrap_or(started);
        if leads(&shared) || now.since(heard) < patience * PATIENCE {
            next_look = now;
            continue;
        }
        if next_look <= now {
            next_look = now + patience * AGAIN;
            let found = lease.get().await;
            let text = words(
                shared.config.part,
                &target,
                shared.config.member.port(),
                found,
            );
            shared.faults.raise(Fault::Leader, text);
        }
    }
}

fn leads(shared: &Shared) -> bool {
    let candidacy = shared.candidacy().borrow().clone();
    candidacy.is_some_and(|candidacy| {
        matches!(&*candidacy.leadership().borrow(), Leadership::Leading(_))
    })
}

/// What is wrong, by what the Lease says.
fn words(part: Part, target: &str, port: u16, found: Result<Option<Read>, LeaseFault>) -> String {
    let holder = match found {
        Ok(found) => found.map(|read| read.record.holder).unwrap_or_default(),
        Err(fault) => {
            let why = chain(&fault);
            return format!("no leader is heard, and it is not known whether one leads: {why}");
        }
    };
    if holder.is_empty() && part == Part::Lead {
        return "nobody leads, and this process could not take the Lease yet".to_owned();
    }
    if holder.is_empty() {
        return format!(
            "nobody leads, so that nothing is scaled: this process follows only (run `sidescale lead --target {target}`, or \
             let the sidecars lead: leave out --follow and grant them the right)"
        );
    }
    let label = match part {
        Part::Lead => format!(" (does this pod carry the label {LABEL_LEAD}={target}?)"),
        Part::Sidecar | Part::Follower => String::new(),
    };
    format!(
        "{holder} holds the Lease, and its member channel does not reach this pod{label} (does a NetworkPolicy keep it from port \
         {port}?)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::Record;

    #[test]
    fn what_the_lease_says_is_told_with_its_remedy() {
        let check = |part, holder: &str, expected: &[&str]| {
            let read = Read {
                record: Record {
                    holder: holder.to_owned(),
                    ..Record::default()
                },
                version: "1".to_owned(),
                object: k8s_openapi::api::coordination::v1::Lease::default(),
            };
            let text = words(part, "bert", 9190, Ok(Some(read)));
            for word in expected {
                assert!(text.contains(word), "{word} not in {text}");
            }
            text
        };
        check(
            Part::Follower,
            "",
            &["nobody leads", "sidescale lead --target bert", "--follow"],
        );
        let text = check(Part::Follower, "lead-0_1", &["lead-0_1 holds", "9190"]);
        assert!(!text.contains(LABEL_LEAD), "{text}");
        check(Part::Lead, "llm-0_1", &["sidescale.dev/lead=bert", "9190"]);
        assert!(words(Part::Follower, "bert", 9190, Ok(None)).contains("nobody leads"));
        // It is no follower, and whatever keeps it from the Lease is said elsewhere.
        let text = check(Part::Lead, "", &["nobody leads"]);
        assert!(!text.contains("--follow"), "{text}");
    }
}
