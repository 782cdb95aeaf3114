//! A plan and its reasons, four times: the first seconds, a calm minute, the minute before a wave, and the wave's end. You
//! will see the numbers that each step used, and why the pods that the wave needed are not given back at once.
//!
//! `cargo run --example explain_plan`
#![expect(clippy::print_stdout, reason = "an example shows its output")]

use std::time::Duration;

use sidescale::clock::{Instant, Now, Timestamp};
use sidescale::fleet::{Member, Pod, PodPhase, Reading, Snapshot};
use sidescale::plan::{Inputs, Plan, Planner, Recent, Unlearnt, Window, Work};
use sidescale::policy;
use sidescale::tuning::{Advice, Candidate, Sight};

/// What a pod carries: eight at once, of two seconds each.
const POD_RPS: f64 = 4.0;

const POLICY: &str = "mode: auto
minReplicas: 2
maxReplicas: 12
metrics: [{type: concurrency, averageValue: 8}]";

fn main() -> Result<(), policy::PolicyError> {
    let policy = policy::read(POLICY)?;
    let mut planner = Planner::new();
    let mut turn = |title: &str, secs: u64, replicas: u32, arrivals: f64, advice| {
        let now = Now::at(Timestamp::from_secs(0), Duration::from_secs(secs));
        let inputs = Inputs {
            now,
            policy: &policy,
            snapshot: &fleet(replicas),
            recent: steady(replicas, arrivals),
            work: Some(Work {
                service_seconds: 2.0,
                gpu_seconds: None,
            }),
            advice,
            lead_time: Duration::from_secs(180),
            history_back: true,
        };
        show(title, replicas, &planner.plan(&inputs));
    };
    turn("The first seconds", 0, 4, 14.0, Err(Unlearnt::Load));
    turn("A calm minute", 700, 4, 12.0, Ok(advice(12.0)));
    turn("The minute before a wave", 1_000, 4, 12.2, Ok(advice(28.0)));
    turn("The wave's end", 1_500, 9, 12.0, Ok(advice(13.0)));
    Ok(())
}

fn show(title: &str, replicas: u32, plan: &Plan) {
    println!("{title}: {replicas} replicas, plan {}", plan.desired);
    for reason in &plan.reasons {
        println!("  {:<9} {}", reason.step.label(), reason.text);
    }
    println!();
}

fn steady(replicas: u32, arrivals: f64) -> Recent {
    let window = Window {
        pods: f64::from(replicas),
        arrivals,
        in_flight: arrivals * 2.0,
        gpu_utilization: None,
    };
    Recent {
        slow: window,
        fast: window,
    }
}

fn advice(rate: f64) -> Advice {
    let candidate = Candidate {
        sight: Sight::Season,
        headroom: 1.2,
        hold: Duration::from_secs(600),
        drain: Duration::from_secs(60),
    };
    Advice {
        candidate,
        rate,
        need: rate * candidate.headroom / POD_RPS,
        pod_rps: POD_RPS,
        pod_hours: 412.0,
        late: 96.0,
        compared: 323,
    }
}

fn fleet(replicas: u32) -> Snapshot {
    let pods = (0..replicas).map(|index| Pod {
        name: format!("pod-{index}"),
        uid: format!("uid-{index}"),
        ip: None,
        phase: PodPhase::Ready,
        created: Instant::default(),
        marked: false,
        member: Member::Reporting(Reading::default()),
    });
    Snapshot {
        spec_replicas: replicas,
        pods: pods.collect(),
        ..Snapshot::default()
    }
}
