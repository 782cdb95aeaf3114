//! When the Deployment may be written, as pure functions: the simulation runs these very rules.

use serde_json::{Value, json};

use super::DeploymentView;
use crate::clock::Instant;
use crate::leader::{ANNOTATION_TERM, Claim, Token};

/// A term that was stamped: the right to scale, as long as its claim is valid and nobody has stamped above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The number on the Deployment.
    pub number: u64,
    /// The Deployment that carries it.
    pub uid: String,
    /// The reign that it belongs to.
    pub token: Token,
}

/// Why nothing may be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No valid claim, or one of another reign.
    #[error("this process does not lead now")]
    NotLeading,
    /// A newer leader has stamped.
    #[error("the deployment carries term {stamp}, above this process's {term}: another leads")]
    Deposed {
        /// On the Deployment.
        stamp: u64,
        /// Mine.
        term: u64,
    },
    /// The Deployment was replaced, its annotation removed, or the view is from before the stamp.
    #[error(
        "the deployment carries term {stamp}, not this process's {term}: it has to be stamped first"
    )]
    Unstamped {
        /// On the Deployment.
        stamp: u64,
        /// Mine.
        term: u64,
    },
}

/// What to write so that `view` carries the term of `claim`; `None`: it does already.
///
/// `view` must have been read after the claim was won: its stamp is then the last one of all former leaders, but for one
/// whose stamp is still under way, and that one names an older version.
///
/// `now` is the moment of writing. A view that was read while the claim was valid and that is judged while it still is
/// cannot show a later leader's stamp, so a leader that was stopped in between never stamps above its successor.
pub fn next_term(
    claim: &Claim,
    mine: Option<&Term>,
    view: &DeploymentView,
    now: Instant,
) -> Result<Option<Term>, Refusal> {
    if !claim.is_valid(now) {
        return Err(Refusal::NotLeading);
    }
    if let Some(term) = mine.filter(|term| term.token == claim.token && term.uid == view.uid) {
        if view.stamp > term.number {
            return Err(Refusal::Deposed {
                stamp: view.stamp,
                term: term.number,
            });
        }
        if view.stamp == term.number {
            return Ok(None);
        }
    }
    // Within a reign the number never falls: members take a lower one for a deposed leader's.
    let held = mine.filter(|term| term.token == claim.token);
    let least = held.map_or(0, |term| term.number);
    Ok(Some(Term {
        number: least.max(claim.after_term.max(view.stamp) + 1),
        uid: view.uid.clone(),
        token: claim.token.clone(),
    }))
}

/// The patch of `deployments/status` that stamps `term` on exactly this version of the Deployment.
pub fn stamp_patch(term: &Term, view: &DeploymentView) -> Value {
    json!({
        "metadata": {
            "uid": view.uid,
            "resourceVersion": view.resource_version,
            "annotations": {ANNOTATION_TERM: term.number.to_string()},
        },
    })
}

/// Whether the leader of `term` may scale what `view` shows, at the moment of writing.
pub fn may_scale(
    claim: Option<&Claim>,
    term: &Term,
    view: &DeploymentView,
    now: Instant,
) -> Result<(), Refusal> {
    let leads = claim.is_some_and(|claim| claim.is_valid(now) && claim.token == term.token);
    let (stamp, number) = (view.stamp, term.number);
    if view.uid == term.uid && stamp > number {
        Err(Refusal::Deposed {
            stamp,
            term: number,
        })
    } else if !leads {
        Err(Refusal::NotLeading)
    } else if view.uid != term.uid || stamp != number {
        Err(Refusal::Unstamped {
            stamp,
            term: number,
        })
    } else {
        Ok(())
    }
}

