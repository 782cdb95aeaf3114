//! The reasons of one simulated decision, for a person.

use std::fmt;
use std::sync::atomic::AtomicU64;

use super::leader::Leader;
use super::play::{Player, play};
use super::run::{Job, SimulateError};
use crate::baseline::{Actor, Rule};
use crate::clock::Now;
use crate::controller::{LeadSource, Turn};
use crate::units::Shown;

/// The target that most users of HPA and KPA set.
const TARGET: f64 = 0.7;

/// One decision and all that led to it.
#[derive(Debug)]
pub struct Explanation {
    offset: u64,
    seen: String,
    now: Now,
    turn: Turn,
    /// What HPA and KPA, each in a world of its own on the same arrivals, ask for at that moment.
    others: [(&'static str, Option<u32>); 2],
}

/// Plays `job` until `offset` and explains what was decided there; `None`: nobody observed that second, or it is not in
/// the trace.
pub fn explain(job: &Job, offset: u64) -> Result<Option<Explanation>, SimulateError> {
    let mut timeline = job.timeline()?;
    if !timeline.contains(offset) {
        return Ok(None);
    }
    timeline.cut(offset + 1);
    let settings = job.settings;
    let progress = AtomicU64::new(0);
    let mut sidescale = Player::Sidescale(Box::new(Leader::new(&settings)));
    play(&timeline, &settings, &mut sidescale, &progress);
    let Player::Sidescale(leader) = sidescale else {
        return Ok(None);
    };
    let rules = [
        ("HPA at 70 %", Rule::Hpa { target: TARGET }),
        ("KPA at 70 %", Rule::Kpa { target: TARGET }),
    ];
    let others = rules.map(|(name, rule)| {
        let mut player = Player::Rule(Box::new(Actor::new(rule, settings.bounds)));
        let played = play(&timeline, &settings, &mut player, &progress);
        (
            name,
            played.decisions.last().map(|(_at, replicas)| *replicas),
        )
    });
    let Some((seen, now, turn)) = leader.at(offset) else {
        return Ok(None);
    };
    Ok(Some(Explanation {
        offset,
        seen,
        now,
        turn,
        others,
    }))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Turn {
            plan, lead_time, ..
        } = &self.turn;
        writeln!(
            f,
            "At offset {} s sidescale asks for {} replicas.\n",
            self.offset, plan.desired
        )?;
        writeln!(f, "The fleet: {}.", self.seen)?;
        write!(
            f,
            "Needed now: {}. Needed within the lead time: ",
            plan.needed_now
        )?;
        match plan.needed_ahead {
            Some(needed) => writeln!(f, "{needed}.\n")?,
            None => writeln!(f, "nothing was learnt yet.\n")?,
        }
        writeln!(f, "Step by step:")?;
        for reason in &plan.reasons {
            writeln!(f, "  {:<9} {}", reason.step.label(), reason.text)?;
        }
        if let Some(until) = plan.until {
            let secs = until.since(self.now.timestamp);
            writeln!(f, "  It holds for {} unless the load changes.", Shown(secs))?;
        }
        let source = match lead_time.source {
            LeadSource::Given => "given by the policy",
            LeadSource::Measured => "measured",
            LeadSource::Assumed => "assumed: no start was seen yet",
        };
        writeln!(f, "\nLead time: {} ({source}).", Shown(lead_time.time))?;
        self.forecast(f)?;
        writeln!(f, "\nIn worlds of their own on the same arrivals:")?;
        for (name, replicas) in &self.others {
            match replicas {
                Some(replicas) => writeln!(f, "  {name} asks for {replicas}")?,
                None => writeln!(f, "  {name} has not decided yet")?,
            }
        }
        Ok(())
    }
}

// === impl Explanation ===

impl Explanation {
    fn forecast(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ahead = self.turn.ahead(self.now.timestamp);
        let (Some(forecast), Some(ahead)) = (&self.turn.forecast, ahead) else {
            return writeln!(f, "Forecast: there is none yet.");
        };
        writeln!(
            f,
            "Forecast for then: {:.1} arrivals a second, {:.1} to {:.1}; trusted {:.2}.",
            ahead.point, ahead.lower, ahead.upper, forecast.trust
        )?;
        let seasons: Vec<String> = (forecast.seasons.iter())
            .map(|season| {
                format!(
                    "{} ({:.0} %)",
                    Shown(season.period),
                    100.0 * season.strength
                )
            })
            .collect();
        if seasons.is_empty() {
            writeln!(f, "Seasons: none was found.")?;
        } else {
            writeln!(f, "Seasons: {}.", seasons.join(", "))?;
        }
        let experts: Vec<String> = (forecast.experts.iter())
            .filter(|expert| expert.weight >= 0.005)
            .map(|expert| format!("{} {:.0} %", expert.name, 100.0 * expert.weight))
            .collect();
        if experts.is_empty() {
            return Ok(());
        }
        writeln!(f, "Who speaks: {}.", experts.join(", "))
    }
}
