//! A plan and its reasons, four times: a calm minute, the minute before a wave, the wave's end, and a small one in sight.
//! You will see the numbers that each step used, and why the pods that the wave needed are not given back at once.
//!
//! `cargo run --example explain_plan`
#![expect(clippy::print_stdout, reason = "an example shows its output")]

use std::time::Duration;

use sidescale::clock::{Instant, Now, Timestamp};
use sidescale::fleet::{Member, Pod, PodPhase, Reading, Snapshot};
use sidescale::forecast::{Forecast, ForecastPoint};
use sidescale::plan::{Inputs, Plan, Planner, Recent, Window, Work};
use sidescale::policy;

const POLICY: &str = "mode: auto
minReplicas: 2
maxReplicas: 12
metrics: [{type: concurrency, averageValue: 8}]";

fn main() -> Result<(), policy::PolicyError> {
    let policy = policy::read(POLICY)?;
    let mut planner = Planner::new();
    let mut turn = |title: &str, secs: u64, replicas: u32, arrivals: f64, ahead: [f64; 8]| {
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
            forecast: Some(&forecast(now, ahead)),
            advice: None,
            lead_time: Duration::from_secs(180),
            history_back: true,
        };
        show(title, replicas, &planner.plan(&inputs));
    };
    turn("A calm minute", 0, 4, 14.0, [15.0; 8]);
    let wave = [15.0, 16.0, 20.0, 31.0, 36.0, 36.0, 34.0, 30.0];
    turn("The minute before a wave", 300, 4, 14.2, wave);
    turn("The wave's end", 1_200, 9, 15.0, [15.0; 8]);
    let again = [14.0, 14.0, 14.0, 14.0, 14.0, 14.0, 26.0, 26.0];
    turn("A small wave in sight", 1_800, 9, 13.0, again);
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

fn forecast(now: Now, upper: [f64; 8]) -> Forecast {
    let points = (0_u64..).zip(upper).map(|(minute, upper)| ForecastPoint {
        at: now.timestamp + Duration::from_secs(60 * minute + 30),
        point: upper * 0.9,
        lower: upper * 0.8,
        upper,
    });
    Forecast {
        made: now.timestamp,
        points: points.collect(),
        trust: 0.9,
        ..Forecast::default()
    }
}

fn fleet(replicas: u32) -> Snapshot {
    let pods = (0..replicas).map(|index| Pod {
        name: format!("pod-{index}"),
        uid: format!("uid-{index}"),
        ip: None,
        phase: PodPhase::Ready,
        created: Instant::default(),
        member: Member::Reporting(Reading::default()),
    });
    Snapshot {
        spec_replicas: replicas,
        pods: pods.collect(),
        ..Snapshot::default()
    }
}