/// The patch of `deployments/scale` that sets the replicas of exactly this version of the Deployment.
pub fn scale_patch(view: &DeploymentView, desired: u32) -> Value {
    json!({
        "metadata": {"uid": view.uid, "resourceVersion": view.resource_version},
        "spec": {"replicas": desired},
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const NOW: Instant = Instant::from_offset(Duration::from_secs(100));

    fn claim(seed: u64, after_term: u64, valid_for: i64) -> Claim {
        let left = Duration::from_secs(valid_for.unsigned_abs());
        Claim {
            holder: "a_1".to_owned(),
            token: Token::draw(&mut StdRng::seed_from_u64(seed)),
            after_term,
            renewed: "5".to_owned(),
            valid_until: if valid_for < 0 {
                NOW - left
            } else {
                NOW + left
            },
        }
    }

    fn view(uid: &str, stamp: u64) -> DeploymentView {
        DeploymentView {
            uid: uid.to_owned(),
            resource_version: "41".to_owned(),
            stamp,
            ..DeploymentView::default()
        }
    }

    fn term(claim: &Claim, number: u64) -> Term {
        Term {
            number,
            uid: "u".to_owned(),
            token: claim.token.clone(),
        }
    }

    #[test]
    fn a_new_term_is_above_the_lease_and_above_the_stamp() {
        let check = |after_term, stamp, expected| {
            let claim = claim(1, after_term, 5);
            let number = next_term(&claim, None, &view("u", stamp), NOW)
                .map(|term| term.map(|term| term.number));
            assert_eq!(
                number,
                Ok(Some(expected)),
                "after {after_term}, stamp {stamp}"
            );
        };
        check(0, 0, 1);
        check(6, 6, 7);
        // The Lease was deleted and counts from zero again.
        check(0, 9, 10);
        // The Deployment was deleted and carries no stamp.
        check(9, 0, 10);
    }

    #[test]
    fn a_term_is_stamped_once_per_reign_and_deployment_and_again_where_it_was_lost() {
        let mine = claim(1, 4, 5);
        let held = term(&mine, 5);
        let check =
            |claim: &Claim, view: &DeploymentView, expected: Result<Option<u64>, Refusal>| {
                let next = next_term(claim, Some(&held), view, NOW);
                assert_eq!(
                    next.map(|term| term.map(|term| term.number)),
                    expected,
                    "{view:?}"
                );
            };
        check(&mine, &view("u", 5), Ok(None));
        check(&mine, &view("u", 3), Ok(Some(5)));
        check(&mine, &view("other", 0), Ok(Some(5)));
        check(
            &mine,
            &view("u", 6),
            Err(Refusal::Deposed { stamp: 6, term: 5 }),
        );
        // The same process, elected again, is a new leader.
        check(&claim(2, 5, 5), &view("u", 5), Ok(Some(6)));
        check(&claim(1, 4, -1), &view("u", 3), Err(Refusal::NotLeading));
    }

    #[test]
    fn only_the_leader_whose_stamp_the_deployment_carries_may_scale() {
        let mine = claim(1, 4, 5);
        let held = term(&mine, 5);
        let check =
            |claim: Option<&Claim>, view: &DeploymentView, expected: Result<(), Refusal>| {
                assert_eq!(
                    may_scale(claim, &held, view, NOW),
                    expected,
                    "{claim:?} {view:?}"
                );
            };
        check(Some(&mine), &view("u", 5), Ok(()));
        check(
            Some(&mine),
            &view("u", 4),
            Err(Refusal::Unstamped { stamp: 4, term: 5 }),
        );
        check(
            Some(&mine),
            &view("other", 5),
            Err(Refusal::Unstamped { stamp: 5, term: 5 }),
        );
        check(
            Some(&mine),
            &view("u", 6),
            Err(Refusal::Deposed { stamp: 6, term: 5 }),
        );
        check(None, &view("u", 5), Err(Refusal::NotLeading));
        check(
            Some(&claim(1, 4, 0)),
            &view("u", 5),
            Err(Refusal::NotLeading),
        );
        check(
            Some(&claim(2, 4, 5)),
            &view("u", 5),
            Err(Refusal::NotLeading),
        );
    }
}
